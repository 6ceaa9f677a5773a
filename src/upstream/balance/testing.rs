//! Endpoints to balance over, and what the picks among them come to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{Balance, Balancer, HashAlgorithm, HashKey, Member, Pick};
use crate::telemetry::{Buckets, Metrics};
use crate::upstream::{Common, Endpoint, EndpointId, EndpointSet, EndpointSpec, Rules, Standing};

/// Every algorithm.
pub(crate) const ALL: [Balance; 8] = [
    Balance::RoundRobin,
    Balance::LeastRequests,
    Balance::Random,
    Balance::ConsistentHash { algorithm: HashAlgorithm::Ketama, bounded: None },
    Balance::ConsistentHash { algorithm: HashAlgorithm::Ketama, bounded: Some(1.25) },
    Balance::ConsistentHash { algorithm: HashAlgorithm::Maglev, bounded: None },
    Balance::ConsistentHash { algorithm: HashAlgorithm::Maglev, bounded: Some(1.25) },
    Balance::PeakEwma,
];

/// Endpoints with these weights, in their order.
pub(crate) struct Fixture {
    pub(crate) set: EndpointSet,
    pub(crate) members: Vec<Member>,
    pub(crate) now: Instant,
}

impl Fixture {
    pub(crate) fn new(weights: &[u16]) -> Self {
        fastrand::seed(1);
        let members = Self::members(weights);
        let specs = members.iter().map(|member| EndpointSpec::new(member.address, member.weight));
        let set = EndpointSet::new(endpoints(specs), &Balance::Random, None);
        Self { set, members, now: Instant::now() }
    }

    pub(crate) fn members(weights: &[u16]) -> Vec<Member> {
        let member = |(at, weight): (u16, &u16)| {
            let [high, low] = at.to_be_bytes();
            Member { id: EndpointId(at), address: ([10, 0, high, low], 8080).into(), weight: *weight }
        };
        (0..).zip(weights).map(member).collect()
    }

    pub(crate) fn endpoint(&self, at: u16) -> Arc<Endpoint> {
        let Some(endpoint) = self.set.endpoint(EndpointId(at)) else { panic!("no endpoint {at}") };
        endpoint
    }

    pub(crate) fn pick(
        &self,
        balancer: &dyn Balancer,
        admits: &dyn Fn(EndpointId) -> bool,
    ) -> Option<EndpointId> {
        self.pick_for(balancer, HashKey::NONE, admits)
    }

    pub(crate) fn pick_for(
        &self,
        balancer: &dyn Balancer,
        key: HashKey,
        admits: &dyn Fn(EndpointId) -> bool,
    ) -> Option<EndpointId> {
        balancer.pick(&self.set, &Pick { key, now: self.now, admits, again: false })
    }

    /// Each endpoint's share of picks without a key.
    pub(crate) fn shares(
        &self,
        balancer: &dyn Balancer,
        picks: u32,
        admits: &dyn Fn(EndpointId) -> bool,
    ) -> Vec<f64> {
        self.shares_of(picks, || self.pick(balancer, admits))
    }

    /// Each endpoint's share of what comes of `pick`.
    pub(crate) fn shares_of(&self, picks: u32, mut pick: impl FnMut() -> Option<EndpointId>) -> Vec<f64> {
        let mut seen = vec![0u32; self.members.len()];
        (0..picks).filter_map(|_| pick()).for_each(|id| seen[usize::from(id.0)] += 1);
        seen.iter().map(|count| f64::from(*count) / f64::from(picks)).collect()
    }

    /// Where each of so many keys goes.
    pub(crate) fn places(
        &self,
        balancer: &dyn Balancer,
        keys: u32,
        admits: &dyn Fn(EndpointId) -> bool,
    ) -> Vec<SocketAddr> {
        let place = |key: u32| {
            let picked = self.pick_for(balancer, HashKey::of(format!("key-{key}").as_bytes()), admits);
            let Some(id) = picked else { panic!("nobody for key {key}") };
            self.members[usize::from(id.0)].address
        };
        (0..keys).map(place).collect()
    }
}

pub(crate) fn endpoints(specs: impl IntoIterator<Item = EndpointSpec>) -> Vec<Endpoint> {
    let Ok(metrics) = Metrics::new("test", Buckets::default()) else { panic!("no metrics") };
    let metrics = metrics.upstream("u");
    let common = Arc::new(Common::new(Rules::default(), metrics));
    common.endpoints(specs, |_| Arc::new(Standing::new(Instant::now())))
}

/// That every share is within this part of what is due.
pub(crate) fn assert_near(shares: &[f64], due: &[f64], slack: f64) {
    let near = |(share, due): (&f64, &f64)| (share - due).abs() <= due * slack;
    assert!(shares.len() == due.len() && shares.iter().zip(due).all(near), "{shares:?}, due: {due:?}");
}

/// The part of the keys whose place changed.
pub(crate) fn moved(before: &[SocketAddr], after: &[SocketAddr]) -> f64 {
    before.iter().zip(after).filter(|(before, after)| before != after).count() as f64 / before.len() as f64
}

/// The part of the keys that moved although neither their old nor their new place is `changed`.
pub(crate) fn moved_in_vain(before: &[SocketAddr], after: &[SocketAddr], changed: SocketAddr) -> f64 {
    let in_vain = |(before, after): &(&SocketAddr, &SocketAddr)| {
        before != after && **before != changed && **after != changed
    };
    before.iter().zip(after).filter(in_vain).count() as f64 / before.len() as f64
}
