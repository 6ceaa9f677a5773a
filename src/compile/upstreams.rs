//! Upstreams and their endpoints.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::{Inputs, balance, discover, hedge, resilience};
use crate::config::{
    Config, Endpoint as EndpointWords, Upstream as Words, UpstreamProtocol, UpstreamTls as TlsWords,
};
use crate::document::{ConfigError, Errors, join};
use crate::tls::{Identity, IdentityPart, Trust, TrustedRoots, Unusable, UpstreamTls};
use crate::types::HostPattern;
use crate::upstream::{
    Common, EndpointSpec, Finder, Found, MOST_ENDPOINTS, Members, Protocol, Roster, Rules, Shared, Upstream,
};

pub(super) fn compile(
    config: &Config,
    inputs: Inputs<'_>,
    errors: &mut Errors,
) -> BTreeMap<Arc<str>, Arc<Upstream>> {
    let mut compiled = BTreeMap::new();
    for (name, words) in &config.upstreams {
        let path = join("upstreams", name);
        check(&path, words, errors);
        let rules = Rules {
            learns_latencies: hedge::asks_of(name, config),
            ..resilience::rules(&path, words, inputs.registry, errors)
        };
        let name: Arc<str> = Arc::from(name.as_str());
        let common = common(&name, rules, inputs);
        let members = members(&name, words, inputs, errors);
        let choice = balance::choice(&name, &words.balance, config.server.zone.as_deref(), inputs, errors);
        let tls = words.tls.as_ref().and_then(|words| tls(&join(&path, "tls"), words, inputs, errors));
        let protocol = protocol(words.protocol);
        let upstream = Upstream::new(protocol, tls.map(Arc::new), common, choice, members);
        compiled.insert(Arc::clone(&name), Arc::new(upstream));
    }
    compiled
}

pub(super) fn protocol(words: UpstreamProtocol) -> Protocol {
    match words {
        UpstreamProtocol::Http1 => Protocol::Http1,
        UpstreamProtocol::Http2 => Protocol::Http2,
        UpstreamProtocol::Auto => Protocol::Auto,
    }
}

fn common(name: &Arc<str>, rules: Rules, inputs: Inputs<'_>) -> Arc<Common> {
    let shared = inputs.state.adopt(format!("upstream {name}"), || Shared::new(Instant::now()));
    let (metrics, events) = (inputs.metrics.upstream(name), inputs.events.clone());
    Arc::new(Common { name: Arc::clone(name), rules, shared, metrics, events })
}

fn members(name: &Arc<str>, words: &Words, inputs: Inputs<'_>, errors: &mut Errors) -> Members {
    // What is beyond the most is refused.
    let specs = words.endpoints.iter().take(MOST_ENDPOINTS).map(|words| EndpointSpec {
        zone: words.zone.as_deref().map(Arc::from),
        priority: words.priority,
        ..EndpointSpec::new(words.address, words.weight)
    });
    let finder: Option<Finder> =
        words.discover.as_ref().and_then(|words| discover::finder(name, words, inputs.registry, errors));
    let found = |finder| {
        // The same words mean the same: what was found is kept as long as they stay.
        let key = format!("discover {name} {finder}");
        inputs.state.adopt(key, || Found::new(finder))
    };
    Members {
        written: specs.collect(),
        roster: inputs.state.adopt(Roster::key(name), Roster::default),
        found: finder.map(found),
    }
}

/// TLS with the servers; `None` when something is wrong with it, or nothing may be read.
fn tls(path: &str, words: &TlsWords, inputs: Inputs<'_>, errors: &mut Errors) -> Option<UpstreamTls> {
    let mut wrong = |path: String, Unusable { message, hint }: Unusable| {
        let error = ConfigError::new(path, message);
        errors.push(match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        });
    };
    let plain = |message: &str| Unusable { message: message.to_owned(), hint: None };
    if words.sni.as_deref().is_some_and(|sni| !is_name(sni)) {
        wrong(join(path, "sni"), plain("this is neither a host name nor an address"));
    }
    if !words.verify && words.ca.is_some() {
        wrong(join(path, "ca"), plain("authorities are of no use with `verify: false`"));
    }
    if !inputs.certificates {
        return None;
    }
    let trust = match (&words.ca, words.verify) {
        (_, false) => Some(Trust::Anyone),
        (None, true) => Some(Trust::System),
        (Some(file), true) => {
            let roots = TrustedRoots::load(file).map_err(|fault| wrong(join(path, "ca"), fault));
            roots.ok().map(Trust::Authorities)
        }
    };
    let identity = match &words.client_cert {
        None => Some(None),
        Some(files) => {
            let identity = Identity::load(&files.cert, &files.key).map_err(|(part, fault)| {
                let part = if part == IdentityPart::Cert { "client_cert.cert" } else { "client_cert.key" };
                wrong(format!("{path}.{part}"), fault);
            });
            identity.ok().map(Some)
        }
    };
    Some(UpstreamTls::new(words.sni.as_deref(), trust?, identity?))
}

/// Whether a certificate can have this name.
fn is_name(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok() || HostPattern::parse(name).is_ok_and(|host| !host.is_wildcard())
}

/// The files that an upstream is made of, for a watcher.
pub fn upstream_files(upstream: &Words) -> impl Iterator<Item = &Path> {
    let tls = upstream.tls.iter();
    let of_tls = tls.flat_map(|tls| {
        let identity = tls.client_cert.iter().flat_map(|files| [&files.cert, &files.key]);
        tls.ca.iter().chain(identity).map(PathBuf::as_path)
    });
    of_tls.chain(balance::secret_file(&upstream.balance))
}

fn check(path: &str, words: &Words, errors: &mut Errors) {
    let mut error = |path: String, message: &str| errors.push(ConfigError::new(path, message));
    if words.endpoints.is_empty() && words.discover.is_none() {
        error(format!("{path}.endpoints"), "an upstream needs at least one endpoint, or `discover`");
    }
    if words.endpoints.len() > MOST_ENDPOINTS {
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
        rank(&path, endpoint, &mut error);
    }
    let alone = !words.endpoints.is_empty() && words.discover.is_none();
    if alone && words.endpoints.iter().all(|endpoint| endpoint.weight == 0) {
        error(format!("{path}.endpoints"), "every endpoint has weight 0: nobody would be asked");
    }
    let timeouts = &words.timeouts;
    for (name, timeout) in [
        ("connect", timeouts.connect),
        ("read", timeouts.read),
        ("write", timeouts.write),
        ("idle", Some(timeouts.idle)),
        ("lifetime", timeouts.lifetime),
    ] {
        if timeout.is_some_and(|timeout| timeout.get().is_zero()) {
            error(format!("{path}.timeouts.{name}"), "a timeout cannot be zero");
        }
    }
}

/// What is said of an endpoint for the choice.
fn rank(path: &str, endpoint: &EndpointWords, error: &mut impl FnMut(String, &str)) {
    if endpoint.weight > 1000 {
        error(format!("{path}.weight"), "a weight is 0 to 1000");
    }
    if endpoint.priority > 127 {
        error(format!("{path}.priority"), "a priority is 0 to 127");
    }
    if endpoint.zone.as_deref() == Some("") {
        error(format!("{path}.zone"), "a zone has a name");
    }
}
