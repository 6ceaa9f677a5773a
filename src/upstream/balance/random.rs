//! By lot.

use super::alias::Lots;
use super::{Balancer, EndpointId, EndpointSet, Member, Pick};

/// Random: by lot, by weight. Gateways that know nothing of each other do not march in step.
pub struct Random(Lots);

impl Random {
    /// Draws among these endpoints.
    pub fn new(members: &[Member]) -> Self {
        Self(Lots::new(members))
    }
}

impl Balancer for Random {
    fn pick(&self, _: &EndpointSet, pick: &Pick<'_>) -> Option<EndpointId> {
        self.0.one(pick.admits)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, assert_near};
    use super::*;

    #[test]
    fn what_is_not_admitted_spreads_by_weight() {
        let fixture = Fixture::new(&[10, 1, 2, 3, 4]);
        let random = Random::new(&fixture.members);
        let shares = fixture.shares(&random, 200_000, &|_| true);
        assert_near(&shares, &[0.5, 0.05, 0.1, 0.15, 0.2], 0.03);
        let shares = fixture.shares(&random, 200_000, &|id| id.0 != 0);
        assert_near(&shares, &[0.0, 0.1, 0.2, 0.3, 0.4], 0.03);
    }
}
