//! What a new process is told of an upstream, so that an upgrade changes nothing for clients and operators: the key of its
//! sticky cookies, where it was made at random, and what an operator has changed of its endpoints.
//!
//! Processes of different releases talk here. What one does not understand it leaves out, change by change.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::roster::{Base, Change, MOST_ENDPOINTS, Roster};
use super::{EndpointSpec, Origin, StickyKey, Upstream};

/// What is handed over of one upstream.
#[derive(Default, Serialize, Deserialize)]
pub struct Handed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sticky: Option<[u8; 32]>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Value>,
}

/// Whether operators may change endpoints. Not once a new process has its copy of what they changed: what came after would be lost
/// with this one. A clone is the same word.
#[derive(Debug, Clone, Default)]
pub struct Changes(Arc<RwLock<bool>>);

/// Leave to change endpoints. What is changed under it is in the copy that a new process gets.
#[derive(Debug)]
pub struct Leave<'a> {
    _copied: RwLockReadGuard<'a, bool>,
}

impl Changes {
    /// Leave to change endpoints now; `None` while another process has a copy.
    pub fn leave(&self) -> Option<Leave<'_>> {
        let copied = self.0.read();
        (!*copied).then_some(Leave { _copied: copied })
    }

    /// A copy is about to be made. Waits for changes under way.
    pub fn stop(&self) {
        *self.0.write() = true;
    }

    /// Nobody has a copy any more.
    pub fn go_on(&self) {
        *self.0.write() = false;
    }
}

/// A change of an endpoint.
#[derive(Serialize, Deserialize)]
struct Changed {
    address: SocketAddr,
    on: Was,
    /// What holds now; nothing when the endpoint was removed.
    to: Option<Words>,
}

/// Whose word there was on the endpoint.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Was {
    Nobody,
    File(Words),
    Found,
}

/// What is said of an endpoint. What a newer release adds matters: a change that is understood by half is none.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    weight: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<Arc<str>>,
    priority: u8,
    draining: bool,
}

impl Upstream {
    /// What a new process is told of it.
    pub fn hand_over(&self) -> Handed {
        let sticky = self.choice.sticky.as_ref().and_then(|sticky| sticky.key().bytes());
        let kept = self.members.lock();
        let change = |(address, change): (&SocketAddr, &Change)| {
            let on = match &change.on {
                Base::Nobody => Was::Nobody,
                Base::File(spec) => Was::File(Words::of(spec)),
                Base::Found => Was::Found,
            };
            serde_json::to_value(Changed { address: *address, on, to: change.to.as_ref().map(Words::of) })
                .ok()
        };
        Handed { sticky, changes: kept.changes().filter_map(change).collect() }
    }
}

impl Handed {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.sticky.is_none() && self.changes.is_empty()
    }

    /// The key of its sticky cookies.
    pub fn sticky(&self) -> Option<StickyKey> {
        self.sticky.as_ref().map(StickyKey::new)
    }

    /// What was changed of its endpoints.
    pub fn roster(&self) -> Roster {
        let changes = self.changes.iter().take(MOST_ENDPOINTS);
        let changes = changes.filter_map(|change| Changed::deserialize(change).ok());
        Roster::with(changes.map(|Changed { address, on, to }| {
            let on = match on {
                Was::Nobody => Base::Nobody,
                Was::File(words) => Base::File(words.spec(address, Origin::File)),
                Was::Found => Base::Found,
            };
            (address, Change { on, to: to.map(|words| words.spec(address, Origin::Admin)) })
        }))
    }
}

impl Words {
    fn of(spec: &EndpointSpec) -> Self {
        let EndpointSpec { address: _, weight, zone, priority, origin: _, draining } = spec;
        Self { weight: *weight, zone: zone.clone(), priority: *priority, draining: *draining }
    }

    fn spec(self, address: SocketAddr, origin: Origin) -> EndpointSpec {
        let Self { weight, zone, priority, draining } = self;
        EndpointSpec { address, weight, zone, priority, origin, draining }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::telemetry::{Buckets, Metrics};
    use crate::upstream::{Choice, Common, Endpoint, Members, Protocol, Rules, Sticky, Wanted};

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    fn upstream(roster: Roster, key: StickyKey) -> Upstream {
        let metrics = Metrics::new("test", Buckets::default()).unwrap().upstream("u");
        let choice = Choice { sticky: Some(Sticky::new("lb", Arc::new(key))), ..Choice::default() };
        let members = Members {
            roster: Arc::new(roster),
            ..Members::written([1, 2, 3].map(|port| EndpointSpec::new(address(port), 1)))
        };
        Upstream::new(
            Protocol::Http1,
            None,
            Arc::new(Common::new(Rules::default(), metrics)),
            choice,
            members,
        )
    }

    fn specs(upstream: &Upstream) -> Vec<EndpointSpec> {
        upstream.endpoints().iter().map(Endpoint::spec).cloned().collect()
    }

    #[test]
    fn a_new_process_knows_what_the_old_one_was_told() {
        let old = upstream(Roster::default(), StickyKey::random().unwrap());
        let wanted = Wanted { weight: Some(7), zone: Some(Some("b".into())), ..Wanted::default() };
        assert!(old.place(address(1), &wanted).is_some());
        assert!(old.place(address(2), &Wanted { draining: Some(true), ..Wanted::default() }).is_some());
        assert!(old.remove(address(3)).is_some() && old.place(address(4), &Wanted::default()).is_some());
        let words = serde_json::to_vec(&old.hand_over()).unwrap();
        let handed: Handed = serde_json::from_slice(&words).unwrap();
        let new = upstream(handed.roster(), handed.sticky().unwrap());
        assert_eq!(specs(&new), specs(&old));
        assert_eq!(new.hand_over().sticky, old.hand_over().sticky);
        assert!(!new.refresh() && specs(&new).len() == 3, "nothing is stale");
    }

    #[test]
    fn a_secret_is_not_handed_over() {
        let upstream = upstream(Roster::default(), StickyKey::of_secret("a secret of the fleet"));
        assert!(upstream.hand_over().is_empty());
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let good = json!({ "address": "10.0.0.1:9", "on": "nobody", "later": 1,
                           "to": { "weight": 2, "priority": 0, "draining": false } });
        let mut half = good.clone();
        half["to"]["shadow"] = true.into();
        let mut other = good.clone();
        other["on"] = "consul".into();
        let handed = json!({ "changes": [half, other, 7, good], "later": {} });
        let handed: Handed = serde_json::from_value(handed).unwrap();
        let new = upstream(handed.roster(), StickyKey::random().unwrap());
        let ports: Vec<_> = specs(&new).iter().map(|spec| (spec.address.port(), spec.weight)).collect();
        assert_eq!(ports, [(1, 1), (2, 1), (3, 1), (9, 2)]);
    }
}
