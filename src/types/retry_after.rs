//! `Retry-After`: how servers say when to come back.

use std::time::{Duration, SystemTime};

/// How long a server's `Retry-After` asks to wait (RFC 9110, section 10.2.3: seconds or a date).
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
        fn any_value_is_read_or_refused(value in ".*") {
            let _ = retry_after(&value, SystemTime::UNIX_EPOCH);
        }
    }
}
