//! One server of an upstream.

mod active;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::breaker::{Change, State, Ticket};
use super::health::Checked;
use super::limits::Slot;
use super::outcome::{End, Outcome, Verdict};
use super::room::Turn;
use super::rules::Common;
use super::standing::Standing;
use crate::telemetry::{EndpointMetrics, EventKind};

pub(super) use active::Checks;

/// An endpoint's place in its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointId(pub u16);

/// What is said of an endpoint, by the configuration or by who discovers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Its address.
    pub address: SocketAddr,
    /// Its share of requests, relative to the others'; none when zero.
    pub weight: u16,
    /// The zone that it is in, if that is known.
    pub zone: Option<Arc<str>>,
    /// Its rank: lower numbers are preferred.
    pub priority: u8,
    /// Whose word this is.
    pub origin: Origin,
    /// It ends what it has and gets nothing new, from sticky clients neither.
    pub draining: bool,
}

/// Whose word there is on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The configuration's.
    File,
    /// An operator's, since.
    Admin,
    /// That of DNS.
    Dns,
    /// That of a discovery made in code.
    Custom,
}

/// How long an attempt that failed is taken to have been, at least, where the fastest endpoint is looked for.
const FAILED: Duration = Duration::from_secs(1);
/// What an endpoint that has just come back gets of its share.
const COLD: f64 = 0.1;

/// One server of an upstream. Its standing outlives snapshots.
#[derive(Debug)]
pub struct Endpoint {
    id: EndpointId,
    spec: EndpointSpec,
    /// How many endpoints its set has.
    of: usize,
    standing: Arc<Standing>,
    /// What probes have told of it, where it is probed.
    checked: Option<Arc<Checked>>,
    common: Arc<Common>,
    metrics: EndpointMetrics,
}

impl EndpointSpec {
    /// An endpoint of the configuration, in no zone and of the first rank.
    pub fn new(address: SocketAddr, weight: u16) -> Self {
        Self { address, weight, zone: None, priority: 0, origin: Origin::File, draining: false }
    }

    /// Whether a balancer may pick it.
    pub fn is_picked(&self) -> bool {
        self.weight > 0 && !self.draining
    }
}

impl Origin {
    /// As it is called in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Admin => "admin",
            Self::Dns => "dns",
            Self::Custom => "custom",
        }
    }
}

impl Endpoint {
    /// An endpoint at a place in its set of so many.
    pub fn new(
        (id, of): (EndpointId, usize),
        spec: EndpointSpec,
        standing: Arc<Standing>,
        common: Arc<Common>,
        metrics: EndpointMetrics,
    ) -> Self {
        let active = common.rules.active.as_ref();
        let checked = active.map(|active| standing.checked(&active.fingerprint));
        Self { id, spec, of, standing, checked, common, metrics }
    }

    /// Its place in its set.
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.spec.address
    }

    /// Its share of requests, relative to the others'.
    pub fn weight(&self) -> u16 {
        self.spec.weight
    }

    /// The zone that it is in, if that is known.
    pub fn zone(&self) -> Option<&str> {
        self.spec.zone.as_deref()
    }

    /// Its rank: lower numbers are preferred.
    pub fn priority(&self) -> u8 {
        self.spec.priority
    }

    /// What is said of it.
    pub fn spec(&self) -> &EndpointSpec {
        &self.spec
    }

    /// What is known of it.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether it is fit to be asked.
    pub fn is_healthy(&self, now: Instant) -> bool {
        let passes = self.checked.as_ref().is_none_or(|checked| checked.is_healthy());
        let passive = &self.standing.passive;
        if self.common.rules.passive.is_none() {
            return passes;
        }
        if passive.is_ejected(now) {
            return false;
        }
        if passive.settle(now) {
            self.common.turned();
            self.standing.returns(now);
            if passes {
                let what = format_args!("back in the choice");
                self.common.tell_endpoint(EventKind::EndpointUp, self.address(), &"its time is over", what);
            }
        }
        passes
    }

    /// What it shares with the others of its upstream.
    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    /// Tells the metrics how it stands.
    pub(super) fn report(&self, now: Instant) {
        self.metrics.report(self.is_healthy(now), self.circuit(now).map(State::number));
        let limit = self.limit().map(u64::from);
        self.metrics.report_load(limit, self.common.rules.limits.map(|_| self.standing.waiting()));
    }

    /// For how long it is out of the choice still.
    pub fn ejected_for(&self, now: Instant) -> Option<Duration> {
        self.common.rules.passive.as_ref().and_then(|_| self.standing.passive.ejected_for(now))
    }

    /// The part of its share that it gets: less than 1 while it starts slowly.
    pub fn warmth(&self, now: Instant) -> f64 {
        let back = self.standing.back.load(Ordering::Relaxed);
        let Some(slow_start) = self.common.rules.slow_start.filter(|_| back != 0) else { return 1.0 };
        let since = Duration::from_nanos(self.standing.born.nanos(now).saturating_sub(back));
        (since.as_secs_f64() / slow_start.as_secs_f64()).clamp(COLD, 1.0)
    }

    /// How its own breaker stands, if it has one.
    pub fn circuit(&self, now: Instant) -> Option<State> {
        self.common.rules.endpoint_breaker().map(|policy| self.standing.breaker.state(policy, now))
    }

    /// How long until its breaker lets a call through; `None` when it does.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        let policy = self.common.rules.endpoint_breaker()?;
        self.standing.breaker.retry_after(policy, now)
    }

    /// Whether a call could begin: it has room for one, and its breaker would let it through.
    pub(super) fn admits(&self, now: Instant) -> bool {
        self.is_let(now) && self.has_room()
    }

    /// Whether its breaker would let a call through.
    pub(super) fn is_let(&self, now: Instant) -> bool {
        self.common.rules.endpoint_breaker().is_none_or(|policy| self.standing.breaker.admits(policy, now))
    }

    /// Begins an attempt; gives `shared`, the upstream's own ticket, back when the endpoint has no place for it or its breaker
    /// does not let it.
    pub(super) fn begin(
        self: Arc<Self>,
        shared: Option<Ticket>,
        now: Instant,
    ) -> Result<Permit, Option<Ticket>> {
        match self.take() {
            Some(slot) => self.begin_in(slot, shared, now),
            None => Err(shared),
        }
    }

    /// The same in a place that was taken before: a half-open breaker has few tickets, and they are not to be waited with.
    pub(super) fn begin_in(
        self: Arc<Self>,
        slot: Slot,
        shared: Option<Ticket>,
        now: Instant,
    ) -> Result<Permit, Option<Ticket>> {
        let own = match self.common.rules.endpoint_breaker() {
            None => None,
            Some(policy) => match self.standing.breaker.begin(policy, now) {
                None => return Err(shared),
                Some(ticket) => {
                    if let Some(change) = ticket.change() {
                        self.tell(change, now);
                    }
                    Some(ticket)
                }
            },
        };
        self.standing.requests.fetch_add(1, Ordering::Relaxed);
        let in_flight = self.standing.load.under_way();
        let ticket = shared.or(own);
        Ok(Permit {
            endpoint: self,
            ticket,
            turn: None,
            in_flight,
            is_retry: false,
            judged: false,
            _slot: slot,
        })
    }

    /// Ends a call at whichever breaker gave its ticket.
    fn end(&self, ticket: Ticket, verdict: Verdict, took: Duration, now: Instant) {
        if let Some(policy) = self.common.rules.endpoint_breaker() {
            if let Some(change) = self.standing.breaker.end(policy, now, ticket, verdict, took) {
                self.tell(change, now);
            }
        } else {
            self.common.end(ticket, verdict, took, now);
        }
    }

    fn tell(&self, change: Change, now: Instant) {
        if change.to == State::Closed {
            self.standing.returns(now);
        }
        self.common.tell_circuit(change, Some(self.address()));
    }

    /// Passive health hears how an attempt went.
    fn observe(&self, verdict: Verdict, now: Instant) {
        let Some(policy) = &self.common.rules.passive else { return };
        let (passive, ejections) = (&self.standing.passive, &self.common.shared.ejections);
        if let Some(ejected) = passive.record(policy, now, verdict, ejections, self.of) {
            self.common.turned();
            let seconds = ejected.until.duration_since(now).as_secs_f64();
            let what = format_args!("out of the choice for {seconds:.1} s: {}", ejected.why);
            self.common.tell_endpoint(EventKind::EndpointDown, self.address(), &ejected.why, what);
        }
    }
}

/// An attempt under way at an endpoint. One that is dropped unjudged tells nothing of it.
#[derive(Debug)]
pub struct Permit {
    endpoint: Arc<Endpoint>,
    ticket: Option<Ticket>,
    turn: Option<Turn>,
    /// How many were under way as it began, itself among them.
    in_flight: u32,
    is_retry: bool,
    judged: bool,
    _slot: Slot,
}

impl Permit {
    /// The endpoint that is tried.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the attempt is one by which a half-open breaker finds out.
    pub fn is_trial(&self) -> bool {
        let breaker = match self.endpoint.common.rules.endpoint_breaker() {
            Some(_) => &self.endpoint.standing.breaker,
            None => &self.endpoint.common.shared.breaker,
        };
        self.ticket.as_ref().is_some_and(|ticket| breaker.is_trial(ticket))
    }

    /// The attempt is one more, by the route's policy.
    pub fn as_retry(mut self) -> Self {
        self.is_retry = true;
        self
    }

    /// Waits until nobody else looks for a connection to the endpoint. Others wait until this one is
    /// [`connected`](Self::connected), or dropped.
    pub async fn wait_for_turn(&mut self) {
        self.turn = self.endpoint.standing.turns.next().await;
    }

    /// It has a connection.
    pub fn connected(&mut self) {
        self.turn = None;
    }

    /// Says how the attempt went: to health, breaker and metrics. The first word counts.
    pub fn judge(&mut self, outcome: Outcome, now: Instant) {
        if std::mem::replace(&mut self.judged, true) {
            return;
        }
        let (endpoint, verdict) = (&self.endpoint, outcome.end.verdict());
        endpoint.metrics.record(outcome.end.word(), outcome.to_head);
        if verdict == Verdict::Failure {
            endpoint.standing.failures.fetch_add(1, Ordering::Relaxed);
        }
        match verdict {
            _ if !self.is_retry => {}
            Verdict::Success => endpoint.common.metrics.retry("success"),
            Verdict::Failure => endpoint.common.metrics.retry("failure"),
            Verdict::Neutral => {}
        }
        endpoint.observe(verdict, now);
        endpoint.learn(&outcome, self.in_flight, now);
        endpoint.standing.silence.ends_with(outcome.end);
        if let Some(ticket) = self.ticket.take() {
            let took = match (verdict, outcome.end) {
                (_, End::Outrun(waited)) => waited.time,
                (Verdict::Neutral, _) => Duration::ZERO,
                _ => outcome.to_head.unwrap_or_default(),
            };
            endpoint.end(ticket, verdict, took, now);
        }
        let average = &endpoint.standing.latency;
        let latency = match (verdict, outcome.end) {
            // It would have taken longer, which says something where less is expected.
            (_, End::Outrun(waited)) => {
                Some(waited.time).filter(|time| time.as_secs_f64() > average.estimate(now))
            }
            (Verdict::Success, _) => outcome.to_head,
            // One that fails at once is not the fastest.
            (Verdict::Failure, _) => Some(outcome.to_head.unwrap_or_default().max(FAILED)),
            (Verdict::Neutral, _) => None,
        };
        if let Some(latency) = latency {
            average.record(now, latency);
        }
        // Percentiles that learnt from winners only would sink.
        let learnt = match (verdict, outcome.end) {
            (_, End::Outrun(waited)) => Some(waited.time).filter(|_| waited.long),
            (Verdict::Success, _) => outcome.to_head,
            _ => None,
        };
        if let Some(latency) = learnt {
            endpoint.common.learn(latency, now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.endpoint.end(ticket, Verdict::Neutral, Duration::ZERO, Instant::now());
        }
    }
}
