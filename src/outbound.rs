//! Connections for what the gateway itself asks of others: directories of ACME, webhooks.
//!
//! TLS is verified, always: by the system's authorities, or by those that are named.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Makes connections for a client of HTTP/1.1.
pub type Connector = HttpsConnector<HttpConnector>;

/// Whose word is taken for who a server is.
#[derive(Debug, Clone, Copy)]
pub enum Authorities<'a> {
    /// Theirs whom the system trusts.
    System,
    /// Theirs whose certificates are in this PEM text.
    Text(&'a [u8]),
    /// Nobody's: connections are in the clear.
    Nobody,
}

/// Connections by TLS alone, or where nobody is believed in the clear. None may take longer than `patience` to be made.
///
/// # Errors
///
/// When the authorities cannot be read.
pub fn connector(authorities: Authorities<'_>, patience: Duration) -> Result<Connector, String> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(patience));
    let builder = HttpsConnectorBuilder::new().with_tls_config(config(authorities)?);
    let builder = match authorities {
        Authorities::Nobody => builder.https_or_http(),
        Authorities::System | Authorities::Text(_) => builder.https_only(),
    };
    Ok(builder.enable_http1().wrap_connector(connector))
}

/// Sessions are not resumed: others are asked rarely, and one on another port of a host knows nothing of them.
fn config(authorities: Authorities<'_>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("a fault of the gateway: {error}"))?;
    let builder = match authorities {
        Authorities::System => builder
            .with_native_roots()
            .map_err(|error| format!("the system's authorities cannot be read: {error}"))?,
        Authorities::Text(text) => builder.with_root_certificates(roots(text)?),
        Authorities::Nobody => builder.with_root_certificates(RootCertStore::empty()),
    };
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(text: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let unusable = |error: &dyn std::fmt::Display| format!("the authorities cannot be used: {error}");
    for certificate in CertificateDer::pem_slice_iter(text) {
        roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
    }
    Ok(roots)
}

/// An error with all that led to it: what a client of HTTP says at the top is not enough.
pub fn whole(error: &(dyn Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_told = cause.to_string();
        if !told.contains(&cause_told) {
            told.push_str(": ");
            told.push_str(&cause_told);
        }
        next = cause.source();
    }
    told
}
