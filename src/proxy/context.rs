//! What the proxy keeps of one exchange.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};

use super::kept::Kept;
use super::mirror::Copy;
use super::replay::Rest;
use super::stall::Watch;
use crate::chain::{Chain, Slots, Verdict};
use crate::edge::{Arrival, Timer};
use crate::exchange::{Exchange, Facts, Reason, Reply};
use crate::snapshot::{ListenerPolicy, Route, Target};
use crate::telemetry::{AccessLog, ActiveRequest};
use crate::upstream::{End, Endpoint, Outcome, Permit, Tried, Wish};

/// What the proxy keeps of one exchange.
#[derive(Default)]
pub struct Context {
    /// How the request came.
    pub(super) arrival: Option<Box<Arrival>>,
    /// The route and all that hangs on it, from the match on.
    pub(super) pinned: Option<Box<Pinned>>,
    /// An answer that was decided outside of the chain's request hooks.
    pub(super) reply: Option<Box<Reply>>,
    /// The engine's wish to keep the connection, before an interim answer made it forget.
    pub(super) keepalive: Option<u64>,
    /// Why the gateway answered itself.
    pub(super) reason: Option<Reason>,
}

/// An exchange on its route.
pub(super) struct Pinned {
    pub(super) route: Arc<Route>,
    /// Which of the route's chains holds on the listener.
    pub(super) chain: usize,
    pub(super) slots: Slots,
    pub(super) listener: Arc<ListenerPolicy>,
    pub(super) log: Arc<AccessLog>,
    pub(super) facts: Facts,
    /// What answers in place of the route's target when the chain lets the request pass.
    pub(super) instead: Option<Box<Reply>>,
    /// What answers a preflight on a route that does not take OPTIONS, when no filter there has anything to do with it.
    pub(super) unasked: Option<Box<Reply>>,
    pub(super) tries: Tries,
    /// The cookie that keeps the client with its variant, if it has to be given one.
    pub(super) visitor: Option<Box<HeaderValue>>,
    /// Bytes of the request body so far.
    pub(super) body_in: u64,
    /// What of it was read before the chain ran, if any of it had to be. It comes before the rest.
    pub(super) early: Option<Bytes>,
    /// What of it is kept for another attempt.
    pub(super) kept: Kept,
    /// Where the client's session comes back from the one that sends the body anew.
    pub(super) replay: Option<Rest>,
    /// Watches whether the attempt's body is taken, while it is still coming.
    pub(super) watch: Option<Watch>,
    /// Whether any attempt was watched.
    pub(super) watched: bool,
    /// What becomes a copy of the request, where one is to be made.
    pub(super) copy: Option<Box<Copy>>,
    /// What kind of gRPC call the request is, if it is one.
    pub(super) call: Option<Call>,
    /// How the call ended, as far as that was seen.
    pub(super) grpc_status: Option<u16>,
    /// The response head as the client got it, if the access log shows headers.
    pub(super) response: Option<HeaderMap>,
    pub(super) _active: ActiveRequest,
}

/// A gRPC call, by where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// With trailers: gRPC over HTTP/2.
    Plain,
    /// In the body, if a filter knows how: gRPC-Web.
    Web,
}

/// The attempts at an upstream.
#[derive(Default)]
pub(super) struct Tries {
    /// What of the request decides which endpoint it goes to.
    pub(super) wish: Wish,
    pub(super) tried: Tried,
    /// Whether an endpoint has refused the request unseen.
    pub(super) refused: bool,
    pub(super) count: u32,
    /// Whether the upstream has counted the request.
    pub(super) counted: bool,
    /// How many of them met a connection that had been closed.
    pub(super) stale: u32,
    /// How many of them were retries by the route's policy.
    pub(super) retries: u32,
    /// How often it looked for a connection again.
    pub(super) looked: u32,
    /// What to wait before the next.
    pub(super) pause: Option<Duration>,
    /// Leave to make the first, and when it was given.
    pub(super) ready: Option<(Permit, Instant)>,
    pub(super) first: Option<Instant>,
    pub(super) current: Option<Attempt>,
    pub(super) last_endpoint: Option<SocketAddr>,
    /// From the first attempt to the response head.
    pub(super) to_head: Option<Duration>,
}

impl Tries {
    /// The attempt had no connection, for now; it is as if it had not been made.
    pub(super) fn look_again(&mut self, pause: Duration) {
        if let Some(attempt) = self.current.take() {
            self.tried.remove(attempt.endpoint().id());
        }
        self.count = self.count.saturating_sub(1);
        self.looked += 1;
        self.pause = Some(pause);
    }
}

/// The attempt under way.
pub(super) struct Attempt {
    pub(super) permit: Permit,
    pub(super) begun: Instant,
    pub(super) to_head: Option<Duration>,
    /// Of the endpoint's answer.
    pub(super) status: Option<u16>,
}

impl Attempt {
    pub(super) fn endpoint(&self) -> &Endpoint {
        self.permit.endpoint()
    }

    /// Ends it.
    pub(super) fn settle(mut self, end: End, now: Instant) {
        self.judge(end, now);
    }

    /// Says how it went, though it may not have ended yet. The first word counts.
    pub(super) fn judge(&mut self, end: End, now: Instant) {
        self.permit.judge(Outcome { end, to_head: self.to_head }, now);
    }
}

impl Context {
    /// How the request came, and the exchange on its route. The engine calls no later phase without the first.
    pub(super) fn parts(&mut self) -> Result<(&Arrival, &mut Pinned)> {
        self.arrival.as_deref().zip(self.pinned.as_deref_mut()).ok_or_else(lost)
    }

    /// The exchange on its route.
    pub(super) fn pinned(&mut self) -> Result<&mut Pinned> {
        self.pinned.as_deref_mut().ok_or_else(lost)
    }

    pub(super) fn arrival(&self) -> Result<&Arrival> {
        self.arrival.as_deref().ok_or_else(lost)
    }

    /// Whether a body may come with fields that a filter goes by.
    pub(super) fn may_read_form(&mut self) -> Result<bool> {
        let (arrival, pinned) = self.parts()?;
        Ok(pinned.chain().needs_form && arrival.has_body())
    }

    /// Ends the exchange with a reason.
    pub(super) fn fail<T>(&mut self, reason: Reason) -> Result<T> {
        self.reason = Some(reason);
        Err(Error::new(ErrorType::Custom(reason.code())))
    }
}

impl Pinned {
    /// Counts what a filter decided.
    pub(super) fn judged(&self, verdict: &Verdict) {
        let word = verdict.reply.reason().map_or("answered", Reason::code);
        self.route.metrics.verdict(verdict.filter, word);
        if verdict.reply.status() == StatusCode::TOO_MANY_REQUESTS {
            self.route.metrics.limited(verdict.filter);
        }
    }

    /// The filters of this exchange.
    pub(super) fn chain(&self) -> &Chain {
        self.route.chain(self.chain)
    }

    /// Whether an upstream is to answer.
    pub(super) fn goes_upstream(&self) -> bool {
        self.instead.is_none() && matches!(self.route.target, Target::Upstream(_) | Target::Split(_))
    }

    /// What is left until the response head must be there, and the clock that says so. While the body is still to come
    /// none runs yet: it will have the route's whole time.
    pub(super) fn left(&self, arrival: &Arrival, now: Instant) -> (Duration, Timer) {
        let clock = arrival.connection.left_for_head(now);
        clock.unwrap_or((self.route.bounds.deadlines.request, Timer::Request))
    }

    /// Has the client come by TLS only, where the listener says so: it has the last word on this field.
    pub(super) fn secure(&self, head: &mut ResponseHeader) -> Result<()> {
        let hsts = self.listener.tls.as_ref().and_then(|tls| tls.hsts.as_ref());
        match hsts.filter(|_| self.facts.tls.is_some()) {
            Some(hsts) => head.insert_header(STRICT_TRANSPORT_SECURITY, hsts.clone()),
            None => Ok(()),
        }
    }

    /// The parts that a run of the chain needs.
    pub(super) fn run<'a>(
        &'a mut self,
        request: &'a RequestHeader,
    ) -> (&'a Chain, &'a mut Slots, Exchange<'a>) {
        let exchange = Exchange::new(request, &self.route.name, &mut self.facts);
        (self.route.chain(self.chain), &mut self.slots, exchange)
    }
}

fn lost() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a phase ran without the ones before it")
}
