//! Certificates made at test time, and clients that speak TLS.

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, RsaKeySize,
    SanType,
};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;

use super::{Client, Http2, SOON};

pub use rustls::HandshakeKind;
pub use rustls::version::{TLS12, TLS13};

/// An authority with a folder of its own for what it issues.
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// The files of a certificate and its key.
#[derive(Clone)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a certificate is issued with.
#[derive(Clone)]
pub struct Order<'a> {
    pub hosts: &'a [&'a str],
    pub name: &'a str,
    pub uris: &'a [&'a str],
    pub rsa: bool,
    /// From now.
    pub days: i64,
    /// From now, instead.
    pub seconds: Option<u64>,
}

impl Default for Order<'_> {
    fn default() -> Self {
        Self { hosts: &[], name: "test", uris: &[], rsa: false, days: 90, seconds: None }
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = name("test authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { dir, certificate: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// The file of its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Issues a certificate for hosts, into files of a name.
    pub fn issue(&self, file: &str, hosts: &[&str]) -> Files {
        self.issue_as(file, &Order { hosts, ..Order::default() })
    }

    pub fn issue_as(&self, file: &str, order: &Order<'_>) -> Files {
        let mut params =
            CertificateParams::new(order.hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())
                .unwrap();
        let uris = order.uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.distinguished_name = name(order.name);
        let days = Duration::from_secs(order.days.unsigned_abs() * 86_400);
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(400 * 86_400)).into();
        params.not_after = match order.seconds {
            Some(seconds) => now + Duration::from_secs(seconds),
            None if order.days < 0 => now - days,
            None => now + days,
        }
        .into();
        let key = if order.rsa {
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap()
        } else {
            KeyPair::generate().unwrap()
        };
        self.keep(file, &params.signed_by(&key, &self.issuer).unwrap(), &key)
    }

    /// A certificate that vouches for itself.
    pub fn self_signed(&self, file: &str) -> Files {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = name("self-signed");
        let key = KeyPair::generate().unwrap();
        self.keep(file, &params.self_signed(&key).unwrap(), &key)
    }

    fn keep(&self, file: &str, certificate: &rcgen::Certificate, key: &KeyPair) -> Files {
        let files = Files { cert: self.path(&format!("{file}.pem")), key: self.path(&format!("{file}.key")) };
        replace(&files.key, &key.serialize_pem());
        replace(&files.cert, &certificate.pem());
        files
    }

    /// A server that shows what was issued into files of a name.
    pub fn server(&self, file: &str) -> ServerConfig {
        let files = Files { cert: self.path(&format!("{file}.pem")), key: self.path(&format!("{file}.key")) };
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(files.chain(), key)
            .unwrap()
    }

    /// A client that believes this authority.
    pub fn client(&self) -> Caller {
        Caller { versions: vec![&TLS13, &TLS12], ..Caller::new(vec![self.certificate.clone()]) }
    }
}

impl Files {
    /// As an item of `certificates`.
    pub fn words(&self) -> String {
        format!("{{ cert: {}, key: {} }}", self.cert.display(), self.key.display())
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(&self.cert).unwrap().map(Result::unwrap).collect()
    }

    /// The certificate's bytes.
    pub fn der(&self) -> CertificateDer<'static> {
        self.chain().remove(0)
    }
}

/// Puts text in a file's place.
pub fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, path).unwrap();
}

fn name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::OrganizationName, "Example, Inc");
    names.push(DnType::CommonName, name);
    names
}

/// What a client speaks.
#[derive(Clone)]
pub struct Caller {
    pub roots: Vec<CertificateDer<'static>>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    pub protocols: Vec<&'static str>,
    pub certificate: Option<Files>,
    pub provider: CryptoProvider,
    pub sni: bool,
    /// Made at the first connection: sessions are resumed with the very same one only.
    config: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Caller {
    fn new(roots: Vec<CertificateDer<'static>>) -> Self {
        Self {
            roots,
            versions: Vec::new(),
            protocols: Vec::new(),
            certificate: None,
            provider: default_provider(),
            sni: true,
            config: Arc::default(),
        }
    }

    pub fn speaking(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.config = Arc::default();
        self.versions = vec![version];
        self
    }

    pub fn with(mut self, certificate: &Files) -> Self {
        self.config = Arc::default();
        self.certificate = Some(certificate.clone());
        self
    }

    pub fn offering(mut self, protocols: &[&'static str]) -> Self {
        self.config = Arc::default();
        self.protocols = protocols.to_vec();
        self
    }

    /// Only the suites whose names hold this.
    pub fn suites(mut self, part: &str) -> Self {
        self.config = Arc::default();
        self.provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains(part));
        self
    }

    /// Knows no signatures but those of RSA keys, except on certificates.
    pub fn rsa_alone(mut self) -> Self {
        self.config = Arc::default();
        let mut known = self.provider.signature_verification_algorithms;
        let rsa: Vec<_> = known
            .mapping
            .iter()
            .copied()
            .filter(|(scheme, _)| format!("{scheme:?}").contains("RSA"))
            .collect();
        known.mapping = Vec::leak(rsa);
        self.provider.signature_verification_algorithms = known;
        self
    }

    pub fn without_sni(mut self) -> Self {
        self.config = Arc::default();
        self.sni = false;
        self
    }

    fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(self.config.get_or_init(|| self.new_config()))
    }

    fn new_config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        self.roots.iter().for_each(|root| roots.add(root.clone()).unwrap());
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
                builder.with_client_auth_cert(files.chain(), key).unwrap()
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.enable_sni = self.sni;
        Arc::new(config)
    }

    /// A connection for a host, its handshake done as far as the client can tell.
    pub fn connect(&self, address: SocketAddr, host: &str) -> io::Result<Client> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(SOON))?;
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut tls = ClientConnection::new(self.config(), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        socket.flush()?;
        let mut client = Client::over(socket);
        client.stream.tls = Some(Box::new(tls));
        Ok(client)
    }

    /// A connection for a host that speaks HTTP/2, as agreed in its handshake.
    pub fn http2(&self, address: SocketAddr, host: &str) -> Http2 {
        let caller = self.clone().offering(&["h2", "http/1.1"]);
        let name = ServerName::try_from(host.to_owned()).unwrap();
        Http2::over(host, async move {
            let socket = tokio::net::TcpStream::connect(address).await.unwrap();
            let stream =
                tokio_rustls::TlsConnector::from(caller.config()).connect(name, socket).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            stream
        })
    }

    /// The first bytes that it sends to a host.
    pub fn client_hello(&self, host: &str) -> Vec<u8> {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut tls = ClientConnection::new(self.config(), name).unwrap();
        let mut bytes = Vec::new();
        tls.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// Why no request gets through, in the words of TLS; panics when one does.
    pub fn failure(&self, address: SocketAddr, host: &str) -> String {
        let tried = self.connect(address, host).and_then(|mut client| {
            client.stream.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())?;
            client.try_response("GET")
        });
        match tried {
            Err(error) => error.to_string(),
            Ok(response) => panic!("answered {response:?}"),
        }
    }
}

/// How the handshake of a client went.
pub fn kind(client: &Client) -> HandshakeKind {
    client.stream.tls.as_ref().unwrap().handshake_kind().unwrap()
}

/// What the server showed.
pub fn shown(client: &Client) -> CertificateDer<'static> {
    client.stream.tls.as_ref().unwrap().peer_certificates().unwrap()[0].clone().into_owned()
}
