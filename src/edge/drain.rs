//! Ending without dropping anything: who is still here, and when the last one left.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::coop;

/// How long a client that was just connected or answered may take to send the request that it does not know to be the
/// last here. It is answered, with word that the connection closes; a socket closed at once would lose it.
pub(super) const COURTESY: Duration = Duration::from_millis(500);

/// Shared by the listeners, their connections and whoever ends them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Readiness is false: load balancers in front should look elsewhere.
    unready: watch::Sender<bool>,
    /// Listeners close, connections end after the request they serve.
    draining: watch::Sender<bool>,
    /// The same for those who only look, with each request: a watch is a lock.
    started: AtomicBool,
    /// A new process answers for this one.
    handed_over: watch::Sender<bool>,
    connections: AtomicUsize,
    left: Notify,
}

/// The wait of one connection for the drain, asked again and again by a task that waits for other things besides.
///
/// A task that is on the list of those to wake need not queue for it once more: one look says whether anything changed.
pub(super) struct Draining {
    watched: watch::Receiver<bool>,
    /// None once draining has started.
    unstarted: Option<Started>,
    /// Whom the drain wakes.
    waker: Option<Waker>,
}

/// Ready once draining has started. Shared as what holds it is.
type Started = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// A connection that is still here.
#[derive(Debug)]
pub struct Presence(Drain);

impl Default for Drain {
    fn default() -> Self {
        let (unready, _) = watch::channel(false);
        let (draining, _) = watch::channel(false);
        let (handed_over, _) = watch::channel(false);
        let (started, connections) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self(Arc::new(Inner { unready, draining, started, handed_over, connections, left: Notify::new() }))
    }
}

impl Drain {
    /// Says that no new work should be sent here, while it is still taken.
    pub fn set_unready(&self) {
        self.0.unready.send_replace(true);
    }

    /// Whether new work should be sent elsewhere.
    pub fn is_unready(&self) -> bool {
        *self.0.unready.borrow()
    }

    /// Closes the listeners; connections end with the request they serve.
    pub fn start(&self) {
        self.0.started.store(true, Ordering::Relaxed);
        self.set_unready();
        self.0.draining.send_replace(true);
    }

    /// Whether connections end with the request they serve.
    pub fn has_started(&self) -> bool {
        self.0.started.load(Ordering::Relaxed)
    }

    /// Says that a new process answers for this one.
    pub fn hand_over(&self) {
        self.set_unready();
        self.0.handed_over.send_replace(true);
    }

    /// Whether a new process answers for this one.
    pub fn has_handed_over(&self) -> bool {
        *self.0.handed_over.borrow()
    }

    /// Turns true when a new process answers for this one.
    pub fn watch_handed_over(&self) -> watch::Receiver<bool> {
        self.0.handed_over.subscribe()
    }

    /// Turns true when draining starts.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.draining.subscribe()
    }

    /// Ready when draining has started and a client that was greeted at `since` has had time to say something.
    pub(super) async fn after_courtesy(&self, since: Instant) {
        // A closed channel means that the gateway is gone: the same.
        let _ = self.watch().wait_for(|draining| *draining).await;
        tokio::time::sleep_until((since + COURTESY).into()).await;
    }

    /// The wait of one connection for the drain.
    pub(super) fn wait(&self) -> Draining {
        let watched = self.watch();
        let mut waiting = self.watch();
        let started: Started = Box::pin(async move {
            // A closed channel means that the gateway is gone: the same.
            let _ = waiting.wait_for(|draining| *draining).await;
        });
        Draining { watched, unstarted: Some(started), waker: None }
    }

    /// Counts a connection for as long as the presence lives.
    pub fn enter(&self) -> Presence {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        Presence(self.clone())
    }

    /// Connections that are still here.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Acquire)
    }

    /// Waits until the last connection left, at most `grace`. Says whether it did.
    pub async fn finished(&self, grace: Duration) -> bool {
        let empty = async {
            loop {
                let left = self.0.left.notified();
                if self.connections() == 0 {
                    return;
                }
                left.await;
            }
        };
        tokio::time::timeout(grace, empty).await.is_ok()
    }
}

impl Draining {
    /// Ready once draining has started.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let listed = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if listed && matches!(self.watched.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        if self.unstarted.as_mut().is_none_or(|started| started.as_mut().poll(cx).is_ready()) {
            self.unstarted = None;
            return Poll::Ready(());
        }
        // A task whose budget is spent is refused unheard: it is on no list then.
        self.waker = coop::has_budget_remaining().then(|| cx.waker().clone());
        Poll::Pending
    }

    /// The drain as the engine watches it.
    pub(super) fn receiver(&self) -> &watch::Receiver<bool> {
        &self.watched
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.0.0.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_waits_is_woken_whichever_task_asks() {
        let drain = Drain::default();
        let mut draining = drain.wait();
        for _ in 0..2 {
            assert!(draining.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let waiting = tokio::spawn(async move {
            let mut asked = 0;
            std::future::poll_fn(|cx| {
                asked += 1;
                if asked == 1 {
                    cx.waker().wake_by_ref();
                }
                draining.poll(cx)
            })
            .await;
            assert!(draining.poll(&mut Context::from_waker(Waker::noop())).is_ready());
        });
        tokio::task::yield_now().await;
        drain.start();
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        assert!(drain.wait().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[tokio::test]
    async fn draining_ends_with_the_last_connection() {
        let drain = Drain::default();
        let presence = drain.enter();
        drain.start();
        assert!(drain.is_unready() && drain.has_started() && *drain.watch().borrow());
        assert!(!drain.finished(Duration::from_millis(1)).await);
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.finished(Duration::from_secs(60)).await }
        });
        drop(presence);
        assert!(waiting.await.unwrap());
    }
}
