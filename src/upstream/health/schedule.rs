//! When an endpoint is probed next.
//!
//! 1. The first probe is soon: anywhere within one second, or one interval if that is shorter.
//! 2. The pause after it is anywhere between a half and one and a half of an interval: probes of endpoints that became known
//!    together are spread evenly from then on.
//! 3. Every later pause is an interval, 10 % longer or shorter, so that many gateways do not fall into step.
//! 4. An endpoint that failed five more probes after it was found unhealthy is asked less often: the pause doubles with every
//!    further failure, up to five intervals. One probe that passes ends that.

use std::time::Duration;

use super::Checked;

/// The longest that a first probe waits.
const SOON: Duration = Duration::from_secs(1);
/// How much longer or shorter a pause may be.
const JITTER: f64 = 0.1;
/// Failures of an unhealthy endpoint until it is asked less often.
const PATIENCE: u32 = 5;
/// The longest pause of an endpoint that is asked less often, in intervals.
const MOST_INTERVALS: u32 = 5;
/// The shortest interval.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The pause before the first probe. The `dice` show 0 to 1.
pub fn first_pause(interval: Duration, dice: f64) -> Duration {
    bounded(interval).min(SOON).mul_f64(shown(dice))
}

/// The pause after a probe that was recorded, between its end and the beginning of the next. `first` is whether it was the
/// first. The `dice` show 0 to 1.
pub fn pause(interval: Duration, checked: &Checked, first: bool, dice: f64) -> Duration {
    let interval = bounded(interval);
    if first {
        return interval.mul_f64(0.5 + shown(dice));
    }
    let jitter = 1.0 - JITTER + 2.0 * JITTER * shown(dice);
    (interval * times(checked.failing())).mul_f64(jitter)
}

/// How many intervals an endpoint is left alone that failed so often since it is unhealthy.
fn times(failing: u32) -> u32 {
    match failing.checked_sub(PATIENCE) {
        None => 1,
        Some(over) => 2u32.saturating_pow(over.saturating_add(1)).min(MOST_INTERVALS),
    }
}

fn bounded(interval: Duration) -> Duration {
    interval.clamp(SHORTEST, LONGEST)
}

/// Dice that show something else are taken for the middle.
fn shown(dice: f64) -> f64 {
    if (0.0..=1.0).contains(&dice) { dice } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::super::{ProbeError, Probed, Thresholds};
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn failed(checked: &Checked, times: usize) {
        let thresholds = Thresholds { healthy_after: 1, unhealthy_after: 1 };
        for _ in 0..times {
            let probed =
                Probed { at: SystemTime::now(), took: Duration::ZERO, outcome: Err(ProbeError::Timeout) };
            checked.record(&thresholds, probed);
        }
    }

    #[test]
    fn the_dead_are_asked_less_often() {
        let mut seen = Vec::new();
        for failures in [0, 1, 5, 6, 7, 8, 100] {
            let checked = Checked::default();
            failed(&checked, failures);
            seen.push(pause(INTERVAL, &checked, false, 0.5).as_secs());
        }
        assert_eq!(seen, [10, 10, 10, 20, 40, 50, 50]);
    }

    #[test]
    fn one_pass_ends_that() {
        let checked = Checked::default();
        failed(&checked, 20);
        let thresholds = Thresholds { healthy_after: 3, unhealthy_after: 1 };
        let probed = Probed { at: SystemTime::now(), took: Duration::ZERO, outcome: Ok(()) };
        checked.record(&thresholds, probed);
        assert!(!checked.is_healthy());
        assert_eq!(pause(INTERVAL, &checked, false, 0.5), INTERVAL);
    }

    #[test]
    fn an_interval_of_nothing_is_no_storm() {
        assert_eq!(pause(Duration::ZERO, &Checked::default(), false, 0.5), SHORTEST);
        assert_eq!(pause(Duration::MAX, &Checked::default(), false, 0.5), LONGEST);
        assert_eq!(pause(INTERVAL, &Checked::default(), false, f64::NAN), INTERVAL);
    }

    proptest! {
        #[test]
        fn pauses_are_within_bounds(dice in 0.0..=1.0, millis in 100u64..100_000, failures in 0usize..50) {
            let interval = Duration::from_millis(millis);
            prop_assert!(first_pause(interval, dice) <= interval.min(SOON));
            let checked = Checked::default();
            failed(&checked, failures);
            let spread = pause(interval, &checked, true, dice);
            prop_assert!(spread >= interval / 2 && spread <= interval * 3 / 2);
            let later = pause(interval, &checked, false, dice);
            prop_assert!(later >= interval.mul_f64(0.899) && later <= interval.mul_f64(5.501));
        }
    }
}
