//! The origins whose pages may come.
//!
//! Browsers write an origin in one way only: scheme and host in lower case, the host in its ASCII form, the port unless it
//! is the scheme's own (RFC 6454, section 6.2). What is configured is brought into that form; what comes is compared with
//! it byte for byte.

use ahash::HashSet;
use regex::bytes::{RegexSet, RegexSetBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::document::{ConfigError, Errors, word_or_map};
use crate::types::HostPattern;

/// An origin as browsers write it, a wildcard, or `{ regex: … }`, a pattern of whole origins.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Origin {
    /// One origin, `https://*.…` for all below a name, `"null"`, or `"*"` for all.
    Named(String),
    /// A pattern.
    Pattern(Pattern),
}

/// A pattern of origins.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pattern {
    /// A regular expression (linear time) over the whole origin.
    regex: String,
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "an origin or `{ regex: ... }`";
        word_or_map(deserializer, expected, |text| Ok(Self::Named(text.into())), |p| Ok(Self::Pattern(p)))
    }
}

/// The origins whose pages may come.
pub(super) struct Origins {
    any: bool,
    exact: HashSet<Box<[u8]>>,
    below: Vec<Below>,
    patterns: RegexSet,
}

/// All hosts below a name.
struct Below {
    /// `https://`
    scheme: Box<[u8]>,
    /// `.shop.test:8443`
    rest: Box<[u8]>,
}

/// Bytes of the automaton of all patterns together.
const PATTERNS: usize = 4 << 20;

impl Origins {
    pub(super) fn compile(origins: &[Origin], errors: &mut Errors) -> Self {
        let (mut any, mut exact, mut below, mut patterns) =
            (false, HashSet::default(), Vec::new(), Vec::new());
        if origins.is_empty() {
            errors.push(ConfigError::new("origins", "cors needs an origin: `\"*\"` is all of them"));
        }
        for (at, origin) in origins.iter().enumerate() {
            let path = format!("origins[{at}]");
            match origin {
                Origin::Named(name) if name == "*" => any = true,
                Origin::Named(name) if name == "null" => drop(exact.insert((*b"null").into())),
                Origin::Named(name) => match parse(name) {
                    Ok(Named::One(origin)) => drop(exact.insert(origin)),
                    Ok(Named::Below(names)) => below.push(names),
                    Err(message) => errors.push(ConfigError::new(path, message)),
                },
                Origin::Pattern(Pattern { regex }) => match whole(regex) {
                    Ok(regex) => patterns.push(regex),
                    Err(message) => errors.push(ConfigError::new(path + ".regex", message)),
                },
            }
        }
        if any && origins.len() > 1 {
            errors.push(ConfigError::new("origins", "`*` is every origin: name it alone"));
        }
        let set = RegexSetBuilder::new(&patterns).size_limit(PATTERNS).dfa_size_limit(PATTERNS).build();
        let patterns = set.unwrap_or_else(|_| {
            errors.push(ConfigError::new("origins", "the regular expressions are too large together"));
            RegexSet::empty()
        });
        Self { any, exact, below, patterns }
    }

    /// Whether every origin may come.
    pub(super) fn are_any(&self) -> bool {
        self.any
    }

    /// Why not every site is kept out, where visitors' credentials are at stake.
    pub(super) fn are_too_many(&self) -> Option<&'static str> {
        if self.any {
            return Some("the origins have to be named: `*` would let every site act for its visitors");
        }
        if self.exact.contains(&b"null"[..]) {
            return Some(
                "`null` is the origin of every site's sandboxed frames: all would act for their visitors",
            );
        }
        let stranger = self.patterns.is_match(b"https://stranger.invalid");
        stranger.then_some("a pattern takes every origin: all sites would act for their visitors")
    }

    /// Whether pages of this origin may come.
    pub(super) fn allow(&self, origin: &[u8]) -> bool {
        self.any
            || self.exact.contains(origin)
            || self.below.iter().any(|below| below.holds(origin))
            || (!self.patterns.is_empty() && self.patterns.is_match(origin))
    }
}

impl Below {
    fn holds(&self, origin: &[u8]) -> bool {
        let name = origin.strip_prefix(&*self.scheme).and_then(|rest| rest.strip_suffix(&*self.rest));
        let of_names = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        name.is_some_and(|name| !name.is_empty() && name[0] != b'.' && name.iter().all(of_names))
    }
}

enum Named {
    One(Box<[u8]>),
    Below(Below),
}

/// Brings an origin into the form of browsers.
fn parse(text: &str) -> Result<Named, String> {
    let wrong = |why: &str| format!("`{text}` is not an origin: {why}");
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(wrong("write its scheme, as in `https://app.test`"));
    };
    let scheme = scheme.to_ascii_lowercase();
    let of_schemes = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !scheme.starts_with(|first: char| first.is_ascii_lowercase()) || !scheme.bytes().all(of_schemes) {
        return Err(wrong("this is no scheme"));
    }
    if rest.contains(['/', '?', '#']) {
        return Err(wrong("it ends with the host or its port, without a path"));
    }
    let end_of_host = rest.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match rest[end_of_host..].find(':') {
        Some(colon) => {
            let (host, port) = rest.split_at(end_of_host + colon);
            (host, port[1..].parse::<u16>().map(Some).map_err(|_| wrong("its port is a number up to 65535"))?)
        }
        None => (rest, None),
    };
    let host = HostPattern::parse(host).map_err(|error| wrong(&error.to_string()))?;
    let usual = match scheme.as_str() {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    };
    let port = port.filter(|port| Some(*port) != usual).map(|port| format!(":{port}")).unwrap_or_default();
    let (scheme, name) = (format!("{scheme}://"), host.name());
    Ok(if host.is_wildcard() {
        let rest = format!(".{name}{port}").into_bytes().into();
        Named::Below(Below { scheme: scheme.into_bytes().into(), rest })
    } else {
        Named::One(format!("{scheme}{name}{port}").into_bytes().into())
    })
}

/// The expression over the whole of an origin: one that matched a part of it would let in `https://app.test.evil.test`.
fn whole(regex: &str) -> Result<String, String> {
    // Read by itself first, so that no parenthesis of its own ends the group.
    let anchored = format!(r"\A(?:{regex})\z");
    match regex::bytes::Regex::new(regex).and_then(|_| regex::bytes::Regex::new(&anchored)) {
        Ok(_) => Ok(anchored),
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(format!("this is not a regular expression to use here: {reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(names: &[&str], patterns: &[&str]) -> Origins {
        let named = names.iter().map(|name| Origin::Named((*name).into()));
        let patterns = patterns.iter().map(|regex| Origin::Pattern(Pattern { regex: (*regex).into() }));
        let mut errors = Errors::default();
        let origins = Origins::compile(&named.chain(patterns).collect::<Vec<_>>(), &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        origins
    }

    #[test]
    fn an_origin_is_compared_as_browsers_write_it() {
        for (written, same, other) in [
            ("https://app.test", "https://app.test", "http://app.test"),
            ("HTTPS://App.Test:443", "https://app.test", "https://app.test:443"),
            ("http://app.test:80", "http://app.test", "http://app.test:8080"),
            ("http://app.test:443", "http://app.test:443", "http://app.test"),
            ("https://app.test:8443", "https://app.test:8443", "https://app.test"),
            ("https://bücher.test", "https://xn--bcher-kva.test", "https://bücher.test"),
            ("http://[::0:1]:3000", "http://[::1]:3000", "http://[::1]"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000", "http://127.0.0.1"),
            ("capacitor://localhost", "capacitor://localhost", "http://localhost"),
            ("null", "null", "https://null"),
        ] {
            let origins = origins(&[written], &[]);
            assert!(origins.allow(same.as_bytes()), "{written} allows {same}");
            assert!(!origins.allow(other.as_bytes()), "{written} allows {other}");
            assert!(!origins.are_any());
        }
    }

    #[test]
    fn a_wildcard_is_all_below_a_name_and_nothing_else() {
        let all = origins(&["https://*.Shop.test", "http://*.dev.test:3000"], &[]);
        for origin in ["https://a.shop.test", "https://a.b.shop.test", "http://x.dev.test:3000"] {
            assert!(all.allow(origin.as_bytes()), "{origin}");
        }
        for origin in [
            "https://shop.test",
            "https://.shop.test",
            "https://evilshop.test",
            "https://a.shop.test.evil.test",
            "https://evil.test/.shop.test",
            "https://evil.test:1.shop.test",
            "https://user@a.shop.test",
            "http://a.shop.test",
            "https://a.shop.test:8443",
            "http://x.dev.test",
            "https://A.shop.test",
            "null",
            "",
        ] {
            assert!(!all.allow(origin.as_bytes()), "{origin}");
        }
    }

    #[test]
    fn a_pattern_is_over_the_whole_origin() {
        let all = origins(&[], &[r"https://pr-[0-9]+\.test", "^http://a|b$"]);
        for origin in ["https://pr-7.test", "http://a", "b"] {
            assert!(all.allow(origin.as_bytes()), "{origin}");
        }
        for origin in
            ["https://pr-7.test.evil.test", "https://evil.test/https://pr-7.test", "http://ab", "null"]
        {
            assert!(!all.allow(origin.as_bytes()), "{origin}");
        }
    }

    #[test]
    fn any_is_any() {
        let all = origins(&["*"], &[]);
        assert!(all.are_any() && all.allow(b"null") && all.allow(b"https://a.test"));
    }
}
