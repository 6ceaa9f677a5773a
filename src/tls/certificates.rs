//! Which certificate a client is shown.

use std::sync::Arc;

use ahash::HashMap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureAlgorithm};
use smallvec::SmallVec;

use super::certificate::Certificate;
use super::pem::Unusable;
use super::suites;

/// Those with the same name, in the order they are written.
type Candidates = SmallVec<[usize; 2]>;

/// The certificates of a listener.
#[derive(Debug)]
pub struct Certificates {
    all: Box<[Arc<Certificate>]>,
    exact: HashMap<Box<str>, Candidates>,
    /// By what stands after `*.`.
    wildcard: HashMap<Box<str>, Candidates>,
    /// For clients that ask for another name, or none.
    default: Candidates,
}

impl Certificates {
    /// The certificates in the order they are written; the first is for those who ask for no name that is known.
    ///
    /// # Errors
    ///
    /// Those that could never be chosen, by their place in the list.
    pub fn new(all: Vec<Arc<Certificate>>) -> Result<Self, Vec<(usize, Unusable)>> {
        let mut certificates = Self {
            all: Box::default(),
            exact: HashMap::default(),
            wildcard: HashMap::default(),
            default: SmallVec::new(),
        };
        let mut faults = Vec::new();
        for (at, certificate) in all.iter().enumerate() {
            if at > 0 && certificate.hosts.is_empty() {
                let message = "the certificate names no host, so that it would never be chosen";
                let fault = Unusable::new(message).hint("only the first of the list needs no name");
                faults.push((at, fault));
            }
            for host in &certificate.hosts {
                let candidates = certificates.candidates_mut(host);
                let same = |other: &&usize| all[**other].algorithm() == certificate.algorithm();
                if candidates.contains(&at) {
                    continue;
                }
                if let Some(other) = candidates.iter().find(same) {
                    let message = format!(
                        "`{host}` is in `{}` already, with a key of the same kind ({})",
                        all[*other].file.display(),
                        certificate.key_kind()
                    );
                    faults.push((at, Unusable::new(message).hint("remove one of them")));
                } else {
                    candidates.push(at);
                }
            }
        }
        let first = all.first().and_then(|first| first.hosts.first()).cloned();
        certificates.default = match first {
            Some(host) => certificates.candidates_mut(&host).clone(),
            None => std::iter::once(0).collect(),
        };
        certificates.all = all.into();
        if faults.is_empty() { Ok(certificates) } else { Err(faults) }
    }

    /// All of them, in the order they are written.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.all.iter()
    }

    /// The one that a client who can verify all of them is shown for a host.
    pub fn of(&self, host: &str) -> Option<&Arc<Certificate>> {
        self.all.get(*self.candidates(Some(host)).first()?)
    }

    fn candidates_mut(&mut self, host: &str) -> &mut Candidates {
        match host.strip_prefix("*.") {
            Some(suffix) => self.wildcard.entry(suffix.into()).or_default(),
            None => self.exact.entry(host.into()).or_default(),
        }
    }

    /// A wildcard stands for one label (RFC 9525, section 6.3).
    fn candidates(&self, host: Option<&str>) -> &Candidates {
        let named = |host: &str| {
            let wildcard = || self.wildcard.get(host.split_once('.')?.1);
            self.exact.get(host).or_else(wildcard)
        };
        host.and_then(named).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let candidates = self.candidates(name.as_deref()).iter().filter_map(|at| self.all.get(*at));
        let fits = |certificate: &&Arc<Certificate>| {
            certificate.key.key.choose_scheme(hello.signature_schemes()).is_some()
                && fits(certificate.algorithm(), hello.cipher_suites())
        };
        let mut all = candidates.clone();
        // When none fits, the handshake fails for a reason that the client is told.
        let chosen = { candidates }.find(fits).or_else(|| all.next())?;
        Some(Arc::clone(&chosen.key))
    }
}

/// Whether a client's suites leave room for a key of this kind: TLS 1.2 names it in the suite.
fn fits(algorithm: SignatureAlgorithm, offered: &[CipherSuite]) -> bool {
    offered
        .iter()
        .any(|suite| suites::signed_by(*suite).is_some_and(|by| by.is_none_or(|by| by == is_rsa(algorithm))))
}

fn is_rsa(algorithm: SignatureAlgorithm) -> bool {
    algorithm == SignatureAlgorithm::RSA
}
