//! Bytes as log lines carry them: nothing a client sends can end a line, close a quote or move a terminal's cursor.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const HEX: [u8; 16] = *b"0123456789abcdef";

/// Appends `bytes` as a JSON string (RFC 8259), quotes included. Invalid UTF-8 becomes U+FFFD; control characters,
/// DEL, the C1 set and the two Unicode line separators are escaped, too, since a log line ends up on terminals.
pub(super) fn json_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    json_escaped(out, bytes);
    out.push(b'"');
}

/// [`json_string`] without its quotes.
#[inline]
pub(super) fn json_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        json_chars(out, bytes);
    }
}

#[cold]
fn json_chars(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| json_char(out, c));
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn json_char(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
            let code = c as usize;
            out.extend_from_slice(b"\\u");
            out.extend_from_slice(&[12, 8, 4, 0].map(|shift| HEX[(code >> shift) & 0xf]));
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Appends `bytes` for a line of plain text: quotes, backslashes and all that is not printable ASCII become `\xNN`.
pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    for &byte in bytes {
        if is_plain_byte(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
    }
}

/// Appends text meant for people, any script, with its control characters made visible (`\n`, `\u{1b}`).
pub(super) fn visible(out: &mut Vec<u8>, text: &str) {
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// Appends an unsigned number in decimal. Those below a million, which are most, are spelled without copying a length
/// that the compiler does not know.
#[inline(always)]
pub(super) fn integer(out: &mut Vec<u8>, number: u64) {
    match number {
        0..1000 => up_to_three_digits(out, number as u32),
        1000..1_000_000 => {
            up_to_three_digits(out, number as u32 / 1000);
            out.extend_from_slice(&three_digits(number as u32 % 1000));
        }
        _ => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
    }
}

/// Appends milliseconds with three decimals: `12.345`.
pub(super) fn millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = duration.subsec_micros();
    match duration.as_secs() {
        0 => up_to_three_digits(out, micros / 1000),
        seconds => {
            integer(out, seconds);
            out.extend_from_slice(&three_digits(micros / 1000));
        }
    }
    let [a, b, c] = three_digits(micros % 1000);
    out.extend_from_slice(&[b'.', a, b, c]);
}

/// Appends `number` (below 1000) without leading zeros.
#[inline(always)]
fn up_to_three_digits(out: &mut Vec<u8>, number: u32) {
    match number {
        0..10 => out.push(digit(number)),
        10..100 => out.extend_from_slice(&[digit(number / 10), digit(number % 10)]),
        _ => out.extend_from_slice(&three_digits(number)),
    }
}

/// `number` (below 1000) with its leading zeros.
#[inline]
pub(super) const fn three_digits(number: u32) -> [u8; 3] {
    [digit(number / 100), digit(number / 10 % 10), digit(number % 10)]
}

/// The digit for `number` (below 10).
const fn digit(number: u32) -> u8 {
    b'0' + number as u8
}

/// Appends an address as [`IpAddr`] displays it. IPv4 is spelled here: the formatting machinery costs more than a
/// whole line may.
pub(super) fn ip(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(v4) = address else {
        let _ = write!(out, "{address}");
        return;
    };
    let [first, rest @ ..] = v4.octets();
    up_to_three_digits(out, first.into());
    for octet in rest {
        out.push(b'.');
        up_to_three_digits(out, octet.into());
    }
}

/// Appends an address and port as [`SocketAddr`] displays them.
pub(super) fn socket(out: &mut Vec<u8>, address: SocketAddr) {
    if address.is_ipv6() {
        let _ = write!(out, "{address}");
        return;
    }
    ip(out, address.ip());
    out.push(b':');
    integer(out, address.port().into());
}

/// Whether every byte stands for itself in both encodings. Eight are looked at in one go; the last eight may overlap
/// those before them, so that none is left over.
pub(super) fn is_plain(bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk::<8>() {
        let are_plain = |word: &[u8; 8]| are_plain(u64::from_ne_bytes(*word));
        return bytes.as_chunks::<8>().0.iter().all(are_plain) && are_plain(last);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let [first, last] = [first, last].map(|half| u64::from(u32::from_ne_bytes(*half)));
        return are_plain(first << 32 | last);
    }
    bytes.iter().copied().all(is_plain_byte)
}

/// [`is_plain_byte`] for eight at once. In the lowest byte that is not plain, one of these has its highest bit set:
/// what is too low after the subtraction of the lowest plain one, a quote or backslash after that of one, what is too
/// high after either of the sums. Nothing is carried or borrowed out of a plain byte, and its highest bits are clear.
#[inline]
const fn are_plain(word: u64) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let from_space = word.wrapping_sub(EACH * b' ' as u64);
    let from_quote = (word ^ (EACH * b'"' as u64)).wrapping_sub(EACH);
    let from_backslash = (word ^ (EACH * b'\\' as u64)).wrapping_sub(EACH);
    let to_delete = word.wrapping_add(EACH);
    (from_space | from_quote | from_backslash | to_delete) & (EACH * 0x80) == 0
}

#[inline]
fn is_plain_byte(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_escapes_what_json_and_terminals_need() {
        let hostile = "a\"b\\c\n\r\t\u{0}\u{1b}[2J\u{7f}\u{85}\u{2028}é".as_bytes();
        let json = written(|out| json_string(out, hostile));
        assert_eq!(json, r#""a\"b\\c\n\r\t\u0000\u001b[2J\u007f\u0085\u2028é""#);
        assert_eq!(written(|out| json_string(out, b"a\xffb\xc3")), "\"a\u{fffd}b\u{fffd}\"");
    }

    #[test]
    fn text_escapes_every_byte_that_is_not_printable_ascii() {
        assert_eq!(written(|out| text(out, b"a \"b\"\\\n\xc3\xa9")), r"a \x22b\x22\x5c\x0a\xc3\xa9");
    }

    #[test]
    fn visible_keeps_scripts_and_shows_controls() {
        assert_eq!(written(|out| visible(out, "größe \"x\"\n\u{1b}")), "größe \"x\"\\n\\u{1b}");
    }

    #[test]
    fn millis_have_three_decimals() {
        for (micros, shown) in
            [(0, "0.000"), (7, "0.007"), (1_234_567, "1234.567"), (1_050, "1.050"), (9_000_000, "9000.000")]
        {
            assert_eq!(written(|out| millis(out, Duration::from_micros(micros))), shown);
        }
        assert_eq!(written(|out| millis(out, Duration::MAX)), "18446744073709551615999.999");
    }

    #[test]
    fn one_byte_that_is_not_plain_is_found_wherever_it_stands() {
        for (length, byte) in (0..=25).flat_map(|length| (0..=u8::MAX).map(move |byte| (length, byte))) {
            for (at, around) in (0..length).flat_map(|at| [(at, b' '), (at, b'~'), (at, byte)]) {
                let mut bytes = vec![around; length];
                bytes[at] = byte;
                assert_eq!(is_plain(&bytes), bytes.iter().copied().all(is_plain_byte), "{bytes:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn integers_are_spelled_as_std_spells_them(number: u64, shift in 0..64) {
            let number = number >> shift;
            prop_assert_eq!(written(|out| integer(out, number)), number.to_string());
        }

        #[test]
        fn json_reads_back_as_the_lossy_text(bytes: Vec<u8>) {
            let json = written(|out| json_string(out, &bytes));
            prop_assert!(!json.chars().any(char::is_control));
            let read: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn text_is_printable_and_can_be_undone(bytes: Vec<u8>) {
            let line = written(|out| text(out, &bytes));
            prop_assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"'));
            let mut parts = line.split("\\x");
            let mut read = parts.next().unwrap().as_bytes().to_vec();
            for part in parts {
                read.push(u8::from_str_radix(&part[..2], 16).unwrap());
                read.extend_from_slice(&part.as_bytes()[2..]);
            }
            prop_assert_eq!(read, bytes);
        }

        #[test]
        fn addresses_are_spelled_as_std_spells_them(address: IpAddr, port: u16) {
            prop_assert_eq!(written(|out| ip(out, address)), address.to_string());
            let endpoint = SocketAddr::new(address, port);
            prop_assert_eq!(written(|out| socket(out, endpoint)), endpoint.to_string());
        }
    }
}
