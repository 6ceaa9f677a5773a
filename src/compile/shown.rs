//! The words as they may be shown.

use crate::condition::{Condition, Place};
use crate::config::{Config, FilterUse, Matcher, Route};
use crate::registry::Registry;
use crate::types::{CredentialFields, MASK};

/// A configuration without what must not leave the process: secrets, and the values of header fields that carry
/// credentials, those that the access log redacts included.
pub fn shown(config: &Config, registry: &Registry) -> Config {
    let fields = credentials(config);
    let mut config = config.clone();
    for route in &mut config.routes {
        mask(route, &fields);
    }
    let checks =
        config.upstreams.values_mut().filter_map(|upstream| upstream.health.active.as_mut()?.http.as_mut());
    checks.flat_map(|check| &mut check.headers).for_each(|(name, value)| fields.mask(name, value));
    let sinks = config.telemetry.events.iter_mut().flat_map(|sink| &mut sink.webhook.headers);
    sinks.for_each(|(name, value)| fields.mask(name, value));
    let listeners = config.listeners.iter_mut().flat_map(|listener| &mut listener.filters);
    let routes = config.routes.iter_mut().flat_map(|route| &mut route.filters);
    let chains = config.chains.values_mut().flatten();
    for filter in config.filters.iter_mut().chain(chains).chain(listeners).chain(routes) {
        show(filter, registry, &fields);
    }
    config
}

/// The header fields that carry credentials here.
pub(super) fn credentials(config: &Config) -> CredentialFields {
    CredentialFields::with(config.telemetry.access_log.redact.iter().cloned())
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

fn mask(route: &mut Route, fields: &CredentialFields) {
    for (name, wanted) in &mut route.headers {
        *wanted = matcher(name, wanted, fields);
    }
    let set = route.respond.iter_mut().flat_map(|respond| &mut respond.headers);
    set.for_each(|(name, value)| fields.mask(name, value));
}

fn show(filter: &mut FilterUse, registry: &Registry, fields: &CredentialFields) {
    if let Some(kind) = registry.kind(&filter.name) {
        filter.config = kind.show(&filter.config, fields);
    }
    // A condition may compare such a field with a secret.
    let secret = |when: &str| {
        Condition::parse(when, Place::Response).is_ok_and(|it| it.fields().any(|field| fields.covers(field)))
    };
    if let Some(when) = filter.when.as_mut().filter(|when| secret(when.as_str())) {
        MASK.clone_into(when);
    }
}
