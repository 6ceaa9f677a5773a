//! Listeners, their limits and filters; the admin listener.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::chains::Ground;
use super::tls::redirect_to_https;
use super::{Compiler, Links};
use crate::config::{Admin, Listener, Protocol, ProxyProtocol as Words, SecretSource};
use crate::document::{ConfigError, Environment};
use crate::guard::HeadLimits;
use crate::registry::Parameters;
use crate::snapshot::{Http2Limits, ListenerPolicy, ProxyProtocol};
use crate::tls::ServerPolicy;
use crate::types::{Duration, Secret};

/// The engine behind the guard takes heads of at most this size and with at most so many fields.
const MOST_HEADER_BYTES: u64 = 512 << 10;
const MOST_HEADERS: usize = 255;
const MOST_HEADER_LIST: u64 = 1 << 20;

/// The listeners, and the lists of filters that differ among them.
pub(super) struct Listeners {
    pub(super) policies: Box<[Arc<ListenerPolicy>]>,
    /// One entry for each distinct list of listener filters; a policy's `chain` is an index into it.
    pub(super) links: Vec<Links>,
}

impl Compiler<'_> {
    pub(super) fn listeners(&mut self) -> Listeners {
        let mut listeners = Listeners { policies: Box::new([]), links: Vec::new() };
        let mut plain = None;
        let mut policies = Vec::new();
        let unread = &self.config.unread;
        if self.config.listeners.is_empty() && !unread.touches("listeners") && !unread.section() {
            self.error(
                "listeners",
                "there must be at least one listener: `listeners: [{ name: web, address: 0.0.0.0:8080 }]`",
            );
        }
        for (at, words) in self.config.listeners.iter().enumerate() {
            self.check_listener(at, words);
            let chain = match (words.filters.is_empty(), plain) {
                (true, Some(chain)) => chain,
                (empty, _) => {
                    let links = self.links(
                        &format!("listeners[{at}].filters"),
                        &words.filters,
                        Ground {
                            owner: &format!("listener {}", words.name),
                            parameters: Parameters::Nowhere,
                        },
                    );
                    listeners.links.push(links);
                    let chain = listeners.links.len() - 1;
                    plain = if empty { Some(chain) } else { plain };
                    chain
                }
            };
            let tls = self.tls(at, words);
            policies.push(Arc::new(policy(words, chain, tls)));
        }
        listeners.policies = policies.into();
        if listeners.links.is_empty() {
            listeners.links.push(Vec::new());
        }
        listeners
    }

    fn check_listener(&mut self, at: usize, words: &Listener) {
        let before = self.config.listeners.get(..at).unwrap_or_default();
        if before.iter().any(|other| other.name == words.name) {
            self.error(
                format!("listeners[{at}].name"),
                format!("another listener is called `{}`", words.name),
            );
        }
        if words.address.is_certain() && before.iter().any(|other| other.address == words.address) {
            self.error(format!("listeners[{at}].address"), format!("another listener has {}", words.address));
        }
        self.check_name(format!("listeners[{at}].name"), &words.name);
        if words.protocols.is_empty() {
            self.error(format!("listeners[{at}].protocols"), "a listener speaks at least one protocol");
        }
        let announced = words.proxy_protocol == Words::Required;
        if announced && self.config.server.trusted_proxies.is_empty() && !self.config.unread.touches("server")
        {
            self.errors.push(
                ConfigError::new(
                    format!("listeners[{at}].proxy_protocol"),
                    "nobody may send the header that is required: `server.trusted_proxies` is empty",
                )
                .with_hint("name the proxies in front: `server: { trusted_proxies: [10.0.0.0/8] }`"),
            );
        }
        let limits = &words.limits;
        let mut check = |name: &str, good: bool, message: &str| {
            if !good {
                self.errors.push(ConfigError::new(format!("listeners[{at}].limits.{name}"), message));
            }
        };
        let header_bytes = limits.header_bytes.get();
        let usual = crate::config::ListenerLimits::default().uri_bytes;
        check(
            "header_bytes",
            (256..=MOST_HEADER_BYTES).contains(&header_bytes),
            "a request head has 256B to 512KiB",
        );
        check(
            "headers",
            (1..=MOST_HEADERS).contains(&limits.headers),
            "a request has 1 to 255 header fields",
        );
        check(
            "uri_bytes",
            limits.uri_bytes == usual || (1..=header_bytes).contains(&limits.uri_bytes.get()),
            "a target is no longer than its head",
        );
        check("connections", limits.connections > 0, "a listener without connections serves nobody");
        check(
            "connections_per_ip",
            limits.connections_per_ip > 0,
            "a listener without connections serves nobody",
        );
        check(
            "requests_per_connection",
            limits.requests_per_connection > 0,
            "a connection serves at least one request",
        );
        check("http2.max_streams", limits.http2.max_streams > 0, "a connection carries at least one request");
        check(
            "http2.max_header_list",
            (256..=MOST_HEADER_LIST).contains(&limits.http2.max_header_list.get()),
            "a header list has 256B to 1MiB",
        );
        check("header_timeout", !limits.header_timeout.get().is_zero(), "a timeout cannot be zero");
        check("idle_timeout", !limits.idle_timeout.get().is_zero(), "a timeout cannot be zero");
        let lifetime = limits.connection_lifetime;
        check(
            "connection_lifetime",
            lifetime.is_none_or(|lifetime| !lifetime.get().is_zero()),
            "a connection lives for some time; leave the word out for no end",
        );
    }

    /// Names become metric labels and words in logs.
    pub(super) fn check_name(&mut self, path: String, name: &str) {
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() {
            self.error(path, "a name cannot be empty");
        } else if name == "-" {
            self.error(path, "`-` stands for requests that no route takes");
        } else if name.len() > 128 || !name.bytes().all(fit) {
            self.error(
                path,
                format!("`{name}` is not a name: letters, digits, `-`, `_` and `.`, at most 128"),
            );
        }
    }

    pub(super) fn admin(&mut self) {
        let Some(admin) = &self.config.admin else { return };
        match admin_token(admin, self.inputs.environment) {
            Err(message) => self.error("admin.token", message),
            Ok(None) if !admin.address.ip().is_loopback() => self.errors.push(
                ConfigError::new(
                    "admin.address",
                    format!("{} can be reached from elsewhere: it needs a token", admin.address),
                )
                .with_hint("add `token: { env: PORTCULLIS_ADMIN_TOKEN }`, or listen on 127.0.0.1"),
            ),
            Ok(_) => {}
        }
        let addresses: HashSet<_> =
            self.config.listeners.iter().filter_map(|listener| listener.address.tcp()).collect();
        if admin.address.port() != 0 && addresses.contains(&admin.address) {
            self.error("admin.address", format!("a listener has {}, too", admin.address));
        }
    }
}

/// The admin token, read from where it is kept.
///
/// # Errors
///
/// A sentence, when it is not there or too short to be one.
pub fn admin_token(admin: &Admin, environment: &Environment) -> Result<Option<Secret>, String> {
    let Some(source) = &admin.token else { return Ok(None) };
    let secret = secret(source, environment)?;
    if secret.expose().len() < 16 {
        Err("a token has at least 16 characters".into())
    } else {
        Ok(Some(secret))
    }
}

/// A secret, read from where it is kept; or a sentence, when it is not there.
pub(super) fn secret(source: &SecretSource, environment: &Environment) -> Result<Secret, String> {
    Ok(match source {
        SecretSource::Word(secret) => secret.clone(),
        SecretSource::Env { env } => Secret::new(
            environment.get(env).ok_or_else(|| format!("environment variable `{env}` is not set"))?,
        ),
        SecretSource::File { file } => {
            let text =
                small_file(file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
            Secret::new(text.trim_end_matches(['\r', '\n']))
        }
    })
}

/// The text of a regular file of at most 4 KiB: whoever names another is mistaken, or up to something.
fn small_file(path: &Path) -> io::Result<String> {
    const MOST: u64 = 4 << 10;
    let data = fs::metadata(path)?;
    if !data.is_file() || data.len() > MOST {
        return Err(io::Error::other("it is not a small file"));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

fn policy(words: &Listener, chain: usize, tls: Option<Arc<ServerPolicy>>) -> ListenerPolicy {
    let limits = &words.limits;
    let http2 = Http2Limits {
        max_streams: limits.http2.max_streams,
        max_header_list: u32::try_from(limits.http2.max_header_list.get()).unwrap_or(u32::MAX),
    };
    ListenerPolicy {
        name: Arc::from(words.name.as_str()),
        proxy_protocol: match words.proxy_protocol {
            Words::Off => ProxyProtocol::Off,
            Words::Optional => ProxyProtocol::Optional,
            Words::Required => ProxyProtocol::Required,
        },
        http1: words.protocols.contains(&Protocol::Http1),
        http2: words.protocols.contains(&Protocol::Http2).then_some(http2),
        head: HeadLimits {
            header_bytes: limits.header_bytes.as_usize(),
            headers: limits.headers,
            uri_bytes: limits.uri_bytes.min(limits.header_bytes).as_usize(),
        },
        header_timeout: limits.header_timeout.get(),
        body_min_rate: limits.body_min_rate.get(),
        idle_timeout: limits.idle_timeout.get(),
        connection_lifetime: limits.connection_lifetime.map(Duration::get),
        connections: limits.connections,
        connections_per_ip: limits.connections_per_ip,
        requests_per_connection: limits.requests_per_connection,
        chain,
        tls,
        redirect_to_https: words.redirect_to_https.as_ref().and_then(redirect_to_https),
    }
}
