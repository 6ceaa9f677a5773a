//! Who has to do with preflights.

use super::{Chain, Decision, Slots};

impl Chain {
    /// Whether any filter answers preflights.
    pub fn takes_preflights(&self) -> bool {
        self.links.iter().any(|link| link.filter.takes_preflights())
    }

    /// Whether any filter that answers preflights applied to this exchange, whose request hooks have run.
    pub fn took_preflight(&self, slots: &Slots) -> bool {
        let mut takers = self.links.iter().enumerate().filter(|(_, link)| link.filter.takes_preflights());
        takers.any(|(at, _)| slots.decisions.get(at) != Some(&Decision::DoesNot))
    }
}
