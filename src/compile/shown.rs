//! The words as they may be shown.

use std::collections::BTreeMap;

use super::chains;
use crate::condition::{Condition, Place};
use crate::config::{Config, FilterUse, Matcher, Path, Route};
use crate::registry::Registry;
use crate::types::{CredentialFields, MASK};

/// A configuration without what must not leave the process: secrets, and the values of header fields that carry
/// credentials, those that the access log redacts included.
pub fn shown(config: &Config, registry: &Registry) -> Config {
    let fields = credentials(config, registry);
    let mut config = config.clone();
    for route in &mut config.routes {
        mask(route, &fields);
    }
    for api in &mut config.apis {
        mask_matchers(&mut api.headers, &fields);
    }
    let checks =
        config.upstreams.values_mut().filter_map(|upstream| upstream.health.active.as_mut()?.http.as_mut());
    checks.flat_map(|check| &mut check.headers).for_each(|(name, value)| fields.mask(name, value));
    let sinks = config.telemetry.events.iter_mut().flat_map(|sink| &mut sink.webhook.headers);
    sinks.for_each(|(name, value)| fields.mask(name, value));
    let listeners = config.listeners.iter_mut().flat_map(|listener| &mut listener.filters);
    let routes = config.routes.iter_mut().flat_map(|route| &mut route.filters);
    let apis = config.apis.iter_mut().flat_map(|api| &mut api.filters);
    let chains = config.chains.values_mut().flatten();
    for filter in config.filters.iter_mut().chain(chains).chain(listeners).chain(routes).chain(apis) {
        show(filter, registry, &fields);
    }
    config
}

/// The header fields and query parameters that carry credentials here.
pub(super) fn credentials(config: &Config, registry: &Registry) -> CredentialFields {
    let fields = CredentialFields::with(config.telemetry.access_log.redact.iter().cloned());
    fields.and_queries(chains::secret_queries(config, registry))
}

/// What is wanted of a header field, as it may be shown.
pub(super) fn matcher(name: &str, wanted: &Matcher, fields: &CredentialFields) -> Matcher {
    let mut shown = wanted.clone();
    match &mut shown {
        Matcher::Exact(value) => fields.mask(name, value),
        Matcher::Regex(value) => fields.mask(name, &mut value.regex),
        Matcher::Present(_) => {}
    }
    shown
}

/// What is wanted of a query parameter, as it may be shown.
fn query_matcher(name: &str, wanted: &Matcher, fields: &CredentialFields) -> Matcher {
    let mut shown = wanted.clone();
    match &mut shown {
        Matcher::Exact(value) if fields.covers_query(name) => MASK.clone_into(value),
        Matcher::Regex(value) if fields.covers_query(name) => MASK.clone_into(&mut value.regex),
        _ => {}
    }
    shown
}

fn mask(route: &mut Route, fields: &CredentialFields) {
    mask_matchers(&mut route.headers, fields);
    mask_queries(&mut route.query, fields);
    for rule in route.split.iter_mut().flat_map(|split| &mut split.rules) {
        mask_matchers(&mut rule.headers, fields);
        mask_queries(&mut rule.query, fields);
        for wanted in rule.cookies.values_mut() {
            *wanted = matcher("cookie", wanted, fields);
        }
        mask_condition(rule.when.as_mut(), fields);
    }
    let set = route.respond.iter_mut().flat_map(|respond| &mut respond.headers);
    set.for_each(|(name, value)| fields.mask(name, value));
}

fn mask_matchers(matchers: &mut BTreeMap<String, Matcher>, fields: &CredentialFields) {
    for (name, wanted) in matchers {
        *wanted = matcher(name, wanted, fields);
    }
}

fn mask_queries(matchers: &mut BTreeMap<String, Matcher>, fields: &CredentialFields) {
    for (name, wanted) in matchers {
        *wanted = query_matcher(name, wanted, fields);
    }
}

fn show(filter: &mut FilterUse, registry: &Registry, fields: &CredentialFields) {
    if let Some(kind) = registry.kind(&filter.name) {
        filter.config = kind.show(&filter.config, registry, fields);
    }
    mask_condition(filter.when.as_mut(), fields);
}

/// A condition may compare such a field with a secret.
fn mask_condition(when: Option<&mut String>, fields: &CredentialFields) {
    let secret = |when: &str| Condition::parse(when, Place::Response).is_ok_and(|it| it.may_tell(fields));
    if let Some(when) = when.filter(|when| secret(when.as_str())) {
        MASK.clone_into(when);
    }
}

/// What a route matches, in short: `GET,POST api.test/orders/* header x-env=canary on web`.
pub(super) fn summary(words: &Route, credentials: &CredentialFields) -> String {
    let path = match &words.path {
        Path::Pattern(pattern) => pattern.clone(),
        Path::Regex(words) => format!("~{}", words.regex),
    };
    let methods = if words.methods.is_empty() { "*".to_owned() } else { words.methods.join(",") };
    let mut summary = format!("{methods} {}{path}", words.hosts.join(","));
    let headers =
        words.headers.iter().map(|(name, wanted)| ("header", name, matcher(name, wanted, credentials)));
    let query =
        words.query.iter().map(|(name, wanted)| ("query", name, query_matcher(name, wanted, credentials)));
    for (kind, name, matcher) in headers.chain(query) {
        summary.push_str(&match matcher {
            Matcher::Exact(value) => format!(" {kind} {name}={value}"),
            Matcher::Present(presence) if presence.present => format!(" {kind} {name}"),
            Matcher::Present(_) => format!(" no {kind} {name}"),
            Matcher::Regex(words) => format!(" {kind} {name}~{}", words.regex),
        });
    }
    if !words.listeners.is_empty() {
        summary.push_str(" on ");
        summary.push_str(&words.listeners.join(","));
    }
    summary
}
