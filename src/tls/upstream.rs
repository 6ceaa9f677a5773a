//! What is spoken with an upstream: how it proves who it is, and who we are to it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ahash::AHasher;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;

use super::certificate::{Certificate, Chain, Key};
use super::pem::{self, Unusable};

/// TLS with the servers of an upstream.
pub struct UpstreamTls {
    /// The name that a server must prove to have; its address, if none is given.
    sni: Option<Box<str>>,
    trust: Trust,
    identity: Option<Identity>,
    fingerprint: u64,
}

/// Whom to believe.
pub enum Trust {
    /// The authorities of the system.
    System,
    /// These authorities alone.
    Authorities(TrustedRoots),
    /// Anyone: what a server shows is not looked at.
    Anyone,
}

/// The certificates of authorities, as the engine wants them.
#[derive(Clone)]
pub struct TrustedRoots(Arc<[WrappedX509]>);

/// Our own certificate and key, as the engine wants them.
#[derive(Clone)]
pub struct Identity(Arc<CertKey>);

impl UpstreamTls {
    /// TLS with servers that prove to be `sni`.
    pub fn new(sni: Option<&str>, trust: Trust, identity: Option<Identity>) -> Self {
        let mut hasher = AHasher::default();
        match &trust {
            Trust::System => 0.hash(&mut hasher),
            Trust::Anyone => 1.hash(&mut hasher),
            Trust::Authorities(TrustedRoots(roots)) => {
                roots.iter().for_each(|root| root.borrow_raw_cert().hash(&mut hasher));
            }
        }
        if let Some(Identity(identity)) = &identity {
            identity.leaf().borrow_raw_cert().hash(&mut hasher);
            identity.key().hash(&mut hasher);
        }
        Self { sni: sni.map(Into::into), trust, identity, fingerprint: hasher.finish() }
    }

    /// A peer that is spoken to so. Connections under another policy are not used for it.
    pub fn peer(&self, address: std::net::SocketAddr) -> Box<HttpPeer> {
        let name = self.sni.as_deref().map_or_else(|| literal(address.ip()), str::to_owned);
        let mut peer = Box::new(HttpPeer::new(address, true, name));
        peer.group_key = self.fingerprint;
        match &self.trust {
            Trust::System => {}
            Trust::Authorities(TrustedRoots(roots)) => peer.options.ca = Some(Arc::clone(roots)),
            Trust::Anyone => {
                peer.options.verify_cert = false;
                peer.options.verify_hostname = false;
            }
        }
        peer.client_cert_key = self.identity.as_ref().map(|Identity(identity)| Arc::clone(identity));
        peer
    }
}

impl fmt::Display for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.trust {
            Trust::System => f.write_str("verified by the system's authorities")?,
            Trust::Authorities(_) => f.write_str("verified by authorities of its own")?,
            Trust::Anyone => f.write_str("not verified")?,
        }
        match &self.sni {
            Some(sni) => write!(f, " as {sni}"),
            None => f.write_str(" by address"),
        }
    }
}

/// An address as certificates and handshakes know it.
fn literal(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

impl TrustedRoots {
    /// Reads authorities' certificates.
    ///
    /// # Errors
    ///
    /// When there is none in the file, or one that cannot be an authority's.
    pub fn load(file: &Path) -> Result<Self, Unusable> {
        let certificates = pem::certificates(file)?;
        let mut roots = RootCertStore::empty();
        for (at, certificate) in certificates.iter().enumerate() {
            roots.add(certificate.clone()).map_err(|error| {
                Unusable::new(format!(
                    "certificate {} in `{}` cannot be used: {error}",
                    at + 1,
                    file.display()
                ))
            })?;
        }
        let wrapped = certificates.into_iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509));
        Ok(Self(wrapped.collect()))
    }
}

impl Identity {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    ///
    /// When either cannot be used, or they are not each other's.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, (IdentityPart, Unusable)> {
        let chain = Chain::load(cert).map_err(|fault| (IdentityPart::Cert, fault))?;
        let key = Key::load(key).map_err(|fault| (IdentityPart::Key, fault))?;
        let (certificates, secret) = (chain.ders(), key.secret());
        Certificate::new(chain, key).map_err(|fault| (IdentityPart::Key, fault))?;
        Ok(Self(Arc::new(CertKey::new(certificates, secret))))
    }
}

/// What of an identity cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityPart {
    /// The certificate.
    Cert,
    /// The key.
    Key,
}

/// Has the engine's own TLS use the same cryptography as ours. A program may have chosen its own before.
pub fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // Someone else may be faster; then it is theirs.
        let _ = default_provider().install_default();
    }
}

/// Whether the system's authorities can be read. The engine gives up without them.
pub fn system_roots() -> bool {
    let mut roots = RootCertStore::empty();
    pingora_rustls::load_platform_certs_incl_env_into_store(&mut roots)
        .inspect_err(|error| log::warn!("the system's certificate authorities cannot be read: {error}"))
        .is_ok()
}
