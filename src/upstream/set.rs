//! The endpoints of an upstream at one time, and the choice among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use smallvec::SmallVec;

use super::balance::{Balance, Balancer, HashKey, Member, Pick, mix, to_unit};
use super::rules::{Common, WhenNoneHealthy};
use super::sticky::Tags;
use super::tiers::{self, Spread};
use super::{Endpoint, EndpointId, Sticky, Tried, Unavailable};

/// The endpoints of an upstream together with the balancers whose tables were built for exactly them.
pub struct EndpointSet {
    endpoints: Box<[Arc<Endpoint>]>,
    tiers: Box<[Tier]>,
    spread: Spread,
    tags: Tags,
    /// Which of its upstream's sets it is: ids of another are of no use.
    generation: u64,
    /// How many are healthy, in the lower half, as counted at the turn in the upper half.
    healthy: AtomicU64,
}

/// Endpoints of the same rank, and the choice among them.
struct Tier {
    members: Box<[EndpointId]>,
    balancer: Box<dyn Balancer>,
}

/// A turn that no count was made at.
const NEVER: u64 = u64::MAX;
const TURN: u64 = u32::MAX as u64;
/// Keeps the die that a key throws for its tier apart from the hash that picks within it.
const OF_TIERS: u64 = 0x5851_f42d_4c95_7f2d;

impl EndpointSet {
    /// Endpoints in order, an endpoint's id being its place; `zone` is the gateway's own, if it is known. Those of weight
    /// zero are in no tier: nothing but a sticky cookie finds them. Those that drain are found by nothing.
    pub fn new(endpoints: Vec<Endpoint>, balance: &Balance, zone: Option<&str>) -> Self {
        let endpoints: Box<[Arc<Endpoint>]> = endpoints.into_iter().map(Arc::new).collect();
        let picked = endpoints.iter().filter(|endpoint| endpoint.spec().is_picked());
        let ranks = picked.map(|endpoint| (endpoint.id(), endpoint.priority(), endpoint.zone()));
        let build = |ids: Vec<EndpointId>| {
            let known = ids.iter().filter_map(|id| endpoints.get(usize::from(id.0)));
            let members: Vec<Member> = known.map(|endpoint| member(endpoint)).collect();
            Tier { members: ids.into(), balancer: balance.build(&members) }
        };
        let tiers: Box<[Tier]> = tiers::split(ranks, zone).into_iter().map(build).collect();
        let spread = Spread::new(tiers.len(), Instant::now());
        Self {
            endpoints,
            tiers,
            spread,
            tags: Tags::default(),
            generation: 0,
            healthy: AtomicU64::new(NEVER),
        }
    }

    /// Endpoints in order, with round robin over their weights.
    pub fn round_robin(endpoints: Vec<Endpoint>) -> Self {
        Self::new(endpoints, &Balance::RoundRobin, None)
    }

    /// The same, found by sticky cookies also.
    #[must_use]
    pub fn with_sticky(mut self, sticky: &Sticky) -> Self {
        self.tags = Tags::new(sticky, self.iter().filter(|endpoint| !endpoint.spec().draining));
        self
    }

    /// The same, as its upstream's set of this number.
    #[must_use]
    pub(super) fn numbered(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// Which of its upstream's sets it is.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Picks an endpoint that is admitted; `None` when none is. Who is `healthy` decides how much each tier bears; it is
    /// asked now and then, and only where there are several tiers.
    pub fn pick(&self, pick: &Pick<'_>, healthy: &dyn Fn(EndpointId) -> bool) -> Option<EndpointId> {
        if let [tier] = &*self.tiers {
            return tier.balancer.pick(self, pick);
        }
        if self.spread.is_due(pick.now) {
            self.weigh(healthy);
        }
        // The same key comes to the same tier while the shares are the same.
        let die = pick.key.get().map_or_else(fastrand::f64, |key| to_unit(mix(key ^ OF_TIERS)));
        let first = self.spread.tier(die);
        let rest = (0..self.tiers.len()).filter(|at| *at != first);
        let mut order = std::iter::once(first).chain(rest);
        order.find_map(|at| self.tiers.get(at)?.balancer.pick(self, pick))
    }

    /// Whether health is not looked at: too few are healthy, or none is and that is how it is to be.
    pub(super) fn spares_nobody(&self, common: &Common, now: Instant) -> bool {
        let rules = &common.rules;
        let ejected = rules.passive.is_some() && common.shared.ejections.count() > 0;
        if !ejected && rules.active.is_none() {
            return false;
        }
        match self.healthy(common, now) {
            0 => rules.when_none_healthy == WhenNoneHealthy::TryAll,
            healthy => (healthy as f64) < rules.panic_threshold * self.picked().count() as f64,
        }
    }

    /// How many are healthy. Counted anew only when that may have changed.
    fn healthy(&self, common: &Common, now: Instant) -> usize {
        let turn = common.shared.turns.load(Ordering::Acquire) & TURN;
        let known = self.healthy.load(Ordering::Relaxed);
        if known >> 32 == turn {
            return (known & TURN) as usize;
        }
        let healthy = self.picked().filter(|endpoint| endpoint.is_healthy(now)).count();
        self.healthy.store(turn << 32 | healthy as u64, Ordering::Relaxed);
        healthy
    }

    /// Those that the balancers pick from.
    fn picked(&self) -> impl Iterator<Item = &Endpoint> {
        self.iter().filter(|endpoint| endpoint.spec().is_picked())
    }

    /// Whom to wait for when all who could be asked are at their limits: one that the key leads to, or else one that the
    /// fewest wait for; and one where there is room to wait, if there is.
    pub(super) fn whose_queue(
        &self,
        tried: &Tried,
        all: bool,
        key: HashKey,
        now: Instant,
    ) -> Option<Arc<Endpoint>> {
        let could = |id: EndpointId| {
            let endpoint =
                self.get(id).filter(|endpoint| endpoint.spec().is_picked() && !tried.contains(id))?;
            ((all || endpoint.is_healthy(now)) && endpoint.is_let(now)).then_some(endpoint)
        };
        let ids = self.iter().map(Endpoint::id);
        let fewest = ids.filter_map(could).map(|endpoint| endpoint.standing().waiting()).min()?;
        let roomy = |id| {
            let short = |endpoint: &Endpoint| key.get().is_some() || endpoint.standing().waiting() <= fewest;
            could(id).is_some_and(|endpoint| endpoint.has_place_in_queue() && short(endpoint))
        };
        let any = |id| could(id).is_some();
        let healthy = |id| self.get(id).is_some_and(|endpoint| endpoint.is_healthy(now));
        let pick = |admits: &dyn Fn(EndpointId) -> bool| {
            self.pick(&Pick { key, now, admits, again: false }, &healthy)
        };
        pick(&roomy).or_else(|| pick(&any)).and_then(|id| self.endpoint(id))
    }

    /// Whether an endpoint that was not tried could be asked.
    pub(super) fn has_other(&self, tried: &Tried, all: bool, now: Instant) -> bool {
        let others = self.picked().filter(|endpoint| !tried.contains(endpoint.id()));
        let mut fit = others.filter(|endpoint| all || endpoint.is_healthy(now));
        fit.any(|endpoint| endpoint.is_let(now))
    }

    /// Whether an endpoint of this set or an earlier one gets new requests still.
    pub(super) fn takes(&self, endpoint: &Endpoint) -> bool {
        let spec = |known: &Endpoint| (known.address() == endpoint.address()).then(|| !known.spec().draining);
        let own = self.get(endpoint.id()).and_then(spec);
        own.or_else(|| self.iter().find_map(spec)).unwrap_or(false)
    }

    /// Why nobody was chosen.
    pub(super) fn why_not(&self, tried: &Tried, all: bool, now: Instant) -> Unavailable {
        let left = self.iter().filter(|endpoint| !endpoint.spec().draining && !tried.contains(endpoint.id()));
        let closed = left.filter(|endpoint| all || endpoint.is_healthy(now));
        match closed.filter_map(|endpoint| endpoint.closed_for(now)).min() {
            Some(retry_after) => Unavailable::CircuitOpen { retry_after },
            None => Unavailable::NoneHealthy,
        }
    }

    /// The endpoint that the tag of a sticky cookie stands for; `None` when it is gone.
    pub fn stuck(&self, tag: u64) -> Option<EndpointId> {
        self.tags.get(tag)
    }

    /// The endpoint with this id.
    pub fn get(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(usize::from(id.0)).map(Arc::as_ref)
    }

    /// The endpoint with this id, to keep.
    pub fn endpoint(&self, id: EndpointId) -> Option<Arc<Endpoint>> {
        self.endpoints.get(usize::from(id.0)).cloned()
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

    fn weigh(&self, healthy: &dyn Fn(EndpointId) -> bool) {
        let count = |tier: &Tier| tier.members.iter().filter(|id| healthy(**id)).count();
        let healthy: SmallVec<[usize; 4]> = self.tiers.iter().map(count).collect();
        let total: SmallVec<[usize; 4]> = self.tiers.iter().map(|tier| tier.members.len()).collect();
        self.spread.set(&tiers::shares(&healthy, &total));
    }
}

fn member(endpoint: &Endpoint) -> Member {
    Member { id: endpoint.id(), address: endpoint.address(), weight: endpoint.weight() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::balance::testing::{assert_near, endpoints};
    use super::super::{EndpointSpec, HashAlgorithm, StickyKey};
    use super::*;

    const RING: Balance = Balance::ConsistentHash { algorithm: HashAlgorithm::Ketama, bounded: None };

    /// Four endpoints of the first rank, the first two of them near; and one that stands by.
    fn set(balance: &Balance) -> EndpointSet {
        fastrand::seed(1);
        let spec = |port: u16| EndpointSpec {
            zone: (port < 2).then(|| Arc::from("here")),
            priority: u8::from(port == 4),
            ..EndpointSpec::new(([10, 0, 0, 1], port).into(), 1)
        };
        EndpointSet::new(endpoints((0..5).map(spec)), balance, Some("here"))
    }

    fn shares(set: &EndpointSet, now: Instant, healthy: &dyn Fn(EndpointId) -> bool) -> Vec<f64> {
        let mut seen = [0; 5];
        for _ in 0..50_000 {
            let pick = Pick { key: HashKey::NONE, now, admits: healthy, again: false };
            seen[usize::from(set.pick(&pick, healthy).unwrap().0)] += 1;
        }
        seen.iter().map(|count| f64::from(*count) / 50_000.0).collect()
    }

    #[test]
    fn what_is_near_bears_all_until_it_cannot() {
        let set = set(&Balance::RoundRobin);
        let now = Instant::now();
        assert_near(&shares(&set, now, &|_| true), &[0.5, 0.5, 0.0, 0.0, 0.0], 0.03);
        // Shares are good for a while; meanwhile what is near bears it as it can.
        assert_near(&shares(&set, now, &|id| id.0 > 0), &[0.0, 1.0, 0.0, 0.0, 0.0], 0.03);
        let now = now + Duration::from_secs(1);
        assert_near(&shares(&set, now, &|id| id.0 > 0), &[0.0, 0.7, 0.15, 0.15, 0.0], 0.03);
        let now = now + Duration::from_secs(1);
        assert_near(&shares(&set, now, &|id| id.0 > 2), &[0.0, 0.0, 0.0, 0.7, 0.3], 0.03);
        let now = now + Duration::from_secs(1);
        assert_near(&shares(&set, now, &|id| id.0 > 3), &[0.0, 0.0, 0.0, 0.0, 1.0], 0.03);
    }

    #[test]
    fn when_nobody_in_a_tier_is_admitted_another_is_asked() {
        let set = set(&Balance::Random);
        let ask = |admits: &dyn Fn(EndpointId) -> bool| {
            let pick = Pick { key: HashKey::NONE, now: Instant::now(), admits, again: false };
            set.pick(&pick, &|_| true)
        };
        assert_eq!(ask(&|id| id.0 == 3), Some(EndpointId(3)));
        assert_eq!(ask(&|id| id.0 == 4), Some(EndpointId(4)));
        assert_eq!(ask(&|_| false), None);
        let none = EndpointSet::round_robin(Vec::new());
        let pick = Pick { key: HashKey::NONE, now: Instant::now(), admits: &|_| true, again: false };
        assert_eq!(none.pick(&pick, &|_| true), None);
    }

    #[test]
    fn a_key_comes_to_the_same_endpoint_over_tiers() {
        let set = set(&RING);
        let healthy = |id: EndpointId| id.0 > 0;
        let pick = |key: u32| {
            let key = HashKey::of(&key.to_le_bytes());
            set.pick(&Pick { key, now: Instant::now(), admits: &healthy, again: false }, &healthy)
        };
        let first: Vec<_> = (0..1000).map(pick).collect();
        assert_eq!(first, (0..1000).map(pick).collect::<Vec<_>>());
        let near = first.iter().filter(|id| **id == Some(EndpointId(1))).count();
        assert!((650..750).contains(&near), "{near}");
    }

    #[test]
    fn a_sticky_cookie_finds_its_endpoint() {
        let sticky = Sticky::new("lb", Arc::new(StickyKey::new(&[7; 32])));
        let set = set(&Balance::RoundRobin).with_sticky(&sticky);
        for endpoint in set.iter() {
            let tag = sticky.read(&sticky.mint(endpoint.address())).unwrap();
            assert_eq!(set.stuck(tag), Some(endpoint.id()));
        }
        assert_eq!(set.stuck(sticky.tag(([10, 0, 0, 2], 0).into())), None);
    }

    #[test]
    fn what_has_no_weight_stands_for_no_tier() {
        let sticky = Sticky::new("lb", Arc::new(StickyKey::new(&[7; 32])));
        let spec = |port: u16, weight, priority| EndpointSpec {
            priority,
            ..EndpointSpec::new(([10, 0, 0, 1], port).into(), weight)
        };
        let specs = [spec(0, 0, 0), spec(1, 1, 1)];
        let set = EndpointSet::new(endpoints(specs), &Balance::RoundRobin, None).with_sticky(&sticky);
        let pick = Pick { key: HashKey::NONE, now: Instant::now(), admits: &|_| true, again: false };
        assert_eq!(set.pick(&pick, &|_| true), Some(EndpointId(1)));
        assert_eq!(
            set.stuck(sticky.tag(([10, 0, 0, 1], 0).into())),
            Some(EndpointId(0)),
            "its sessions go on"
        );
    }
}
