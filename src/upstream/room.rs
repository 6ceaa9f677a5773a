//! The room that an endpoint has: how many requests it is given at once, and who waits for their turn.
//!
//! 1. What is named holds for each endpoint: requests at once, connections at once, a limit that finds its own way. The
//!    lowest of them counts.
//! 2. Over HTTP/1.1 a request is a connection. Over HTTP/2 a connection carries [`STREAMS`] of them. The engine opens a
//!    connection only where none that it has can take a request, so a bound of requests is one of sockets.
//! 3. Where several are opened at once it would open too many. So over HTTP/2, where connections are limited, an endpoint's
//!    requests look for a connection one after the other, and its sockets are counted.
//! 4. A WebSocket shares its connection with nobody. It waits until the endpoint may have one more; and where WebSockets
//!    have them all, other requests wait for one of them to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::limits::{Priority, Refused, Slot, UNLIMITED};
use super::outcome::{End, Outcome, Verdict};
use super::{AdaptiveBounds, Endpoint, Protocol};

/// Requests at once on one HTTP/2 connection to an endpoint, if the endpoint allows as many.
pub const STREAMS: u32 = 100;

/// How many requests an endpoint is given at once, and how many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitPolicy {
    /// Requests at once; [`UNLIMITED`] for any number.
    pub max_requests: u32,
    /// Connections at once; [`UNLIMITED`] for any number.
    pub max_connections: u32,
    /// Says how many requests a connection carries.
    pub protocol: Protocol,
    /// Within which bounds the limit finds its own way, if it does.
    pub adaptive: Option<AdaptiveBounds>,
    /// How many wait at most.
    pub max_queue: u32,
    /// For how long each.
    pub queue_timeout: Duration,
}

/// The connections that an endpoint has, where they are counted.
#[derive(Debug, Default)]
pub struct Sockets {
    open: AtomicU32,
    /// Those among them that serve one request alone.
    own: AtomicU32,
    closed: Notify,
}

impl Sockets {
    /// How many are open.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// One more is, for one request alone or not.
    pub fn opened(&self, own: bool) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.own.fetch_add(u32::from(own), Ordering::Relaxed);
    }

    /// One is closed.
    pub fn closed(&self, own: bool) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.own.fetch_sub(u32::from(own), Ordering::Relaxed);
        self.closed.notify_waiters();
    }
}

/// The right to look for a connection while nobody else does.
pub(super) type Turn = OwnedSemaphorePermit;

/// Gives endpoints' requests their turn to look for a connection.
#[derive(Debug)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turns {
    /// The next turn. Whoever stops waiting for it loses their place.
    pub(super) async fn next(&self) -> Option<Turn> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

impl LimitPolicy {
    /// Requests at once at an endpoint that speaks HTTP/2, or does not. `own` is what its own limit has found.
    fn at_once(&self, http2: bool, own: u32) -> u32 {
        let streams = match self.protocol {
            Protocol::Http1 => 1,
            Protocol::Http2 => STREAMS,
            Protocol::Auto if http2 => STREAMS,
            Protocol::Auto => 1,
        };
        self.max_requests.min(self.max_connections.saturating_mul(streams)).min(own).max(1)
    }
}

impl Endpoint {
    /// How many requests it is given at once; `None` for any number.
    pub fn limit(&self) -> Option<u32> {
        let policy = self.common().rules.limits.as_ref()?;
        let standing = self.standing();
        let own = policy.adaptive.as_ref().map_or(UNLIMITED, |bounds| standing.adaptive.limit(bounds));
        Some(policy.at_once(standing.is_http2(), own)).filter(|limit| *limit < UNLIMITED)
    }

    /// Whether it could be given another request at once.
    pub(super) fn has_room(&self) -> bool {
        self.limit().is_none_or(|limit| self.standing().load.has_room(limit))
    }

    /// Whether another could wait for it.
    pub fn has_place_in_queue(&self) -> bool {
        let most = self.common().rules.limits.map_or(0, |policy| policy.max_queue);
        self.standing().load.waiting() < most
    }

    /// A place for a request, if there is one.
    pub(super) fn take(&self) -> Option<Slot> {
        let load = &self.standing().load;
        let limit = self.limit().unwrap_or(UNLIMITED);
        // Those who wait since there was a limit go first, all of them.
        load.try_begin(limit).or_else(|| (limit == UNLIMITED).then(|| load.try_begin(limit)).flatten())
    }

    /// How long a request waits for it.
    pub fn queue_timeout(&self) -> Duration {
        self.common().rules.limits.map_or(Duration::ZERO, |policy| policy.queue_timeout)
    }

    /// Waits for a place, and no longer than `most`.
    ///
    /// # Errors
    ///
    /// When there is no place to wait, or the time is over.
    pub async fn wait(&self, priority: Priority, most: Duration) -> Result<Slot, Refused> {
        let limit = self.limit().unwrap_or(UNLIMITED);
        let max_queue = self.common().rules.limits.map_or(0, |policy| policy.max_queue);
        self.standing().load.wait(priority, limit, max_queue, most).await
    }

    /// How many connections it may have, where its requests look for one in turn.
    pub fn max_sockets(&self) -> Option<u32> {
        let policy = self.common().rules.limits.as_ref()?;
        let limited = policy.max_connections < UNLIMITED && policy.protocol != Protocol::Http1;
        limited.then_some(policy.max_connections)
    }

    /// Whether a request can have no connection to it: one of its `own`, or else one that it shares.
    pub fn is_crowded(&self, own: bool) -> bool {
        let standing = self.standing();
        let speaks_http2 = self.common().rules.limits.is_some_and(|policy| match policy.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => standing.is_http2(),
        });
        // Over HTTP/1.1 requests are bounded as connections are.
        let Some(most) = self.max_sockets().filter(|_| speaks_http2) else { return false };
        let sockets = &standing.sockets;
        most <= if own { sockets.open() } else { sockets.own.load(Ordering::Relaxed) }
    }

    /// Waits while it is crowded.
    pub async fn wait_for_socket(&self, own: bool) {
        loop {
            let closed = self.standing().sockets.closed.notified();
            if !self.is_crowded(own) {
                return;
            }
            closed.await;
        }
    }

    /// Its own limit hears how an attempt went that began as one of so many.
    pub(super) fn learn(&self, outcome: &Outcome, in_flight: u32, now: Instant) {
        let Some(bounds) = self.common().rules.limits.as_ref().and_then(|policy| policy.adaptive.as_ref())
        else {
            return;
        };
        let adaptive = &self.standing().adaptive;
        match (outcome.end, outcome.to_head) {
            (end, _) if is_overload(end) => adaptive.sample(bounds, now, Duration::ZERO, in_flight, true),
            // What fails does so sooner than what is answered, and would make all else look slow.
            (end, Some(took)) if end.verdict() == Verdict::Success => {
                adaptive.sample(bounds, now, took, in_flight, false);
            }
            _ => {}
        }
    }
}

/// Whether an endpoint says by this that it has too much to do. Netflix' concurrency-limits takes what is rejected or times
/// out for that, and nothing else: a server that breaks is no slow one.
fn is_overload(end: End) -> bool {
    /// RESOURCE_EXHAUSTED and UNAVAILABLE.
    const GRPC: [u16; 2] = [8, 14];
    match end {
        End::ConnectTimeout | End::ReadTimeout | End::TryTimeout | End::WriteTimeout | End::Refused => true,
        End::Answered(503, _) => true,
        End::Answered(_, Some(status)) => GRPC.contains(&status),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_counts() {
        let any = LimitPolicy {
            max_requests: UNLIMITED,
            max_connections: UNLIMITED,
            protocol: Protocol::Http1,
            adaptive: None,
            max_queue: 0,
            queue_timeout: Duration::ZERO,
        };
        assert_eq!(any.at_once(false, UNLIMITED), UNLIMITED);
        assert_eq!(any.at_once(false, 7), 7);
        let connections = LimitPolicy { max_requests: 1000, max_connections: 4, ..any };
        for (protocol, http2, due) in [
            (Protocol::Http1, false, 4),
            (Protocol::Http2, false, 400),
            (Protocol::Auto, false, 4),
            (Protocol::Auto, true, 400),
        ] {
            assert_eq!(
                LimitPolicy { protocol, ..connections }.at_once(http2, UNLIMITED),
                due,
                "{protocol:?}"
            );
        }
        let requests = LimitPolicy { max_requests: 150, protocol: Protocol::Http2, ..connections };
        assert_eq!(requests.at_once(true, UNLIMITED), 150);
    }

    #[test]
    fn what_says_that_it_is_too_much() {
        for end in [End::TryTimeout, End::Refused, End::Answered(503, None), End::Answered(200, Some(8))] {
            assert!(is_overload(end), "{end:?}");
        }
        for end in [End::Reset, End::Aborted, End::Answered(500, None), End::Answered(200, Some(0))] {
            assert!(!is_overload(end), "{end:?}");
        }
    }
}
