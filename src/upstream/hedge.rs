//! Hedging: a request that waits long for its answer is sent to a second endpoint too.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Permit, Upstream};

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

impl Permit {
    /// The attempt is given up after it has waited so long: the endpoint would have taken longer than that. `is_long` says that
    /// it had its time, by the measure of hedges.
    pub fn waited(&self, time: Duration, is_long: bool, now: Instant) {
        let endpoint = self.endpoint();
        let latency = &endpoint.standing().latency;
        if time.as_secs_f64() > latency.estimate(now) {
            latency.record(now, time);
        }
        if is_long {
            endpoint.common().learn(time, now);
        }
    }
}
