//! Where requests are sent: endpoints, the choice among them, and what is known of each.

mod backoff;
mod balance;
mod born;
mod breaker;
mod budget;
mod endpoint;
mod outcome;
mod passive;
mod window;
mod latency;
mod set;
mod sticky;
pub mod tiers;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::tls::UpstreamTls;

pub use backoff::{Backoff, retry_after};
pub use breaker::{Breaker, BreakerPolicy, Cause, Change, SlowCall, State, Ticket};
pub use budget::{RetryBudget, RetryBudgetPolicy};
pub use outcome::Verdict;
pub use passive::{Ejected, Ejections, Outlier, Passive, PassivePolicy};
pub use window::{Totals, Window};
pub use balance::{
    Balance, Balancer, Factory, HashAlgorithm, HashKey, LeastRequests, LowestCost, Maglev, Member, Pick,
    Random, Ring, RoundRobin,
};
pub use endpoint::{Endpoint, EndpointId, EndpointSpec, Load, Permit};
pub use latency::PeakEwma;
pub use set::EndpointSet;
pub use sticky::Sticky;

/// A set of servers that answer alike.
///
/// The endpoint set is the one moving part inside a snapshot.
pub struct Upstream {
    name: Arc<str>,
    protocol: Protocol,
    tls: Option<UpstreamTls>,
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

/// The endpoints that one exchange has tried.
#[derive(Debug, Default, Clone)]
pub struct Tried(smallvec::SmallVec<[EndpointId; 4]>);

impl Tried {
    /// Notes a try.
    pub fn insert(&mut self, id: EndpointId) {
        self.0.push(id);
    }

    /// Whether this endpoint was tried.
    pub fn contains(&self, id: EndpointId) -> bool {
        self.0.contains(&id)
    }

    /// Forgets a try that told nothing of the endpoint.
    pub fn remove(&mut self, id: EndpointId) {
        self.0.retain(|tried| *tried != id);
    }

    /// How many were tried.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was tried.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Upstream {
    /// An upstream with its first endpoints.
    pub fn new(name: Arc<str>, protocol: Protocol, tls: Option<UpstreamTls>, endpoints: EndpointSet) -> Self {
        Self { name, protocol, tls, endpoints: ArcSwap::from_pointee(endpoints) }
    }

    /// The version of HTTP that its servers are spoken to in.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Its name: config key and metric label.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// TLS with its servers; `None` in the clear.
    pub fn tls(&self) -> Option<&UpstreamTls> {
        self.tls.as_ref()
    }

    /// Its endpoints now.
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.endpoints.load_full()
    }

    /// Chooses an endpoint that was not tried; `None` when there is none left. `key` decides where hashing does.
    pub fn choose(&self, tried: &Tried, key: HashKey, now: Instant) -> Option<Arc<Endpoint>> {
        let set = self.endpoints.load();
        let pick = Pick { key, now, admits: &|id| !tried.contains(id) };
        set.endpoint(set.pick(&pick, &|_| true)?)
    }
}
