//! One attempt that the gateway makes itself, by the engine's client: a connection, a request, the response head.
//!
//! The engine makes one attempt at a time. What it does to a request on its way, this does alike.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{self, HOST, HeaderName};
use http::uri::{Authority, Uri};
use http::{Method, StatusCode, Version};
use pingora::http::RequestHeader;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_proxy::Session;

use super::context::{Attempt, Context};
use super::forward;
use crate::exchange::Reason;

/// Makes connections, and keeps those that can be used again.
pub(super) type Connector = pingora::connectors::http::Connector<()>;

/// Fields for the next hop only, but those that `Connection` names.
const BETWEEN: [HeaderName; 6] = [
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];
const BETWEEN_NAMED: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];

/// An attempt under way.
pub(super) struct Lane {
    /// Away while it is the exchange's current one.
    pub(super) attempt: Option<Attempt>,
    /// Until when its head is waited for, once it has asked.
    pub(super) due: Due,
    pub(super) second: bool,
    pub(super) work: BoxFuture<'static, Step>,
}

/// How far an attempt came.
pub(super) enum Step {
    Connected(Result<Held>),
    /// A head, an interim one among others.
    Answered(Held, HttpTask),
    /// What went wrong, and whether the connection had been used before.
    Broken(Box<Error>, bool),
}

/// A connection, or a stream of one, that an attempt has to itself. One that is dropped is closed; of HTTP/2 the stream is
/// reset, and the connection goes back to the others.
pub(super) struct Held {
    connector: Arc<Connector>,
    peer: Box<HttpPeer>,
    session: Option<Box<HttpSession>>,
    pub(super) reused: bool,
}

/// Until when a head is waited for, and what is told when it is not there.
#[derive(Clone, Copy)]
pub(super) struct Due {
    pub(super) at: Instant,
    pub(super) told: Reason,
}

impl Lane {
    pub(super) fn begin(
        connector: Arc<Connector>,
        peer: Box<HttpPeer>,
        attempt: Option<Attempt>,
        second: bool,
    ) -> Self {
        let due = Due { at: Instant::now(), told: Reason::UPSTREAM_READ_TIMEOUT };
        let work = async { Step::Connected(connect(connector, peer).await) };
        Self { attempt, due, second, work: Box::pin(work) }
    }
}

/// A connection, one that is there or a new one.
pub(super) async fn connect(connector: Arc<Connector>, peer: Box<HttpPeer>) -> Result<Held> {
    match connector.get_http_session(&*peer).await {
        Ok((session, reused)) => Ok(Held { connector, peer, session: Some(Box::new(session)), reused }),
        Err(error) => Err(error.into_up()),
    }
}

/// Sends a request, with a body if it has one, and waits for its first head.
pub(super) async fn ask(held: Held, head: Box<RequestHeader>, body: Option<&[Bytes]>, due: Due) -> Step {
    step(held, Some((head, body)), due).await
}

/// Waits for the next head, after an interim one.
pub(super) async fn ask_on(held: Held, due: Due) -> Step {
    step(held, None, due).await
}

async fn step(mut held: Held, request: Option<(Box<RequestHeader>, Option<&[Bytes]>)>, due: Due) -> Step {
    let asked = async {
        if let Some((head, body)) = request {
            held.write(head, body).await?;
        }
        held.next().await
    };
    let error = match tokio::time::timeout_at(due.at.into(), asked).await {
        Ok(Ok(task)) => return Step::Answered(held, task),
        Ok(Err(error)) => error.into_up(),
        Err(_) if due.told == Reason::TRY_TIMEOUT => Error::new_up(ErrorType::Custom(due.told.code())),
        Err(_) => Error::new_up(ErrorType::ReadTimedout),
    };
    if matches!(error.etype(), ErrorType::H2Downgrade | ErrorType::InvalidH2)
        && held.peer.get_alpn().is_none_or(|alpn| alpn.get_min_http_version() == 1)
    {
        held.connector.prefer_h1(&*held.peer);
    }
    Step::Broken(error, held.reused)
}

impl Held {
    /// The request head for this connection, as the engine would have it.
    pub(super) fn head(&self, session: &Session, context: &mut Context) -> Result<Box<RequestHeader>> {
        let mut head = Box::new(session.req_header().clone());
        if context.arrival()?.head.hop_by_hop {
            BETWEEN.iter().for_each(|name| drop(head.remove_header(name)));
            BETWEEN_NAMED.iter().for_each(|name| drop(head.remove_header(*name)));
        }
        let http2 = self.is_http2();
        head.set_version(if http2 { Version::HTTP_2 } else { Version::HTTP_11 });
        forward::request(session, &mut head, context)?;
        if http2 {
            to_http2(&mut head, self.peer.is_tls())?;
        }
        Ok(head)
    }

    /// The head of a request that went elsewhere as it is for this connection, with a body or without.
    pub(super) fn copy(&self, head: &RequestHeader, has_body: bool) -> Result<Box<RequestHeader>> {
        let mut head = Box::new(head.clone());
        if self.is_http2() {
            head.set_version(Version::HTTP_2);
            head.remove_header(&header::TRANSFER_ENCODING);
            to_http2(&mut head, self.peer.is_tls())?;
            return Ok(head);
        }
        head.set_version(Version::HTTP_11);
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let target = target.parse::<Uri>().or_err(ErrorType::InvalidHTTPHeader, "a target for HTTP/1.1")?;
        head.set_uri(target);
        head.remove_header(&header::TE);
        if has_body {
            forward::frame_request(&mut head)?;
        }
        Ok(head)
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.session.as_deref(), Some(HttpSession::H2(_)))
    }

    async fn write(&mut self, head: Box<RequestHeader>, body: Option<&[Bytes]>) -> Result<()> {
        let write_timeout = self.peer.options.write_timeout;
        match self.session()? {
            HttpSession::H1(http1) => {
                http1.write_timeout = write_timeout;
                http1.write_request_header(head).await?;
                let Some(pieces) = body else { return Ok(()) };
                for piece in pieces {
                    http1.write_body(piece).await?;
                }
                http1.finish_body().await.map(|_| ())
            }
            HttpSession::H2(http2) => {
                http2.write_timeout = write_timeout;
                http2.write_request_header(head, body.is_none())?;
                let Some(pieces) = body else { return Ok(()) };
                for piece in pieces {
                    http2.write_request_body(piece.clone(), false).await?;
                }
                http2.finish_request_body()
            }
            HttpSession::Custom(()) => gone(),
        }
    }

    /// The next piece of the answer. It can be given up and asked for again.
    pub(super) async fn next(&mut self) -> Result<HttpTask> {
        let http2 = match self.session()? {
            HttpSession::H1(http1) => return http1.read_response_task().await,
            HttpSession::H2(http2) => http2,
            HttpSession::Custom(()) => return gone(),
        };
        if http2.response_header().is_none() {
            http2.read_response_header().await?;
            let end = http2.check_response_end_or_error()?;
            let method = http2.request_header().map(|request| request.method.clone());
            let Some(head) = http2.response_header() else { return gone() };
            let bodiless = method == Some(Method::HEAD)
                || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            let length = head.headers.get(header::CONTENT_LENGTH);
            if end && !bodiless && length.is_some_and(|length| length.as_bytes().iter().any(|b| *b != b'0')) {
                return Error::e_explain(ErrorType::H2Error, "a length, and no body");
            }
            return Ok(HttpTask::Header(Box::new(head.clone()), end));
        }
        while let Some(data) = http2.read_response_body().await? {
            let end = http2.check_response_end_or_error()?;
            // An empty piece would be taken for the end.
            if end || !data.is_empty() {
                return Ok(HttpTask::Body(Some(data), end));
            }
        }
        let trailers = http2.read_trailers().await?;
        Ok(trailers.map_or(HttpTask::Done, |trailers| HttpTask::Trailer(Some(Box::new(trailers)))))
    }

    /// The answer is whole: the connection can be used again, unless one of its ends says otherwise.
    pub(super) async fn release(mut self) {
        if let Some(session) = self.session.take() {
            let idle = self.peer.idle_timeout();
            self.connector.release_http_session(*session, &*self.peer, idle).await;
        }
    }

    fn session(&mut self) -> Result<&mut HttpSession> {
        self.session.as_deref_mut().map_or_else(gone, Ok)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(session) = self.session.take().filter(|session| matches!(**session, HttpSession::H2(_)))
        else {
            return;
        };
        let idle = self.peer.idle_timeout();
        // Nothing is waited for with HTTP/2.
        let _ = self.connector.release_http_session(*session, &*self.peer, idle).now_or_never();
    }
}

fn gone<T>() -> Result<T> {
    Error::e_explain(ErrorType::InternalError, "a connection that is not there")
}

/// Names the host where HTTP/2 has it.
fn to_http2(head: &mut RequestHeader, tls: bool) -> Result<()> {
    let host = head.remove_header(&HOST);
    let host = host.as_ref().map(|host| host.as_bytes()).unwrap_or_default();
    let authority = Authority::try_from(host).or_err(ErrorType::InvalidHTTPHeader, "a host for HTTP/2")?;
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let uri =
        Uri::builder().scheme(if tls { "https" } else { "http" }).authority(authority).path_and_query(target);
    head.set_uri(uri.build().or_err(ErrorType::InvalidHTTPHeader, "a target for HTTP/2")?);
    Ok(())
}

/// Whether a head is an interim one.
pub(super) fn is_interim(head: &HttpTask) -> bool {
    let interim = |status: StatusCode| status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
    matches!(head, HttpTask::Header(head, _) if interim(head.status))
}

/// Whether a request's fields for the next hop are those that [`Held::head`] takes away, and it says which host it is for.
pub(super) fn is_plain(request: &RequestHeader) -> bool {
    let mut connection = request.headers.get_all(header::CONNECTION).iter();
    let plain = |option: &[u8]| {
        [&b"keep-alive"[..], b"close", b"te"]
            .iter()
            .any(|known| option.trim_ascii().eq_ignore_ascii_case(known))
    };
    connection.all(|options| options.as_bytes().split(|byte| *byte == b',').all(plain))
        && request.headers.get(HOST).is_some_and(|host| !host.is_empty())
        && request.uri.path().starts_with('/')
        && request.raw_path_is_utf8()
}
