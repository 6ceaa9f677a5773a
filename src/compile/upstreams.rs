//! Upstreams and their endpoints.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::Inputs;
use crate::config::{Balance, Config, Upstream as Words, UpstreamProtocol};
use crate::document::{ConfigError, Errors, join};
use crate::upstream::{Endpoint, EndpointId, EndpointSet, Load, Protocol, Upstream};

/// The most endpoints of one upstream.
const MOST: usize = 4096;

pub(super) fn compile(
    config: &Config,
    inputs: Inputs<'_>,
    errors: &mut Errors,
) -> BTreeMap<Arc<str>, Arc<Upstream>> {
    let mut compiled = BTreeMap::new();
    for (name, words) in &config.upstreams {
        let path = join("upstreams", name);
        check(&path, words, errors);
        let name: Arc<str> = Arc::from(name.as_str());
        let endpoints = endpoints(&name, words, inputs);
        let set = match words.balance {
            Balance::RoundRobin => EndpointSet::round_robin(endpoints),
        };
        let protocol = match words.protocol {
            UpstreamProtocol::Http1 => Protocol::Http1,
            UpstreamProtocol::Http2 => Protocol::Http2,
        };
        compiled.insert(Arc::clone(&name), Arc::new(Upstream::new(name, protocol, set)));
    }
    compiled
}

fn endpoints(name: &str, words: &Words, inputs: Inputs<'_>) -> Vec<Endpoint> {
    let metrics = inputs.metrics.upstream(name);
    let known = words.endpoints.iter().enumerate().filter_map(|(at, words)| {
        let id = EndpointId(u16::try_from(at).ok()?);
        let load = inputs.state.adopt(format!("{name} {}", words.address), Load::default);
        let metrics = metrics.endpoint(&words.address.to_string());
        Some(Endpoint::new(id, words.address, words.weight, load, metrics))
    });
    known.collect()
}

fn check(path: &str, words: &Words, errors: &mut Errors) {
    let mut error = |path: String, message: &str| errors.push(ConfigError::new(path, message));
    if words.endpoints.is_empty() {
        error(format!("{path}.endpoints"), "an upstream needs at least one endpoint");
    }
    if words.endpoints.len() > MOST {
        error(format!("{path}.endpoints"), "an upstream has at most 4096 endpoints");
    }
    let mut seen = HashSet::new();
    for (at, endpoint) in words.endpoints.iter().enumerate() {
        let path = format!("{path}.endpoints[{at}]");
        if !seen.insert(endpoint.address) {
            error(path.clone(), "this address is listed twice: give it a weight instead");
        }
        if endpoint.address.port() == 0 {
            error(path.clone(), "an endpoint needs a port");
        }
        if !(1..=1000).contains(&endpoint.weight) {
            error(format!("{path}.weight"), "a weight is 1 to 1000");
        }
    }
    let timeouts = &words.timeouts;
    for (name, timeout) in [
        ("connect", timeouts.connect),
        ("read", timeouts.read),
        ("write", timeouts.write),
        ("idle", Some(timeouts.idle)),
    ] {
        if timeout.is_some_and(|timeout| timeout.get().is_zero()) {
            error(format!("{path}.timeouts.{name}"), "a timeout cannot be zero");
        }
    }
}
