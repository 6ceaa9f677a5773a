//! The words of `discover` become a finder.

use std::net::IpAddr;
use std::sync::Arc;

use super::unknown;
use crate::config::{Discover as Words, DnsNames};
use crate::document::{ConfigError, Errors, join};
use crate::registry::Registry;
use crate::upstream::{DnsQuery, Finder};

/// Where the endpoints of an upstream are looked for; `None` when something is wrong with it.
pub(super) fn finder(
    upstream: &str,
    words: &Words,
    registry: &Registry,
    errors: &mut Errors,
) -> Option<Finder> {
    let path = join(&join("upstreams", upstream), "discover");
    match words {
        Words::Dns(words) => dns(&join(&path, "dns"), words, errors),
        Words::Custom(name) => custom(join(&path, "custom"), name, registry, errors),
    }
}

fn custom(path: String, name: &str, registry: &Registry, errors: &mut Errors) -> Option<Finder> {
    if let Some(discovery) = registry.discovery(name) {
        return Some(Finder::Custom { name: name.into(), discovery: Arc::clone(discovery) });
    }
    let error = unknown(path, "discovery", name, registry.discoveries());
    errors.push(match registry.discoveries().next() {
        Some(_) => error,
        None => error.with_hint("a discovery is registered in code, with `Gateway::discovery`"),
    });
    None
}

fn dns(path: &str, words: &DnsNames, errors: &mut Errors) -> Option<Finder> {
    let DnsNames { name, port, resolver } = words;
    let mut fine = true;
    let mut error = |error: ConfigError| {
        fine = false;
        errors.push(error);
    };
    if name.parse::<IpAddr>().is_ok() {
        let wrong = ConfigError::new(join(path, "name"), format!("`{name}` is an address already"));
        error(wrong.with_hint("list it under `endpoints`, with its port"));
    } else if !is_name(name) {
        error(ConfigError::new(join(path, "name"), format!("`{name}` is not a name that DNS knows")));
    }
    if *port == Some(0) {
        let wrong = ConfigError::new(join(path, "port"), "an endpoint needs a port");
        error(wrong.with_hint("without `port` the ports come from SRV records"));
    }
    let unreachable = resolver.iter().enumerate().filter(|(_, server)| server.0.port() == 0);
    for (at, _) in unreachable {
        error(ConfigError::new(format!("{path}.resolver[{at}]"), "a name server has a port"));
    }
    let name = name.as_str().into();
    let query = match *port {
        Some(port) => DnsQuery::Addresses { name, port },
        None => DnsQuery::Services { name },
    };
    fine.then(|| Finder::Dns { query, servers: resolver.iter().map(|server| server.0).collect() })
}

/// Whether this is a name in DNS (RFC 1035, section 2.3.4); services have underscores (RFC 2782).
fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(known)
    };
    name.len() <= 253 && name.split('.').all(is_label)
}
