//! Asks a gRPC server by its own health protocol: `grpc.health.v1.Health/Check`
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Uri};

use super::dial::{Dialled, Line, exchange};
use super::{HealthCheck, ProbeConnector, ProbeError, Serving, Target};
use crate::tls::UpstreamTls;
use crate::upstream::Protocol;

const CHECK: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// More than any answer has, in bytes.
const MOST: usize = 4 << 10;

/// Asks whether a gRPC server serves.
pub struct GrpcProbe {
    line: Line,
    authority: Option<Authority>,
    question: Bytes,
}

impl GrpcProbe {
    /// Asks for one service; an empty name is the server as a whole. The authority is the endpoint's address, if none is given.
    pub fn new(
        connector: Arc<ProbeConnector>,
        tls: Option<Arc<UpstreamTls>>,
        authority: Option<Authority>,
        service: &str,
    ) -> Self {
        let line = Line { connector, tls, protocol: Protocol::Http2 };
        Self { line, authority, question: question(service) }
    }

    async fn ask(&self, target: &Target) -> Result<(), ProbeError> {
        let request = self.head(target)?;
        let Dialled::Http2(stream) = self.line.dial(target).await? else { return Err(ProbeError::Broken) };
        let (head, body, trailers) = exchange(stream, request, Some(self.question.clone()), MOST).await?;
        if head.status() != 200 {
            return Err(ProbeError::Status(head.status().as_u16()));
        }
        // An answer without a message has its status in its head.
        let status = trailers.as_ref().and_then(status).or_else(|| status(head.headers()));
        match status {
            Some(0) => {}
            Some(status) => return Err(ProbeError::GrpcStatus(status)),
            None => return Err(ProbeError::Protocol("no gRPC status".into())),
        }
        match serving(&body) {
            Some(Serving::Serving) => Ok(()),
            Some(other) => Err(ProbeError::NotServing(other)),
            None => Err(ProbeError::Protocol("not a HealthCheckResponse".into())),
        }
    }

    fn head(&self, target: &Target) -> Result<Request<()>, ProbeError> {
        let literal = || Authority::from_maybe_shared(Bytes::from(target.address.to_string())).ok();
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.line.scheme());
        uri.authority = self.authority.clone().or_else(literal);
        uri.path_and_query = Some(CHECK);
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| ProbeError::Broken)?;
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(CONTENT_TYPE, GRPC);
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        Ok(request)
    }
}

impl HealthCheck for GrpcProbe {
    fn probe<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(self.ask(target))
    }
}

fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A `HealthCheckRequest` in its frame: one byte that says that it is not compressed, its length in four, and itself: field 1,
/// a string, left out when it is empty.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put(message);
    framed.freeze()
}

/// What a framed `HealthCheckResponse` says in field 1, an enum. Fields of later versions are passed over; `None` when it
/// cannot be read.
fn serving(framed: &[u8]) -> Option<Serving> {
    let (head, mut message) = framed.split_first_chunk::<5>()?;
    let [0, length @ ..] = *head else { return None };
    if u32::from_be_bytes(length) as usize != message.len() {
        return None;
    }
    let mut said = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    said = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = varint(&mut message)?;
                message = message.get(usize::try_from(length).ok()?..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(match said {
        1 => Serving::Serving,
        2 => Serving::NotServing,
        3 => Serving::ServiceUnknown,
        _ => Serving::Unknown,
    })
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for at in 0..10 {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use futures_util::stream::try_unfold;
    use proptest::prelude::*;
    use tokio::net::TcpListener;
    use tonic::transport::Server;
    use tonic_health::ServingStatus;

    use super::*;

    fn probe(service: &str) -> GrpcProbe {
        GrpcProbe::new(Arc::new(ProbeConnector::default()), None, None, service)
    }

    /// A server that says this of itself and of its services.
    async fn server(said: &[(&str, ServingStatus)]) -> SocketAddr {
        let (reporter, service) = tonic_health::server::health_reporter();
        for (name, status) in said {
            reporter.set_service_status(*name, *status).await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = try_unfold(listener, |listener| async {
            let (socket, _) = listener.accept().await?;
            Ok::<_, std::io::Error>(Some((socket, listener)))
        });
        tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
        address
    }

    #[tokio::test]
    async fn a_server_says_whether_it_serves() {
        let said = [("up", ServingStatus::Serving), ("down", ServingStatus::NotServing)];
        let target = Target { address: server(&said).await };
        assert_eq!(probe("").probe(&target).await, Ok(()));
        assert_eq!(probe("up").probe(&target).await, Ok(()));
        let down = probe("down").probe(&target).await;
        assert_eq!(down, Err(ProbeError::NotServing(Serving::NotServing)));
        assert_eq!(probe("else").probe(&target).await, Err(ProbeError::GrpcStatus(5)));
        let long = probe(&"s".repeat(1000)).probe(&target).await;
        assert_eq!(long, Err(ProbeError::GrpcStatus(5)));
    }

    #[tokio::test]
    async fn something_else_on_the_port_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { address: listener.local_addr().unwrap() };
        let server = async {
            let (socket, _) = listener.accept().await.unwrap();
            socket.writable().await.unwrap();
            socket.try_write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
        };
        let probe = probe("");
        let (outcome, ()) = tokio::join!(probe.probe(&target), server);
        assert_eq!(outcome.unwrap_err().code(), "protocol");
    }

    #[test]
    fn messages_are_read_as_protobuf_has_them() {
        let framed = |message: &[u8]| [&[0, 0, 0, 0, message.len() as u8], message].concat();
        assert_eq!(serving(&framed(&[0x08, 1])), Some(Serving::Serving));
        assert_eq!(serving(&framed(&[0x12, 2, b'h', b'i', 0x08, 2])), Some(Serving::NotServing));
        assert_eq!(serving(&framed(&[])), Some(Serving::Unknown));
        assert_eq!(serving(&framed(&[0x08])), None);
        assert_eq!(serving(&[1, 0, 0, 0, 0]), None);
        assert_eq!(serving(b""), None);
        assert_eq!(question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(question("")[..], [0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = serving(&bytes);
            let framed = [&[0, 0, 0, 0, bytes.len() as u8], &bytes[..]].concat();
            let _ = serving(&framed);
        }
    }
}
