//! Active health of an endpoint: what probes have told of it, and what follows when that changes.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::{Endpoint, Standing};
use crate::telemetry::EventKind;
use crate::upstream::health::{ActiveHealth, Change, Check, Checked, HealthCheck, Target};

/// What probes have told, by what they asked: another question knows nothing of the old one's answers.
#[derive(Debug, Default)]
pub struct Checks(Mutex<Vec<(Box<str>, Weak<Checked>)>>);

impl Standing {
    /// What probes that ask so have told: what is known while anyone holds it, or nothing yet.
    pub(super) fn checked(&self, question: &str) -> Arc<Checked> {
        let mut known = self.checks.0.lock();
        known.retain(|(_, checked)| checked.strong_count() > 0);
        let held = known.iter().find(|(asked, _)| **asked == *question);
        if let Some(checked) = held.and_then(|(_, checked)| checked.upgrade()) {
            return checked;
        }
        let checked = Arc::new(Checked::default());
        known.push((question.into(), Arc::downgrade(&checked)));
        checked
    }
}

impl Endpoint {
    /// What probes have told of it; `None` where it is not probed.
    pub fn checked(&self) -> Option<&Checked> {
        self.checked.as_deref()
    }

    /// How it is probed.
    pub(in crate::upstream) fn check(
        self: Arc<Self>,
        active: &ActiveHealth,
        probe: &Arc<dyn HealthCheck>,
    ) -> Option<Check> {
        Some(Check {
            key: format!("{} {} {}", self.common.name, self.address(), active.fingerprint).into(),
            target: Target { address: self.address() },
            policy: active.policy,
            probe: Arc::clone(probe),
            state: Arc::clone(self.checked.as_ref()?),
            told: Arc::new(move |result, change| self.probed(result, change, Instant::now())),
        })
    }

    fn probed(&self, result: &'static str, change: Option<Change>, now: Instant) {
        self.metrics.probed(result);
        let Some(change) = change else { return };
        self.common.turned();
        match change {
            Change::Healthy => {
                self.standing.returns(now);
                let what = format_args!("healthy again");
                self.common.tell_endpoint(EventKind::EndpointUp, self.address(), &"probes pass again", what);
            }
            Change::Unhealthy => {
                let last = self.checked().and_then(|checked| checked.report().last);
                let error = last.and_then(|last| last.error);
                let why = error.as_deref().unwrap_or(result);
                let what = format_args!("unhealthy: {why}");
                self.common.tell_endpoint(EventKind::EndpointDown, self.address(), &why, what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::upstream::{ProbeError, Probed, Thresholds};

    #[test]
    fn what_is_known_belongs_to_the_question() {
        let standing = Standing::new(Instant::now());
        let first = standing.checked("a");
        let took = Duration::ZERO;
        let probed = Probed { at: SystemTime::now(), took, outcome: Err(ProbeError::Timeout) };
        first.record(&Thresholds { healthy_after: 1, unhealthy_after: 1 }, probed);
        assert!(standing.checked("b").is_healthy());
        assert!(!standing.checked("a").is_healthy());
        drop(first);
        assert!(standing.checked("a").is_healthy(), "what nobody holds is forgotten");
    }
}
