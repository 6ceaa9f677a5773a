//! One certificate with its chain and key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::SignatureAlgorithm;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::identity::{self, distinguished_name};
use super::pem::{self, Unusable};

/// A certificate of ours, with what is to be known of it.
#[derive(Debug)]
pub struct Certificate {
    /// The file it was read from.
    pub file: PathBuf,
    /// The hosts it names: lower case, `*.` in front of those that stand for one more label.
    pub hosts: Vec<Box<str>>,
    /// Addresses and whatever else it names, as text.
    pub others: Vec<Box<str>>,
    /// Whom it was issued to (RFC 4514).
    pub subject: Box<str>,
    /// Who issued it (RFC 4514).
    pub issuer: Box<str>,
    /// Its serial number in hexadecimal.
    pub serial: Box<str>,
    /// The SHA-256 of it in hexadecimal.
    pub fingerprint: Box<str>,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
    pub(super) key: Arc<CertifiedKey>,
}

/// A chain of certificates, ours first.
pub struct Chain {
    file: PathBuf,
    certificates: Vec<CertificateDer<'static>>,
}

/// A private key.
pub struct Key(PrivateKeyDer<'static>);

impl Chain {
    /// Reads a chain.
    ///
    /// # Errors
    ///
    /// When there is none in the file, or one that is out of order.
    pub fn load(file: &Path) -> Result<Self, Unusable> {
        Self::new(pem::certificates(file)?, file)
    }

    /// Reads a chain from a text that is from `place`.
    ///
    /// # Errors
    ///
    /// When there is none in it, or one that is out of order.
    pub fn read(text: &[u8], place: &Path) -> Result<Self, Unusable> {
        Self::new(pem::certificates_in(text, place)?, place)
    }

    fn new(certificates: Vec<CertificateDer<'static>>, file: &Path) -> Result<Self, Unusable> {
        let parsed: Result<Vec<_>, _> = certificates.iter().map(parse).collect();
        let parsed = parsed.map_err(|at| at.hint("it is damaged, or of a kind that is not X.509"))?;
        for (at, pair) in parsed.windows(2).enumerate() {
            if let [own, next] = pair
                && own.issuer().as_raw() != next.subject().as_raw()
            {
                let message =
                    format!("certificate {} in `{}` did not issue the one before it", at + 2, file.display());
                return Err(Unusable::new(message)
                    .hint("the server's own comes first, then the one that issued it, and so on"));
            }
        }
        Ok(Self { file: file.to_owned(), certificates })
    }
}

impl Chain {
    pub(super) fn ders(&self) -> Vec<Vec<u8>> {
        self.certificates.iter().map(|certificate| certificate.to_vec()).collect()
    }
}

impl Key {
    pub(super) fn secret(&self) -> Vec<u8> {
        self.0.secret_der().to_vec()
    }

    /// Reads a key.
    ///
    /// # Errors
    ///
    /// When there is none in the file that can be used.
    pub fn load(file: &Path) -> Result<Self, Unusable> {
        pem::private_key(file).map(Self)
    }

    /// Reads a key from a text that is from `place`.
    ///
    /// # Errors
    ///
    /// When there is none in it that can be used.
    pub fn read(text: &[u8], place: &Path) -> Result<Self, Unusable> {
        pem::private_key_in(text, place).map(Self)
    }
}

impl Certificate {
    /// A certificate with its key.
    ///
    /// # Errors
    ///
    /// When the key is another's, or of a kind that is not served.
    pub fn new(chain: Chain, Key(key): Key) -> Result<Self, Unusable> {
        let Chain { file, certificates } = chain;
        let own = certificates.first().ok_or_else(|| Unusable::new("there is no certificate"))?.clone();
        let key =
            CertifiedKey::from_der(certificates, key, &default_provider()).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    Unusable::new(format!("the key is not that of the certificate in `{}`", file.display()))
                        .hint("a key and its certificate are renewed together")
                }
                error => Unusable::new(format!("the key cannot be used: {error}"))
                    .hint("RSA from 2048 bits, ECDSA on P-256, P-384 and P-521, and Ed25519 can"),
            })?;
        let parsed = parse(&own)?;
        let (mut hosts, mut others) = (Vec::new(), Vec::new());
        if let Ok(Some(names)) = parsed.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::DNSName(host) => hosts.push(host.to_ascii_lowercase().into()),
                    other => others.extend(identity::alternative_name(other).map(Into::into)),
                }
            }
        }
        Ok(Self {
            hosts,
            others,
            subject: distinguished_name(parsed.subject()).into(),
            issuer: distinguished_name(parsed.issuer()).into(),
            serial: identity::hex(parsed.raw_serial()).into(),
            fingerprint: identity::fingerprint(&own).into(),
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
            key: Arc::new(key),
            file,
        })
    }

    /// What kind of key it has: `rsa`, `ecdsa` or `ed25519`.
    pub fn key_kind(&self) -> &'static str {
        match self.algorithm() {
            SignatureAlgorithm::RSA => "rsa",
            SignatureAlgorithm::ECDSA => "ecdsa",
            SignatureAlgorithm::ED25519 => "ed25519",
            _ => "other",
        }
    }

    /// How long it is still valid at `now`; zero when it is not any more.
    pub fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// Its names, for people: the hosts, or else what it names beside hosts.
    pub fn names(&self) -> String {
        let names = if self.hosts.is_empty() { &self.others } else { &self.hosts };
        if names.is_empty() { self.subject.to_string() } else { names.join(", ") }
    }

    /// Itself, as it is sent.
    pub fn der(&self) -> Option<&CertificateDer<'static>> {
        self.key.cert.first()
    }

    pub(super) fn algorithm(&self) -> SignatureAlgorithm {
        self.key.key.algorithm()
    }
}

fn parse<'c>(certificate: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, Unusable> {
    let parsed = X509Certificate::from_der(certificate);
    parsed.map(|(_, parsed)| parsed).map_err(|_| Unusable::new("the certificate cannot be read"))
}

/// A time of X.509, which may lie before 1970.
pub(super) fn time(timestamp: i64) -> SystemTime {
    let since = Duration::from_secs(timestamp.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let time = if timestamp < 0 { epoch.checked_sub(since) } else { epoch.checked_add(since) };
    time.unwrap_or(epoch)
}
