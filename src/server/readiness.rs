//! Whether everything listens: what is said to be ready has to be.

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::StartError;

/// The tasks that accept connections for clients.
pub(super) type Listeners = Vec<JoinHandle<()>>;

/// What a service says once: that it listens, for clients or for others, or why it does not.
pub(super) type Word = oneshot::Sender<Result<Listeners, StartError>>;

/// The words of the services that have to listen.
#[derive(Default)]
pub(super) struct Readiness(Vec<oneshot::Receiver<Result<Listeners, StartError>>>);

impl Readiness {
    /// One more service that is to give its word.
    pub(super) fn one_more(&mut self) -> Word {
        let (word, given) = oneshot::channel();
        self.0.push(given);
        word
    }

    /// Waits until every service listens.
    ///
    /// # Errors
    ///
    /// Why one does not.
    pub(super) async fn all(self) -> Result<Listeners, StartError> {
        let mut listeners = Listeners::new();
        for given in self.0 {
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
    fn one_that_ends_without_a_word_is_none_that_listens() {
        let mut readiness = Readiness::default();
        drop(readiness.one_more());
        assert!(matches!(readiness.all().now_or_never(), Some(Err(StartError::Bug(_)))));
    }
}
