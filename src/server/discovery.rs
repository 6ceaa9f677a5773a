//! The task that looks for endpoints.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::edge::Drain;
use crate::snapshot::Live;
use crate::telemetry::Events;
use crate::upstream::Found;

/// How long a start waits for first answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for the first answers, or that there are none, so that the first clients are not refused. A name server that is away
/// is not waited for long.
pub(super) async fn first(live: &Live) {
    let snapshot = live.load_full();
    let wanted = || snapshot.upstreams.values().filter(|upstream| upstream.found().is_some());
    let told = wanted().filter_map(|upstream| upstream.found()).map(|found| found.told());
    let patience = PATIENCE.min(snapshot.upgrade_timeout / 2);
    if tokio::time::timeout(patience, join_all(told)).await.is_err() {
        log::warn!("endpoints are not waited for: a name server did not answer within {patience:?}");
    }
    for upstream in wanted() {
        upstream.refresh();
    }
}

/// Looks for the endpoints that the snapshot in force wants found, each as long as it is wanted, until draining starts.
pub(super) async fn keep(
    live: Arc<Live>,
    changed: Arc<Notify>,
    news: Arc<Notify>,
    events: Events,
    drain: Drain,
) {
    let mut draining = drain.watch();
    // All end with the set.
    let mut watches = JoinSet::new();
    let mut watched: Vec<(Arc<Found>, AbortHandle)> = Vec::new();
    loop {
        let wanted: Vec<(Arc<str>, Arc<Found>)> = {
            let snapshot = live.load_full();
            let found = |(name, found): (&Arc<str>, &Arc<Found>)| (Arc::clone(name), Arc::clone(found));
            let upstreams = snapshot.upstreams.iter();
            upstreams.filter_map(|(name, upstream)| Some((name, upstream.found()?))).map(found).collect()
        };
        watched.retain(|(found, watch)| {
            let stays = wanted.iter().any(|(_, wanted)| Arc::ptr_eq(wanted, found));
            if !stays {
                watch.abort();
            }
            stays
        });
        for (name, found) in wanted {
            if !watched.iter().any(|(known, _)| Arc::ptr_eq(known, &found)) {
                let (live, news) = (Arc::clone(&live), Arc::clone(&news));
                let watch = follow(name, Arc::clone(&found), live, news, events.clone());
                watched.push((found, watches.spawn(watch)));
            }
        }
        tokio::select! {
            // A drain that nobody can start any more is over, too.
            _ = draining.wait_for(|draining| *draining) => return,
            () = changed.notified() => {}
            Some(_) = watches.join_next() => {}
        }
    }
}

/// Follows what one upstream's endpoints are, and tells the upstream that has its name by then.
async fn follow(name: Arc<str>, found: Arc<Found>, live: Arc<Live>, news: Arc<Notify>, events: Events) {
    let of = Arc::clone(&name);
    let tell = move || {
        let (name, live, news) = (Arc::clone(&of), Arc::clone(&live), Arc::clone(&news));
        // The tables of a balancer take their time.
        tokio::task::spawn_blocking(move || {
            let snapshot = live.load_full();
            if snapshot.upstreams.get(&name).is_some_and(|upstream| upstream.refresh()) {
                news.notify_one();
            }
        });
    };
    found.follow(&name, &events, tell).await;
}
