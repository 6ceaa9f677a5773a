//! Asks an endpoint by HTTP, and looks at the status and the body of what it answers.
//!
//! 1. Each probe makes a connection of its own, under the trust and in the version that the upstream's requests have.
//! 2. The first 64 KiB of the answer's body are read, whether they are looked at or not, so that an answer that breaks off
//!    is a failure; what comes after them is not waited for.
//! 3. Redirects are answers like others, and followed by nobody.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Uri};
use memchr::memmem;
use pingora::http::RequestHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use regex::bytes::Regex;

use super::dial::{Dialled, Line, exchange};
use super::{HealthCheck, ProbeConnector, ProbeError, Target};
use crate::tls::UpstreamTls;
use crate::upstream::Protocol;

/// How much of a body is looked at, in bytes.
const MOST: usize = 64 << 10;
/// Who asks, unless the headers say otherwise.
const AGENT: HeaderValue = HeaderValue::from_static("portcullis-health-check");

/// Asks by HTTP.
pub struct HttpProbe {
    line: Line,
    request: HttpProbeRequest,
    expected: HttpExpected,
}

/// What an endpoint is asked.
#[derive(Debug, Clone)]
pub struct HttpProbeRequest {
    /// The method; GET or HEAD, as a rule.
    pub method: Method,
    /// The path, and a query.
    pub path: PathAndQuery,
    /// The host that is asked for; the endpoint's address, if none is given.
    pub host: Option<Authority>,
    /// More headers.
    pub headers: HeaderMap,
}

/// What an endpoint must answer.
#[derive(Debug, Clone)]
pub struct HttpExpected {
    /// The statuses that are well; 200 alone when there are none.
    pub statuses: Box<[RangeInclusive<u16>]>,
    /// What the body must have in its first 64 KiB.
    pub body: Option<BodyMatch>,
}

/// What a body must have.
#[derive(Debug, Clone)]
pub enum BodyMatch {
    /// These bytes, anywhere.
    Contains(Box<[u8]>),
    /// What a regular expression finds.
    Matches(Regex),
}

impl HttpProbe {
    /// Asks so, and expects that. `Auto` is what the handshake of TLS agrees on, and HTTP/1.1 in the clear.
    pub fn new(
        connector: Arc<ProbeConnector>,
        tls: Option<Arc<UpstreamTls>>,
        protocol: Protocol,
        request: HttpProbeRequest,
        expected: HttpExpected,
    ) -> Self {
        Self { line: Line { connector, tls, protocol }, request, expected }
    }

    async fn ask(&self, target: &Target) -> Result<(), ProbeError> {
        let (status, body) = match self.line.dial(target).await? {
            Dialled::Http1(stream) => self.over_http1(stream, target).await?,
            Dialled::Http2(stream) => {
                let (head, body, _) = exchange(stream, self.http2_head(target)?, None, MOST).await?;
                (head.status().as_u16(), body)
            }
        };
        self.expected.look_at(status, &body)
    }

    async fn over_http1(&self, stream: Stream, target: &Target) -> Result<(u16, Vec<u8>), ProbeError> {
        let broke = |error: Box<pingora::Error>| ProbeError::of_exchange(&error);
        let mut session = HttpSession::new(stream);
        session.write_request_header(Box::new(self.http1_head(target))).await.map_err(broke)?;
        session.finish_body().await.map_err(broke)?;
        let status = loop {
            session.read_response().await.map_err(broke)?;
            match session.get_status() {
                Some(status) if status.is_informational() && status.as_u16() != 101 => {}
                status => break status.map_or(0, |status| status.as_u16()),
            }
        };
        let mut body = Vec::new();
        while body.len() < MOST
            && let Some(data) = session.read_body_ref().await.map_err(broke)?
        {
            let room = MOST - body.len();
            body.extend_from_slice(data.get(..room).unwrap_or(data));
        }
        Ok((status, body))
    }

    fn http1_head(&self, target: &Target) -> RequestHeader {
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from(self.request.path.clone());
        let headers = request.headers_mut();
        let host = self.authority(target);
        if let Some(host) = host.and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
            headers.insert(HOST, host);
        }
        self.add_headers(headers);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        *request.method_mut() = self.request.method.clone();
        RequestHeader::from(request.into_parts().0)
    }

    fn http2_head(&self, target: &Target) -> Result<Request<()>, ProbeError> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.line.scheme());
        uri.authority = self.authority(target);
        uri.path_and_query = Some(self.request.path.clone());
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| ProbeError::Broken)?;
        *request.method_mut() = self.request.method.clone();
        self.add_headers(request.headers_mut());
        request.headers_mut().remove(CONNECTION);
        Ok(request)
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        headers.insert(USER_AGENT, AGENT);
        for name in self.request.headers.keys().filter(|name| **name != HOST) {
            headers.remove(name);
            for value in self.request.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
    }

    fn authority(&self, target: &Target) -> Option<Authority> {
        let literal = || Authority::from_maybe_shared(Bytes::from(target.address.to_string())).ok();
        self.request.host.clone().or_else(literal)
    }
}

impl HealthCheck for HttpProbe {
    fn probe<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(self.ask(target))
    }
}

impl HttpExpected {
    fn look_at(&self, status: u16, body: &[u8]) -> Result<(), ProbeError> {
        let well = match &*self.statuses {
            [] => status == 200,
            ranges => ranges.iter().any(|range| range.contains(&status)),
        };
        if !well {
            return Err(ProbeError::Status(status));
        }
        let matches = match &self.body {
            None => true,
            Some(BodyMatch::Contains(bytes)) => memmem::find(body, bytes).is_some(),
            Some(BodyMatch::Matches(regex)) => regex.is_match(body),
        };
        if matches { Ok(()) } else { Err(ProbeError::Body) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn probe(protocol: Protocol, statuses: &[RangeInclusive<u16>], body: Option<BodyMatch>) -> HttpProbe {
        let request = HttpProbeRequest {
            method: Method::GET,
            path: PathAndQuery::from_static("/healthz?full=1"),
            host: None,
            headers: HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static("mine"))]),
        };
        let expected = HttpExpected { statuses: statuses.into(), body };
        HttpProbe::new(Arc::new(ProbeConnector::default()), None, protocol, request, expected)
    }

    /// Answers one request with these bytes, closes, and says what it was asked.
    async fn against(answer: &'static [u8], probe: HttpProbe) -> (Result<(), ProbeError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { address: listener.local_addr().unwrap() };
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let read = socket.read(&mut asked).await.unwrap();
            socket.write_all(answer).await.unwrap();
            socket.shutdown().await.unwrap();
            String::from_utf8(asked[..read].to_vec()).unwrap()
        };
        tokio::join!(probe.probe(&target), server)
    }

    #[tokio::test]
    async fn the_request_is_as_configured() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let (outcome, asked) = against(answer, probe(Protocol::Http1, &[], None)).await;
        assert_eq!(outcome, Ok(()));
        assert!(asked.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"), "{asked}");
        let asked = asked.to_lowercase();
        assert!(asked.contains("host: 127.0.0.1:"), "{asked}");
        assert!(asked.contains("user-agent: mine") && !asked.contains("portcullis"), "{asked}");
    }

    #[tokio::test]
    async fn the_status_must_be_in_a_range() {
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        let (outcome, _) = against(answer, probe(Protocol::Http1, &[200..=299], None)).await;
        assert_eq!(outcome, Ok(()));
        let (outcome, _) = against(answer, probe(Protocol::Auto, &[200..=203, 301..=301], None)).await;
        assert_eq!(outcome, Err(ProbeError::Status(204)));
    }

    #[tokio::test]
    async fn the_body_must_match() {
        let answer =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n5\r\n well\r\n0\r\n\r\n";
        let contains = |text: &str| Some(BodyMatch::Contains(text.as_bytes().into()));
        let (outcome, _) = against(answer, probe(Protocol::Http1, &[], contains("all well"))).await;
        assert_eq!(outcome, Ok(()));
        let (outcome, _) = against(answer, probe(Protocol::Http1, &[], contains("ill"))).await;
        assert_eq!(outcome, Err(ProbeError::Body));
        let matches = Some(BodyMatch::Matches(Regex::new("^all\\s").unwrap()));
        let (outcome, _) = against(answer, probe(Protocol::Http1, &[], matches)).await;
        assert_eq!(outcome, Ok(()));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_a_failure() {
        for answer in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "SSH-2.0-x\r\n"] {
            let (outcome, _) = against(answer.as_bytes(), probe(Protocol::Http1, &[], None)).await;
            assert_eq!(outcome.unwrap_err().code(), "protocol", "{answer}");
        }
    }

    #[tokio::test]
    async fn a_body_without_end_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { address: listener.local_addr().unwrap() };
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while socket.write_all(&[b'x'; 4096]).await.is_ok() {}
        };
        let (outcome, ()) = tokio::join!(
            async {
                let probe = probe(Protocol::Http1, &[], None);
                probe.probe(&target).await
            },
            server
        );
        assert_eq!(outcome, Ok(()));
    }

    #[tokio::test]
    async fn http2_in_the_clear() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { address: listener.local_addr().unwrap() };
        let server = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"all well"), true).unwrap();
            while connection.accept().await.is_some() {}
            request.uri().to_string()
        });
        let contains = Some(BodyMatch::Contains(b"well".as_slice().into()));
        assert_eq!(probe(Protocol::Http2, &[], contains).probe(&target).await, Ok(()));
        assert_eq!(server.await.unwrap(), format!("http://{}/healthz?full=1", target.address));
    }
}
