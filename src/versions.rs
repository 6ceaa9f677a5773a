//! Which version of an API a request wants.
//!
//! 1. Its places are asked in order; the first that says a version decides, even if there is no such version.
//! 2. `2` and `v2` are the same; `latest` is the newest. Versions compare by their numbers: 10 is newer than 9, 1.10 newer
//!    than 1.9.
//! 3. In a path the version is the segment after the API's own, begun with `v`; another segment is part of the path.
//! 4. Of several media types the first that names a version counts; `q` is not looked at.

use std::borrow::Cow;
use std::cmp::Ordering;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::route::query_value;

/// The newest version, in requests and in configurations.
pub const LATEST: &str = "latest";

/// Where a version stands in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In the segment of the path after these segments.
    Path(Box<str>),
    /// In a header field.
    Header(HeaderName),
    /// In a parameter of the query.
    Query(Box<str>),
    /// In a media type, between these, in lower case.
    MediaType(Box<str>, Box<str>),
}

/// A version that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<'a> {
    /// The version as it was written, without its `v`.
    pub version: Cow<'a, str>,
    /// Where it stands in the path, with the slash before it.
    pub in_path: Option<std::ops::Range<usize>>,
}

impl Source {
    /// The version that a request says here.
    pub fn read<'a>(
        &self,
        path: &'a str,
        headers: &'a HeaderMap,
        query: Option<&'a str>,
    ) -> Option<Named<'a>> {
        let version = match self {
            Self::Path(prefix) => return in_path(prefix, path),
            Self::Header(name) => Cow::Borrowed(headers.get(name)?.to_str().ok()?),
            Self::Query(name) => match query_value(query?, name)? {
                Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
                Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).ok()?),
            },
            Self::MediaType(before, after) => {
                let fields = headers.get_all(ACCEPT).iter().chain(headers.get_all(CONTENT_TYPE));
                let types = fields.filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(','));
                Cow::Borrowed(types.filter_map(|text| between(text, before, after)).next()?)
            }
        };
        let plain = match version {
            Cow::Borrowed(text) => Cow::Borrowed(plain(text)),
            Cow::Owned(text) => Cow::Owned(plain(&text).to_owned()),
        };
        (!plain.is_empty()).then_some(Named { version: plain, in_path: None })
    }

    /// The field that answers vary by, if it is one.
    pub fn field(&self) -> Option<HeaderValue> {
        match self {
            Self::Header(name) => HeaderValue::try_from(name.as_str()).ok(),
            Self::MediaType(..) => Some(HeaderValue::from_static("accept")),
            Self::Path(_) | Self::Query(_) => None,
        }
    }
}

/// A version without the `v` that it may begin with.
fn plain(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix(['v', 'V']).unwrap_or(text)
}

fn in_path<'a>(prefix: &str, path: &'a str) -> Option<Named<'a>> {
    let rest = path.strip_prefix(prefix)?.strip_prefix('/')?;
    let segment = rest.split('/').next().unwrap_or_default();
    let version = if segment == LATEST { segment } else { segment.strip_prefix(['v', 'V'])? };
    if !version.starts_with(|first: char| first.is_ascii_digit()) && segment != LATEST {
        return None;
    }
    let from = prefix.len();
    Some(Named { version: Cow::Borrowed(version), in_path: Some(from..from + 1 + segment.len()) })
}

/// What stands in a media type, its parameters aside, between these.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let kind = text.split(';').next().unwrap_or_default().trim();
    let middle = kind.len().checked_sub(before.len() + after.len())?;
    let (head, rest) = kind.split_at_checked(before.len())?;
    let (version, tail) = rest.split_at_checked(middle)?;
    let fits = head.eq_ignore_ascii_case(before) && tail.eq_ignore_ascii_case(after) && !version.is_empty();
    fits.then_some(version)
}

/// Which of two versions is newer: by their numbers from the left, then by the words between.
pub fn by_age(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| {
        let parts = text.split(['.', '-', '_']).map(|part| (part.parse::<u64>().ok(), part.to_owned()));
        parts.collect::<Vec<_>>()
    };
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &Source, path: &str, headers: &[(&str, &str)], query: Option<&str>) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        source.read(path, &map, query).map(|named| named.version.into_owned())
    }

    #[test]
    fn a_path_says_its_version_after_the_apis_own_segments() {
        let source = Source::Path("/shop".into());
        for (path, version) in [
            ("/shop/v2/orders", Some("2")),
            ("/shop/v2", Some("2")),
            ("/shop/v2/", Some("2")),
            ("/shop/v1.10/a", Some("1.10")),
            ("/shop/v2026-01-31/a", Some("2026-01-31")),
            ("/shop/latest/a", Some("latest")),
            ("/shop/V2/a", Some("2")),
            ("/shop/vlatest/a", None),
            ("/shop/2/orders", None),
            ("/shop/video/v2", None),
            ("/shop/orders", None),
            ("/shop", None),
            ("/shops/v2", None),
        ] {
            assert_eq!(read(&source, path, &[], None).as_deref(), version, "{path}");
        }
        let headers = HeaderMap::new();
        let named = source.read("/shop/v2/orders", &headers, None).unwrap();
        assert_eq!(named.in_path, Some(5..8));
        assert_eq!(Source::Path("".into()).read("/v2/a", &headers, None).unwrap().in_path, Some(0..3));
    }

    #[test]
    fn fields_and_parameters_say_it_with_or_without_v() {
        let header = Source::Header(HeaderName::from_static("x-api-version"));
        for (value, version) in
            [("2", Some("2")), ("v2", Some("2")), (" V2 ", Some("2")), ("", None), ("v", None)]
        {
            assert_eq!(
                read(&header, "/", &[("x-api-version", value)], None).as_deref(),
                version,
                "{value:?}"
            );
        }
        let query = Source::Query("version".into());
        for (text, version) in
            [("a=1&version=v2", Some("2")), ("version=1%2E1", Some("1.1")), ("version=", None), ("v=2", None)]
        {
            assert_eq!(read(&query, "/", &[], Some(text)).as_deref(), version, "{text}");
        }
    }

    #[test]
    fn media_types_say_it_in_their_middle() {
        let source = Source::MediaType("application/vnd.shop.v".into(), "+json".into());
        for (name, value, version) in [
            ("accept", "application/vnd.shop.v2+json", Some("2")),
            ("accept", "text/html, Application/Vnd.Shop.V2+JSON;q=0.5", Some("2")),
            ("content-type", "application/vnd.shop.v1+json; charset=utf-8", Some("1")),
            ("accept", "application/json", None),
            ("accept", "application/vnd.shop.v+json", None),
            ("accept", "application/vnd.shop.v2+xml", None),
            ("accept", "*/*", None),
        ] {
            assert_eq!(read(&source, "/", &[(name, value)], None).as_deref(), version, "{value}");
        }
    }

    #[test]
    fn newer_is_what_has_the_larger_number() {
        let mut versions = ["2", "10", "9", "1.10", "1.9", "1"];
        versions.sort_by(|a, b| by_age(a, b));
        assert_eq!(versions, ["1", "1.9", "1.10", "2", "9", "10"]);
        assert_eq!(by_age("2026-01-31", "2025-12-31"), Ordering::Greater);
    }
}
