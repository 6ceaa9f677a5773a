//! Connections for probes: made by the engine's connector, and so verified exactly as those that requests go over.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::protocols::{ALPN, Stream};
use pingora::upstreams::peer::HttpPeer;

use super::{HealthCheck, ProbeError, Target};
use crate::tls::UpstreamTls;
use crate::upstream::Protocol;

/// Connects for probes. One serves all: it holds the system's authorities.
///
/// Nothing is pooled. Each probe shows that a connection can be made.
pub struct ProbeConnector(TransportConnector);

impl Default for ProbeConnector {
    fn default() -> Self {
        Self(TransportConnector::new(None))
    }
}

impl ProbeConnector {
    /// One that believes none of the system's authorities, for where they cannot be read.
    pub fn without_authorities() -> Self {
        let nobody = ConnectorOptions { ca_file: Some("/dev/null".to_owned()), ..ConnectorOptions::new(1) };
        Self(TransportConnector::new(Some(nobody)))
    }
}

/// Passes when a TCP connection can be made.
impl HealthCheck for ProbeConnector {
    fn probe<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(async move {
            let peer = HttpPeer::new(target.address, false, String::new());
            let stream = self.0.new_stream(&peer).await;
            stream.map(drop).map_err(|error| ProbeError::of_connecting(&error))
        })
    }
}

/// How an endpoint is spoken to.
pub(super) struct Line {
    pub(super) connector: Arc<ProbeConnector>,
    pub(super) tls: Option<Arc<UpstreamTls>>,
    pub(super) protocol: Protocol,
}

/// A connection, and what is spoken on it.
pub(super) enum Dialled {
    Http1(Stream),
    Http2(Stream),
}

impl Line {
    pub(super) fn scheme(&self) -> http::uri::Scheme {
        if self.tls.is_some() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP }
    }

    pub(super) async fn dial(&self, target: &Target) -> Result<Dialled, ProbeError> {
        let mut peer = match &self.tls {
            None => Box::new(HttpPeer::new(target.address, false, String::new())),
            Some(tls) => tls.peer(target.address),
        };
        match (self.protocol, &self.tls) {
            (Protocol::Http1, _) | (Protocol::Auto, None) => {}
            (Protocol::Http2, _) => peer.options.set_http_version(2, 2),
            (Protocol::Auto, Some(_)) => peer.options.set_http_version(2, 1),
        }
        let stream = self.connector.0.new_stream(&*peer).await;
        let stream = stream.map_err(|error| ProbeError::of_connecting(&error))?;
        let agreed = stream.selected_alpn_proto() == Some(ALPN::H2);
        match (self.protocol, &self.tls) {
            (Protocol::Http2, None) => Ok(Dialled::Http2(stream)),
            (_, Some(_)) if agreed => Ok(Dialled::Http2(stream)),
            (Protocol::Http2, Some(_)) => Err(ProbeError::Tls("HTTP/2 was not agreed on".into())),
            _ => Ok(Dialled::Http1(stream)),
        }
    }
}

/// One exchange over HTTP/2: the answer's head, as much of its body as wanted, and its trailers where the body was read to
/// its end. Everything of it ends with this future.
pub(super) async fn exchange(
    stream: Stream,
    request: Request<()>,
    body: Option<Bytes>,
    most: usize,
) -> Result<(Response<()>, Vec<u8>, Option<HeaderMap>), ProbeError> {
    let (sender, connection) =
        h2::client::handshake(stream).await.map_err(|error| ProbeError::of_http2(&error))?;
    let exchange = pin!(async move { ask(sender, request, body, most).await });
    match select(exchange, Box::pin(connection)).await {
        Either::Left((outcome, _)) => outcome,
        // What has arrived can still be read. The connection is gone here, which ends what waits for more.
        Either::Right((_, exchange)) => exchange.await,
    }
    .map_err(|error| ProbeError::of_http2(&error))
}

async fn ask(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    body: Option<Bytes>,
    most: usize,
) -> Result<(Response<()>, Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut sender = sender.ready().await?;
    let (response, mut sending): (ResponseFuture, SendStream<Bytes>) =
        sender.send_request(request, body.is_none())?;
    if let Some(body) = body {
        sending.send_data(body, true)?;
    }
    let (head, mut receiving): (_, RecvStream) = {
        let (head, receiving) = response.await?.into_parts();
        (Response::from_parts(head, ()), receiving)
    };
    let mut read = Vec::new();
    while let Some(data) = receiving.data().await {
        let data = data?;
        receiving.flow_control().release_capacity(data.len())?;
        let room = most - read.len();
        read.extend_from_slice(data.get(..room).unwrap_or(&data));
        if read.len() == most {
            return Ok((head, read, None));
        }
    }
    let trailers = receiving.trailers().await?;
    Ok((head, read, trailers))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::ServerConfig;
    use rustls::crypto::aws_lc_rs::default_provider;
    use tempfile::NamedTempFile;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::tls::{Trust, TrustedRoots};

    /// A server for `localhost` that speaks these by ALPN, and the file with its certificate.
    async fn server(alpn: &[&str]) -> (Target, NamedTempFile) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(certificate.pem().as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let target = Target { address: listener.local_addr().unwrap() };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                drop(acceptor.accept(socket).await);
            }
        });
        (target, file)
    }

    fn line(name: &str, trust: Trust, protocol: Protocol) -> Line {
        crate::tls::install_provider();
        let tls = Some(Arc::new(UpstreamTls::new(Some(name), trust, None)));
        Line { connector: Arc::new(ProbeConnector::default()), tls, protocol }
    }

    #[tokio::test]
    async fn probes_believe_whom_requests_believe() {
        let (target, file) = server(&[]).await;
        let authorities = || Trust::Authorities(TrustedRoots::load(file.path()).unwrap());
        assert!(line("localhost", authorities(), Protocol::Http1).dial(&target).await.is_ok());
        assert!(line("else", Trust::Anyone, Protocol::Http1).dial(&target).await.is_ok());
        for line in
            [line("else", authorities(), Protocol::Http1), line("localhost", Trust::System, Protocol::Http1)]
        {
            let Err(error) = line.dial(&target).await else { panic!("a stranger was believed") };
            assert_eq!(error.code(), "tls", "{error}");
        }
    }

    #[tokio::test]
    async fn the_protocol_is_what_was_agreed_on() {
        for (alpn, protocol, http2) in [
            (&["h2", "http/1.1"] as &[&str], Protocol::Auto, Some(true)),
            (&["h2"], Protocol::Http2, Some(true)),
            (&["http/1.1"], Protocol::Auto, Some(false)),
            (&[], Protocol::Http1, Some(false)),
            (&[], Protocol::Http2, None),
        ] {
            let (target, _file) = server(alpn).await;
            let dialled = line("localhost", Trust::Anyone, protocol).dial(&target).await;
            let spoken = dialled.ok().map(|dialled| matches!(dialled, Dialled::Http2(_)));
            assert_eq!(spoken, http2, "{alpn:?}");
        }
    }
}
