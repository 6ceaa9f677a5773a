//! Endpoints by DNS: the addresses of a name (A and AAAA), or its services (SRV, RFC 2782).
//!
//! 1. A name is asked for again when its shortest TTL is over, bounded to 1 s and 5 min.
//! 2. Addresses have weight 1 and priority 0. With services the weight of a target is divided among its addresses, zero is
//!    taken for one, and priorities keep their order but are numbered from 0.
//! 3. An answer is whole or a failure: a name whose addresses of one family cannot be had has failed. One that has none of a
//!    family has not.
//! 4. After a failure the name is asked for again after 1 s, and ever later, up to a minute.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::stream::{BoxStream, unfold};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use smallvec::SmallVec;

use super::{Discovery, DiscoveryError};
use crate::upstream::EndpointSpec;

/// Bounds of what a TTL may say.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// How long one server is waited for, and how often it is asked again, where the system says nothing of it.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 1;
/// Pauses after failures.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// How much longer or shorter a pause after a failure may be.
const JITTER: f64 = 0.1;

/// Who is asked. One serves all; cheap to clone.
#[derive(Clone)]
pub struct DnsResolver(TokioResolver);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsQuery {
    /// The addresses of a name (A and AAAA), with one port.
    Addresses {
        /// The name. With a dot at its end nothing is added to it.
        name: Box<str>,
        /// The port of all endpoints.
        port: u16,
    },
    /// The services under a name (SRV), with ports of their own.
    Services {
        /// The name, such as `_http._tcp.example.org`.
        name: Box<str>,
    },
}

/// Finds endpoints by DNS.
pub struct DnsDiscovery {
    resolver: DnsResolver,
    query: DnsQuery,
}

impl DnsResolver {
    /// Asks whom the system asks (`/etc/resolv.conf`), as it is now.
    ///
    /// # Errors
    ///
    /// When that cannot be read.
    pub fn system() -> Result<Self, DiscoveryError> {
        let mut builder = TokioResolver::builder_tokio().map_err(|error| unusable(&error))?;
        // Whoever watches asks when an answer is over, and not before.
        builder.options_mut().cache_size = 0;
        Ok(Self(builder.build().map_err(|error| unusable(&error))?))
    }

    /// Asks these, and none but them.
    ///
    /// # Errors
    ///
    /// When they cannot be used.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, DiscoveryError> {
        let server = |address: &SocketAddr| {
            let at = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
            NameServerConfig::new(address.ip(), true, connections)
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        (options.cache_size, options.timeout, options.attempts) = (0, PATIENCE, ATTEMPTS);
        Ok(Self(builder.build().map_err(|error| unusable(&error))?))
    }

    async fn ask(&self, query: &DnsQuery) -> Result<Answer, DiscoveryError> {
        match query {
            DnsQuery::Addresses { name, port } => {
                let (addresses, ttl) = self.addresses(name).await?;
                let specs = addresses.into_iter().map(|ip| spec(SocketAddr::new(ip, *port), 1, 0));
                Answer::new(name, specs.collect(), ttl)
            }
            DnsQuery::Services { name } => {
                let (services, ttl) = self.services(name).await?;
                let found = try_join_all(services.iter().map(async |service| {
                    match self.addresses(&service.target).await {
                        // One that is named and gone is none.
                        Err(DiscoveryError::NotFound { .. }) => Ok((Addresses::new(), LONGEST)),
                        outcome => outcome,
                    }
                }))
                .await?;
                let ttl = found.iter().map(|(_, ttl)| *ttl).fold(ttl, Duration::min);
                let found = services.into_iter().zip(found.into_iter().map(|(addresses, _)| addresses));
                Answer::new(name, specs(found), ttl)
            }
        }
    }

    /// The addresses of a name, and how long they hold.
    async fn addresses(&self, name: &str) -> Result<(Addresses, Duration), DiscoveryError> {
        let (four, six) =
            tokio::join!(self.records(name, RecordType::A), self.records(name, RecordType::AAAA));
        let records = [four?, six?].into_iter().flatten();
        let (mut found, mut ttl) = (Addresses::new(), LONGEST);
        for (data, holds) in records {
            ttl = ttl.min(holds);
            found.extend(data.ip_addr());
        }
        if found.is_empty() {
            return Err(DiscoveryError::NotFound { name: name.into() });
        }
        Ok((found, ttl))
    }

    async fn services(&self, name: &str) -> Result<(Vec<Service>, Duration), DiscoveryError> {
        let (mut found, mut ttl) = (Vec::new(), LONGEST);
        for (data, holds) in self.records(name, RecordType::SRV).await? {
            ttl = ttl.min(holds);
            // The root says that there is no such service.
            if let RData::SRV(service) = data
                && !service.target.is_root()
            {
                found.push(Service {
                    priority: service.priority,
                    weight: service.weight,
                    port: service.port,
                    target: service.target.to_ascii().into(),
                });
            }
        }
        Ok((found, ttl))
    }

    /// What a name has of one type, each with its TTL. Nothing is no failure here.
    async fn records(
        &self,
        name: &str,
        record_type: RecordType,
    ) -> Result<Vec<(RData, Duration)>, DiscoveryError> {
        match self.0.lookup(name, record_type).await {
            Ok(answer) => {
                let records = answer.answers().iter();
                Ok(records
                    .map(|record| (record.data.clone(), Duration::from_secs(record.ttl.into())))
                    .collect())
            }
            Err(error) if is_nothing(&error) => Ok(Vec::new()),
            Err(error) => {
                Err(DiscoveryError::Unanswered { name: name.into(), cause: error.to_string().into() })
            }
        }
    }
}

/// As messages name it: `orders.internal (port 8080)`, or `_http._tcp.orders.internal (SRV)`.
impl fmt::Display for DnsQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses { name, port } => write!(f, "{name} (port {port})"),
            Self::Services { name } => write!(f, "{name} (SRV)"),
        }
    }
}

impl DnsDiscovery {
    /// Asks this resolver for that.
    pub fn new(resolver: DnsResolver, query: DnsQuery) -> Self {
        Self { resolver, query }
    }
}

impl Discovery for DnsDiscovery {
    fn watch(&self) -> BoxStream<'static, Result<Vec<EndpointSpec>, DiscoveryError>> {
        let watch = Watch {
            resolver: self.resolver.clone(),
            query: self.query.clone(),
            told: None,
            failures: 0,
            pause: Duration::ZERO,
        };
        Box::pin(unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) }))
    }
}

struct Watch {
    resolver: DnsResolver,
    query: DnsQuery,
    /// What was told last, unless a failure was told since.
    told: Option<Vec<EndpointSpec>>,
    failures: u32,
    pause: Duration,
}

impl Watch {
    async fn next(&mut self) -> Result<Vec<EndpointSpec>, DiscoveryError> {
        loop {
            tokio::time::sleep(self.pause).await;
            match self.resolver.ask(&self.query).await {
                Ok(Answer { specs, holds }) => {
                    (self.failures, self.pause) = (0, holds);
                    if self.told.as_ref() != Some(&specs) {
                        self.told = Some(specs.clone());
                        return Ok(specs);
                    }
                }
                Err(error) => {
                    self.told = None;
                    self.pause = pause_after(self.failures, fastrand::f64());
                    self.failures = self.failures.saturating_add(1);
                    return Err(error);
                }
            }
        }
    }
}

type Addresses = SmallVec<[IpAddr; 4]>;

/// One SRV record.
#[derive(Debug, Clone)]
struct Service {
    priority: u16,
    weight: u16,
    port: u16,
    target: Box<str>,
}

struct Answer {
    specs: Vec<EndpointSpec>,
    holds: Duration,
}

impl Answer {
    fn new(name: &str, mut specs: Vec<EndpointSpec>, ttl: Duration) -> Result<Self, DiscoveryError> {
        specs.sort_by_key(|spec| (spec.address, spec.priority));
        specs.dedup_by(|later, kept| {
            let same = later.address == kept.address;
            if same && later.priority == kept.priority {
                kept.weight = kept.weight.saturating_add(later.weight);
            }
            same
        });
        specs.sort_by_key(|spec| (spec.priority, spec.address));
        if specs.is_empty() {
            return Err(DiscoveryError::NotFound { name: name.into() });
        }
        Ok(Self { specs, holds: ttl.clamp(SHORTEST, LONGEST) })
    }
}

fn spec(address: SocketAddr, weight: u16, priority: u8) -> EndpointSpec {
    EndpointSpec { priority, ..EndpointSpec::new(address, weight) }
}

/// Services with the addresses of their targets, as endpoints.
fn specs(found: impl Iterator<Item = (Service, Addresses)>) -> Vec<EndpointSpec> {
    let mut by_priority: BTreeMap<u16, Vec<(Service, Addresses)>> = BTreeMap::new();
    for (service, addresses) in found.filter(|(_, addresses)| !addresses.is_empty()) {
        by_priority.entry(service.priority).or_default().push((service, addresses));
    }
    let mut specs = Vec::new();
    for (rank, services) in by_priority.into_values().enumerate() {
        let priority = u8::try_from(rank).unwrap_or(u8::MAX);
        for (service, addresses) in services {
            let among = u16::try_from(addresses.len()).unwrap_or(u16::MAX);
            let weight = (service.weight / among).max(1);
            let address = |ip| SocketAddr::new(ip, service.port);
            specs.extend(addresses.into_iter().map(|ip| spec(address(ip), weight, priority)));
        }
    }
    specs
}

/// How long to wait after a failure that came after so many others. The `dice` show 0 to 1.
fn pause_after(failures: u32, dice: f64) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LAST_PAUSE);
    pause.mul_f64(1.0 - JITTER + 2.0 * JITTER * dice)
}

/// Whether somebody who knows has said that there is nothing.
fn is_nothing(error: &NetError) -> bool {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else { return false };
    matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

fn unusable(error: &NetError) -> DiscoveryError {
    DiscoveryError::NoResolver { cause: error.to_string().into() }
}

#[cfg(test)]
mod tests;
