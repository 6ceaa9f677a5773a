//! Pauses between attempts: what the configuration says, and what the upstream asks for.

use std::time::{Duration, SystemTime};

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

/// How long an upstream's `Retry-After` asks to wait (RFC 9110, section 10.2.3: seconds or a date).
///
/// `None` when it is neither. A date that has passed asks for no pause.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that are no number are too many.
        return Some(value.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
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

    #[test]
    fn reads_seconds_and_dates() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |value| retry_after(value, now);
        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read(" 5 "), Some(Duration::from_secs(5)));
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("99999999999999999999999999"), Some(Duration::MAX));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:40 GMT"), Some(Duration::from_secs(3)));
        assert_eq!(read("Sunday, 06-Nov-94 08:49:40 GMT"), Some(Duration::from_secs(3)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        assert!(
            read("Sat, 06 Nov 2094 08:49:00 GMT")
                .is_some_and(|wait| wait > Duration::from_secs(3_000_000_000))
        );
        for value in ["", " ", "-1", "+1", "1.5", "soon", "5s"] {
            assert_eq!(read(value), None, "{value}");
        }
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

        #[test]
        fn any_value_is_read_or_refused(value in ".*") {
            let _ = retry_after(&value, SystemTime::UNIX_EPOCH);
        }
    }
}
