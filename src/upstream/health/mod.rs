//! Active health: endpoints are asked whether they are well, and what they said is remembered.
//!
//! 1. An endpoint nobody has asked yet is taken for healthy, so that a fresh upstream serves at once.
//! 2. Its first probe decides alone, whichever way it went; from then on it takes as many probes in a row as the
//!    [`Thresholds`] say (Envoy: `healthy_threshold` and `unhealthy_threshold`).
//! 3. What is known outlives snapshots: it belongs to an endpoint of an upstream, not to its weight or its policy.
//! 4. Requests only ever read one flag.

mod dial;
mod error;
mod grpc;
mod http;
mod keeper;
mod policy;
mod schedule;
mod tcp;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

pub use dial::ProbeConnector;
pub use error::{ProbeError, Serving};
pub use futures_util::future::BoxFuture;
pub use grpc::GrpcProbe;
pub use http::{BodyMatch, HttpExpected, HttpProbe, HttpProbeRequest};
pub use keeper::{Check, HealthKeeper, Policy, Told};
pub use policy::{ActiveHealth, Probers, Question};
pub use schedule::{first_pause, pause};
pub use tcp::TcpProbe;

/// A way to ask an endpoint whether it is well.
///
/// A probe has no clock of its own: whoever asks drops the future when it takes too long.
pub trait HealthCheck: Send + Sync + 'static {
    /// Asks once.
    fn probe<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), ProbeError>>;
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Where probes go: the endpoint's address, or another port of its host.
    pub address: SocketAddr,
}

/// How many probes in a row it takes to change what is thought of an endpoint. Zero is taken for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Passed probes until it is healthy again.
    pub healthy_after: u32,
    /// Failed probes until it is not.
    pub unhealthy_after: u32,
}

/// What changed with a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is healthy again.
    Healthy,
    /// It is no longer healthy.
    Unhealthy,
}

/// One probe that has ended.
#[derive(Debug)]
pub struct Probed {
    /// When it began.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub outcome: Result<(), ProbeError>,
}

/// What probes have told of one endpoint. Outlives snapshots.
pub struct Checked {
    healthy: AtomicBool,
    known: Mutex<Known>,
}

/// What is told to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// Whether requests are sent to it.
    pub healthy: bool,
    /// Probes in a row that went as the last one did.
    pub in_a_row: u32,
    /// The last probe; `None` before the first.
    pub last: Option<LastProbe>,
}

/// The last probe of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastProbe {
    /// When it began.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// Why it failed; `None` when it passed.
    pub error: Option<Arc<str>>,
}

#[derive(Default)]
struct Known {
    in_a_row: u32,
    /// Probes that failed since it is unhealthy, with none that passed between them.
    failing: u32,
    last: Option<LastProbe>,
}

impl Default for Checked {
    fn default() -> Self {
        Self { healthy: AtomicBool::new(true), known: Mutex::default() }
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked").field("healthy", &self.is_healthy()).finish_non_exhaustive()
    }
}

impl Checked {
    /// Whether requests may be sent to it.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Takes note of a probe. Says what changed with it.
    pub fn record(&self, thresholds: &Thresholds, probed: Probed) -> Option<Change> {
        let Probed { at, took, outcome } = probed;
        let mut known = self.known.lock();
        let passed = outcome.is_ok();
        let first = known.last.is_none();
        let alike = known.last.as_ref().is_some_and(|last| last.error.is_none() == passed);
        known.in_a_row = if alike { known.in_a_row.saturating_add(1) } else { 1 };
        let error = outcome.err().map(|error| Arc::from(error.to_string()));
        known.last = Some(LastProbe { at, took, error });
        let healthy = self.is_healthy();
        let needed = if passed { thresholds.healthy_after } else { thresholds.unhealthy_after };
        let change = healthy != passed && (first || known.in_a_row >= needed);
        if change {
            self.healthy.store(passed, Ordering::Relaxed);
        }
        known.failing = if passed || healthy { 0 } else { known.failing.saturating_add(1) };
        change.then_some(if passed { Change::Healthy } else { Change::Unhealthy })
    }

    /// Probes in a row that failed since it became unhealthy, without the one that made it so.
    pub fn failing(&self) -> u32 {
        self.known.lock().failing
    }

    /// Whether there was a probe.
    pub fn is_probed(&self) -> bool {
        self.known.lock().last.is_some()
    }

    /// What is known, for operators.
    pub fn report(&self) -> HealthReport {
        let known = self.known.lock();
        HealthReport { healthy: self.is_healthy(), in_a_row: known.in_a_row, last: known.last.clone() }
    }

    /// Forgets everything: the endpoint is no longer probed.
    pub fn forget(&self) {
        let mut known = self.known.lock();
        *known = Known::default();
        self.healthy.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { healthy_after: 2, unhealthy_after: 3 };

    fn record(checked: &Checked, passed: bool) -> Option<Change> {
        let outcome = if passed { Ok(()) } else { Err(ProbeError::Status(503)) };
        let took = Duration::from_millis(2);
        checked.record(&THRESHOLDS, Probed { at: SystemTime::UNIX_EPOCH, took, outcome })
    }

    #[test]
    fn the_first_probe_decides_alone() {
        let checked = Checked::default();
        assert!(checked.is_healthy() && !checked.is_probed());
        assert_eq!(record(&checked, false), Some(Change::Unhealthy));
        assert!(!checked.is_healthy());

        let checked = Checked::default();
        assert_eq!(record(&checked, true), None);
        assert_eq!(record(&checked, false), None);
        assert!(checked.is_healthy());
    }

    #[test]
    fn it_takes_as_many_in_a_row_as_the_thresholds_say() {
        let checked = Checked::default();
        let passed = [true, false, false, true, false, false, false, true, false, true, true];
        let changes: Vec<_> = passed.map(|passed| record(&checked, passed)).into_iter().collect();
        let changed = |at: usize, change| changes.get(at) == Some(&Some(change));
        assert!(changed(6, Change::Unhealthy) && changed(10, Change::Healthy));
        assert_eq!(changes.iter().flatten().count(), 2);
    }

    #[test]
    fn the_dead_are_counted_since_they_are_dead() {
        let checked = Checked::default();
        record(&checked, false);
        assert_eq!(checked.failing(), 0);
        record(&checked, false);
        record(&checked, false);
        assert_eq!(checked.failing(), 2);
        record(&checked, true);
        assert_eq!(checked.failing(), 0);
    }

    #[test]
    fn operators_are_told_why() {
        let checked = Checked::default();
        record(&checked, false);
        record(&checked, false);
        let report = checked.report();
        assert_eq!((report.healthy, report.in_a_row), (false, 2));
        let last = report.last.unwrap();
        assert_eq!(last.error.as_deref(), Some("status 503 is not expected"));
        assert_eq!(last.took, Duration::from_millis(2));
        checked.forget();
        assert_eq!(checked.report(), HealthReport { healthy: true, in_a_row: 0, last: None });
    }

    proptest! {
        #[test]
        fn a_change_comes_after_a_run_only(history in prop::collection::vec(any::<bool>(), 1..200)) {
            let checked = Checked::default();
            for at in 0..history.len() {
                let before = checked.is_healthy();
                let change = record(&checked, history[at]);
                prop_assert_eq!(change.is_some(), before != checked.is_healthy());
                let run = history[..=at].iter().rev().take_while(|passed| **passed == history[at]).count();
                let needed = if history[at] { 2 } else { 3 };
                let due = before != history[at] && (at == 0 || run >= needed);
                prop_assert_eq!(change.is_some(), due);
                prop_assert_eq!(checked.report().in_a_row as usize, run);
            }
        }
    }
}
