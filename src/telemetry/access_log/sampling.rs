//! Which exchanges get a line: `sample: { success: 10%, slow: 1s, errors: 100% }`.

use std::time::Duration;

/// Shares of lines kept. The default keeps every line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Share (0 to 1) kept of exchanges with a status below 400 that were not slow.
    pub success: f64,
    /// Exchanges that took so long or longer are always kept.
    pub slow: Option<Duration>,
    /// Share (0 to 1) kept of exchanges with status 400 and above, or with none at all.
    pub errors: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { success: 1.0, slow: None, errors: 1.0 }
    }
}

impl Sampling {
    /// Whether an exchange is logged. `random` draws from `0.0..1.0`, and only when the answer hangs on it.
    pub fn keeps(&self, status: u16, duration: Duration, random: impl FnOnce() -> f64) -> bool {
        if self.slow.is_some_and(|slow| duration >= slow) {
            return true;
        }
        let share = if (1..400).contains(&status) { self.success } else { self.errors };
        share >= 1.0 || (share > 0.0 && random() < share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLING: Sampling = Sampling { success: 0.1, slow: Some(Duration::from_secs(1)), errors: 0.5 };
    const FAST: Duration = Duration::from_millis(5);

    fn undrawn() -> f64 {
        panic!("the answer was certain")
    }

    #[test]
    fn each_share_has_its_statuses() {
        for (status, random, kept) in [
            (200, 0.09, true),
            (200, 0.1, false),
            (399, 0.49, false),
            (400, 0.49, true),
            (503, 0.5, false),
            (0, 0.49, true),
        ] {
            assert_eq!(SAMPLING.keeps(status, FAST, || random), kept, "{status} at {random}");
        }
    }

    #[test]
    fn the_slow_are_kept_from_the_limit_on() {
        assert!(SAMPLING.keeps(200, Duration::from_secs(1), undrawn));
        assert!(SAMPLING.keeps(500, Duration::from_secs(9), undrawn));
        assert!(!SAMPLING.keeps(200, Duration::from_micros(999_999), || 0.5));
    }

    #[test]
    fn certainty_draws_nothing() {
        assert!(Sampling::default().keeps(200, FAST, undrawn));
        assert!(!Sampling { success: 0.0, ..SAMPLING }.keeps(200, FAST, undrawn));
    }

    proptest! {
        #[test]
        fn a_larger_share_keeps_whatever_a_smaller_one_did(
            status in 100..600_u16, low in 0.0..1.0_f64, high in 0.0..1.0_f64, random in 0.0..1.0_f64,
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let keeps = |share| Sampling { success: share, slow: None, errors: share }.keeps(status, FAST, || random);
            prop_assert!(!keeps(low) || keeps(high));
        }
    }
}
