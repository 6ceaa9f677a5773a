//! Where requests are sent: endpoints, the choice among them, and what is known of each.

mod adaptive;
mod balance;
mod discovery;
mod endpoint;
mod health;
mod limits;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::tls::UpstreamTls;

pub use adaptive::{AdaptiveBounds, AdaptiveLimit};
pub use balance::{Balancer, RoundRobin};
pub use discovery::{Discovery, DiscoveryError, DnsDiscovery, DnsQuery, DnsResolver};
pub use endpoint::{Endpoint, EndpointId, EndpointSpec, Load, Permit};
pub use health::{
    BodyMatch, Change, Check, Checked, GrpcProbe, HealthCheck, HealthKeeper, HealthReport, HttpExpected,
    HttpProbe, HttpProbeRequest, LastProbe, Policy, ProbeConnector, ProbeError, Probed, Serving, Target,
    TcpProbe, Thresholds,
};
pub use limits::{Limit, Priority, Refused, Slot, UNLIMITED};

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

/// The endpoints of an upstream together with the balancer whose tables were built for exactly them.
pub struct EndpointSet {
    endpoints: Box<[Arc<Endpoint>]>,
    balancer: Box<dyn Balancer>,
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

    /// Chooses an endpoint that was not tried; `None` when there is none left.
    pub fn choose(&self, tried: &Tried) -> Option<Arc<Endpoint>> {
        let set = self.endpoints.load();
        let id = set.balancer.pick(&set, &|id| !tried.contains(id))?;
        set.endpoints.get(usize::from(id.0)).cloned()
    }
}

impl EndpointSet {
    /// Endpoints in order, with round robin over their weights.
    pub fn round_robin(endpoints: Vec<Endpoint>) -> Self {
        let weights: Vec<u16> = endpoints.iter().map(Endpoint::weight).collect();
        Self::new(endpoints, Box::new(RoundRobin::new(&weights)))
    }

    /// Endpoints in order, with a balancer built for them.
    pub fn new(endpoints: Vec<Endpoint>, balancer: Box<dyn Balancer>) -> Self {
        Self { endpoints: endpoints.into_iter().map(Arc::new).collect(), balancer }
    }

    /// The endpoint with this id.
    pub fn get(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(usize::from(id.0)).map(Arc::as_ref)
    }

    /// All endpoints, in order; an endpoint's id is its place.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().map(Arc::as_ref)
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }
}
