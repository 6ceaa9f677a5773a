//! A timer that many polls ask and few need.
//!
//! It is moved only when it would fire too late or has fired too early, and polled only when it does not yet know whom
//! to wake: most exchanges never touch the runtime's timers.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep};

/// A timer whose deadline is told anew with every poll.
#[derive(Debug)]
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// Whom the timer wakes.
    waker: Option<Waker>,
}

impl Alarm {
    /// A timer for a first deadline.
    pub(super) fn new(at: Instant) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(at)), waker: None }
    }

    /// Ready when `at` has passed.
    pub(super) fn poll_by(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        if self.sleep.deadline() > at {
            self.reset(at);
        }
        let set = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if set && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            self.reset(at);
        }
        // A task whose budget is spent is refused unheard: the timer knows nobody then.
        self.waker = tokio::task::coop::has_budget_remaining().then(|| cx.waker().clone());
        Poll::Pending
    }

    fn reset(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at);
        self.waker = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test]
    async fn it_fires_for_a_task_that_had_no_budget_left_when_it_asked() {
        let at = Instant::now() + Duration::from_millis(20);
        let mut alarm = Alarm::new(at);
        let mut asked = 0;
        let fired = poll_fn(|cx| {
            asked += 1;
            while asked == 1
                && let Poll::Ready(step) = tokio::task::coop::poll_proceed(cx)
            {
                step.made_progress();
            }
            alarm.poll_by(cx, at)
        });
        tokio::time::timeout(Duration::from_secs(10), fired).await.unwrap();
    }

    #[tokio::test]
    async fn it_fires_at_the_deadline_told_last() {
        let begun = Instant::now();
        let after = |millis| begun + Duration::from_millis(millis);
        let mut alarm = Alarm::new(after(5000));
        let poll = |alarm: &mut Alarm, at| Alarm::poll_by(alarm, &mut Context::from_waker(Waker::noop()), at);
        for at in [5000, 20, 7000, 7000] {
            assert!(poll(&mut alarm, after(at)).is_pending());
        }
        let mut asked = 0;
        poll_fn(|cx| {
            asked += 1;
            alarm.poll_by(cx, after(90))
        })
        .await;
        assert!(Instant::now() >= after(90));
        assert!(asked <= 4, "asked {asked} times: woken at 20, put off, woken at 90");
    }
}
