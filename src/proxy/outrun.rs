//! Attempts that lose to a hedge: what is held of them.
//!
//! 1. One is given up. It would have taken longer than it has waited: a sample of which the least is known, for estimates and for
//!    breakers that count slow calls.
//! 2. One of an endpoint that others keep answering for is waited for, by a task of its own and until its own clock runs out: else
//!    an endpoint that hangs would never be found out. So is one by which a half-open breaker finds out.

use std::time::{Duration, Instant};

use pingora::protocols::http::HttpTask;

use super::context::Attempt;
use super::lane::{self, Lane, Step};
use super::{attempt, hedge};
use crate::upstream::{End, Waited};

/// An attempt has lost, where a hedge is sent after `delay`.
pub(super) fn end(mut lane: Lane, delay: Duration, now: Instant) {
    let Some(attempt) = lane.attempt.take() else { return };
    let time = now.duration_since(attempt.begun);
    let waited = Waited { time, long: time >= delay };
    let lingering = if waited.long { attempt.permit.lingers() } else { None };
    let Some(lingering) = lingering else { return attempt.settle(End::Outrun(waited), now) };
    tokio::spawn(async move {
        linger(lane, attempt, waited).await;
        drop(lingering);
    });
}

async fn linger(lane: Lane, mut attempt: Attempt, waited: Waited) {
    let mut step = lane.work.await;
    let end = loop {
        step = match step {
            Step::Answered(held, head) if lane::is_interim(&head) => lane::ask_on(held, lane.due).await,
            Step::Answered(held, head) => {
                attempt.to_head = Some(attempt.begun.elapsed());
                let HttpTask::Header(head, is_whole) = head else { break End::Invalid };
                if is_whole {
                    held.release().await;
                }
                break End::Answered(head.status.as_u16(), None);
            }
            // Nobody has anything to ask any more.
            Step::Connected(Ok(_)) => break End::Outrun(waited),
            Step::Connected(Err(error)) => break attempt::end_of_connecting(&error),
            Step::Broken(error, reused) => {
                let soon = attempt.begun.elapsed() < attempt::SOON;
                break hedge::end_of(&error, reused && soon);
            }
        };
    };
    attempt.settle(end, Instant::now());
}
