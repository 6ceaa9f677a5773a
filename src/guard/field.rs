//! The syntax of one field line (RFC 9112 5), the same for headers and trailers, and the names with a meaning
//! that a sender must not be able to smuggle or to strip.

use super::Refusal;
use memchr::memchr;
use std::ops::Range;

/// One field line taken apart. The name is a token; the value has no control characters and no outer whitespace.
pub(super) struct Field<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// Where the value lies in the line.
    pub value_at: Range<usize>,
}

/// Parses one line, without its CRLF. The caller has already refused folded lines and control characters.
#[inline]
pub(super) fn parse(line: &[u8]) -> Result<Field<'_>, Refusal> {
    let name = parse_name(line)?;
    let value_at = trim_ows(line, name.len() + 1);
    Ok(Field { name, value: &line[value_at.clone()], value_at })
}

/// Judges a name that came without a line around it.
pub(super) fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if !is_token(name) {
        return Err(Refusal::BadFieldName);
    }
    let plain = name.iter().all(|&b| PLAIN_NAME[usize::from(b)]);
    if !plain && is_lookalike(name) { Err(Refusal::LookalikeFieldName) } else { Ok(()) }
}

/// Offset of the first control character but HTAB: a line end, or a byte that no line may have.
///
/// Takes eight bytes at a time, by a test that may flag too many (HTAB, and neighbours through a carry) but never
/// too few: so the lowest flagged byte is looked at, and the scan goes on behind it if it was flagged wrongly.
#[inline]
pub(super) fn find_control(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let flags = flag_controls(u64::from_le_bytes(*word));
        if flags == 0 {
            at += 8;
            continue;
        }
        at += flags.trailing_zeros() as usize / 8;
        if is_control(bytes[at]) {
            return Some(at);
        }
        at += 1;
    }
    let tail = bytes.get(at..).unwrap_or_default();
    tail.iter().position(|&b| is_control(b)).map(|found| at + found)
}

/// Whether `byte` is a control character other than HTAB.
pub(super) fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Says where a control character stands in a field line that begins with `line`: behind the colon, or before.
#[cold]
pub(super) fn why_control(line: &[u8]) -> Refusal {
    if memchr(b':', line).is_some() { Refusal::BadFieldValue } else { Refusal::BadFieldName }
}

/// Whether `byte` may stand in a token (RFC 9110 5.6.2).
pub(super) fn is_tchar(byte: u8) -> bool {
    TCHAR[usize::from(byte)]
}

/// Whether `bytes` is a token: one or more `tchar`.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_tchar(b))
}

/// Whether `byte` is optional whitespace: SP or HTAB.
pub(super) fn is_ows(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether the sender may not have `name` removed on the way by naming it in Connection: routing, framing and
/// identity would depend on which hop looks.
pub(super) fn is_protected(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] =
        [b"host", b"content-length", b"transfer-encoding", b"cookie", b"authorization", b"forwarded"];
    NAMES.iter().any(|protected| name.eq_ignore_ascii_case(protected)) || starts_with(name, b"x-forwarded-")
}

/// Whether a field is for the next hop only, or names others that are (RFC 9110 7.6.1; HTTP2-Settings: RFC 7540 3.2.1).
#[inline]
pub(super) fn is_hop_by_hop(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 10] = [
        b"te",
        b"trailer",
        b"upgrade",
        b"connection",
        b"keep-alive",
        b"http2-settings",
        b"proxy-connection",
        b"transfer-encoding",
        b"proxy-authenticate",
        b"proxy-authorization",
    ];
    matches!(name.len(), 2 | 7 | 10 | 14 | 16..=19)
        && NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether `name` may not come after the body (RFC 9110 6.5.1): by then framing, routing, authentication and
/// the handling of the content have been decided without it.
pub(super) fn is_forbidden_trailer(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 19] = [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
        b"max-forwards",
        b"range",
        b"cache-control",
        b"pragma",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"proxy-authorization",
        b"www-authenticate",
        b"set-cookie",
        b"x-real-ip",
        b"x-http-method-override",
    ];
    is_protected(name)
        || starts_with(name, b"if-")
        || NAMES.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

/// Sets the high bit of every byte that is below 0x20 (it goes negative) or is 0x7f (it grows out of ASCII).
fn flag_controls(word: u64) -> u64 {
    const fn each(byte: u8) -> u64 {
        u64::from_le_bytes([byte; 8])
    }
    (word.wrapping_sub(each(0x20)) | word.wrapping_add(each(0x01))) & !word & each(0x80)
}

const TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
            | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// As [`TCHAR`], but for the underscore: names that have one are rare and looked at closely.
const PLAIN_NAME: [bool; 256] = {
    let mut table = TCHAR;
    table[b'_' as usize] = false;
    table
};

/// The name, up to the colon.
#[inline]
fn parse_name(line: &[u8]) -> Result<&[u8], Refusal> {
    match line.iter().position(|&b| !PLAIN_NAME[usize::from(b)]) {
        Some(colon) if colon > 0 && line[colon] == b':' => Ok(&line[..colon]),
        _ => parse_odd_name(line),
    }
}

#[cold]
fn parse_odd_name(line: &[u8]) -> Result<&[u8], Refusal> {
    let name = &line[..memchr(b':', line).ok_or(Refusal::MissingColon)?];
    match name.iter().position(|&b| !is_tchar(b)) {
        _ if name.is_empty() => Err(Refusal::EmptyFieldName),
        None if is_lookalike(name) => Err(Refusal::LookalikeFieldName),
        None => Ok(name),
        Some(end) if end > 0 && name[end..].iter().all(|&b| is_ows(b)) => Err(Refusal::SpaceBeforeColon),
        Some(_) => Err(Refusal::BadFieldName),
    }
}

fn trim_ows(line: &[u8], from: usize) -> Range<usize> {
    let (mut start, mut end) = (from, line.len());
    while start < end && is_ows(line[start]) {
        start += 1;
    }
    while end > start && is_ows(line[end - 1]) {
        end -= 1;
    }
    start..end
}

/// Whether `name`, its dashes and underscores dropped, spells a field that decides framing or routing. CGI-like
/// upstreams read `Content_Length` as `Content-Length`.
fn is_lookalike(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 3] = [b"host", b"contentlength", b"transferencoding"];
    NAMES.iter().any(|guarded| {
        let letters = name.iter().filter(|b| !matches!(b, b'-' | b'_')).map(u8::to_ascii_lowercase);
        letters.eq(guarded.iter().copied())
    })
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, sample::select};

    fn refused(line: &[u8]) -> Option<Refusal> {
        parse(line).err()
    }

    #[test]
    fn value_is_trimmed_and_located() {
        let line = b"X-A: \t two words \t";
        let field = parse(line).unwrap();
        assert_eq!(field.name, b"X-A");
        assert_eq!(field.value, b"two words");
        assert_eq!(&line[field.value_at], b"two words");
        assert_eq!(parse(b"X-A:").unwrap().value, b"");
        assert_eq!(parse(b"X-A: \t ").unwrap().value, b"");
    }

    #[test]
    fn broken_lines_are_told_apart() {
        assert_eq!(refused(b"no colon here"), Some(Refusal::MissingColon));
        assert_eq!(refused(b"nocolon"), Some(Refusal::MissingColon));
        assert_eq!(refused(b": x"), Some(Refusal::EmptyFieldName));
        assert_eq!(refused(b"A : x"), Some(Refusal::SpaceBeforeColon));
        assert_eq!(refused(b"A\t: x"), Some(Refusal::SpaceBeforeColon));
        assert_eq!(refused(b"A B: x"), Some(Refusal::BadFieldName));
        assert_eq!(refused(b"A\x0b: x"), Some(Refusal::BadFieldName));
        assert_eq!(refused(b"\xc3\xa4: x"), Some(Refusal::BadFieldName));
        assert_eq!(why_control(b"A: x\0"), Refusal::BadFieldValue);
        assert_eq!(why_control(b"A\0"), Refusal::BadFieldName);
        assert_eq!(refused(b"A: tab\tinside, \xfc obs-text"), None);
    }

    #[test]
    fn lookalikes_need_an_underscore() {
        for line in [
            &b"Transfer_Encoding: x"[..],
            b"CONTENT_LENGTH: 1",
            b"_Host: a",
            b"host_: a",
            b"Content-_Length:",
        ] {
            assert_eq!(refused(line), Some(Refusal::LookalikeFieldName));
        }
        for line in [&b"Content-Length: 1"[..], b"X_Host_Name: a", b"ContentLength: 1", b"my_header: x"] {
            assert_eq!(refused(line), None);
        }
    }

    #[test]
    fn protected_and_forbidden_names_ignore_case() {
        assert!(is_protected(b"X-FORWARDED-anything"));
        assert!(is_protected(b"Host"));
        assert!(!is_protected(b"x-forwarded"));
        assert!(is_forbidden_trailer(b"If-Match"));
        assert!(is_forbidden_trailer(b"AUTHORIZATION"));
        assert!(!is_forbidden_trailer(b"grpc-status"));
        assert!(!is_forbidden_trailer(b"content-digest"));
    }

    proptest! {
        #[test]
        fn control_search_agrees_with_its_definition(
            bytes in prop::collection::vec(
                prop_oneof![12 => Just(b'a'), 1 => any::<u8>(), 1 => select(&b"\t\x7e\x7f\xff\x1f\x20"[..])],
                0..80,
            ),
        ) {
            prop_assert_eq!(find_control(&bytes), bytes.iter().position(|b| is_control(*b)));
        }
    }
}
