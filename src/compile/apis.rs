//! `apis`: an API becomes a route that leads to one for each of its versions.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

use super::chains::Ground;
use super::listeners::Listeners;
use super::routes::chains;
use super::{Compiler, Links, unknown};
use crate::config::{Api, ApiVersion, Path, Route as Words, VersionFrom};
use crate::document::{ConfigError, join};
use crate::registry::Parameters;
use crate::route::RouteSpec;
use crate::snapshot::{Lifecycle, Route, Target, Variant, Versions};
use crate::types::{Moment, NormalPath};
use crate::versions::{LATEST, Source, by_age};

impl<'a> Compiler<'a> {
    pub(super) fn api(
        &mut self,
        path: &str,
        api: &'a Api,
        global: &Links,
        listeners: &Listeners,
    ) -> Option<(RouteSpec, Arc<Route>)> {
        self.check_name(format!("{path}.name"), &api.name);
        let words = as_route(api);
        let upstreams: Vec<&str> = api.upstreams().collect();
        let spec = self.spec(path, &words, &upstreams);
        let prefix = self.prefix(path, api);
        let owner = format!("route {}", api.name);
        let ground = Ground { owner: &owner, parameters: Parameters::Of(&[]) };
        let links = self.links(&format!("{path}.filters"), &api.filters, ground);
        let chains = chains(global, listeners, &links);
        let sources = self.sources(path, api, prefix.as_deref().unwrap_or_default());
        let vary: Box<[HeaderValue]> = sources.iter().filter_map(Source::field).collect();
        let mut all = Vec::with_capacity(api.versions.len());
        for (name, version) in &api.versions {
            let path = join(&format!("{path}.versions"), name);
            let name = self.version_name(&path, name);
            let upstream = self.upstream(format!("{path}.upstream"), &version.upstream);
            let lifecycle = self.lifecycle(&path, version, vary.clone());
            let Some(upstream) = upstream else { continue };
            let mut route = self.route(&words, Arc::clone(&chains), Target::Upstream(upstream));
            let metrics = self.inputs.metrics.variant(&api.name, name);
            route.variant = Some(Box::new(Variant { name: name.into(), header: None, metrics }));
            route.lifecycle = Some(Box::new(lifecycle));
            all.push((Box::from(name), Arc::new(route)));
        }
        all.sort_by(|(a, _), (b, _)| by_age(a, b));
        if api.versions.is_empty() {
            self.error(format!("{path}.versions"), "an API needs a version");
        }
        let default = api.default.as_ref().and_then(|name| self.default_version(path, api, name, &all));
        let versions =
            Versions { sources: sources.into(), all: all.into(), default, strip: api.strip_version };
        let route = self.route(&words, chains, Target::Versions(Box::new(versions)));
        Some((spec?, Arc::new(route)))
    }

    /// The segments that all versions are below.
    fn prefix(&mut self, path: &str, api: &Api) -> Option<String> {
        let prefix = match &api.path {
            Path::Pattern(pattern) => {
                pattern.strip_suffix("/*").filter(|prefix| !prefix.contains(['{', ':', '*']))
            }
            Path::Regex(_) => None,
        };
        if prefix.is_none() {
            let error = ConfigError::new(
                format!("{path}.path"),
                "the path of an API is one that all its versions are below",
            );
            self.errors.push(error.with_hint("end it with `/*`, without parameters: `/shop/*`"));
        }
        let prefix = prefix?;
        NormalPath::parse(if prefix.is_empty() { "/" } else { prefix })
            .ok()
            .map(|path| path.as_str().trim_end_matches('/').to_owned())
    }

    fn sources(&mut self, path: &str, api: &Api, prefix: &str) -> Vec<Source> {
        if api.version_from.is_empty() {
            self.error(
                format!("{path}.version_from"),
                "there is no place where a request could say its version",
            );
        }
        if api.strip_version && !api.version_from.contains(&VersionFrom::Path) {
            self.error(
                format!("{path}.strip_version"),
                "no version stands in the path: `version_from` does not name `path`",
            );
        }
        let source = |from: &VersionFrom| match from {
            VersionFrom::Path => Source::Path(prefix.into()),
            VersionFrom::Header(name) => Source::Header(name.clone()),
            VersionFrom::Query(name) => Source::Query(name.clone()),
            VersionFrom::MediaType(before, after) => Source::MediaType(before.clone(), after.clone()),
        };
        api.version_from.iter().map(source).collect()
    }

    /// A version's name, as requests say it.
    fn version_name<'n>(&mut self, path: &str, name: &'n str) -> &'n str {
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let starts = name.starts_with(|first: char| first.is_ascii_digit());
        if !starts || name.len() > 64 || !name.bytes().all(fit) {
            let error = ConfigError::new(path, format!("`{name}` is not a version: it begins with a digit"));
            self.errors
                .push(error.with_hint("`\"2\"`, `\"1.1\"` or `\"2026-01-31\"`; requests may say `v2`, too"));
        }
        name
    }

    fn default_version(
        &mut self,
        path: &str,
        api: &Api,
        name: &str,
        all: &[(Box<str>, Arc<Route>)],
    ) -> Option<usize> {
        if name == LATEST {
            return all.len().checked_sub(1);
        }
        if !api.versions.contains_key(name) {
            let known = api.versions.keys().map(String::as_str).chain([LATEST]);
            self.errors.push(unknown(format!("{path}.default"), "version", name, known));
        }
        all.iter().position(|(known, _)| **known == *name)
    }

    fn lifecycle(&mut self, path: &str, version: &ApiVersion, vary: Box<[HeaderValue]>) -> Lifecycle {
        let deprecated = version.deprecated.as_ref().map(Moment::time);
        let sunset = version.sunset.as_ref().map(Moment::time);
        if let (Some(deprecated), Some(sunset)) = (deprecated, sunset)
            && sunset < deprecated
        {
            self.error(format!("{path}.sunset"), "a version cannot end before it is deprecated");
        }
        let links = version.link.as_ref().map(|link| {
            if deprecated.is_none() && sunset.is_none() {
                self.error(
                    format!("{path}.link"),
                    "there is nothing to read about: name `deprecated` or `sunset`, too",
                );
            }
            self.links_to(&format!("{path}.link"), link, deprecated.is_some(), sunset.is_some())
        });
        Lifecycle {
            deprecated: deprecated.and_then(|at| Some((at, deprecation(at)?))),
            sunset: sunset
                .and_then(|at| Some((at, HeaderValue::try_from(httpdate::fmt_http_date(at)).ok()?))),
            links: links.unwrap_or_default(),
            vary,
        }
    }

    /// The values of `Link` (RFC 8288) that lead to where people read.
    fn links_to(&mut self, path: &str, url: &str, deprecated: bool, sunset: bool) -> Box<[HeaderValue]> {
        let fit = url.starts_with("https://") || url.starts_with("http://") || url.starts_with('/');
        if !fit || url.contains(['<', '>', ' ', '"']) || HeaderValue::try_from(url).is_err() {
            self.error(path, format!("`{url}` is not a URL"));
        }
        let relations = [("deprecation", deprecated), ("sunset", sunset)];
        let link = |(relation, is): (&str, bool)| {
            is.then(|| HeaderValue::try_from(format!("<{url}>; rel=\"{relation}\"; type=\"text/html\"")).ok())
                .flatten()
        };
        relations.into_iter().filter_map(link).collect()
    }
}

/// `@` and the seconds since 1970: a date as a structured field (RFC 9651, section 3.3.7).
fn deprecation(at: SystemTime) -> Option<HeaderValue> {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    HeaderValue::try_from(format!("@{seconds}")).ok()
}

/// What a route of all versions would be.
fn as_route(api: &Api) -> Words {
    Words {
        name: api.name.clone(),
        hosts: api.hosts.clone(),
        path: api.path.clone(),
        headers: api.headers.clone(),
        listeners: api.listeners.clone(),
        timeouts: api.timeouts.clone(),
        retry: api.retry.clone(),
        limits: api.limits.clone(),
        mirror: api.mirror.clone(),
        ..Words::default()
    }
}
