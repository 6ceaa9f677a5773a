//! What a handshake came to.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::{HandshakeKind, ServerConnection};

use super::failure::Failure;
use super::identity::ClientCertificate;
use super::policy::{ALPN_HTTP2, HostPolicy, ServerPolicy};
use super::suites::{self, Version};
use crate::telemetry::TlsRecord;

/// An encrypted connection, as everyone may know of it.
#[derive(Debug)]
pub struct Session {
    /// The version.
    pub version: Version,
    /// The cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// Whether client and server have agreed on HTTP/2.
    pub http2: bool,
    /// The host that the client asked for in its greeting.
    pub sni: Option<Box<str>>,
    /// Whether it goes on from an earlier session.
    pub resumed: bool,
    /// The client's certificate, verified.
    pub client: Option<ClientCertificate>,
    /// What was in force at the handshake.
    policy: Arc<ServerPolicy>,
    host: Arc<HostPolicy>,
}

impl Session {
    /// What a handshake under `policy`, for the host that has `host`, came to.
    ///
    /// # Errors
    ///
    /// When the client's certificate does not say who it is, or has expired since the session began.
    pub fn new(
        connection: &ServerConnection,
        policy: Arc<ServerPolicy>,
        host: Arc<HostPolicy>,
    ) -> Result<Self, Failure> {
        let version = connection.protocol_version().and_then(Version::negotiated);
        let suite = connection.negotiated_cipher_suite();
        let (Some(version), Some(suite)) = (version, suite) else { return Err(Failure::BadHandshake) };
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let client = certificate
            .map(|certificate| ClientCertificate::read(certificate).ok_or(Failure::BadClientCertificate))
            .transpose()?;
        if client.as_ref().is_some_and(|client| client.not_after < SystemTime::now()) {
            return Err(Failure::BadClientCertificate);
        }
        Ok(Self {
            version,
            cipher: suites::name(suite),
            http2: connection.alpn_protocol() == Some(ALPN_HTTP2.as_bytes()),
            sni: connection.server_name().map(Into::into),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client,
            policy,
            host,
        })
    }

    /// What the access log may say of it.
    pub fn record(&self) -> TlsRecord<'_> {
        let client = self.client.as_ref();
        TlsRecord {
            version: self.version.name(),
            cipher: self.cipher,
            sni: self.sni.as_deref(),
            client_subject: client.map(|client| &*client.subject),
            client_sans: client.map(|client| &*client.sans),
            client_fingerprint: client.map(|client| &*client.fingerprint),
        }
    }

    /// Whether a request for a host, a canonical name, may come over this connection: its handshake must have been
    /// that of the host, and if clients of the host must have a certificate by now, this one does. A request without a
    /// host is for the one of the handshake.
    pub fn serves(&self, host: &str, in_force: Option<&ServerPolicy>) -> bool {
        if host.is_empty() {
            return true;
        }
        let own = self.policy.host(host).fingerprint == self.host.fingerprint;
        let required = in_force.is_some_and(|policy| policy.host(host).client_auth == Some(true));
        own && (!required || self.client.is_some())
    }
}
