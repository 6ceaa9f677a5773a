//! Which certificate a client is shown.

use std::sync::Arc;

use ahash::HashMap;
use rustls::SignatureAlgorithm;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use smallvec::SmallVec;

use super::certificate::Certificate;
use super::issued::Issued;
use super::pem::Unusable;
use super::suites;

/// Those with the same name, in the order they are written.
type Candidates = SmallVec<[usize; 2]>;

/// An item of the list of certificates.
#[derive(Debug, Clone)]
pub enum Entry {
    /// One that was read from files.
    Loaded(Arc<Certificate>),
    /// One that an authority issues while the gateway runs.
    Issued(Arc<Issued>),
}

/// The certificates of a listener.
#[derive(Debug)]
pub struct Certificates {
    all: Arc<[Entry]>,
    exact: HashMap<Box<str>, Candidates>,
    /// By what stands after `*.`.
    wildcard: HashMap<Box<str>, Candidates>,
    /// For clients that ask for another name, or none.
    default: Candidates,
    /// Whether one that was read from files is there for everybody.
    loaded: bool,
}

impl Certificates {
    /// The certificates in the order they are written; the first is for those who ask for no name that is known.
    ///
    /// # Errors
    ///
    /// Those that could never be chosen, by their place in the list.
    pub fn new(all: Vec<Entry>) -> Result<Self, Vec<(usize, Unusable)>> {
        let mut certificates = Self {
            loaded: all.iter().any(|entry| matches!(entry, Entry::Loaded(_))),
            all: all.into(),
            exact: HashMap::default(),
            wildcard: HashMap::default(),
            default: std::iter::once(0).collect(),
        };
        let all = certificates.all.clone();
        let mut faults = Vec::new();
        for (at, entry) in all.iter().enumerate() {
            if at > 0 && entry.hosts().is_empty() {
                let message = "the certificate names no host, so that it would never be chosen";
                faults.push((at, Unusable::new(message).hint("only the first of the list needs no name")));
            }
            let twice = entry.hosts().iter().filter_map(|host| certificates.name(host, at).err());
            faults.extend(twice.map(|fault| (at, fault)));
        }
        if let Some(host) = all.first().and_then(|first| first.hosts().first()) {
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
                    "`{host}` is in {} already, with a key of the same kind ({})",
                    all[*other].place(),
                    all[at].key_kind()
                );
                return Err(Unusable::new(message).hint("remove one of them"));
            }
        }
        Ok(())
    }

    /// The list, as it is written.
    pub fn entries(&self) -> &[Entry] {
        &self.all
    }

    /// Those that there are, in the order they are written.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Certificate>> {
        self.all.iter().filter_map(Entry::certificate)
    }

    /// The one that a client who can verify all of them is shown for a host.
    pub fn of(&self, host: &str) -> Option<Arc<Certificate>> {
        self.shown(Some(host)).next()
    }

    /// Whether there is one to show a client that asks for this host, or for none.
    pub fn has_one_for(&self, name: Option<&str>) -> bool {
        self.loaded || self.shown(canonical(name).as_deref()).next().is_some()
    }

    /// Those for a host; where none has been issued yet the first that there is.
    fn shown(&self, host: Option<&str>) -> impl Iterator<Item = Arc<Certificate>> {
        let of = |at: &usize| self.all.get(*at).and_then(Entry::certificate);
        let own: SmallVec<[_; 2]> = self.candidates(host).iter().filter_map(of).collect();
        let other = if own.is_empty() { self.iter().next() } else { None };
        own.into_iter().chain(other)
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

impl Entry {
    fn hosts(&self) -> &[Box<str>] {
        match self {
            Self::Loaded(certificate) => &certificate.hosts,
            Self::Issued(issued) => issued.hosts(),
        }
    }

    /// The certificate, where there is one already.
    fn certificate(&self) -> Option<Arc<Certificate>> {
        match self {
            Self::Loaded(certificate) => Some(Arc::clone(certificate)),
            Self::Issued(issued) => issued.certificate(),
        }
    }

    /// What is ordered has a key on P-256.
    fn algorithm(&self) -> SignatureAlgorithm {
        match self {
            Self::Loaded(certificate) => certificate.algorithm(),
            Self::Issued(_) => SignatureAlgorithm::ECDSA,
        }
    }

    fn key_kind(&self) -> &'static str {
        match self {
            Self::Loaded(certificate) => certificate.key_kind(),
            Self::Issued(_) => "ecdsa",
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Loaded(certificate) => format!("`{}`", certificate.file.display()),
            Self::Issued(_) => "a certificate by ACME".into(),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = canonical(hello.server_name());
        let shown: SmallVec<[_; 2]> = self.shown(name.as_deref()).collect();
        // When none fits, the handshake fails for a reason that the client is told.
        let chosen = shown.iter().find(|certificate| fits(certificate, &hello)).or(shown.first())?;
        Some(Arc::clone(&chosen.key))
    }
}

fn canonical(name: Option<&str>) -> Option<String> {
    name.map(|name| name.trim_end_matches('.').to_ascii_lowercase())
}

/// Whether a client can verify what a certificate's key signs.
fn fits(certificate: &Certificate, hello: &ClientHello<'_>) -> bool {
    let rsa = certificate.algorithm() == SignatureAlgorithm::RSA;
    certificate.key.key.choose_scheme(hello.signature_schemes()).is_some()
        && hello.cipher_suites().iter().any(|suite| suites::is_signed_by(*suite, rsa))
}
