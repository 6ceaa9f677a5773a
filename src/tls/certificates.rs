//! Which certificate a client is shown.

use std::sync::Arc;

use ahash::HashMap;
use rustls::SignatureAlgorithm;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use smallvec::SmallVec;

use super::certificate::Certificate;
use super::pem::Unusable;
use super::suites;

/// Those with the same name, in the order they are written.
type Candidates = SmallVec<[usize; 2]>;

/// The certificates of a listener.
#[derive(Debug)]
pub struct Certificates {
    all: Arc<[Arc<Certificate>]>,
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
            all: all.into(),
            exact: HashMap::default(),
            wildcard: HashMap::default(),
            default: std::iter::once(0).collect(),
        };
        let all = certificates.all.clone();
        let mut faults = Vec::new();
        for (at, certificate) in all.iter().enumerate() {
            if at > 0 && certificate.hosts.is_empty() {
                let message = "the certificate names no host, so that it would never be chosen";
                faults.push((at, Unusable::new(message).hint("only the first of the list needs no name")));
            }
            let twice = certificate.hosts.iter().filter_map(|host| certificates.name(host, at).err());
            faults.extend(twice.map(|fault| (at, fault)));
        }
        if let Some(host) = all.first().and_then(|first| first.hosts.first()) {
            certificates.default = certificates.candidates_mut(host).clone();
        }
        if faults.is_empty() { Ok(certificates) } else { Err(faults) }
    }

    /// Has a certificate chosen for a host, beside those of the host that have keys of another kind.
    fn name(&mut self, host: &str, at: usize) -> Result<(), Unusable> {
        let all = self.all.clone();
        let candidates = self.candidates_mut(host);
        if candidates.contains(&at) {
            return Ok(());
        }
        match candidates.iter().find(|other| all[**other].algorithm() == all[at].algorithm()) {
            None => candidates.push(at),
            Some(other) => {
                let message = format!(
                    "`{host}` is in `{}` already, with a key of the same kind ({})",
                    all[*other].file.display(),
                    all[at].key_kind()
                );
                return Err(Unusable::new(message).hint("remove one of them"));
            }
        }
        Ok(())
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
        let mut candidates = self.candidates(name.as_deref()).iter().filter_map(|at| self.all.get(*at));
        let first = candidates.clone().next()?;
        // When none fits, the handshake fails for a reason that the client is told.
        let chosen = candidates.find(|certificate| fits(certificate, &hello)).unwrap_or(first);
        Some(Arc::clone(&chosen.key))
    }
}

/// Whether a client can verify what a certificate's key signs.
fn fits(certificate: &Certificate, hello: &ClientHello<'_>) -> bool {
    let rsa = certificate.algorithm() == SignatureAlgorithm::RSA;
    certificate.key.key.choose_scheme(hello.signature_schemes()).is_some()
        && hello.cipher_suites().iter().any(|suite| suites::is_signed_by(*suite, rsa))
}
