//! TLS as the load generator speaks it: one version, one suite, one group, so that every proxy does the same work.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, SignatureScheme, version};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::Result;

/// What a client offers.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    pub protocol: &'static str,
    pub group: Group,
    /// Whether every connection after the first resumes the session of an earlier one.
    pub resume: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Group {
    X25519,
    /// With ML-KEM-768, against tomorrow's computers.
    PostQuantum,
}

impl Hello {
    pub const HTTP1: Self = Self { protocol: "http/1.1", group: Group::X25519, resume: false };
    pub const HTTP2: Self = Self { protocol: "h2", ..Self::HTTP1 };
}

/// One client with a memory of its own for the tickets that it gets.
pub struct Tls {
    hello: Hello,
    connector: TlsConnector,
    connected: bool,
}

impl Tls {
    pub fn new(hello: Hello) -> Result<Self> {
        let provider = CryptoProvider {
            cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![match hello.group {
                Group::X25519 => kx_group::X25519,
                Group::PostQuantum => kx_group::X25519MLKEM768,
            }],
            ..default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified))
            .with_no_client_auth();
        config.alpn_protocols = vec![hello.protocol.into()];
        config.resumption = match hello.resume {
            true => Resumption::in_memory_sessions(1),
            false => Resumption::disabled(),
        };
        Ok(Self { hello, connector: Arc::new(config).into(), connected: false })
    }

    pub fn resumes(&self) -> bool {
        self.hello.resume
    }

    /// A handshake that is not of the kind that is measured is an error.
    pub async fn connect(&mut self, address: SocketAddr) -> Result<Box<TlsStream<TcpStream>>> {
        let socket = super::connect(address).await?;
        // Without a name: the proxies have one certificate each.
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let stream = self.connector.connect(name, socket).await?;
        let session = stream.get_ref().1;
        let expected = match self.hello.resume && self.connected {
            true => HandshakeKind::Resumed,
            false => HandshakeKind::Full,
        };
        let (version, kind) = (session.protocol_version(), session.handshake_kind());
        if (version, kind) != (Some(ProtocolVersion::TLSv1_3), Some(expected)) {
            return Err(format!("a handshake {kind:?} of {version:?} instead of {expected:?}").into());
        }
        if session.alpn_protocol() != Some(self.hello.protocol.as_bytes()) {
            return Err(format!("{} was not agreed on", self.hello.protocol).into());
        }
        self.connected = true;
        Ok(Box::new(stream))
    }
}

/// Believes everybody: the load core has better to do, and the proxy cannot tell.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[cfg(test)]
pub mod tests {
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::super::super::certificate::Certificate;
    use super::*;

    /// A server that says a byte on each connection and closes it.
    async fn server(versions: &[&'static rustls::SupportedProtocolVersion]) -> SocketAddr {
        let Certificate { certificate, key } = Certificate::create().unwrap();
        let mut config = ServerConfig::builder_with_provider(default_provider().into())
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec!["http/1.1".into()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    stream.write_all(b"x").await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn handshakes_are_of_the_kind_that_was_asked_for() {
        let address = server(&[&version::TLS13]).await;
        for resume in [false, true] {
            let mut tls = Tls::new(Hello { resume, ..Hello::HTTP1 }).unwrap();
            for turn in 0..3 {
                let mut stream = tls.connect(address).await.unwrap();
                stream.read_to_end(&mut Vec::new()).await.unwrap(); // the tickets, too
                let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                assert_eq!(resumed, resume && turn > 0);
            }
        }
    }

    #[tokio::test]
    async fn another_kind_version_or_protocol_is_an_error() {
        let address = server(&[&version::TLS13]).await;
        let mut forgetful = Tls::new(Hello { resume: true, ..Hello::HTTP1 }).unwrap();
        forgetful.connected = true;
        assert!(forgetful.connect(address).await.unwrap_err().to_string().contains("Full"));
        assert!(Tls::new(Hello::HTTP2).unwrap().connect(address).await.is_err());
        let old = server(&[&version::TLS12]).await;
        assert!(Tls::new(Hello::HTTP1).unwrap().connect(old).await.is_err());
    }
}
