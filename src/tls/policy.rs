//! What is spoken with whom.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ahash::HashMap;
use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderValue;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::NoServerSessionStorage;

use super::certificates::Certificates;
use super::client::ClientAuth;
use super::suites::{Suites, Version};
use super::tickets::{TicketKey, Tickets};
use crate::types::HostPattern;

/// The names of what may be spoken inside (RFC 7301).
pub const ALPN_HTTP2: &str = "h2";
/// HTTP/1.1.
pub const ALPN_HTTP1: &str = "http/1.1";

/// What a listener speaks, compiled.
#[derive(Debug)]
pub struct ServerPolicy {
    certificates: Arc<Certificates>,
    tickets: Arc<Tickets>,
    /// The `Strict-Transport-Security` field of every response.
    pub hsts: Option<HeaderValue>,
    base: Arc<HostPolicy>,
    exact: HashMap<Box<str>, Arc<HostPolicy>>,
    /// By what stands after `*.`.
    wildcard: HashMap<Box<str>, Arc<HostPolicy>>,
}

/// What is spoken with those who ask for a host.
#[derive(Debug)]
pub struct HostPolicy {
    /// The oldest version.
    pub min_version: Version,
    /// Whether clients are asked for a certificate; `Some(true)` when they must have one.
    pub client_auth: Option<bool>,
    pub(super) fingerprint: [u8; 32],
    config: Arc<ServerConfig>,
}

/// What a [`HostPolicy`] is made of.
#[derive(Debug, Clone)]
pub struct HostSpec {
    /// The oldest version.
    pub min_version: Version,
    /// The suites.
    pub suites: Suites,
    /// Whether clients show a certificate.
    pub client_auth: Option<ClientAuth>,
}

/// What a [`ServerPolicy`] is made of.
pub struct Spec {
    /// The certificates.
    pub certificates: Certificates,
    /// The keys of its tickets.
    pub tickets: Arc<Tickets>,
    /// The `Strict-Transport-Security` field.
    pub hsts: Option<HeaderValue>,
    /// What may be spoken inside, the favourite first.
    pub alpn: Vec<&'static str>,
    /// For the hosts that are not named below.
    pub base: HostSpec,
    /// For some hosts.
    pub hosts: Vec<(HostPattern, HostSpec)>,
}

impl ServerPolicy {
    /// Compiles a policy.
    ///
    /// # Errors
    ///
    /// A sentence, when the words contradict each other.
    pub fn new(spec: Spec) -> Result<Self, String> {
        let Spec { certificates, tickets, hsts, alpn, base, hosts } = spec;
        let certificates = Arc::new(certificates);
        let compile = |spec: &HostSpec| HostPolicy::new(spec, &certificates, &tickets, &alpn).map(Arc::new);
        let base = compile(&base)?;
        let (mut exact, mut wildcard) = (HashMap::default(), HashMap::default());
        for (pattern, spec) in &hosts {
            let table = if pattern.is_wildcard() { &mut wildcard } else { &mut exact };
            table.insert(pattern.name().into(), compile(spec)?);
        }
        Ok(Self { certificates, tickets, hsts, base, exact, wildcard })
    }

    /// What is spoken with those who ask for a host, a canonical name: its own, that of the longest wildcard above it,
    /// or the listener's.
    pub fn host(&self, host: &str) -> &Arc<HostPolicy> {
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return &self.base;
        }
        let suffixes = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
        let mut wildcards = suffixes.filter_map(|suffix| self.wildcard.get(suffix));
        self.exact.get(host).or_else(|| wildcards.next()).unwrap_or(&self.base)
    }

    /// What is spoken with a client that names this host in its greeting, or none.
    pub fn greeted(&self, name: Option<&str>) -> &Arc<HostPolicy> {
        name.map_or(&self.base, |name| self.host(&name.trim_end_matches('.').to_ascii_lowercase()))
    }

    /// What is spoken with those who ask for a host that is not named.
    pub fn base(&self) -> &HostPolicy {
        &self.base
    }

    /// What is spoken for the hosts that are named, by pattern.
    pub fn hosts(&self) -> BTreeMap<String, &HostPolicy> {
        let exact = self.exact.iter().map(|(name, policy)| (name.to_string(), &**policy));
        let wildcard = self.wildcard.iter().map(|(suffix, policy)| (format!("*.{suffix}"), &**policy));
        exact.chain(wildcard).collect()
    }

    /// The certificates.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The keys of its tickets, to be handed over.
    pub fn ticket_keys(&self) -> Vec<TicketKey> {
        self.tickets.keys()
    }
}

impl HostPolicy {
    fn new(
        spec: &HostSpec,
        certificates: &Arc<Certificates>,
        tickets: &Arc<Tickets>,
        alpn: &[&'static str],
    ) -> Result<Self, String> {
        let versions: Vec<Version> = [Version::Tls13, Version::Tls12]
            .into_iter()
            .filter(|version| *version >= spec.min_version && spec.suites.speaks(*version))
            .collect();
        let min_version = *versions.last().ok_or("no cipher suite is of a version that is spoken")?;
        let fingerprint = fingerprint(spec, &versions);
        let cipher_suites = spec.suites.of(&versions);
        let provider = CryptoProvider { cipher_suites, ..default_provider() };
        let supported: Vec<_> = versions.iter().map(|version| version.supported()).collect();
        let builder = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&supported)
            .map_err(|error| error.to_string())?;
        let builder = match &spec.client_auth {
            Some(auth) => builder.with_client_cert_verifier(auth.verifier()?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(certificates) as _);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        // Sessions live in tickets alone: a memory of our own would end with each reload.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets.under(fingerprint);
        let client_auth = spec.client_auth.as_ref().map(|auth| auth.required);
        Ok(Self { min_version, client_auth, fingerprint, config: Arc::new(config) })
    }

    /// What the handshake goes by.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

impl fmt::Display for HostPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suites = self.config.crypto_provider().cipher_suites.len();
        write!(f, "{} or newer, {suites} cipher suites", self.min_version.number())?;
        f.write_str(match self.client_auth {
            Some(true) => ", client certificate required",
            Some(false) => ", client certificate optional",
            None => "",
        })
    }
}

/// Tells policies apart by all that they ask of a client. Certificates of our own are no part of it: a session goes on
/// when they are renewed.
fn fingerprint(spec: &HostSpec, versions: &[Version]) -> [u8; 32] {
    let mut digest = Context::new(&SHA256);
    versions.iter().for_each(|version| digest.update(version.number().as_bytes()));
    for suite in spec.suites.of(versions) {
        digest.update(&suite.suite().to_array());
    }
    if let Some(auth) = &spec.client_auth {
        digest.update(if auth.required { b"require" } else { b"optional" });
        digest.update(auth.authorities.fingerprint());
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest.finish().as_ref());
    fingerprint
}
