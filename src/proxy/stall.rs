//! A clock for attempts whose body is still coming while the endpoint takes nothing of it.
//!
//! While a body waits for room on its way up the engine looks at nothing of ours, and when writing has run out of time it goes on
//! to wait for an answer. What it listens to all the while are messages for sessions that are not its own, such as the one that
//! stands before the client's here ([`super::replay`]):
//!
//! 1. The session notes when the engine takes a piece of the body, and when it asks for the next.
//! 2. If it does not ask for as long as `timeouts.write`, a task sends a message. It may have been busy with a write that ends just
//!    then: so there is another one a moment after the first was heard, and the engine has been round its loop in between.
//! 3. The second message in the same pause is what ends the attempt.
//! 4. All this is over as soon as an answer begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::{Error, ErrorType, Result};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use crate::edge::Arrival;
use crate::guard::BodyFraming;

/// What fits into one piece: over HTTP/1.1 it is on its way as soon as the engine has it, and the client's own clocks run.
const ONE_PIECE: u64 = 64 << 10;
/// Between two messages.
const MOMENT: Duration = Duration::from_millis(50);

/// Watches one attempt.
#[derive(Debug)]
pub(super) struct Watch {
    pace: Arc<Pace>,
    task: Option<AbortHandle>,
}

/// How the engine takes a body.
#[derive(Debug)]
pub(super) struct Pace {
    born: Instant,
    /// How long an endpoint may take nothing.
    write: Duration,
    /// Since when the engine has a piece and has not asked for the next, in nanoseconds since `born`; 0 when it has asked.
    busy: AtomicU64,
    heard: Notify,
}

/// Hears the messages, on the engine's side.
struct Alarm {
    pace: Arc<Pace>,
    /// The pause in which there was one already.
    pause: u64,
}

impl Watch {
    /// One for an attempt that is about to begin, if it may need one.
    pub(super) fn new(arrival: &Arrival, write: Duration, http2: bool) -> Option<Self> {
        let short = matches!(arrival.head.framing, BodyFraming::Length(length) if length <= ONE_PIECE);
        if !arrival.has_body()
            || arrival.connection.request_complete()
            || arrival.head.upgrade
            || short && !http2
        {
            return None;
        }
        let pace = Pace { born: Instant::now(), write, busy: AtomicU64::new(0), heard: Notify::new() };
        Some(Self { pace: Arc::new(pace), task: None })
    }

    pub(super) fn pace(&self) -> Arc<Pace> {
        Arc::clone(&self.pace)
    }

    /// The engine listens now.
    pub(super) fn start(&mut self, messages: mpsc::Sender<Bytes>) {
        let pace = Arc::clone(&self.pace);
        let watching = async move {
            loop {
                let left = pace.write.saturating_sub(pace.pause());
                if !left.is_zero() {
                    tokio::time::sleep(left).await;
                    continue;
                }
                if messages.send(Bytes::new()).await.is_err() {
                    return;
                }
                pace.heard.notified().await;
                tokio::time::sleep(MOMENT).await;
            }
        };
        self.task = Some(tokio::spawn(watching).abort_handle());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Pace {
    /// The engine asks for a piece.
    pub(super) fn asked(&self) {
        self.busy.store(0, Ordering::Relaxed);
    }

    /// The engine has a piece.
    pub(super) fn gave(&self) {
        let now = u64::try_from(self.born.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        self.busy.store(now, Ordering::Relaxed);
    }

    /// How long it has not asked for the next.
    fn pause(&self) -> Duration {
        match self.busy.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.born.elapsed().saturating_sub(Duration::from_nanos(since)),
        }
    }

    /// What hears the messages.
    pub(super) fn alarm(self: &Arc<Self>) -> Box<dyn CustomMessageWrite> {
        Box::new(Alarm { pace: Arc::clone(self), pause: 0 })
    }
}

#[async_trait]
impl CustomMessageWrite for Alarm {
    fn set_write_timeout(&mut self, _: Option<Duration>) {}

    async fn write_custom_message(&mut self, _: Bytes) -> Result<()> {
        self.pace.heard.notify_one();
        let pause = self.pace.busy.load(Ordering::Relaxed);
        let before = std::mem::replace(&mut self.pause, pause);
        match pause != 0 && pause == before {
            true => Err(Error::explain(ErrorType::WriteTimedout, "nothing of the body is taken").into_up()),
            false => Ok(()),
        }
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }
}
