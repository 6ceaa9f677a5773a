//! `listeners[].tls` and `redirect_to_https`.

use std::path::Path;
use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::{Compiler, unknown};
use crate::config::{
    self, CertificateSource, Ciphers, ClientAuthMode, HostTls, Hsts, Listener, Protocol, TlsVersion,
};
use crate::document::{ConfigError, join};
use crate::snapshot::RedirectToHttps;
use crate::tls::{
    ALPN_HTTP1, ALPN_HTTP2, Authorities, Certificate, Certificates, Chain, ClientAuth, Entry, HostSpec, Key,
    ServerPolicy, Spec, Suites, Tickets, Unusable, Version,
};
use crate::types::HostPattern;

/// What the list that browsers are built with asks for (hstspreload.org).
const PRELOAD_SECONDS: u64 = 365 * 24 * 60 * 60;

impl Compiler<'_> {
    /// What a listener speaks; `None` for plaintext, and when something is wrong.
    pub(super) fn tls(&mut self, at: usize, listener: &Listener) -> Option<Arc<ServerPolicy>> {
        self.check_redirect(at, listener);
        let words = listener.tls.as_ref()?;
        let path = format!("listeners[{at}].tls");
        let certificates = self.certificates(&join(&path, "certificates"), &words.certificates);
        let hsts = words.hsts.as_ref().and_then(|words| self.hsts(&join(&path, "hsts"), words));
        let own = HostTls {
            min_version: words.min_version,
            ciphers: words.ciphers.clone(),
            client_auth: words.client_auth.clone(),
        };
        let usual =
            HostSpec { min_version: Version::Tls12, suites: Suites::intermediate(), client_auth: None };
        let base = self.host(&path, &own, &usual);
        let hosts = words.hosts.iter().filter_map(|(name, words)| {
            let path = join(&join(&path, "hosts"), name);
            let pattern = self.host_pattern(&path, name);
            Some((pattern?, self.host(&path, words, base.as_ref().unwrap_or(&usual))?))
        });
        let hosts: Vec<(HostPattern, HostSpec)> = hosts.collect();
        for (at, (pattern, _)) in hosts.iter().enumerate() {
            if hosts.iter().take(at).any(|(before, _)| before == pattern) {
                self.error(join(&path, "hosts"), format!("`{pattern}` is there twice, in two spellings"));
            }
        }
        if hosts.len() < words.hosts.len() || !self.inputs.certificates {
            return None;
        }
        let tickets = self.inputs.state.adopt(Tickets::key(&listener.name), Tickets::fresh);
        let names = [(Protocol::Http2, ALPN_HTTP2), (Protocol::Http1, ALPN_HTTP1)];
        let spoken = names.into_iter().filter(|(protocol, _)| listener.protocols.contains(protocol));
        let alpn = spoken.map(|(_, name)| name).collect();
        let spec = Spec { certificates: certificates?, tickets, hsts, alpn, base: base?, hosts };
        ServerPolicy::new(spec).map_err(|message| self.error(path, message)).map(Arc::new).ok()
    }

    fn certificates(&mut self, path: &str, words: &[CertificateSource]) -> Option<Certificates> {
        if words.is_empty() {
            let hint = "add `{ cert: example.pem, key: example.key }`";
            self.errors.push(ConfigError::new(path, "TLS needs at least one certificate").with_hint(hint));
        }
        let mut all = Vec::with_capacity(words.len());
        for (at, source) in words.iter().enumerate() {
            let path = format!("{path}[{at}]");
            all.extend(match source {
                CertificateSource::Files { cert, key } => self.loaded(&path, cert, key).map(Entry::Loaded),
                CertificateSource::Acme { acme, hosts } => {
                    let managed = self.managed(&path, acme, hosts);
                    managed.map(|managed| Entry::Issued(Arc::clone(managed.progress.issued())))
                }
            });
        }
        if all.len() < words.len() || all.is_empty() {
            return None;
        }
        let certificates = Certificates::new(all).map_err(|faults| {
            for (at, fault) in faults {
                let part = match words.get(at) {
                    Some(CertificateSource::Acme { .. }) => "hosts",
                    _ => "cert",
                };
                self.usable::<()>(format!("{path}[{at}].{part}"), Err(fault));
            }
        });
        certificates.ok()
    }

    fn loaded(&mut self, path: &str, cert: &Path, key: &Path) -> Option<Arc<Certificate>> {
        if !self.inputs.certificates {
            return None;
        }
        let chain = self.usable(join(path, "cert"), Chain::load(cert));
        let read = self.usable(join(path, "key"), Key::load(key));
        self.usable(join(path, "key"), Certificate::new(chain?, read?)).map(Arc::new)
    }

    /// What is spoken for a host, where it says nothing itself as `usual`.
    fn host(&mut self, path: &str, words: &HostTls, usual: &HostSpec) -> Option<HostSpec> {
        let suites = match &words.ciphers {
            None => Some(usual.suites.clone()),
            Some(ciphers) => self.suites(&join(path, "ciphers"), ciphers),
        };
        let client_auth = match &words.client_auth {
            None => Some(usual.client_auth.clone()),
            Some(auth) => self.client_auth(&join(path, "client_auth"), auth).map(Some),
        };
        let min_version = words.min_version.map_or(usual.min_version, version);
        let (suites, client_auth) = (suites?, client_auth?);
        let said = words.min_version.is_some() || min_version == Version::Tls13;
        if said && !suites.speaks(min_version) {
            let message = format!(
                "none of the cipher suites is one of TLS {}, the oldest version",
                min_version.number()
            );
            self.error(join(path, if words.ciphers.is_some() { "ciphers" } else { "min_version" }), message);
            return None;
        }
        Some(HostSpec { min_version, suites, client_auth })
    }

    fn suites(&mut self, path: &str, words: &Ciphers) -> Option<Suites> {
        let names = match words {
            Ciphers::Modern => return Some(Suites::modern()),
            Ciphers::Intermediate => return Some(Suites::intermediate()),
            Ciphers::Named(names) => names,
        };
        if names.is_empty() {
            self.error(path, "a list of cipher suites has at least one");
            return None;
        }
        let suites = Suites::named(names.iter().map(String::as_str)).map_err(|at| {
            let name = names.get(at).map_or("", String::as_str);
            self.errors.push(unknown(format!("{path}[{at}]"), "cipher suite", name, Suites::names()));
        });
        suites.ok()
    }

    fn client_auth(&mut self, path: &str, words: &config::ClientAuth) -> Option<ClientAuth> {
        if !self.inputs.certificates {
            return None;
        }
        let authorities = self.usable(join(path, "ca"), Authorities::load(&words.ca))?;
        Some(ClientAuth { required: words.mode == ClientAuthMode::Require, authorities })
    }

    pub(super) fn host_pattern(&mut self, path: &str, name: &str) -> Option<HostPattern> {
        let pattern = HostPattern::parse(name).map_err(|error| self.error(path, error.to_string())).ok()?;
        if pattern.name().starts_with('[') || pattern.name().parse::<std::net::IpAddr>().is_ok() {
            self.error(path, "clients do not say which address they ask for: only names can be told apart");
            return None;
        }
        Some(pattern)
    }

    fn hsts(&mut self, path: &str, words: &Hsts) -> Option<HeaderValue> {
        let seconds = words.max_age.get().as_secs();
        if words.preload && (seconds < PRELOAD_SECONDS || !words.include_subdomains) {
            let message = "`preload` takes a `max_age` of at least 365d, and `include_subdomains: true`";
            self.error(join(path, "preload"), message);
        }
        let subdomains = if words.include_subdomains { "; includeSubDomains" } else { "" };
        let preload = if words.preload { "; preload" } else { "" };
        HeaderValue::try_from(format!("max-age={seconds}{subdomains}{preload}")).ok()
    }

    fn check_redirect(&mut self, at: usize, listener: &Listener) {
        let Some(words) = &listener.redirect_to_https else { return };
        let path = format!("listeners[{at}].redirect_to_https");
        if listener.tls.is_some() {
            self.error(&path, "this listener speaks TLS itself: its requests have come by https");
        }
        if words.port == 0 {
            self.error(join(&path, "port"), "a port is 1 to 65535");
        }
        if redirect_to_https(words).is_none() {
            self.error(join(&path, "status"), "a redirect to https has 301, 302, 307 or 308");
        }
    }

    pub(super) fn usable<T>(&mut self, path: String, found: Result<T, Unusable>) -> Option<T> {
        let told = found.map_err(|Unusable { message, hint }| {
            let error = ConfigError::new(path, message);
            self.errors.push(match hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            });
        });
        told.ok()
    }
}

pub(super) fn redirect_to_https(words: &config::RedirectToHttps) -> Option<RedirectToHttps> {
    let good = matches!(words.status, 301 | 302 | 307 | 308);
    let status = StatusCode::from_u16(words.status).ok().filter(|_| good)?;
    Some(RedirectToHttps { port: words.port, status })
}

fn version(words: TlsVersion) -> Version {
    match words {
        TlsVersion::Tls12 => Version::Tls12,
        TlsVersion::Tls13 => Version::Tls13,
    }
}

/// The files that a listener is made of, for a watcher.
pub fn tls_files(listener: &Listener) -> impl Iterator<Item = &Path> {
    let tls = listener.tls.iter();
    tls.flat_map(|tls| {
        let certificates = tls.certificates.iter().flat_map(|source| match source {
            CertificateSource::Files { cert, key } => vec![cert, key],
            CertificateSource::Acme { .. } => Vec::new(),
        });
        let hosts = tls.hosts.values().map(|host| &host.client_auth);
        let authorities = std::iter::once(&tls.client_auth).chain(hosts).flatten().map(|auth| &auth.ca);
        certificates.chain(authorities)
    })
    .map(std::path::PathBuf::as_path)
}
