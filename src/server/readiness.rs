//! Whether everything listens: what is said to be ready has to be.

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::StartError;

/// The tasks that accept connections for clients.
pub(super) type Listeners = Vec<JoinHandle<()>>;

/// What a service says once: that it can listen, for clients or for others, or why it cannot.
pub(super) type Word = oneshot::Sender<Result<Listeners, StartError>>;

/// The words of the services that have to listen, and the start that they wait for: what one process accepts while
/// another fails to start would be lost.
#[derive(Default)]
pub(super) struct Readiness {
    words: Vec<oneshot::Receiver<Result<Listeners, StartError>>>,
    start: watch::Sender<bool>,
}

/// The start that services wait for before they accept.
#[derive(Clone)]
pub(super) struct Start(watch::Receiver<bool>);

impl Start {
    /// Says whether it comes; it does not when the process fails to start.
    pub(super) async fn comes(mut self) -> bool {
        self.0.wait_for(|started| *started).await.is_ok()
    }
}

impl Readiness {
    /// One more service that is to give its word.
    pub(super) fn one_more(&mut self) -> Word {
        let (word, given) = oneshot::channel();
        self.words.push(given);
        word
    }

    /// The start to wait for.
    pub(super) fn start(&self) -> Start {
        Start(self.start.subscribe())
    }

    /// Lets all accept.
    pub(super) fn go(self) {
        self.start.send_replace(true);
    }

    /// Waits until every service can listen.
    ///
    /// # Errors
    ///
    /// Why one cannot.
    pub(super) async fn all(&mut self) -> Result<Listeners, StartError> {
        let mut listeners = Listeners::new();
        for given in self.words.drain(..) {
            let unsaid = |_| StartError::Bug("a service ended before it listened".into());
            listeners.extend(given.await.map_err(unsaid)??);
        }
        Ok(listeners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn all_have_to_give_their_word() {
        let mut readiness = Readiness::default();
        let words = [readiness.one_more(), readiness.one_more()];
        let mut all = Box::pin(readiness.all());
        for word in words {
            assert!((&mut all).now_or_never().is_none());
            word.send(Ok(Listeners::new())).unwrap();
        }
        assert!(matches!(all.now_or_never(), Some(Ok(_))));
    }

    #[test]
    fn nobody_accepts_before_the_start_nor_after_one_that_failed() {
        let (good, failed) = (Readiness::default(), Readiness::default());
        let (started, never) = (good.start(), failed.start());
        assert!(started.clone().comes().now_or_never().is_none());
        good.go();
        assert_eq!(started.comes().now_or_never(), Some(true));
        drop(failed);
        assert_eq!(never.comes().now_or_never(), Some(false));
    }

    #[test]
    fn one_that_ends_without_a_word_is_none_that_listens() {
        let mut readiness = Readiness::default();
        drop(readiness.one_more());
        assert!(matches!(readiness.all().now_or_never(), Some(Err(StartError::Bug(_)))));
    }
}
