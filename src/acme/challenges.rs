//! What proves to a directory that a host is ours, while it asks.

use std::sync::Arc;

use ahash::HashMap;
use parking_lot::RwLock;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::error::Error;
use super::proofs::Questions;

/// The protocol of a handshake that is a question of a directory (RFC 8737, section 3).
pub const ACME_TLS: &[u8] = b"acme-tls/1";
/// Where a directory asks over HTTP (RFC 8555, section 8.3); the token comes behind it.
pub const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// The answers under way.
#[derive(Debug, Default)]
pub struct Challenges {
    /// Key authorizations by token.
    tokens: RwLock<HashMap<Box<str>, Box<str>>>,
    /// How to greet who asks for a host by [`ACME_TLS`].
    hosts: RwLock<HashMap<Box<str>, Arc<ServerConfig>>>,
    /// What is asked of other machines.
    pub(super) questions: Questions,
}

/// An answer that is given for as long as this lives.
#[must_use]
pub(super) struct Answer {
    challenges: Arc<Challenges>,
    token: Box<str>,
    host: Option<Box<str>>,
}

impl Challenges {
    /// The key in the state that outlives snapshots.
    pub const KEY: &'static str = "acme challenges";

    /// The key authorization for a token.
    pub fn http(&self, token: &str) -> Option<Box<str>> {
        self.tokens.read().get(token).cloned()
    }

    /// What to greet a directory with that asks for a host.
    pub fn tls(&self, host: &str) -> Option<Arc<ServerConfig>> {
        self.hosts.read().get(host.to_ascii_lowercase().as_str()).cloned()
    }

    /// Answers over HTTP.
    pub(super) fn answer_http(self: &Arc<Self>, token: &str, authorization: &str) -> Answer {
        self.tokens.write().insert(token.into(), authorization.into());
        Answer { challenges: Arc::clone(self), token: token.into(), host: None }
    }

    /// Answers in the handshake, with the digest of the key authorization.
    pub(super) fn answer_tls(self: &Arc<Self>, host: &str, digest: &[u8]) -> Result<Answer, Error> {
        let config = proof(host, digest)?;
        self.hosts.write().insert(host.into(), Arc::new(config));
        Ok(Answer { challenges: Arc::clone(self), token: Box::default(), host: Some(host.into()) })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        match &self.host {
            Some(host) => drop(self.challenges.hosts.write().remove(host)),
            None => drop(self.challenges.tokens.write().remove(&self.token)),
        }
    }
}

/// A configuration that shows the digest in a certificate for the host alone, and speaks nothing afterwards.
pub(super) fn proof(host: &str, digest: &[u8]) -> Result<ServerConfig, Error> {
    let bug = |error: rcgen::Error| Error::Bug(error.to_string());
    let mut params = CertificateParams::new([host.to_owned()]).map_err(bug)?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(bug)?;
    let certificate = params.self_signed(&key).map_err(bug)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = default_provider();
    let bug = |error: rustls::Error| Error::Bug(error.to_string());
    let key = provider.key_provider.load_private_key(key).map_err(bug)?;
    // Not held against each other: whoever does not ask for proofs cannot read the certificate.
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.der().clone()], key));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(bug)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_as_long_as_it_is_under_way() {
        let challenges = Arc::new(Challenges::default());
        let http = challenges.answer_http("token", "token.thumbprint");
        let tls = challenges.answer_tls("a.test", &[7; 32]).unwrap();
        assert_eq!(challenges.http("token").as_deref(), Some("token.thumbprint"));
        assert!(challenges.http("toke").is_none() && challenges.http("").is_none());
        assert!(challenges.tls("A.Test").is_some() && challenges.tls("b.test").is_none());
        drop((http, tls));
        assert!(challenges.http("token").is_none() && challenges.tls("a.test").is_none());
    }
}
