//! What gRPC asks of a gateway (gRPC over HTTP/2): its requests told from others, its deadlines, and errors in its words.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::Reason;

/// How long the caller will wait.
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How a call ended.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What a person is told of it.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The media type of gRPC; formats follow a plus.
const MEDIA_TYPE: &[u8] = b"application/grpc";
/// The units of a timeout, the largest first, with their nanoseconds.
const UNITS: [(u8, u64); 6] = [
    (b'H', 3_600_000_000_000),
    (b'M', 60_000_000_000),
    (b'S', 1_000_000_000),
    (b'm', 1_000_000),
    (b'u', 1_000),
    (b'n', 1),
];
/// A timeout has at most eight digits.
const MOST: u64 = 99_999_999;

/// Whether these are the fields of a gRPC message, and not of gRPC-Web.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let Some((start, rest)) = kind.split_at_checked(MEDIA_TYPE.len()) else { return false };
    start.eq_ignore_ascii_case(MEDIA_TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// How long the caller will wait, where it says so in a way that can be understood.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(TIMEOUT)?.as_bytes().split_last()?;
    let (_, nanos) = UNITS.iter().find(|(letter, _)| letter == unit)?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(Duration::from_nanos(count.saturating_mul(*nanos)))
}

/// How a call ended, if these fields say so.
pub fn status(fields: &HeaderMap) -> Option<u16> {
    fields.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// A timeout in the smallest unit that has room for it, so that it is never longer than it was.
pub fn spell(timeout: Duration) -> HeaderValue {
    let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let (unit, size) =
        UNITS.iter().rev().find(|(_, size)| nanos / size <= MOST).copied().unwrap_or((b'H', UNITS[0].1));
    let text = format!("{}{}", (nanos / size).min(MOST), char::from(unit));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0n"))
}

/// The status of a call that ends with this answer of the gateway's own.
pub fn status_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        200..300 => 0,
        400 | 500 => 13,
        401 => 16,
        403 => 7,
        404 | 405 | 501 => 12,
        408 | 504 => 4,
        409 => 10,
        412 => 9,
        413 | 414 | 429 | 431 => 8,
        502 | 503 => 14,
        _ => 2,
    }
}

/// The fields that end a call which the gateway answers itself.
pub fn refusal(status: StatusCode, reason: Option<Reason>) -> [(HeaderName, HeaderValue); 2] {
    let message = reason.map(|reason| format!("{}: {}", reason.code(), reason.title())).unwrap_or_default();
    ending(status_of(status), &message)
}

/// The fields that end a call.
pub fn ending(status: u8, message: &str) -> [(HeaderName, HeaderValue); 2] {
    [(STATUS, HeaderValue::from(u16::from(status))), (MESSAGE, spell_message(message))]
}

/// Bytes beyond printable ASCII, and `%`, are percent-encoded.
fn spell_message(message: &str) -> HeaderValue {
    let mut spelled = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => spelled.push(char::from(byte)),
            _ => spelled.push_str(&format!("%{byte:02X}")),
        }
    }
    // Printable ASCII is always a valid value.
    HeaderValue::try_from(spelled).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn its_media_types_are_known() {
        for (kind, is) in [
            ("application/grpc", true),
            ("Application/gRPC", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=x", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(&with(CONTENT_TYPE, kind)), is, "{kind}");
        }
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_spells_them() {
        for (text, nanos) in [
            ("1H", Some(3_600_000_000_000)),
            ("2M", Some(120_000_000_000)),
            ("3S", Some(3_000_000_000)),
            ("250m", Some(250_000_000)),
            ("7u", Some(7_000)),
            ("99999999n", Some(99_999_999)),
            ("100000000n", None),
            ("1", None),
            ("m", None),
            ("-1m", None),
            ("1h", None),
            ("", None),
        ] {
            assert_eq!(timeout(&with(TIMEOUT, text)), nanos.map(Duration::from_nanos), "{text}");
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(spell_message("50% größe\n"), "50%25 gr%C3%B6%C3%9Fe%0A");
    }

    proptest! {
        #[test]
        fn a_spelled_timeout_is_read_back_no_longer_and_hardly_shorter(nanos in 0..u64::MAX / 2) {
            let given = Duration::from_nanos(nanos);
            let read = timeout(&HeaderMap::from_iter([(TIMEOUT, spell(given))])).unwrap();
            prop_assert!(read <= given);
            prop_assert!(given - read <= given / 100_000 + Duration::from_nanos(1) || given > Duration::from_secs(360_000_000_000));
        }
    }
}
