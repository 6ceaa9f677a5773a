//! The fields that the guard acts on: Host, framing, Connection, Upgrade, Expect. It takes them one by one, and
//! keeps what the whole head will be judged by.

use super::{
    BodyFraming, Refusal, Version,
    authority::Authority,
    field::{self, Field},
};
use std::ops::Range;

/// Most options that the Connection fields of one request may list, empty ones included: the proxy engine, which
/// refuses without an answer, takes fewer than ten.
const MAX_CONNECTION_OPTIONS: usize = 9;

/// Longest Content-Length accepted, in digits: those of the largest `i64`.
const MAX_LENGTH_DIGITS: usize = 19;

/// What the fields read so far have said.
#[derive(Debug, Default)]
pub(super) struct Semantics {
    /// Where the value of Host lies in the buffer.
    pub host: Option<Range<usize>>,
    /// How long the name in it is, where that is the canonical one.
    pub plain_name: Option<usize>,
    content_length: Option<u64>,
    chunked: bool,
    connection: Connection,
    upgrade: bool,
    expect_continue: bool,
    hop_by_hop: bool,
}

#[derive(Debug, Default)]
struct Connection {
    options: usize,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl Semantics {
    /// Takes the next field, of a line that begins at `line_at` in the buffer.
    #[inline]
    pub fn take(&mut self, field: &Field<'_>, line_at: usize, version: Version) -> Result<(), Refusal> {
        let is = |name: &[u8]| field.name.eq_ignore_ascii_case(name);
        self.hop_by_hop |= field::is_hop_by_hop(field.name);
        // The length decides most names without comparing them.
        match field.name.len() {
            4 if is(b"host") => {
                let at = line_at + field.value_at.start..line_at + field.value_at.end;
                self.take_host(field.value, at)
            }
            6 if is(b"expect") => self.take_expect(field.value, version),
            7 if is(b"upgrade") => {
                self.upgrade |= !field.value.is_empty();
                Ok(())
            }
            10 if is(b"connection") => self.connection.take(field.value),
            14 if is(b"content-length") => self.take_content_length(field.value),
            17 if is(b"transfer-encoding") => self.take_transfer_encoding(field.value, version),
            _ => Ok(()),
        }
    }

    /// How the body is framed (RFC 9112 6.3).
    pub fn framing(&self) -> BodyFraming {
        match self.content_length {
            _ if self.chunked => BodyFraming::Chunked,
            Some(length) => BodyFraming::Length(length),
            None => BodyFraming::None,
        }
    }

    /// Whether the client wants the connection kept (RFC 9112 9.3).
    pub fn keep_alive(&self, version: Version) -> bool {
        !self.connection.close && (version == Version::Http11 || self.connection.keep_alive)
    }

    /// Whether the client offers to switch protocols. HTTP/1.0 cannot (RFC 9110 7.8).
    pub fn upgrade(&self, version: Version) -> bool {
        version == Version::Http11 && self.upgrade && self.connection.upgrade
    }

    /// Whether the client waits for `100 Continue`. HTTP/1.0 never does (RFC 9110 10.1.1).
    pub fn expect_continue(&self) -> bool {
        self.expect_continue
    }

    /// Whether any field is meant for the next hop only.
    pub fn hop_by_hop(&self) -> bool {
        self.hop_by_hop
    }

    /// An empty Host is legal only where the target URI has no authority (RFC 9112 3.2), and an http URI always
    /// has one: routing an empty host would mean to guess.
    fn take_host(&mut self, value: &[u8], at: Range<usize>) -> Result<(), Refusal> {
        if self.host.is_some() {
            return Err(Refusal::RepeatedHost);
        }
        if value.is_empty() {
            return Err(Refusal::EmptyHost);
        }
        self.plain_name = Authority::parse(value).ok_or(Refusal::BadHost)?.plain_name();
        self.host = Some(at);
        Ok(())
    }

    fn take_expect(&mut self, value: &[u8], version: Version) -> Result<(), Refusal> {
        if version == Version::Http10 {
            return Ok(());
        }
        if self.expect_continue || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::ExpectationFailed);
        }
        self.expect_continue = true;
        Ok(())
    }

    fn take_content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.content_length.is_some() {
            return Err(Refusal::RepeatedContentLength);
        }
        let length = parse_length(value).ok_or(Refusal::BadContentLength)?;
        if self.chunked {
            return Err(Refusal::AmbiguousLength);
        }
        self.content_length = Some(length);
        Ok(())
    }

    fn take_transfer_encoding(&mut self, value: &[u8], version: Version) -> Result<(), Refusal> {
        if version == Version::Http10 {
            return Err(Refusal::TransferEncodingOnHttp10);
        }
        if self.chunked {
            return Err(Refusal::RepeatedTransferEncoding);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(why_not_chunked(value));
        }
        if self.content_length.is_some() {
            return Err(Refusal::AmbiguousLength);
        }
        self.chunked = true;
        Ok(())
    }
}

impl Connection {
    fn take(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for option in value.split(|&b| b == b',') {
            self.options += 1;
            if self.options > MAX_CONNECTION_OPTIONS {
                return Err(Refusal::TooManyConnectionOptions);
            }
            self.take_option(trim(option))?;
        }
        Ok(())
    }

    fn take_option(&mut self, option: &[u8]) -> Result<(), Refusal> {
        // Empty list elements are to be ignored (RFC 9110 5.6.1.2).
        if option.is_empty() {
            return Ok(());
        }
        if !field::is_token(option) {
            return Err(Refusal::BadConnectionOption);
        }
        if field::is_protected(option) {
            return Err(Refusal::ProtectedFieldNominated);
        }
        self.close |= option.eq_ignore_ascii_case(b"close");
        self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        Ok(())
    }
}

/// `1*DIGIT` below 2^63, without a leading zero: some readers take what begins with one for octal.
fn parse_length(value: &[u8]) -> Option<u64> {
    let padded = value.len() > 1 && value.starts_with(b"0");
    if value.is_empty() || padded || value.len() > MAX_LENGTH_DIGITS || !value.iter().all(u8::is_ascii_digit)
    {
        return None;
    }
    let length = value.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    (length <= i64::MAX as u64).then_some(length)
}

/// A well-formed list of other codings that ends in one chunked is understood but not supported (501); all else
/// has no certain end (400).
#[cold]
fn why_not_chunked(value: &[u8]) -> Refusal {
    let mut codings = value.rsplit(|&b| b == b',').map(trim);
    let framed = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let is_coding = |coding: &[u8]| {
        field::is_token(coding)
            && ![&b"chunked"[..], b"identity"].iter().any(|no| coding.eq_ignore_ascii_case(no))
    };
    if framed && codings.all(is_coding) {
        Refusal::UnsupportedTransferCoding
    } else {
        Refusal::BadTransferEncoding
    }
}

fn trim(element: &[u8]) -> &[u8] {
    let start = element.iter().position(|&b| !field::is_ows(b)).unwrap_or(element.len());
    let end = element.iter().rposition(|&b| !field::is_ows(b)).map_or(start, |last| last + 1);
    &element[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use Version::{Http10, Http11};

    fn read(version: Version, lines: &[&str]) -> Result<Semantics, Refusal> {
        let mut semantics = Semantics::default();
        for line in lines {
            semantics.take(&field::parse(line.as_bytes())?, 0, version)?;
        }
        Ok(semantics)
    }

    fn refused(lines: &[&str]) -> Option<Refusal> {
        read(Http11, lines).err()
    }

    #[test]
    fn content_length_is_digits_below_two_to_the_63() {
        let length = |value: &str| read(Http11, &[&format!("Content-Length: {value}")]).map(|s| s.framing());
        assert_eq!(length("0"), Ok(BodyFraming::Length(0)));
        assert_eq!(length("9223372036854775807"), Ok(BodyFraming::Length(i64::MAX as u64)));
        for bad in [
            "",
            "+5",
            "-0",
            "0005",
            "5,5",
            "5 5",
            "0x5",
            "5.0",
            "9223372036854775808",
            "00000000000000000005",
            "٣",
        ] {
            assert_eq!(length(bad), Err(Refusal::BadContentLength), "{bad}");
        }
    }

    #[test]
    fn framing_fields_come_alone_and_once() {
        let (cl, te) = ("Content-Length: 5", "Transfer-Encoding: chunked");
        assert_eq!(refused(&[cl, te]), Some(Refusal::AmbiguousLength));
        assert_eq!(refused(&[te, cl]), Some(Refusal::AmbiguousLength));
        assert_eq!(refused(&[cl, cl]), Some(Refusal::RepeatedContentLength));
        assert_eq!(refused(&[te, te]), Some(Refusal::RepeatedTransferEncoding));
        assert_eq!(read(Http10, &[te]).err(), Some(Refusal::TransferEncodingOnHttp10));
        assert_eq!(read(Http11, &["transfer-encoding: CHUNKED"]).unwrap().framing(), BodyFraming::Chunked);
    }

    #[test]
    fn other_codings_are_unsupported_or_bad() {
        for (value, refusal) in [
            ("gzip, chunked", Refusal::UnsupportedTransferCoding),
            ("gzip,deflate ,\tchunked", Refusal::UnsupportedTransferCoding),
            ("", Refusal::BadTransferEncoding),
            ("gzip", Refusal::BadTransferEncoding),
            ("identity", Refusal::BadTransferEncoding),
            ("identity, chunked", Refusal::BadTransferEncoding),
            ("chunked, chunked", Refusal::BadTransferEncoding),
            ("chunked, gzip", Refusal::BadTransferEncoding),
            (",chunked", Refusal::BadTransferEncoding),
            ("chunked,", Refusal::BadTransferEncoding),
            ("chunked;a=b", Refusal::BadTransferEncoding),
            ("\"chunked\"", Refusal::BadTransferEncoding),
            ("xchunked", Refusal::BadTransferEncoding),
        ] {
            assert_eq!(refused(&[&format!("Transfer-Encoding: {value}")]), Some(refusal), "{value}");
        }
    }

    #[test]
    fn keep_alive_follows_version_and_options() {
        let kept = |version, lines: &[&str]| read(version, lines).unwrap().keep_alive(version);
        assert!(kept(Http11, &[]));
        assert!(!kept(Http11, &["Connection: foo, Close"]));
        assert!(!kept(Http11, &["Connection: keep-alive", "Connection: close"]));
        assert!(!kept(Http10, &[]));
        assert!(kept(Http10, &["Connection: Keep-Alive"]));
    }

    #[test]
    fn upgrade_needs_both_fields_and_http_1_1() {
        let lines = ["Connection: keep-alive, Upgrade", "Upgrade: websocket"];
        assert!(read(Http11, &lines).unwrap().upgrade(Http11));
        assert!(!read(Http10, &lines).unwrap().upgrade(Http10));
        assert!(!read(Http11, &lines[..1]).unwrap().upgrade(Http11));
        assert!(!read(Http11, &lines[1..]).unwrap().upgrade(Http11));
    }

    #[test]
    fn connection_options_are_bounded_tokens() {
        assert!(refused(&["Connection: a,b,c,d,e", "Connection: f,g,h,i"]).is_none());
        assert_eq!(
            refused(&["Connection: a,b,c,d,e", "Connection: f,g,h,i,j"]),
            Some(Refusal::TooManyConnectionOptions)
        );
        assert_eq!(refused(&["Connection: ,,,,,,,,,,"]), Some(Refusal::TooManyConnectionOptions));
        assert_eq!(refused(&["Connection: a b"]), Some(Refusal::BadConnectionOption));
        for name in
            ["HOST", "cookie", "X-Forwarded-For", "Content-Length", "transfer-encoding", "Authorization"]
        {
            let line = format!("Connection: close, {name}");
            assert_eq!(refused(&[&line]), Some(Refusal::ProtectedFieldNominated), "{name}");
        }
    }

    #[test]
    fn expectations() {
        assert!(read(Http11, &["Expect: 100-Continue"]).unwrap().expect_continue());
        assert!(!read(Http10, &["Expect: 100-continue"]).unwrap().expect_continue());
        assert!(read(Http10, &["Expect: the-unexpected"]).is_ok());
        for lines in
            [&["Expect: 200-ok"][..], &["Expect:"], &["Expect: 100-continue", "Expect: 100-continue"]]
        {
            assert_eq!(refused(lines), Some(Refusal::ExpectationFailed));
        }
    }
}
