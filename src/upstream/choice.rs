//! How an upstream's endpoints are chosen among, and what an exchange brings to the choice.

use std::fmt;
use std::sync::Arc;

use super::{Balance, Endpoint, EndpointSet, HashAlgorithm, HashKey, Sticky};
use crate::types::Selector;

/// How the endpoints of an upstream are chosen among, whichever they are.
#[derive(Debug)]
pub struct Choice {
    /// The algorithm.
    pub balance: Balance,
    /// What a request is hashed by: the first of these that it has. Empty where nothing is hashed.
    pub keys: Box<[Selector]>,
    /// How clients come back to their endpoints, if they do.
    pub sticky: Option<Sticky>,
    /// The zone that the gateway is in, if it is known.
    pub zone: Option<Arc<str>>,
}

/// What an exchange brings to the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// What decides the endpoint where hashing does.
    pub key: HashKey,
    /// The tag of the endpoint that a sticky cookie stands for.
    pub session: Option<u64>,
}

impl Choice {
    /// By this algorithm alone.
    pub fn by(balance: Balance) -> Self {
        Self { balance, keys: Box::default(), sticky: None, zone: None }
    }

    /// These endpoints, with all that the choice among them takes.
    pub fn over(&self, endpoints: Vec<Endpoint>) -> EndpointSet {
        let set = EndpointSet::new(endpoints, &self.balance, self.zone.as_deref());
        match &self.sticky {
            Some(sticky) => set.with_sticky(sticky),
            None => set,
        }
    }

    fn write_keys(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(" by ")?;
        for (at, key) in self.keys.iter().enumerate() {
            write!(f, "{}{key}", if at == 0 { "" } else { ", else " })?;
        }
        Ok(())
    }

    /// Whether there is nothing to say of it: endpoints take turns.
    pub fn is_plain(&self) -> bool {
        matches!(self.balance, Balance::RoundRobin) && self.sticky.is_none()
    }
}

impl Default for Choice {
    fn default() -> Self {
        Self::by(Balance::RoundRobin)
    }
}

/// In the words of the configuration: `consistent_hash (ketama) by header:x-user`.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(sticky) = &self.sticky {
            write!(f, "sticky by cookie {}, then ", sticky.name())?;
        }
        match &self.balance {
            Balance::RoundRobin => f.write_str("round_robin"),
            Balance::LeastRequests => f.write_str("least_requests"),
            Balance::Random => f.write_str("random"),
            Balance::PeakEwma => f.write_str("peak_ewma"),
            Balance::Custom(factory) => {
                write!(f, "custom {}", factory.name())?;
                if self.keys.is_empty() { Ok(()) } else { self.write_keys(f) }
            }
            Balance::ConsistentHash { algorithm, bounded } => {
                let ring = match algorithm {
                    HashAlgorithm::Ketama => "ketama",
                    HashAlgorithm::Maglev => "maglev",
                };
                write!(f, "consistent_hash ({ring}")?;
                if let Some(bound) = bounded {
                    write!(f, ", max_load {bound}")?;
                }
                f.write_str(")")?;
                self.write_keys(f)
            }
        }
    }
}
