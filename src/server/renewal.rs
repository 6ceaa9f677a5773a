//! The task that orders and renews certificates.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Parts, expiry};
use crate::acme::Keeper;
use crate::edge::Drain;
use crate::snapshot::Live;

/// How long a start waits for what the stores that machines share have.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves what other machines have got so far, before the first client comes. A store that is away is not waited for.
pub(super) async fn recall(parts: &Parts, live: &Live) {
    let snapshot = live.load_full();
    let patience = PATIENCE.min(snapshot.upgrade_timeout / 2);
    if tokio::time::timeout(patience, crate::acme::recall(&snapshot.acme)).await.is_err() {
        log::warn!("certificates are not waited for: a store did not answer within {patience:?}");
    }
    parts.metrics.certificates(expiry::by_host(&snapshot));
}

/// Keeps the certificates of the configuration in force until draining starts: the process after this one goes on.
pub(super) async fn keep(parts: Arc<Parts>, live: Arc<Live>, changed: Arc<Notify>, drain: Drain) {
    let (orders, events) = (parts.metrics.acme_orders(), parts.events.clone());
    let seen = Arc::clone(&live);
    let wanted = move || {
        let snapshot = seen.load();
        Some((snapshot.acme.clone(), Arc::clone(snapshot.proofs.as_ref()?.here())))
    };
    let served = move || parts.metrics.certificates(expiry::by_host(&live.load()));
    let keeper = Keeper { wanted: Box::new(wanted), served: Arc::new(served), orders, events };
    let mut draining = drain.watch();
    let end = async {
        // A drain that nobody can start any more is over, too.
        let _ = draining.wait_for(|draining| *draining).await;
    };
    keeper.keep(&changed, end).await;
}
