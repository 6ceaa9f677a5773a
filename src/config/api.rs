//! `apis:`, versions as a first-class thing.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::mirror::Mirror;
use super::route::{Matcher, Path, RouteLimits, Timeouts};
use super::{FilterUse, Retry};
use crate::types::Moment;

/// An API with versions: a route for each, of which the request says which it wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Its name, unique among routes: the metric label and the word in logs.
    pub name: String,
    /// Hosts: `api.example.com`, or `*.example.com` for any depth below. None means any host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The path that all versions are below: `/shop/*`. Where `version_from` names `path`, `/shop/v2/...` is version 2.
    pub path: Path,
    /// The listeners that serve it, by name; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<String>,
    /// What request headers must say, as in a route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Matcher>,
    /// Filters of all versions, after the global ones and the listener's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<FilterUse>,
    /// How long its requests may take.
    #[serde(default, skip_serializing_if = "Timeouts::is_empty")]
    pub timeouts: Timeouts,
    /// Which of its requests are sent again, and when.
    #[serde(default, skip_serializing_if = "Retry::is_empty")]
    pub retry: Retry,
    /// How large its requests may be.
    #[serde(default, skip_serializing_if = "RouteLimits::is_empty")]
    pub limits: RouteLimits,
    /// Which of its requests are copied to another upstream. None unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Where the version stands in a request: `path`, `header:NAME`, `query:NAME` or `media_type:application/vnd.shop.v{n}+json`
    /// (in `Accept`, or `Content-Type`). The first that says one decides. `2` and `v2` are the same, and `latest` is the newest.
    #[schemars(length(min = 1))]
    pub version_from: Vec<VersionFrom>,
    /// The version of a request that says none; `latest` is the newest. Such a request is refused (400) unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Whether the upstream sees the path without its version: `/shop/orders` of `/shop/v2/orders`.
    #[serde(default)]
    pub strip_version: bool,
    /// The versions by name: `"2"`, `"1.1"`, `"2026-01-31"`. Names are quoted, for they are words.
    #[schemars(extend("minProperties" = 1))]
    pub versions: BTreeMap<String, ApiVersion>,
}

impl Api {
    /// The upstreams that it leads to.
    pub fn upstreams(&self) -> impl Iterator<Item = &str> {
        self.versions.values().map(|version| &*version.upstream)
    }
}

/// One version of an API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiVersion {
    /// The upstream that answers.
    pub upstream: String,
    /// Since, or from, when it should not be used any more. Answers say so (RFC 9745).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<Moment>,
    /// When it ends. Answers say so before (RFC 8594); from then on the answer is 410.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sunset: Option<Moment>,
    /// Where people read what to do about it: a URL, which answers carry in `Link`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// Where a version stands in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VersionFrom {
    /// In the segment after the API's path.
    Path,
    /// In a header field.
    Header(HeaderName),
    /// In a parameter of the query.
    Query(Box<str>),
    /// In a media type: what stands before and after it.
    MediaType(Box<str>, Box<str>),
}

const PATTERN: &str = r"^(path|(header|query):.+|media_type:.+\{n\}.*)$";

impl FromStr for VersionFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "path" => Ok(Self::Path),
            Some((kind @ ("header" | "query"), "")) => Err(format!("`{kind}:` needs a name")),
            Some(("header", name)) => HeaderName::try_from(name)
                .map(Self::Header)
                .map_err(|_| format!("`{name}` is not the name of a header field")),
            Some(("query", name)) => Ok(Self::Query(name.into())),
            Some(("media_type", pattern)) => match pattern.split_once("{n}") {
                Some((before, after)) if before.contains('/') => {
                    Ok(Self::MediaType(before.to_ascii_lowercase().into(), after.to_ascii_lowercase().into()))
                }
                _ => Err(format!(
                    "`{pattern}` is no media type with a version: `application/vnd.shop.v{{n}}+json`"
                )),
            },
            _ => Err(format!(
                "`{text}` is no place for a version: write `path`, `header:NAME`, `query:NAME` or `media_type:TYPE` with `{{n}}` \
                 where the version stands"
            )),
        }
    }
}

impl TryFrom<String> for VersionFrom {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<VersionFrom> for String {
    fn from(from: VersionFrom) -> Self {
        from.to_string()
    }
}

impl fmt::Display for VersionFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::MediaType(before, after) => write!(f, "media_type:{before}{{n}}{after}"),
        }
    }
}

impl JsonSchema for VersionFrom {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "VersionFrom".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Where a version stands in a request: `path`, `header:NAME`, `query:NAME` or `media_type:TYPE` with `{n}`.",
            "pattern": PATTERN,
            "examples": ["path", "header:x-api-version", "query:version", "media_type:application/vnd.shop.v{n}+json"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["path", "header:x-api-version", "query:v", "media_type:application/vnd.shop.v{n}+json"] {
            assert_eq!(text.parse::<VersionFrom>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "host",
            "header:",
            "header:a b",
            "query:",
            "media_type:json",
            "media_type:a/b",
            "media_type:{n}/a",
        ] {
            assert!(text.parse::<VersionFrom>().is_err(), "{text}");
        }
    }
}
