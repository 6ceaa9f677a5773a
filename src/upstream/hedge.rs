//! Hedging: a request that waits long for its answer is sent to a second endpoint too.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{End, Permit, Upstream};

/// When a request is sent to a second endpoint too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HedgeAfter {
    /// After so long without a response head.
    Time(Duration),
    /// After as long as so many of a hundred answers have taken of late.
    Percentile(u8),
}

/// What became of a hedge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedged {
    /// Its answer was passed on.
    Won,
    /// Another's answer was, or none.
    Lost,
    /// It was not sent: the retry budget had no room.
    OverBudget,
    /// It was not sent: there was nobody else to ask.
    Nobody,
}

impl Hedged {
    fn word(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::OverBudget => "over_budget",
            Self::Nobody => "nobody",
        }
    }
}

/// In the words of the configuration.
impl fmt::Display for HedgeAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => crate::types::Duration::from(*time).fmt(f),
            Self::Percentile(percentile) => write!(f, "p{percentile}"),
        }
    }
}

impl Upstream {
    /// How long an answer is waited for before the request is sent to a second endpoint; `None` while that is not known.
    pub fn hedge_after(&self, after: HedgeAfter, now: Instant) -> Option<Duration> {
        match after {
            HedgeAfter::Time(time) => Some(time),
            HedgeAfter::Percentile(percentile) => self.common.shared.latencies.percentile(percentile, now),
        }
    }

    /// Takes a hedge out of the retry budget; false when there is none left.
    pub fn may_hedge(&self, now: Instant) -> bool {
        self.common.shared.budget.withdraw(&self.common.rules.retry_budget, now)
    }

    /// Counts what became of a hedge.
    pub fn hedged(&self, hedged: Hedged) {
        self.common.metrics.hedge(hedged.word());
    }
}

/// What is known of an endpoint that others answer for.
///
/// That an attempt is outrun says that the endpoint is slower than another, not that it hangs: one that always takes a little
/// longer than a hedge loses each time. Only who is waited for can tell. So when it was outrun some times and has answered
/// nothing in between, attempts that lose are let [linger](Permit::lingers): they wait for their own clocks, as without a hedge,
/// and end as those have it.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Attempts that were outrun since it last answered.
    outrun: AtomicU32,
    lingering: AtomicU32,
}

/// Attempts outrun in a row after which the next ones linger.
const SUSPICIOUS: u32 = 3;
/// Attempts that linger at once. They end as many as would eject by `consecutive_errors` in the time of one.
const LINGERING: u32 = 16;

impl Silence {
    /// An attempt ends so.
    pub(super) fn ends_with(&self, end: End) {
        match end {
            End::Outrun(waited) if waited.long => {
                self.outrun.fetch_add(1, Ordering::Relaxed);
            }
            // Others read what lies beside it: it is written only if there is something to forget.
            End::Answered(..) if self.outrun.load(Ordering::Relaxed) != 0 => {
                self.outrun.store(0, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn is_suspicious(&self) -> bool {
        self.outrun.load(Ordering::Relaxed) >= SUSPICIOUS
    }

    fn linger(self: &Arc<Self>) -> Option<Lingering> {
        let more = |lingering: u32| (lingering < LINGERING).then_some(lingering + 1);
        self.lingering.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Lingering(Arc::clone(self)))
    }
}

/// Leave to wait on for an attempt whose answer nobody will get.
#[derive(Debug)]
pub struct Lingering(Arc<Silence>);

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.lingering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Permit {
    /// Whether the attempt, which is outrun, is to be waited for all the same: to find out whether the endpoint answers at all.
    pub fn lingers(&self) -> Option<Lingering> {
        let silence = &self.endpoint().standing().silence;
        if self.is_trial() || silence.is_suspicious() { silence.linger() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Waited;

    #[test]
    fn who_is_outrun_and_says_nothing_is_waited_for() {
        let silence = Arc::new(Silence::default());
        let outrun = |long| silence.ends_with(End::Outrun(Waited { time: Duration::from_secs(1), long }));
        for _ in 0..10 {
            outrun(false);
        }
        outrun(true);
        outrun(true);
        assert!(!silence.is_suspicious(), "others were as slow, or it may be chance");
        silence.ends_with(End::Answered(500, None));
        outrun(true);
        outrun(true);
        assert!(!silence.is_suspicious(), "it has answered");
        outrun(true);
        silence.ends_with(End::ReadTimeout);
        silence.ends_with(End::Aborted);
        assert!(silence.is_suspicious(), "that is no answer");
        let mut lingering: Vec<_> = std::iter::from_fn(|| silence.linger()).collect();
        assert_eq!(lingering.len(), 16);
        lingering.pop();
        assert!(silence.linger().is_some());
    }
}
