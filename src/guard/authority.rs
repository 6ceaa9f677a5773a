//! `host [ ":" port ]`, as the Host field and absolute-form targets write it (RFC 9110 7.2, RFC 3986 3.2).
//!
//! Narrower than the RFC's grammar on purpose: percent-encoding and sub-delimiters (a comma list among them) are
//! legal in a URI's host, but no two readers agree on what they name; a port that is empty or has leading zeros
//! compares differently from reader to reader.

use std::net::Ipv6Addr;

use crate::types::PlainAuthority;

/// A host that was checked, and its port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authority<'a> {
    /// Registered name, IPv4 address or bracketed IPv6 address, as written.
    host: &'a [u8],
    port: Option<u16>,
    plain: bool,
}

impl<'a> Authority<'a> {
    /// Parses all of `text`; `None` if it is anything else than a plain host with an optional port.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        if let Some(plain) = PlainAuthority::read(text) {
            return Some(Self { host: &text[..plain.name_len], port: plain.port, plain: true });
        }
        Self::parse_odd(text)
    }

    fn parse_odd(text: &'a [u8]) -> Option<Self> {
        let host_len = if text.first() == Some(&b'[') { ipv6_len(text)? } else { name_len(text)? };
        let (host, rest) = text.split_at(host_len);
        let port = match rest {
            [] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return None,
        };
        Some(Self { host, port, plain: false })
    }

    /// How long the host is, where it is spelled in its canonical form.
    pub fn plain_name(self) -> Option<usize> {
        self.plain.then_some(self.host.len())
    }

    /// Whether both name the same host and port, a missing port meaning `default_port`.
    pub fn same_as(self, other: Authority<'_>, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// Length of the name at the start of `text`: unreserved characters, no empty label but the root's.
fn name_len(text: &[u8]) -> Option<usize> {
    let mut previous = b'.';
    let mut len = 0;
    for &byte in text {
        match byte {
            b':' => break,
            b'.' if previous == b'.' => return None,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {}
            _ => return None,
        }
        previous = byte;
        len += 1;
    }
    (len > 0).then_some(len)
}

/// Length of the bracketed address at the start of `text`, brackets included. Zones are for links, not for URIs.
fn ipv6_len(text: &[u8]) -> Option<usize> {
    let close = memchr::memchr(b']', text)?;
    let address = std::str::from_utf8(text.get(1..close)?).ok()?;
    address.parse::<Ipv6Addr>().ok()?;
    Some(close + 1)
}

fn port(digits: &[u8]) -> Option<u16> {
    if digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_plain_is_read_alike_in_full(text in "[a-zA-Z0-9:._~-]{0,70}|[a-z0-9.-]{1,9}(:[0-9]{0,6})?") {
            if PlainAuthority::read(text.as_bytes()).is_some() {
                let known = |read: Option<Authority<'_>>| read.map(|read| (read.host.to_vec(), read.port));
                let text = text.as_bytes();
                prop_assert_eq!(known(Authority::parse(text)), known(Authority::parse_odd(text)));
            }
        }
    }

    #[test]
    fn plain_hosts_pass() {
        for text in
            ["a", "a.example", "a.example.", "A-b_c~d:8080", "127.0.0.1:1", "[::1]", "[2001:DB8::1]:65535"]
        {
            assert!(Authority::parse(text.as_bytes()).is_some(), "{text}");
        }
    }

    #[test]
    fn all_else_is_refused() {
        for text in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:080",
            "a:65536",
            "a:+80",
            "a:80x",
            "a:80:80",
            "u@a",
            "u:p@a",
            "a b",
            "a,b",
            "a/b",
            "a?b",
            "a\\b",
            "a%2e",
            "ä",
            ".",
            "..",
            ".a",
            "a..b",
            "[",
            "[]",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[v1.a]",
            "::1",
            "a;b",
            "[::1]:",
        ] {
            assert!(Authority::parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn comparison_ignores_case_and_the_default_port() {
        let same = |a: &str, b: &str| {
            Authority::parse(a.as_bytes()).unwrap().same_as(Authority::parse(b.as_bytes()).unwrap(), 80)
        };
        assert!(same("A.Example", "a.example:80"));
        assert!(same("a:8080", "A:8080"));
        assert!(!same("a", "a:443"));
        assert!(!same("a", "b"));
        assert!(!same("a.", "a"));
    }
}
