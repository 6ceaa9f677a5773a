//! Who the endpoints of an upstream are: those of the file, those that are found, and what an operator has changed since.
//!
//! 1. The file's endpoints come first, in its order, then those that are found, then those that an operator has added.
//! 2. An address that is in the file and is found, too, is as the file says.
//! 3. A change by an operator holds until whoever names the endpoint has another word on it: the file says something else of
//!    the address than when it was changed, or names it for the first time, or not any more; or it is found, or found no more.
//!    While nothing was found yet, that is not known, and the change waits.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use super::{EndpointSpec, Found, Origin, Standing};

/// The most endpoints of one upstream.
pub const MOST_ENDPOINTS: usize = 4096;

/// What an operator has changed of an upstream's endpoints, and what is known of each. Its identity is the upstream's name.
/// Its lock is also the one under which the endpoints are put together: no change is lost to another.
#[derive(Debug, Default)]
pub struct Roster(Mutex<Kept>);

/// What is kept over snapshots.
#[derive(Debug, Default)]
pub(super) struct Kept {
    changes: BTreeMap<SocketAddr, Change>,
    standings: HashMap<SocketAddr, Weak<Standing>>,
}

#[derive(Debug)]
pub(super) struct Change {
    /// Whose word it was made against.
    pub(super) on: Base,
    /// What holds in its place; `None` when the endpoint was removed.
    pub(super) to: Option<EndpointSpec>,
}

/// What would hold of an address if nobody had changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    /// It would be unknown.
    Nobody,
    /// The file says so.
    File(EndpointSpec),
    /// It is found.
    Found,
}

impl Roster {
    /// The key under which the state keeps that of an upstream.
    pub fn key(upstream: &str) -> String {
        format!("roster {upstream}")
    }

    /// One in which this was changed.
    pub(super) fn with(changes: impl Iterator<Item = (SocketAddr, Change)>) -> Self {
        Self(Mutex::new(Kept { changes: changes.collect(), ..Kept::default() }))
    }
}

/// What an operator wants of an endpoint. What is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Its share of requests, relative to the others'.
    pub weight: Option<u16>,
    /// The zone that it is in; `Some(None)` for none.
    pub zone: Option<Option<Arc<str>>>,
    /// Its rank.
    pub priority: Option<u8>,
    /// Whether it gets nothing new.
    pub draining: Option<bool>,
}

/// What the endpoints of an upstream are put together from.
#[derive(Debug, Default)]
pub struct Members {
    /// The file's, in its order, each address once.
    pub written: Box<[EndpointSpec]>,
    /// What was changed since.
    pub roster: Arc<Roster>,
    /// Those that are found, where any are looked for.
    pub found: Option<Arc<Found>>,
}

impl Members {
    /// These alone.
    pub fn written(specs: impl IntoIterator<Item = EndpointSpec>) -> Self {
        Self { written: specs.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Kept> {
        self.roster.0.lock()
    }

    /// All that hold now.
    pub(super) fn list(&self, kept: &Kept) -> Vec<EndpointSpec> {
        let found = self.known();
        let found = found.as_deref().unwrap_or_default();
        let written: HashSet<SocketAddr> = self.written.iter().map(|spec| spec.address).collect();
        let found = found.iter().filter(|spec| !written.contains(&spec.address));
        let bases = self.written.iter().map(|spec| (spec, Base::File(spec.clone())));
        let bases = bases.chain(found.map(|spec| (spec, Base::Found)));
        let mut named = HashSet::new();
        let mut list = Vec::new();
        for (spec, base) in bases {
            named.insert(spec.address);
            match kept.changes.get(&spec.address).filter(|change| change.on == base) {
                Some(change) => list.extend(change.to.clone()),
                None => list.push(spec.clone()),
            }
        }
        let added =
            kept.changes.iter().filter(|(at, change)| change.on == Base::Nobody && !named.contains(at));
        list.extend(added.filter_map(|(_, change)| change.to.clone()));
        // Their ids are counted in half a word.
        list.truncate(MOST_ENDPOINTS);
        list
    }

    /// Notes what an operator wants of an endpoint. False when there is no room for one more.
    pub(super) fn place(&self, kept: &mut Kept, address: SocketAddr, wanted: &Wanted) -> bool {
        let list = self.list(kept);
        let before = list.iter().find(|spec| spec.address == address);
        if before.is_none() && list.len() >= MOST_ENDPOINTS {
            return false;
        }
        let mut spec = before.cloned().unwrap_or_else(|| EndpointSpec::new(address, 1));
        spec.origin = Origin::Admin;
        spec.weight = wanted.weight.unwrap_or(spec.weight);
        spec.priority = wanted.priority.unwrap_or(spec.priority);
        spec.draining = wanted.draining.unwrap_or(spec.draining);
        if let Some(zone) = &wanted.zone {
            spec.zone.clone_from(zone);
        }
        self.note(kept, address, Some(spec));
        true
    }

    /// Notes that an operator wants an endpoint gone.
    pub(super) fn remove(&self, kept: &mut Kept, address: SocketAddr) {
        self.note(kept, address, None);
    }

    fn note(&self, kept: &mut Kept, address: SocketAddr, to: Option<EndpointSpec>) {
        let on = self.base(address);
        let as_it_was = match (&on, &to) {
            (Base::Nobody, None) => true,
            (Base::File(spec), Some(to)) => *spec == EndpointSpec { origin: Origin::File, ..to.clone() },
            _ => false,
        };
        if as_it_was {
            kept.changes.remove(&address);
        } else {
            kept.changes.insert(address, Change { on, to });
        }
    }

    /// Forgets the changes that hold no more, and returns their addresses.
    pub(super) fn forget_stale(&self, kept: &mut Kept) -> Vec<SocketAddr> {
        let unknown = self.found.is_some() && self.known().is_none();
        let mut stale = Vec::new();
        kept.changes.retain(|address, change| {
            let base = self.base(*address);
            let waits = unknown && change.on == Base::Found && base == Base::Nobody;
            let holds = waits || change.on == base;
            if !holds {
                stale.push(*address);
            }
            holds
        });
        stale
    }

    fn base(&self, address: SocketAddr) -> Base {
        if let Some(spec) = self.written.iter().find(|spec| spec.address == address) {
            return Base::File(spec.clone());
        }
        let found = self.known();
        match found.as_deref().unwrap_or_default().iter().any(|spec| spec.address == address) {
            true => Base::Found,
            false => Base::Nobody,
        }
    }

    fn known(&self) -> Option<Arc<[EndpointSpec]>> {
        self.found.as_ref()?.specs()
    }
}

impl Kept {
    /// What was changed, by address.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&SocketAddr, &Change)> {
        self.changes.iter()
    }

    /// What is known of the endpoint at this address, and whether anything was.
    pub(super) fn standing(&mut self, address: SocketAddr, now: Instant) -> Arc<Standing> {
        if let Some(standing) = self.standings.get(&address).and_then(Weak::upgrade) {
            return standing;
        }
        let standing = Arc::new(Standing::new(now));
        self.standings.insert(address, Arc::downgrade(&standing));
        standing
    }

    /// Forgets the endpoints that are gone and whose last request has ended.
    pub(super) fn sweep(&mut self) {
        self.standings.retain(|_, standing| standing.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests;
