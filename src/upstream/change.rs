//! Endpoints that come, change and go while requests run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::roster::Kept;
use super::{Endpoint, Found, Upstream, Wanted};

impl Upstream {
    /// Registers an endpoint, or changes one. `None` when there is no room for one more.
    pub fn place(&self, address: SocketAddr, wanted: &Wanted) -> Option<Arc<Endpoint>> {
        let mut kept = self.members.lock();
        if !self.members.place(&mut kept, address, wanted) {
            return None;
        }
        self.gather(&mut kept);
        self.at(address)
    }

    /// Takes an endpoint out: it ends what it has. Returns it, or `None` when there is none at this address.
    pub fn remove(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        let mut kept = self.members.lock();
        let removed = self.at(address)?;
        self.members.remove(&mut kept, address);
        self.gather(&mut kept);
        Some(removed)
    }

    /// Takes in what was found or changed elsewhere, and forgets the changes that hold no more. Says whether there are other
    /// endpoints now.
    pub fn refresh(&self) -> bool {
        let mut kept = self.members.lock();
        for address in self.members.forget_stale(&mut kept) {
            log::warn!(
                "upstream {}: the change to endpoint {address} holds no more: there is another word on it now",
                self.name()
            );
        }
        self.gather(&mut kept)
    }

    /// What was found of its endpoints, where any are looked for.
    pub fn found(&self) -> Option<&Arc<Found>> {
        self.members.found.as_ref()
    }

    fn at(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        let set = self.endpoints.load();
        let id = set.iter().find(|endpoint| endpoint.address() == address)?.id();
        set.endpoint(id)
    }

    /// Puts the endpoints together anew, if they are others, or others are said of them.
    fn gather(&self, kept: &mut Kept) -> bool {
        kept.sweep();
        let (old, specs) = (self.endpoints.load_full(), self.members.list(kept));
        if old.iter().map(Endpoint::spec).eq(&specs) {
            return false;
        }
        let now = Instant::now();
        let was = |address| old.iter().find(|endpoint| endpoint.address() == address);
        let mut standing = |address| kept.standing(address, now);
        let endpoints = self.common.endpoints(specs, |spec| {
            let standing = standing(spec.address);
            // Whoever joins others that are busy gets its share as one that comes back does.
            let joins = was(spec.address).is_none_or(|old| !old.spec().is_picked());
            if joins && !old.is_empty() && spec.is_picked() {
                standing.returns(now);
            }
            standing
        });
        let set = self.choice.over(endpoints).numbered(old.generation() + 1);
        self.endpoints.store(Arc::new(set));
        true
    }
}
