//! Clients that show a certificate of their own.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::pem::{self, Unusable};

/// Who may issue clients' certificates.
#[derive(Debug, Clone)]
pub struct Authorities {
    roots: Arc<RootCertStore>,
    fingerprint: [u8; 32],
}

/// Whether clients show a certificate, and whose.
#[derive(Debug, Clone)]
pub struct ClientAuth {
    /// Whether a client without one is turned away.
    pub required: bool,
    /// Who may issue it.
    pub authorities: Authorities,
}

impl Authorities {
    /// Reads their certificates.
    ///
    /// # Errors
    ///
    /// When there is none in the file, or one that cannot be an authority's.
    pub fn load(file: &Path) -> Result<Self, Unusable> {
        let mut roots = RootCertStore::empty();
        let mut digest = Context::new(&SHA256);
        for (at, certificate) in pem::certificates(file)?.into_iter().enumerate() {
            digest.update(&certificate);
            roots.add(certificate).map_err(|error| {
                Unusable::new(format!(
                    "certificate {} in `{}` cannot be used: {error}",
                    at + 1,
                    file.display()
                ))
            })?;
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest.finish().as_ref());
        Ok(Self { roots: Arc::new(roots), fingerprint })
    }

    /// Tells these from others.
    pub(super) fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }
}

impl ClientAuth {
    pub(super) fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let roots = Arc::clone(&self.authorities.roots);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(default_provider()));
        let builder = if self.required { builder } else { builder.allow_unauthenticated() };
        builder.build().map_err(|error| error.to_string())
    }
}
