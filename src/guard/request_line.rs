//! `method SP request-target SP HTTP-version` (RFC 9112 3), with exactly one space each.

use super::{Refusal, authority::Authority, field};
use memchr::{memchr, memchr2, memrchr};
use std::ops::Range;

/// Longest method accepted, in bytes. The longest registered one has 17.
pub(super) const MAX_METHOD: usize = 32;

const HTTP2_PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0";

/// Version of an accepted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

/// Form of an accepted request target (RFC 9112 3.2). Authority-form is missing: it belongs to CONNECT, which
/// is always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `*`, of OPTIONS
    Asterisk,
}

/// An accepted request line. Ranges are offsets in the line.
#[derive(Debug, Clone)]
pub(super) struct RequestLine {
    pub method: Range<usize>,
    pub target: Range<usize>,
    pub form: TargetForm,
    pub version: Version,
    pub authority: Option<TargetAuthority>,
}

/// The authority of an absolute-form target.
#[derive(Debug, Clone)]
pub(super) struct TargetAuthority {
    pub at: Range<usize>,
    pub default_port: u16,
}

impl RequestLine {
    /// Parses one line, without its CRLF; the target may have `uri_bytes` bytes.
    pub fn parse(line: &[u8], uri_bytes: usize) -> Result<Self, Refusal> {
        let method = method(line)?;
        let (target, version) = split_target(line.get(method.len() + 1..).unwrap_or_default())?;
        if line == HTTP2_PREFACE_LINE {
            return Err(Refusal::Http2Preface);
        }
        let version = parse_version(version)?;
        if method == b"CONNECT" {
            return Err(Refusal::ConnectNotAllowed);
        }
        if target.len() > uri_bytes {
            return Err(Refusal::TargetTooLong);
        }
        check_target_characters(target)?;
        let (form, authority) = parse_form(method, target)?;
        let at = method.len() + 1;
        Ok(Self {
            method: 0..method.len(),
            target: at..at + target.len(),
            form,
            version,
            authority: authority.map(|a| a.shifted(at)),
        })
    }

    /// The same request line with its offsets counted from `by` bytes earlier.
    pub fn shifted(self, by: usize) -> Self {
        Self {
            method: shift(self.method, by),
            target: shift(self.target, by),
            authority: self.authority.map(|a| a.shifted(by)),
            ..self
        }
    }
}

impl TargetAuthority {
    fn shifted(self, by: usize) -> Self {
        Self { at: shift(self.at, by), ..self }
    }
}

/// What is wrong with a request line too long to be read: its method, or else its target.
pub(super) fn why_too_long(prefix: &[u8]) -> Refusal {
    method(prefix).err().unwrap_or(Refusal::TargetTooLong)
}

/// Says what a control character breaks in a request line that begins with `prefix` and ends with it.
pub(super) fn why_control(prefix: &[u8]) -> Refusal {
    method(prefix).err().unwrap_or(Refusal::BadTarget)
}

/// Refuses what cannot begin a request, before a line end that may never come.
pub(super) fn check_first_byte(byte: u8) -> Result<(), Refusal> {
    const TLS_HANDSHAKE_RECORD: u8 = 0x16;
    match byte {
        TLS_HANDSHAKE_RECORD => Err(Refusal::TlsOnPlaintext),
        b' ' | b'\t' => Err(Refusal::LeadingWhitespace),
        b'\r' | b'\n' => Ok(()),
        _ if field::is_tchar(byte) => Ok(()),
        _ => Err(Refusal::BadMethod),
    }
}

fn method(line: &[u8]) -> Result<&[u8], Refusal> {
    let end = line.iter().position(|&b| !field::is_tchar(b)).unwrap_or(line.len());
    match line.get(end) {
        None | Some(b' ') if (1..=MAX_METHOD).contains(&end) => Ok(&line[..end]),
        Some(b'\t') => Err(Refusal::RequestLineWhitespace),
        _ => Err(Refusal::BadMethod),
    }
}

/// Splits what follows the method at its last space, so that a space inside the target is told from one around it.
fn split_target(rest: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let Some(space) = memrchr(b' ', rest) else {
        return Err(match rest {
            [] => Refusal::MissingTarget,
            _ if rest.starts_with(b"HTTP/") => Refusal::MissingTarget,
            _ if memchr(b'\t', rest).is_some() => Refusal::RequestLineWhitespace,
            _ => Refusal::BadVersion,
        });
    };
    let (target, version) = (&rest[..space], &rest[space + 1..]);
    let padded = |part: &[u8]| {
        part.first().copied().is_some_and(field::is_ows) || part.last().copied().is_some_and(field::is_ows)
    };
    if padded(target) || padded(version) || version.is_empty() {
        return Err(Refusal::RequestLineWhitespace);
    }
    if target.is_empty() {
        return Err(Refusal::MissingTarget);
    }
    Ok((target, version))
}

fn parse_version(version: &[u8]) -> Result<Version, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::UnsupportedVersion),
        _ => Err(Refusal::BadVersion),
    }
}

const IN_PATH: u8 = 1;
const IN_QUERY: u8 = 2;

/// Where a byte may stand in a target. Wider than RFC 3986 by what browsers and URI libraries leave as it is;
/// what those would re-spell on the way has two spellings, and is refused.
const TARGET_CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = match byte as u8 {
            b'#' | b'"' | b'<' | b'>' => 0,
            b'`' => IN_QUERY,
            _ => IN_PATH | IN_QUERY,
        };
        byte += 1;
    }
    table
};

pub(super) fn check_target_characters(target: &[u8]) -> Result<(), Refusal> {
    let (path, query) = target.split_at(memchr(b'?', target).unwrap_or(target.len()));
    let bad =
        |part: &[u8], place: u8| part.iter().copied().find(|&b| TARGET_CLASS[usize::from(b)] & place == 0);
    match bad(path, IN_PATH).or_else(|| bad(query, IN_QUERY)) {
        None => Ok(()),
        Some(b'#') => Err(Refusal::FragmentInTarget),
        Some(_) => Err(Refusal::BadTarget),
    }
}

fn parse_form(method: &[u8], target: &[u8]) -> Result<(TargetForm, Option<TargetAuthority>), Refusal> {
    match target {
        [b'/', ..] => Ok((TargetForm::Origin, None)),
        b"*" if method == b"OPTIONS" => Ok((TargetForm::Asterisk, None)),
        b"*" => Err(Refusal::AsteriskTarget),
        _ => Ok((TargetForm::Absolute, Some(target_authority(target)?))),
    }
}

fn target_authority(target: &[u8]) -> Result<TargetAuthority, Refusal> {
    let scheme_end = memchr(b':', target).ok_or(Refusal::BadTargetForm)?;
    let (scheme, rest) = target.split_at(scheme_end);
    let rest = rest.strip_prefix(b"://").ok_or(Refusal::BadTargetForm)?;
    let default_port = match scheme {
        _ if scheme.eq_ignore_ascii_case(b"http") => 80,
        _ if scheme.eq_ignore_ascii_case(b"https") => 443,
        _ => return Err(Refusal::UnsupportedScheme),
    };
    let len = memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    Authority::parse(&rest[..len]).ok_or(Refusal::BadTargetAuthority)?;
    let start = scheme_end + "://".len();
    Ok(TargetAuthority { at: start..start + len, default_port })
}

fn shift(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<RequestLine, Refusal> {
        RequestLine::parse(line.as_bytes(), 64)
    }

    #[test]
    fn parts_are_located() {
        let line = "GET http://a.example:8080/x?y HTTP/1.1";
        let parsed = parse(line).unwrap();
        assert_eq!(&line[parsed.method], "GET");
        assert_eq!(&line[parsed.target], "http://a.example:8080/x?y");
        assert_eq!(&line[parsed.authority.unwrap().at], "a.example:8080");
        assert_eq!((parsed.form, parsed.version), (TargetForm::Absolute, Version::Http11));
    }

    #[test]
    fn refusals_are_told_apart() {
        use Refusal::*;
        let long = format!("GET /{} HTTP/1.1", "a".repeat(64));
        for (line, refusal) in [
            ("GET", MissingTarget),
            ("GET ", MissingTarget),
            ("GET HTTP/1.1", MissingTarget),
            ("GET  HTTP/1.1", MissingTarget),
            ("GET /", BadVersion),
            ("GET  / HTTP/1.1", RequestLineWhitespace),
            ("GET /  HTTP/1.1", RequestLineWhitespace),
            ("GET / HTTP/1.1 ", RequestLineWhitespace),
            ("GET\t/ HTTP/1.1", RequestLineWhitespace),
            ("GET /\tHTTP/1.1", RequestLineWhitespace),
            ("GET / HTTP/1.1\t", RequestLineWhitespace),
            ("GET /a b HTTP/1.1", BadTarget),
            ("GET /\0 HTTP/1.1", BadTarget),
            ("GET /ä HTTP/1.1", BadTarget),
            ("GET /\"q\" HTTP/1.1", BadTarget),
            ("GET /` HTTP/1.1", BadTarget),
            ("GET /#top HTTP/1.1", FragmentInTarget),
            ("G(T / HTTP/1.1", BadMethod),
            ("CONNECT a:443 HTTP/1.1", ConnectNotAllowed),
            ("GET a:443 HTTP/1.1", BadTargetForm),
            ("GET x HTTP/1.1", BadTargetForm),
            ("GET http:/a HTTP/1.1", BadTargetForm),
            ("GET ** HTTP/1.1", BadTargetForm),
            ("GET * HTTP/1.1", AsteriskTarget),
            ("GET ftp://a/ HTTP/1.1", UnsupportedScheme),
            ("GET http:///x HTTP/1.1", BadTargetAuthority),
            ("GET http://u@a/ HTTP/1.1", BadTargetAuthority),
            ("GET http://a\\b/ HTTP/1.1", BadTargetAuthority),
            ("GET / http/1.1", BadVersion),
            ("GET / HTTP/1.10", BadVersion),
            ("GET / HTTP/2", BadVersion),
            ("GET / HTTP/1.2", UnsupportedVersion),
            ("GET / HTTP/0.9", UnsupportedVersion),
            ("GET / HTTP/2.0", UnsupportedVersion),
            ("PRI * HTTP/2.0", Http2Preface),
            (&long, TargetTooLong),
        ] {
            assert_eq!(parse(line).err(), Some(refusal), "{line:?}");
        }
    }

    #[test]
    fn odd_but_plain_lines_pass() {
        for line in [
            "M-SEARCH / HTTP/1.1",
            "get / HTTP/1.0",
            "OPTIONS * HTTP/1.1",
            "GET //a HTTP/1.1",
            "GET /a?b=`|{}^[]\\ HTTP/1.1",
            "GET HTTPS://A.example?q HTTP/1.1",
            "GET /%2e%2E/%zz HTTP/1.1",
        ] {
            assert!(parse(line).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn an_overlong_line_is_blamed_on_its_method_or_its_target() {
        assert_eq!(why_too_long(&[b'A'; 100]), Refusal::BadMethod);
        assert_eq!(why_too_long(b"GET /aaaaaaaaaaaa"), Refusal::TargetTooLong);
    }
}
