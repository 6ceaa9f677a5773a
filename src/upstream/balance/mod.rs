//! The choice of an endpoint.
//!
//! 1. A balancer is built for the endpoints of one tier of one set, its tables with it, and replaced with the set.
//! 2. It keeps no health: whom a request may go to is asked by `Pick::admits`, at every pick.
//! 3. What falls to an endpoint that is not admitted spreads over the others by their weights, not all on its
//!    neighbour: the balancer draws again a few times before it looks at everyone. (By a ring it is the neighbours on
//!    the ring, of which each endpoint has many.)
//! 4. An endpoint of weight zero is never picked.

mod alias;
mod consistent;
mod key;
mod least_requests;
mod maglev;
mod peak_ewma;
mod points;
mod random;
mod ring;
mod round_robin;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{EndpointId, EndpointSet};

pub use key::HashKey;
pub use least_requests::LeastRequests;
pub use maglev::Maglev;
pub use peak_ewma::LowestCost;
pub use random::Random;
pub use ring::Ring;
pub use round_robin::RoundRobin;

pub(super) use key::{mix, to_unit};

/// Chooses an endpoint.
pub trait Balancer: Send + Sync {
    /// Picks one of the endpoints that the balancer was built for, one that is admitted; `None` when none is.
    fn pick(&self, set: &EndpointSet, pick: &Pick<'_>) -> Option<EndpointId>;
}

/// What one pick is made for.
pub struct Pick<'a> {
    /// What decides the endpoint where hashing does, and what `balance: { custom: { key: … } }` names.
    pub key: HashKey,
    /// The time, for what ages.
    pub now: Instant,
    /// Whether an endpoint may be picked. It may answer differently when asked again: an endpoint that starts slowly is
    /// admitted now and then.
    pub admits: &'a dyn Fn(EndpointId) -> bool,
    /// Whether another endpoint was asked in this exchange: nobody's turn is taken for that. Else a server that is slow or fails
    /// would be first ever more often, since the others' turns pass with what it leaves them.
    pub again: bool,
}

/// An endpoint as a balancer is built for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its place in its set.
    pub id: EndpointId,
    /// Its address.
    pub address: SocketAddr,
    /// Its share of requests, relative to the others'.
    pub weight: u16,
}

/// How the endpoints of an upstream are chosen among.
#[derive(Debug, Clone)]
pub enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest requests under way for its weight.
    LeastRequests,
    /// By lot, by weight.
    Random,
    /// By a key of the request: the same key comes to the same endpoint.
    ConsistentHash {
        /// How keys are spread over endpoints.
        algorithm: HashAlgorithm,
        /// How many times the average an endpoint may bear before its keys go elsewhere (1.25 is usual); without a bound
        /// when `None`.
        bounded: Option<f64>,
    },
    /// The one that answers soonest: by its latency, of late, and its requests under way.
    PeakEwma,
    /// As a library user has it.
    Custom(Factory),
}

/// How keys are spread over endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// By a ring with many points of every endpoint: endpoints that come and go move their own keys and no others.
    Ketama,
    /// By a table: more even than a ring, and looked up at once; endpoints that come and go move a few keys of others.
    Maglev,
}

/// Makes a library user's balancer for the endpoints of a tier.
#[derive(Clone)]
pub struct Factory {
    name: Arc<str>,
    make: Arc<Make>,
}

type Make = dyn Fn(&[Member]) -> Box<dyn Balancer> + Send + Sync;

impl Balance {
    /// A balancer for these endpoints.
    pub fn build(&self, members: &[Member]) -> Box<dyn Balancer> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::new(members)),
            Self::LeastRequests => Box::new(LeastRequests::new(members)),
            Self::Random => Box::new(Random::new(members)),
            Self::ConsistentHash { algorithm: HashAlgorithm::Ketama, bounded } => {
                Box::new(Ring::new(members, *bounded))
            }
            Self::ConsistentHash { algorithm: HashAlgorithm::Maglev, bounded } => {
                Box::new(Maglev::new(members, *bounded))
            }
            Self::PeakEwma => Box::new(LowestCost::new(members)),
            Self::Custom(factory) => (factory.make)(members),
        }
    }
}

impl Factory {
    /// A factory by a function, which is called for every tier of every new endpoint set. Configuration knows it by its
    /// name.
    pub fn new(name: &str, make: impl Fn(&[Member]) -> Box<dyn Balancer> + Send + Sync + 'static) -> Self {
        Self { name: name.into(), make: Arc::new(make) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Factory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Factory({})", self.name)
    }
}

/// The members that may be picked at all.
fn weighted(members: &[Member]) -> Box<[Member]> {
    members.iter().filter(|member| member.weight > 0).copied().collect()
}

/// Any of the members that are admitted, by lot and exactly by weight. It asks for everyone: a last resort.
fn anyone(members: &[Member], admits: &dyn Fn(EndpointId) -> bool) -> Option<EndpointId> {
    let mut sum = 0;
    let mut chosen = None;
    for member in members.iter().filter(|member| admits(member.id)) {
        // Each replaces the chosen one with the chance that it has among all that were seen (a weighted reservoir).
        sum += u64::from(member.weight);
        if fastrand::u64(..sum.max(1)) < u64::from(member.weight) {
            chosen = Some(member.id);
        }
    }
    chosen
}

#[cfg(test)]
pub(super) mod testing;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::{ALL, Fixture};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn whatever_the_weights_only_what_is_admitted_is_picked(
            weights in prop::collection::vec(prop_oneof![Just(0u16), 1u16..=1000], 0..12),
            mask in any::<u16>(),
            key in any::<Option<u64>>(),
        ) {
            let admits = |id: EndpointId| mask & (1 << id.0) != 0;
            let possible = (0..).zip(&weights).any(|(id, weight)| *weight > 0 && admits(EndpointId(id)));
            let fixture = Fixture::new(&weights);
            let key = key.map_or(HashKey::NONE, |key| HashKey::of(&key.to_le_bytes()));
            for balance in ALL {
                let balancer = balance.build(&fixture.members);
                for _ in 0..20 {
                    let picked = fixture.pick_for(&*balancer, key, &admits);
                    prop_assert_eq!(picked.is_some(), possible, "{:?}", balance);
                    let fine = picked.is_none_or(|id| admits(id) && weights[usize::from(id.0)] > 0);
                    prop_assert!(fine, "{:?}: {:?}", balance, picked);
                }
            }
        }
    }

    #[test]
    fn nobody_is_admitted() {
        let fixture = Fixture::new(&[1, 2, 1000]);
        for balance in ALL {
            let balancer = balance.build(&fixture.members);
            assert_eq!(fixture.pick(&*balancer, &|_| false), None, "{balance:?}");
        }
    }

    #[test]
    fn a_last_resort_is_fair() {
        let fixture = Fixture::new(&[6, 1, 3, 1000]);
        let shares = fixture.shares_of(200_000, || anyone(&fixture.members, &|id| id != EndpointId(3)));
        testing::assert_near(&shares, &[0.6, 0.1, 0.3, 0.0], 0.03);
    }

    #[test]
    fn a_library_user_brings_a_balancer() {
        struct First(EndpointId);
        impl Balancer for First {
            fn pick(&self, _: &EndpointSet, pick: &Pick<'_>) -> Option<EndpointId> {
                (pick.admits)(self.0).then_some(self.0)
            }
        }
        let balance = Balance::Custom(Factory::new("first", |members| Box::new(First(members[0].id))));
        let fixture = Fixture::new(&[1, 1]);
        let balancer = balance.build(&fixture.members[1..]);
        assert_eq!(fixture.pick(&*balancer, &|_| true), Some(EndpointId(1)));
    }
}
