//! Whether everything listens: what is said to be ready has to be.

use tokio::sync::oneshot;

use super::StartError;

/// What a service says once: that it listens, or why it does not.
pub(super) type Word = oneshot::Sender<Result<(), StartError>>;

/// The words of the services that have to listen.
#[derive(Default)]
pub(super) struct Readiness(Vec<oneshot::Receiver<Result<(), StartError>>>);

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
    pub(super) async fn all(self) -> Result<(), StartError> {
        for given in self.0 {
            given.await.map_err(|_| StartError::Bug("a service ended before it listened".into()))??;
        }
        Ok(())
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
            word.send(Ok(())).unwrap();
        }
        assert!(matches!(all.now_or_never(), Some(Ok(()))));
    }

    #[test]
    fn one_that_ends_without_a_word_is_none_that_listens() {
        let mut readiness = Readiness::default();
        drop(readiness.one_more());
        assert!(matches!(readiness.all().now_or_never(), Some(Err(StartError::Bug(_)))));
    }
}
