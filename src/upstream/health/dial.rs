//! Connections for probes: made by the engine's connector, and so verified exactly as those that requests go over.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{Either, select};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use pingora::connectors::TransportConnector;
use pingora::protocols::{ALPN, Stream};
use pingora::upstreams::peer::HttpPeer;

use super::{ProbeError, Target};
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
