//! Hosts: what a request names, and what a route is bound to.
//!
//! Both come down to one spelling: lower case, without port and trailing dot, names in their ASCII (IDNA) form,
//! IPv6 addresses in brackets and in the text form of RFC 5952.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::Ipv6Addr;

/// The most bytes that a name and one of its labels may have (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// The host that a request is for. It borrows from the request when that was canonical already.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host<'a>(Cow<'a, str>);

impl<'a> Host<'a> {
    /// Parses the value of a `Host` field or `:authority` (RFC 9110, 7.2): a host, perhaps a port.
    ///
    /// Stricter than the URI grammar: a name has letters, digits, `-`, `_` and single dots only. Other bytes never
    /// name a host, but do confuse logs, caches and upstreams.
    ///
    /// # Errors
    /// A [`HostError`] when the value is no host; the client is answered 400.
    pub fn parse(authority: &'a str) -> Result<Self, HostError> {
        if let Some(plain) = PlainAuthority::read(authority.as_bytes()) {
            return Ok(Self(Cow::Borrowed(&authority[..plain.name_len])));
        }
        Self::parse_odd(authority)
    }

    fn parse_odd(authority: &'a str) -> Result<Self, HostError> {
        if authority.contains('@') {
            return Err(HostError::UserInfo);
        }
        if let Some(rest) = authority.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or(HostError::InvalidAddress)?;
            check_port(port)?;
            return canonical_ipv6(&authority[..address.len() + 2], address).map(Self);
        }
        let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        check_port(port)?;
        canonical_name(name).map(Self)
    }

    /// The canonical text, without a port.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The canonical text, without a port.
    pub fn into_cow(self) -> Cow<'a, str> {
        self.0
    }
}

impl AsRef<str> for Host<'_> {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a value is not a host. The text is fit for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostError {
    /// Nothing before the port, or nothing at all.
    Empty,
    /// Two dots in a row, or one in front.
    EmptyLabel,
    /// More than 253 bytes, or more than 63 between two dots.
    TooLong,
    /// A byte that no host name has: space, comma, slash, control, non-ASCII and the like.
    InvalidCharacter,
    /// `user@` before the host.
    UserInfo,
    /// Brackets without an IPv6 address in them.
    InvalidAddress,
    /// A port that is not a number from 0 to 65535.
    InvalidPort,
}

impl HostError {
    /// A short sentence for the client.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Empty => "the host is empty",
            Self::EmptyLabel => "the host has an empty label",
            Self::TooLong => "the host is too long",
            Self::InvalidCharacter => "the host has an invalid character",
            Self::UserInfo => "the host must not carry user information",
            Self::InvalidAddress => "the host is not a valid IPv6 address",
            Self::InvalidPort => "the host has an invalid port",
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for HostError {}

/// The hosts that a route is bound to: one, or with `*.` all below a name, at any depth.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    name: Box<str>,
    wildcard: bool,
}

impl HostPattern {
    /// Parses `api.example.com`, `*.example.com` or `[::1]`. Unicode names become ASCII by IDNA (UTS 46).
    ///
    /// # Errors
    /// A [`HostPatternError`] that tells the operator what to write instead.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        refuse_url_parts(text)?;
        if text == "*" {
            return Err(HostPatternError::AnyHost);
        }
        let (name, wildcard) = text.strip_prefix("*.").map_or((text, false), |suffix| (suffix, true));
        if name.contains('*') {
            return Err(HostPatternError::MisplacedWildcard);
        }
        let name = if name.starts_with('[') { pattern_address(name, wildcard)? } else { pattern_name(name)? };
        Ok(Self { name, wildcard })
    }

    /// The canonical name: the host itself, or what stands after `*.`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the pattern stands for the hosts below its name, rather than for the name.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.wildcard { "*." } else { "" })?;
        f.write_str(&self.name)
    }
}

/// Why a host pattern is refused. The text is for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostPatternError {
    /// `*` alone.
    AnyHost,
    /// A `*` that is not the whole first label.
    MisplacedWildcard,
    /// `http://` or the like in front.
    Scheme,
    /// A slash: a path was written.
    Path,
    /// A port, or an IPv6 address without brackets.
    Port,
    /// A Unicode or punycode name that IDNA does not allow.
    Idna,
    /// Anything that is no host in a request either.
    Host(HostError),
}

impl fmt::Display for HostPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AnyHost => "`*` is not a host pattern: leave `hosts` out to match any host",
            Self::MisplacedWildcard => "`*` stands only as the whole first label, as in `*.example.com`",
            Self::Scheme => "a host pattern has no scheme: write `example.com`, not `https://example.com`",
            Self::Path => "a host pattern has no path: use `path` for it",
            Self::Port => {
                "a host pattern has no port: ports are ignored in matching (an IPv6 address goes in brackets)"
            }
            Self::Idna => "the name is not a valid internationalized domain name",
            Self::Host(error) => error.reason(),
        })
    }
}

impl std::error::Error for HostPatternError {}

/// `port` is empty or starts with a colon; RFC 3986 allows a colon alone.
fn check_port(port: &str) -> Result<(), HostError> {
    let digits = match port.strip_prefix(':') {
        Some(digits) => digits,
        None if port.is_empty() => return Ok(()),
        None => return Err(HostError::InvalidPort),
    };
    let valid = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.is_empty() || digits.parse::<u16>().is_ok());
    if valid { Ok(()) } else { Err(HostError::InvalidPort) }
}

/// An authority as most are: a short name in its canonical spelling, perhaps a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainAuthority {
    /// How many bytes the name has; the port follows.
    pub name_len: usize,
    /// The port, if there is one.
    pub port: Option<u16>,
}

impl PlainAuthority {
    /// Reads an authority in one pass. `None` says nothing but that it is not plain.
    pub fn read(authority: &[u8]) -> Option<Self> {
        // So short that no bound on labels and names need be looked at.
        if authority.len() > MAX_LABEL {
            return None;
        }
        // What stands before the name is no letter, as a dot is none: two of them in a row make an empty label.
        let (mut last, mut empty_label) = (InName::Dot, false);
        let mut name_len = 0;
        for byte in authority {
            let kind = IN_NAME[usize::from(*byte)];
            if matches!(kind, InName::End) {
                break;
            }
            empty_label |= matches!((last, kind), (InName::Dot, InName::Dot));
            last = kind;
            name_len += 1;
        }
        let port = match &authority[name_len..] {
            [] => None,
            [b':', digits @ ..] => Some(plain_port(digits)?),
            _ => return None,
        };
        (!empty_label && matches!(last, InName::Letter)).then_some(Self { name_len, port })
    }
}

#[derive(Clone, Copy)]
enum InName {
    Letter,
    Dot,
    End,
}

const IN_NAME: [InName; 256] = {
    let mut table = [InName::End; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => InName::Letter,
            b'.' => InName::Dot,
            _ => InName::End,
        };
        byte += 1;
    }
    table
};

/// A port in its shortest spelling.
fn plain_port(digits: &[u8]) -> Option<u16> {
    if !(1..=5).contains(&digits.len()) || digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let port = digits.iter().fold(0, |port, digit| 10 * port + u32::from(digit - b'0'));
    u16::try_from(port).ok()
}

fn canonical_name(name: &str) -> Result<Cow<'_, str>, HostError> {
    let name = match name.strip_suffix('.').unwrap_or(name) {
        "" => return Err(HostError::Empty),
        name if name.len() > MAX_NAME => return Err(HostError::TooLong),
        name => name,
    };
    let mut label = 0;
    let mut upper = false;
    for byte in name.bytes() {
        match byte {
            b'.' if label == 0 => return Err(HostError::EmptyLabel),
            b'.' => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            _ => return Err(HostError::InvalidCharacter),
        }
        if label > MAX_LABEL {
            return Err(HostError::TooLong);
        }
        upper |= byte.is_ascii_uppercase();
    }
    match (label, upper) {
        (0, _) => Err(HostError::EmptyLabel),
        (_, true) => Ok(Cow::Owned(name.to_ascii_lowercase())),
        (_, false) => Ok(Cow::Borrowed(name)),
    }
}

/// `bracketed` is `address` with its brackets.
fn canonical_ipv6<'a>(bracketed: &'a str, address: &str) -> Result<Cow<'a, str>, HostError> {
    let parsed: Ipv6Addr = address.parse().map_err(|_| HostError::InvalidAddress)?;
    let mut expected = Expect(address);
    let same = write!(expected, "{parsed}").is_ok() && expected.0.is_empty();
    Ok(if same { Cow::Borrowed(bracketed) } else { Cow::Owned(format!("[{parsed}]")) })
}

/// Compares what is written to it with a text, so that the comparison needs no buffer.
struct Expect<'a>(&'a str);

impl Write for Expect<'_> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}

fn refuse_url_parts(text: &str) -> Result<(), HostPatternError> {
    if text.contains("://") {
        return Err(HostPatternError::Scheme);
    }
    if text.contains('/') {
        return Err(HostPatternError::Path);
    }
    if text.contains('@') {
        return Err(HostPatternError::Host(HostError::UserInfo));
    }
    let after_address = text.rfind(']').map_or(0, |end| end + 1);
    if text.starts_with('[') && after_address == 0 {
        return Err(HostPatternError::Host(HostError::InvalidAddress));
    }
    if text[after_address..].contains(':') {
        return Err(HostPatternError::Port);
    }
    Ok(())
}

fn pattern_address(text: &str, wildcard: bool) -> Result<Box<str>, HostPatternError> {
    if wildcard {
        return Err(HostPatternError::MisplacedWildcard);
    }
    Host::parse(text).map(|host| host.as_str().into()).map_err(HostPatternError::Host)
}

fn pattern_name(text: &str) -> Result<Box<str>, HostPatternError> {
    let ascii = idna::domain_to_ascii(text).map_err(|_| HostPatternError::Idna)?;
    canonical_name(&ascii).map(|name| name.into()).map_err(HostPatternError::Host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_hosts_are_borrowed() {
        for host in [
            "example.com",
            "a_b.example",
            "10.0.0.1",
            "localhost",
            "[::1]",
            "[2001:db8::1]",
            "xn--bcher-kva.example",
        ] {
            let parsed = Host::parse(host).unwrap();
            assert!(matches!(parsed.0, Cow::Borrowed(_)), "{host}");
            assert_eq!(parsed.as_str(), host);
        }
    }

    #[test]
    fn plain_authorities_are_told_from_others() {
        let plain = |name_len, port| Some(PlainAuthority { name_len, port });
        assert_eq!(PlainAuthority::read(b"a_b.example"), plain(11, None));
        assert_eq!(PlainAuthority::read(b"10.0.0.1:65535"), plain(8, Some(65535)));
        for odd in [
            "", ".", "a.", "a..b", ":80", "A", "a:", "a:080", "a:0", "a:65536", "a:8x", "[::1]", "a~b", "a b",
        ] {
            assert_eq!(PlainAuthority::read(odd.as_bytes()), None, "{odd}");
        }
        assert_eq!(PlainAuthority::read("a".repeat(64).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn what_is_plain_is_read_alike_in_full(authority in "[a-zA-Z0-9:._@-]{0,70}|[a-z0-9.-]{1,9}(:[0-9]{0,6})?") {
            if PlainAuthority::read(authority.as_bytes()).is_some() {
                prop_assert_eq!(Host::parse(&authority), Host::parse_odd(&authority));
            }
        }
    }

    #[test]
    fn ports_dots_and_case_are_removed() {
        for (authority, host) in [
            ("Example.COM", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com:", "example.com"),
            ("example.com:0", "example.com"),
            ("example.com:65535", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:443", "example.com"),
            ("[::1]:8080", "[::1]"),
            ("[::1]:", "[::1]"),
            ("[2001:DB8:0:0::1]", "[2001:db8::1]"),
            ("[::ffff:10.0.0.1]", "[::ffff:10.0.0.1]"),
        ] {
            assert_eq!(Host::parse(authority).unwrap().as_str(), host, "{authority}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        use HostError::*;
        let label = "a".repeat(64);
        let name = "abc.".repeat(64);
        for (authority, error) in [
            ("", Empty),
            (".", Empty),
            (":80", Empty),
            (".:80", Empty),
            ("a..b", EmptyLabel),
            (".a", EmptyLabel),
            ("a..", EmptyLabel),
            (&label, TooLong),
            (&name, TooLong),
            ("user@example.com", UserInfo),
            ("user:pw@example.com", UserInfo),
            ("a b", InvalidCharacter),
            (" a", InvalidCharacter),
            ("a,b", InvalidCharacter),
            ("a/b", InvalidCharacter),
            ("a\\b", InvalidCharacter),
            ("a\tb", InvalidCharacter),
            ("a\0", InvalidCharacter),
            ("a%2eb", InvalidCharacter),
            ("bücher.example", InvalidCharacter),
            ("*.example.com", InvalidCharacter),
            ("a]", InvalidCharacter),
            ("a:b", InvalidPort),
            ("a:+80", InvalidPort),
            ("a:-1", InvalidPort),
            ("a:65536", InvalidPort),
            ("a:80:80", InvalidPort),
            ("a:80 ", InvalidPort),
            ("::1", InvalidPort),
            ("[::1]80", InvalidPort),
            ("[::1", InvalidAddress),
            ("[]", InvalidAddress),
            ("[fe80::1%25eth0]", InvalidAddress),
            ("[v1.x]", InvalidAddress),
            ("[127.0.0.1]", InvalidAddress),
        ] {
            assert_eq!(Host::parse(authority), Err(error), "{authority:?}");
        }
    }

    #[test]
    fn patterns_are_canonical() {
        for (text, canonical) in [
            ("API.example.com", "api.example.com"),
            ("example.com.", "example.com"),
            ("*.Shop.example.com", "*.shop.example.com"),
            ("*.test", "*.test"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("*.BÜCHER.example", "*.xn--bcher-kva.example"),
            ("my_service", "my_service"),
            ("[2001:DB8::0:1]", "[2001:db8::1]"),
        ] {
            assert_eq!(HostPattern::parse(text).unwrap().to_string(), canonical, "{text}");
        }
        let pattern = HostPattern::parse("*.a.test").unwrap();
        assert_eq!((pattern.name(), pattern.is_wildcard()), ("a.test", true));
    }

    #[test]
    fn bad_patterns_tell_why() {
        for (text, part) in [
            ("*", "leave `hosts` out"),
            ("a.*.b", "whole first label"),
            ("*a.b", "whole first label"),
            ("*.*.b", "whole first label"),
            ("a.*", "whole first label"),
            ("*.[::1]", "whole first label"),
            ("https://example.com", "no scheme"),
            ("example.com/a", "no path"),
            ("example.com:8080", "no port"),
            ("[::1]:8080", "no port"),
            ("::1", "brackets"),
            ("*.", "empty"),
            ("", "empty"),
            ("a b", "invalid character"),
            ("a..b", "empty label"),
            ("[::1", "IPv6"),
            ("me@example.com", "user information"),
            ("xn--a-.example", "internationalized"),
        ] {
            let message = HostPattern::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent(text in "[a-cA-C0-9_.:\\[\\]-]{0,12}|\\PC{0,12}") {
            if let Ok(host) = Host::parse(&text) {
                let again = Host::parse(host.as_str()).unwrap();
                prop_assert_eq!(again.as_str(), host.as_str());
                prop_assert!(matches!(again.0, Cow::Borrowed(_)));
            }
        }

        #[test]
        fn an_exact_pattern_names_the_host_it_parses_as(text in "[a-cA-C0-9_.]{1,12}") {
            let host = Host::parse(&text).ok().map(|host| host.as_str().to_owned());
            let pattern = HostPattern::parse(&text).ok().map(|pattern| pattern.name().to_owned());
            prop_assert_eq!(host, pattern);
        }
    }
}
