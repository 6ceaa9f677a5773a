//! Pauses between attempts.

use std::time::Duration;

/// How long to wait before an attempt is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backoff {
    /// Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"): anything up to a ceiling that doubles
    /// with each attempt, so that clients that failed together do not come back together.
    Exponential {
        /// The ceiling of the first pause.
        base: Duration,
        /// What no ceiling exceeds.
        max: Duration,
    },
    /// Always as long.
    Fixed(Duration),
}

impl Backoff {
    /// The pause before the repetition with this number, counted from one. `dice` is a random number of 0 to 1.
    pub fn pause(self, attempt: u32, dice: f64) -> Duration {
        match self {
            Self::Fixed(pause) => pause,
            Self::Exponential { base, max } => {
                let times = 2_u32.checked_pow(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
                let ceiling = base.saturating_mul(times).min(max);
                let pause = Duration::try_from_secs_f64(ceiling.as_secs_f64() * dice.clamp(0.0, 1.0));
                pause.map_or(ceiling, |pause| pause.min(ceiling))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLIS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn the_ceiling_doubles_up_to_its_most() {
        let backoff = Backoff::Exponential { base: MILLIS(25), max: MILLIS(250) };
        let ceilings: Vec<_> = (0..7).map(|attempt| backoff.pause(attempt, 1.0).as_millis()).collect();
        assert_eq!(ceilings, [25, 25, 50, 100, 200, 250, 250]);
        assert_eq!(backoff.pause(u32::MAX, 1.0), MILLIS(250));
        assert_eq!(backoff.pause(3, 0.0), Duration::ZERO);
        assert_eq!(backoff.pause(3, 0.5), MILLIS(50));
    }

    #[test]
    fn a_fixed_pause_knows_no_dice() {
        assert_eq!(Backoff::Fixed(MILLIS(10)).pause(9, 0.1), MILLIS(10));
    }

    proptest! {
        #[test]
        fn no_pause_exceeds_its_ceiling(
            base in any::<Duration>(),
            max in any::<Duration>(),
            attempt in any::<u32>(),
            dice in prop_oneof![0.0..=1.0, any::<f64>()],
        ) {
            let pause = Backoff::Exponential { base, max }.pause(attempt, dice);
            prop_assert!(pause <= max);
            if attempt <= 1 {
                prop_assert!(pause <= base);
            }
        }
    }
}
