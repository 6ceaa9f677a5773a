//! Routes that are several: the variants of a split, the versions of an API.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Route;
use crate::condition::Condition;
use crate::exchange::{Exchange, cookies};
use crate::route::{HeaderCondition, QueryCondition, ValueMatch};
use crate::split::Shares;
use crate::telemetry::VariantMetrics;
use crate::types::Selector;
use crate::versions::{LATEST, Source};

/// Several variants of a route, of which each request goes to one.
pub struct Split {
    /// The route as it is for each variant.
    pub variants: Box<[Arc<Route>]>,
    /// How often each is chosen.
    pub shares: Shares,
    /// Requests that go to a certain one.
    pub rules: Box<[SplitRule]>,
    /// What decides for the others: the first that a request has.
    pub keys: Box<[Selector]>,
    /// The cookie that clients are given to stay with their variant.
    pub visitor: Option<Box<str>>,
}

/// Requests that go to a certain variant: all that is named holds.
pub struct SplitRule {
    /// What header fields say.
    pub headers: Box<[HeaderCondition]>,
    /// What cookies say, by name.
    pub cookies: Box<[(Box<str>, ValueMatch)]>,
    /// What the query says.
    pub query: Box<[QueryCondition]>,
    /// What else is true.
    pub when: Option<Condition>,
    /// The variant.
    pub to: usize,
}

impl Split {
    /// The variant that a rule sends a request to.
    pub fn ruled(&self, exchange: &Exchange<'_>) -> Option<usize> {
        self.rules.iter().find(|rule| rule.holds(exchange)).map(|rule| rule.to)
    }
}

impl SplitRule {
    /// Whether all of it holds. What cannot be told does not: whoever is sent to a variant by a rule is so for sure.
    fn holds(&self, exchange: &Exchange<'_>) -> bool {
        self.names(exchange) && self.when.as_ref().is_none_or(|when| when.holds(exchange).unwrap_or(false))
    }

    /// Whether it will hold, as far as the request's head tells.
    pub fn foretold(&self, exchange: &Exchange<'_>) -> Option<bool> {
        if !self.names(exchange) {
            return Some(false);
        }
        self.when.as_ref().map_or(Some(true), |when| when.foretold(exchange))
    }

    fn names(&self, exchange: &Exchange<'_>) -> bool {
        let (headers, query) = (&exchange.request().headers, exchange.query());
        self.headers.iter().all(|condition| condition.holds(headers))
            && self.cookies.iter().all(|(name, value)| value.holds(cookies(headers, name)))
            && self.query.iter().all(|condition| condition.holds(query))
    }
}

/// The versions of an API, of which each request goes to one.
pub struct Versions {
    /// Where a request says which.
    pub sources: Box<[Source]>,
    /// Each by its name, the oldest first.
    pub all: Box<[(Box<str>, Arc<Route>)]>,
    /// The one of requests that say none.
    pub default: Option<usize>,
    /// Whether the upstream sees the path without its version.
    pub strip: bool,
}

/// What a request wants of an API.
pub enum Wanted<'v> {
    /// This version; the path without it where the upstream sees it so.
    Version(&'v Arc<Route>, Option<String>),
    /// A version that there is not.
    Unknown,
    /// It does not say which.
    Nothing,
}

impl Versions {
    /// The version that a request wants.
    pub fn wanted(&self, path: &str, headers: &HeaderMap, query: Option<&str>) -> Wanted<'_> {
        let Some(named) = self.sources.iter().find_map(|source| source.read(path, headers, query)) else {
            let default = self.default.and_then(|at| self.all.get(at));
            return default.map_or(Wanted::Nothing, |(_, route)| Wanted::Version(route, None));
        };
        let Some(route) = self.get(&named.version) else { return Wanted::Unknown };
        let stripped = named.in_path.filter(|_| self.strip).map(|place| {
            let rest =
                [path.get(..place.start), path.get(place.end..)].map(Option::unwrap_or_default).concat();
            if rest.is_empty() { "/".to_owned() } else { rest }
        });
        Wanted::Version(route, stripped)
    }

    /// The version of this name; `latest` is the newest.
    fn get(&self, name: &str) -> Option<&Arc<Route>> {
        if name == LATEST {
            return self.all.last().map(|(_, route)| route);
        }
        self.all.iter().find(|(known, _)| **known == *name).map(|(_, route)| route)
    }
}

/// What answers say of the variant or version that they are of.
#[derive(Debug, Default)]
pub struct Lifecycle {
    /// From when it should not be used, and the value of `Deprecation` (RFC 9745).
    pub deprecated: Option<(SystemTime, HeaderValue)>,
    /// When it ends, and the value of `Sunset` (RFC 8594).
    pub sunset: Option<(SystemTime, HeaderValue)>,
    /// The values of `Link`.
    pub links: Box<[HeaderValue]>,
    /// The fields that the version was read of.
    pub vary: Box<[HeaderValue]>,
}

impl Lifecycle {
    /// Whether the version is no more.
    pub fn has_ended(&self, now: SystemTime) -> bool {
        self.sunset.as_ref().is_some_and(|(sunset, _)| now >= *sunset)
    }
}

/// Which of several a route is.
pub struct Variant {
    /// Its name.
    pub name: Arc<str>,
    /// What tells upstreams and clients which it is.
    pub header: Option<(HeaderName, HeaderValue)>,
    /// What it counts.
    pub metrics: Arc<VariantMetrics>,
}
