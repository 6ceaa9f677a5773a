//! Bytes as log lines carry them: nothing a client sends can end a line, close a quote or move a terminal's cursor.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const HEX: [u8; 16] = *b"0123456789abcdef";

/// Appends `bytes` as a JSON string (RFC 8259), quotes included. Invalid UTF-8 becomes U+FFFD; control characters,
/// DEL, the C1 set and the two Unicode line separators are escaped, too, since a log line ends up on terminals.
#[inline]
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
        return;
    }
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

/// Appends an unsigned number in decimal.
#[inline]
pub(super) fn integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends milliseconds with three decimals: `12.345`.
pub(super) fn millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    integer(out, micros / 1000);
    out.push(b'.');
    three_digits(out, micros % 1000);
}

/// Appends `number` (below 1000) with its leading zeros.
#[inline]
pub(super) fn three_digits(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&[100, 10, 1].map(|unit| HEX[(number / unit % 10) as usize]));
}

/// Appends an address as [`IpAddr`] displays it. IPv4 is spelled here: the formatting machinery costs more than a
/// whole line may.
pub(super) fn ip(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(v4) = address else {
        let _ = write!(out, "{address}");
        return;
    };
    let [first, rest @ ..] = v4.octets();
    integer(out, first);
    for octet in rest {
        out.push(b'.');
        integer(out, octet);
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
    integer(out, address.port());
}

/// Whether every byte stands for itself in both encodings. Looks at all of them so that the compiler can look at
/// sixteen at a time.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, &byte| plain & is_plain_byte(byte))
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
        for (micros, shown) in [(0, "0.000"), (7, "0.007"), (1_234_567, "1234.567"), (1_050, "1.050")] {
            assert_eq!(written(|out| millis(out, Duration::from_micros(micros))), shown);
        }
        assert_eq!(written(|out| millis(out, Duration::MAX)), "18446744073709551.615");
    }

    proptest! {
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
