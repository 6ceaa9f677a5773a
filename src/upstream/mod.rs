//! Where requests are sent: endpoints, the choice among them, and what is known of each.

mod adaptive;
mod backoff;
mod balance;
mod born;
mod breaker;
mod budget;
mod change;
mod choice;
mod discovery;
mod endpoint;
mod handed;
mod health;
mod hedge;
mod latency;
mod limits;
mod outcome;
mod passive;
mod quantile;
mod retry;
mod room;
mod roster;
mod rules;
mod set;
mod standing;
mod sticky;
pub mod tiers;
mod told;
mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::tls::UpstreamTls;

pub use adaptive::{AdaptiveBounds, AdaptiveLimit};
pub use backoff::Backoff;
pub use balance::{
    Balance, Balancer, Factory, HashAlgorithm, HashKey, LeastRequests, LowestCost, Maglev, Member, Pick,
    Random, Ring, RoundRobin,
};
pub use breaker::{Breaker, BreakerPolicy, SlowCall, State};
pub use budget::{RetryBudget, RetryBudgetPolicy};
pub use choice::{Choice, Wish};
pub use discovery::{
    BoxStream, Discovery, DiscoveryError, DnsDiscovery, DnsQuery, DnsResolver, Finder, Found,
};
pub use endpoint::{Endpoint, EndpointId, EndpointSpec, Origin, Permit};
pub use handed::{Changes, Handed, Leave};
pub use health::{
    ActiveHealth, BodyMatch, BoxFuture, Change, Check, Checked, GrpcProbe, HealthCheck, HealthKeeper,
    HealthReport, HttpExpected, HttpProbe, HttpProbeRequest, LastProbe, Policy, ProbeConnector, ProbeError,
    Probed, Probers, Question, Serving, Target, TcpProbe, Thresholds, Told,
};
pub use hedge::{HedgeAfter, Hedged, Lingering};
pub use latency::PeakEwma;
pub use limits::{Limit, Priority, Refused, Slot, UNLIMITED};
pub use outcome::{End, Outcome, Verdict, Waited};
pub use passive::{Ejections, Passive, PassivePolicy};
pub use quantile::Latencies;
pub use retry::{Causes, Methods, RetryOn, RetryPolicy};
pub use room::{LimitPolicy, STREAMS, Sockets};
pub use roster::{MOST_ENDPOINTS, Members, Roster, Wanted};
pub use rules::{BreakerScope, Common, Rules, Shared, WhenNoneHealthy};
pub use set::EndpointSet;
pub use standing::Standing;
pub use sticky::{Sticky, StickyKey};
pub use window::Window;

/// A set of servers that answer alike.
///
/// The endpoint set is the one moving part inside a snapshot.
pub struct Upstream {
    protocol: Protocol,
    tls: Option<Arc<UpstreamTls>>,
    common: Arc<Common>,
    choice: Choice,
    members: Members,
    endpoints: ArcSwap<EndpointSet>,
}

/// The version of HTTP that an upstream's servers are spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Either, as agreed in the handshake of TLS.
    Auto,
}

/// Why nobody can be asked.
#[derive(Debug, Clone)]
pub enum Unavailable {
    /// No endpoint is healthy, or none that was not tried.
    NoneHealthy,
    /// The breakers let no call through.
    CircuitOpen {
        /// How long until one may.
        retry_after: Duration,
    },
    /// All who could be asked have as many requests as they may have. This is the one to wait for.
    Busy(Arc<Endpoint>),
}

/// How often an endpoint that another thread took the last place at is passed over.
const RACES: usize = 4;

/// The endpoints that one exchange has tried, of one set. Where endpoints have changed meanwhile nobody was tried: better an
/// endpoint is asked again than that another is passed over in its place.
#[derive(Debug, Default, Clone)]
pub struct Tried {
    ids: smallvec::SmallVec<[EndpointId; 4]>,
    /// The set that they are of.
    of: u64,
}

impl Tried {
    /// Notes a try.
    pub fn insert(&mut self, id: EndpointId) {
        self.ids.push(id);
    }

    /// Whether this endpoint was tried.
    pub fn contains(&self, id: EndpointId) -> bool {
        self.ids.contains(&id)
    }

    /// Forgets a try that told nothing of the endpoint.
    pub fn remove(&mut self, id: EndpointId) {
        self.ids.retain(|tried| *tried != id);
    }

    /// Looks at another set.
    fn turn_to(&mut self, set: &EndpointSet) {
        if self.of != set.generation() {
            self.ids.clear();
            self.of = set.generation();
        }
    }

    /// How many were tried.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none was tried.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Whether a lot of this chance is drawn.
fn is_drawn(chance: f64) -> bool {
    chance >= 1.0 || fastrand::f64() < chance
}

impl Upstream {
    /// An upstream with the endpoints that hold now.
    pub fn new(
        protocol: Protocol,
        tls: Option<Arc<UpstreamTls>>,
        common: Arc<Common>,
        choice: Choice,
        members: Members,
    ) -> Self {
        let now = Instant::now();
        let endpoints = {
            let mut kept = members.lock();
            let specs = members.list(&kept);
            common.endpoints(specs, |spec| kept.standing(spec.address, now))
        };
        let endpoints = ArcSwap::from_pointee(choice.over(endpoints));
        Self { protocol, tls, common, choice, members, endpoints }
    }

    /// The version of HTTP that its servers are spoken to in.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Its name: config key and metric label.
    pub fn name(&self) -> &Arc<str> {
        &self.common.name
    }

    /// TLS with its servers; `None` in the clear.
    pub fn tls(&self) -> Option<&UpstreamTls> {
        self.tls.as_deref()
    }

    /// How its endpoints are chosen among.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Counts a request that has nothing to be hashed by.
    pub fn key_missing(&self) {
        self.common.metrics.key_missing();
    }

    /// How much each of its endpoints is given at once, where that is limited.
    pub fn limits(&self) -> Option<&LimitPolicy> {
        self.common.rules.limits.as_ref()
    }

    /// Its endpoints now.
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.endpoints.load_full()
    }

    /// How its endpoints are asked whether they are well, if they are.
    pub fn active_health(&self) -> Option<&ActiveHealth> {
        self.common.rules.active.as_deref()
    }

    /// Whether its endpoints are asked how they are.
    pub fn is_probed(&self) -> bool {
        self.active_health().is_some()
    }

    /// What is to be probed: each of its endpoints, if any is.
    pub fn checks(&self, probers: &Probers) -> Vec<Check> {
        let Some(active) = &self.common.rules.active else { return Vec::new() };
        let probe = active.probe(probers, self.tls.as_ref(), self.protocol);
        let set = self.endpoints.load();
        let endpoints = set.iter().filter_map(|endpoint| set.endpoint(endpoint.id()));
        endpoints.filter_map(|endpoint| endpoint.check(active, &probe)).collect()
    }

    /// How the one breaker before all endpoints stands, if there is one.
    pub fn circuit(&self, now: Instant) -> Option<State> {
        let policy = self.common.rules.upstream_breaker()?;
        Some(self.common.shared.breaker.state(policy, now))
    }

    /// Whether so few are healthy that all are asked.
    pub fn is_panicking(&self, now: Instant) -> bool {
        self.endpoints.load().spares_nobody(&self.common, now)
    }

    /// Whether an endpoint that was not tried could be asked.
    pub fn has_other(&self, tried: &Tried, now: Instant) -> bool {
        let set = self.endpoints.load();
        set.has_other(tried, set.spares_nobody(&self.common, now), now)
    }

    /// Counts a request, before its first attempt.
    pub fn asked(&self, now: Instant) {
        self.common.shared.budget.deposit(now);
    }

    /// Takes a retry out of the budget; false when there is none left.
    pub fn may_retry(&self, now: Instant) -> bool {
        let may = self.common.shared.budget.withdraw(&self.common.rules.retry_budget, now);
        if !may {
            self.common.metrics.retry("over_budget");
        }
        may
    }

    /// Counts a body that could not be kept for a retry: the memory for them was full.
    pub fn body_not_kept(&self) {
        self.common.metrics.retry("body_not_kept");
    }

    /// Tells the metrics how it and its endpoints stand.
    pub fn report(&self, now: Instant) {
        self.common.metrics.report(self.circuit(now).map(State::number));
        let set = self.endpoints.load();
        self.common.metrics.report_size(set.len());
        set.iter().for_each(|endpoint| endpoint.report(now));
    }

    /// Begins an attempt at an endpoint that was not tried: the one that a sticky cookie stands for, or whom the balancer
    /// picks.
    ///
    /// # Errors
    ///
    /// When nobody can be asked.
    pub fn choose(&self, tried: &mut Tried, wish: Wish, now: Instant) -> Result<Permit, Unavailable> {
        let set = self.endpoints.load();
        tried.turn_to(&set);
        let mut shared = self.common.begin(now)?;
        let all = set.spares_nobody(&self.common, now);
        let stuck = wish.session.and_then(|tag| set.stuck(tag));
        let mut lost = Tried::default();
        for _ in 0..RACES {
            let admits = |id: EndpointId, cold: bool| {
                let endpoint = set.get(id).filter(|_| !tried.contains(id) && !lost.contains(id));
                endpoint.is_some_and(|endpoint| {
                    // Health is asked for all the same: it is by this that an ejection ends.
                    (endpoint.is_healthy(now) || all)
                        && endpoint.admits(now)
                        && (cold || is_drawn(endpoint.warmth(now)))
                })
            };
            let healthy = |id| set.get(id).is_some_and(|endpoint| endpoint.is_healthy(now));
            let again = !tried.is_empty();
            let pick = |cold| {
                set.pick(&Pick { key: wish.key, now, admits: &|id| admits(id, cold), again }, &healthy)
            };
            // Those that start slowly take what they were spared of where there is nobody else.
            let slow = self.common.rules.slow_start.is_some();
            let stuck = stuck.filter(|id| admits(*id, true));
            let picked = stuck.or_else(|| pick(!slow)).or_else(|| slow.then(|| pick(true)).flatten());
            let Some(endpoint) = picked.and_then(|id| set.endpoint(id)) else { break };
            let id = endpoint.id();
            match endpoint.begin(shared, now) {
                Ok(permit) => return Ok(permit),
                Err(ticket) => shared = ticket,
            }
            lost.insert(id);
        }
        if let Some(ticket) = shared {
            self.common.end(ticket, Verdict::Neutral, Duration::ZERO, now);
        }
        let busy = self.common.rules.limits.and_then(|_| set.whose_queue(tried, all, wish.key, now));
        Err(busy.map_or_else(|| set.why_not(tried, all, now), Unavailable::Busy))
    }

    /// Begins an attempt at an endpoint that was waited for; `None` when it is not to be asked any more.
    pub fn begin(&self, endpoint: Arc<Endpoint>, slot: Slot, now: Instant) -> Option<Permit> {
        let set = self.endpoints.load();
        let all = set.spares_nobody(&self.common, now);
        if !set.takes(&endpoint) || (!all && !endpoint.is_healthy(now)) {
            return None;
        }
        let shared = self.common.begin(now).ok()?;
        let begun = endpoint.begin_in(slot, shared, now);
        begun
            .map_err(|ticket| {
                ticket.map(|ticket| self.common.end(ticket, Verdict::Neutral, Duration::ZERO, now))
            })
            .ok()
    }
}
