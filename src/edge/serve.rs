//! The way of a connection: head after head through the guard, each handed to the proxy engine.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, DATE, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::accept::{self, Caps, Full, Place, Share};
use super::announce::{self, Unannounced};
use super::connection::Connection;
use super::drain::COURTESY;
use super::http2;
use super::preread::Preread;
use super::socket::Socket;
use super::transport::{Ends, Listener, Transport};
use super::wire::{Arrived, Ended, Patience, Wire};
use super::{Arrival, Drain, ListenerMetrics, Shedding};
use crate::exchange::{Reason, Reply, RequestId};
use crate::guard::Refusal;
use crate::snapshot::{ListenerPolicy, Live};
use crate::telemetry::{Address, Record};

/// How long a closed connection may go on sending before its socket is dropped.
const LINGER: Duration = Duration::from_secs(1);
/// How much a closed connection may go on sending.
const LINGER_BYTES: usize = 256 << 10;
/// How long a refusal may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How much of a refused head the log looks at.
const SHOWN: usize = 512;

/// The wire front of one listener, before the proxy engine `A`.
pub struct Edge<A> {
    /// The proxy engine.
    pub app: Arc<A>,
    /// The listener's index in the snapshot.
    pub listener: usize,
    /// The configuration in force.
    pub live: Arc<Live>,
    /// The listener's metrics.
    pub metrics: Arc<ListenerMetrics>,
    /// Who is still here.
    pub drain: Drain,
    /// Whether there is too much already.
    pub shedding: Shedding,
}

impl<A: HttpServerApp + Send + Sync + 'static> Edge<A> {
    /// Accepts connections until draining starts.
    pub async fn listen(self: Arc<Self>, listener: Listener) {
        let caps = Arc::new(Caps::default());
        let name = Arc::clone(&self.policy().name);
        let mut draining = self.drain.watch();
        loop {
            let (socket, ends) = tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return,
                accepted = accept::accept(&listener, &name) => accepted,
            };
            let policy = self.policy();
            let (place, share, announced) = match self.admit(&caps, ends, &policy) {
                Ok(admitted) => admitted,
                Err(code) => {
                    self.turn_away(code);
                    continue;
                }
            };
            let announced = announced.then(|| Arc::clone(&caps));
            let edge = Arc::clone(&self);
            let presence = self.drain.enter();
            // With work stealing off each worker is a runtime of its own, and this picks one.
            pingora_runtime::current_handle().spawn(async move {
                let open = edge.metrics.open();
                let guards = (open, place, share, presence);
                match announced {
                    // Boxed, so that a connection does not carry the room for it.
                    Some(caps) => Box::pin(edge.announced(socket, ends, &caps)).await,
                    None => edge.connected(socket, ends).await,
                }
                drop(guards);
            });
        }
    }

    /// The places of a connection, and whether a proxy in front will say whose it is; or why it has none.
    fn admit(
        &self,
        caps: &Caps,
        ends: Ends,
        policy: &ListenerPolicy,
    ) -> Result<(Place, Option<Share>, bool), &'static str> {
        let announced = announce::is_awaited(policy.proxy_protocol, self.is_trusted(ends));
        let announced = announced.map_err(Unannounced::code)?;
        // Whose it will be is counted when it is known.
        let share = if announced { None } else { self.share(caps, ends, policy).map_err(Full::code)? };
        let place = caps.take(policy.connections).map_err(Full::code)?;
        Ok((place, share, announced))
    }

    /// A connection whose first words are those of a proxy in front.
    async fn announced(self: Arc<Self>, mut socket: Transport, ends: Ends, caps: &Caps) {
        let policy = self.policy();
        let told = {
            let told = announce::read(&mut socket, ends, policy.proxy_protocol, policy.header_timeout);
            let mut draining = self.drain.watch();
            tokio::select! {
                told = told => told,
                _ = draining.wait_for(|draining| *draining) => Err(Unannounced::Quiet),
            }
        };
        let counted = match told {
            Ok(ends) => self.share(caps, ends, &policy).map(|share| (ends, share)).map_err(Full::code),
            Err(Unannounced::Quiet) => return,
            Err(why) => Err(why.code()),
        };
        drop(policy);
        match counted {
            Ok((ends, share)) => {
                self.connected(socket, ends).await;
                drop(share);
            }
            Err(code) => self.turn_away(code),
        }
    }

    /// A place among the connections of the peer's address. A trusted proxy stands for many clients, and is not counted.
    fn share(&self, caps: &Caps, ends: Ends, policy: &ListenerPolicy) -> Result<Option<Share>, Full> {
        match ends.peer.ip() {
            Some(ip) if !self.is_trusted(ends) => caps.share(ip, policy.connections_per_ip).map(Some),
            _ => Ok(None),
        }
    }

    fn is_trusted(&self, ends: Ends) -> bool {
        self.live.load().trusted_proxies.covers(ends.peer)
    }

    pub(super) fn policy(&self) -> Arc<ListenerPolicy> {
        self.live.load().listener(self.listener)
    }

    fn turn_away(&self, code: &'static str) {
        self.metrics.turned_away(code);
        log::debug!("a connection was closed unread: {code}");
    }

    pub(super) async fn serve(self: Arc<Self>, socket: Socket, connection: Arc<Connection>) {
        let mut wire = Box::new(Wire::new(socket, Arc::clone(&connection), self.drain.clone()));
        let mut draining = self.drain.wait();
        let mut served = 0;
        let mut swaps = self.live.swaps();
        let mut policy = self.policy();
        loop {
            let now = self.live.swaps();
            if now != swaps {
                (swaps, policy) = (now, self.policy());
            }
            let since = Instant::now();
            let left_to_live = connection
                .until(policy.connection_lifetime)
                .map(|until| until.saturating_duration_since(since).max(COURTESY));
            let idle = left_to_live.map_or(policy.idle_timeout, |left| left.min(policy.idle_timeout));
            let patience = Patience { idle, head: policy.header_timeout };
            let arrived = wire.next_head(&policy.head, patience, since, &mut draining).await;
            let arrived = match arrived {
                Ok(_) if !policy.http1 => {
                    self.end(wire, &connection, Ended::Unspoken).await;
                    break;
                }
                Ok(arrived) => arrived,
                Err(Ended::Refused { refusal: Refusal::Http2Preface, bytes })
                    if served == 0 && policy.http2.is_some() =>
                {
                    let Some(socket) = wire.into_socket() else { return };
                    // Boxed, so that other connections do not carry the room for it.
                    return Box::pin(http2::serve(self, Preread::new(bytes, socket), connection, draining))
                        .await;
                }
                Err(ended) => {
                    self.end(wire, &connection, ended).await;
                    break;
                }
            };
            served += 1;
            let until = connection.until(policy.connection_lifetime);
            let lives_on = until.is_none_or(|until| arrived.at < until);
            let left = if lives_on { policy.requests_per_connection.saturating_sub(served) } else { 0 };
            match self.exchange(wire, &connection, arrived, left, draining.receiver()).await {
                Some(same) => wire = same,
                None => break,
            }
            polled_again().await;
        }
        if let Some(socket) = connection.take_back() {
            linger(socket).await;
        }
    }

    /// Hands one request to the engine; the wire comes back when the connection can serve another.
    async fn exchange(
        &self,
        wire: Box<Wire>,
        connection: &Arc<Connection>,
        arrived: Arrived,
        left: u32,
        draining: &watch::Receiver<bool>,
    ) -> Option<Box<Wire>> {
        let mut session = ServerSession::new_http1(wire);
        session.set_read_timeout(None);
        session.set_keepalive_reuses_remaining(Some(left));
        let arrival = Arrival { connection: Arc::clone(connection), head: arrived.head, at: arrived.at };
        session.set_connection_user_context(Some(Box::new(arrival)));
        session.set_pipelined_prefix(arrived.bytes);
        let reused = self.app.process_new_http(session, draining).await?;
        let (stream, _) = reused.consume();
        stream.into_any().downcast::<Wire>().ok()
    }

    /// Says why, where someone may still listen.
    pub(super) async fn end(&self, mut wire: Box<Wire>, connection: &Connection, ended: Ended) {
        let (reason, detail, bytes) = match ended {
            Ended::Quiet | Ended::Broken => return,
            Ended::Slow => (Reason::HEADER_TIMEOUT, "", BytesMut::new()),
            Ended::Unspoken => (Reason::HTTP1_NOT_SPOKEN, "", BytesMut::new()),
            Ended::Refused { refusal, bytes } => (reason_of(refusal), refusal.detail(), bytes),
            Ended::InTheClear { bytes } => (Reason::TLS_REQUIRED, "", bytes),
        };
        let started = Instant::now();
        let id = RequestId::generate(SystemTime::now());
        let (headers, body) = self.refusal(connection, Reply::refuse(reason).detail(detail), None, &id);
        let reply = serialize(reason.status(), &headers, &body);
        let written = async {
            wire.write_all(&reply).await?;
            wire.shutdown().await
        };
        let told = matches!(tokio::time::timeout(LAST_WORDS, written).await, Ok(Ok(())));
        self.metrics.refused(reason.code());
        let sent = if told { body.len() } else { 0 };
        let line = FirstLine::of(&bytes);
        self.log(connection, &Refused { reason, id, line, started, sent });
    }

    /// The head and the body of an answer to what never became a request.
    pub(super) fn refusal(
        &self,
        connection: &Connection,
        reply: Reply,
        accept: Option<&HeaderValue>,
        id: &RequestId,
    ) -> (HeaderMap, Bytes) {
        let (mut headers, body) = reply.render(accept, Some(id));
        let date = httpdate::fmt_http_date(SystemTime::now());
        headers.extend(HeaderValue::try_from(date).ok().map(|date| (DATE, date)));
        headers.insert(CONTENT_LENGTH, body.len().into());
        if let Some(hsts) = connection.tls().and_then(|_| self.policy().tls.as_ref()?.hsts.clone()) {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts);
        }
        (headers, body)
    }

    /// Writes the line of a request that got no further than here.
    pub(super) fn log(&self, connection: &Connection, refused: &Refused<'_>) {
        let log = self.live.load().access_log();
        let status = refused.reason.status().as_u16();
        let duration = refused.started.elapsed();
        if !log.wants(status, duration, fastrand::f64) {
            return;
        }
        let line = &refused.line;
        log.write(&Record {
            time: SystemTime::now(),
            request_id: refused.id.as_str(),
            client_ip: connection.peer_ip().map(|ip| Address::Text(ip.as_bytes())),
            listener: &self.policy().name,
            route: None,
            method: line.method,
            host: None,
            path: line.target,
            query: None,
            protocol: line.protocol,
            status,
            grpc_status: None,
            reason: Some(refused.reason.code()),
            duration,
            variant: None,
            upstream: None,
            endpoint: None,
            upstream_duration: None,
            tries: 0,
            bytes_in: 0,
            bytes_out: refused.sent as u64,
            user_agent: None,
            referer: None,
            consumer: None,
            tls: connection.tls().map(|tls| tls.record()),
            request_headers: None,
            response_headers: None,
            fields: &[],
        });
    }
}

/// What the log says of a request that never became one.
pub(super) struct Refused<'a> {
    pub(super) reason: Reason,
    pub(super) id: RequestId,
    pub(super) line: FirstLine<'a>,
    pub(super) started: Instant,
    /// Bytes of the reply's body.
    pub(super) sent: usize,
}

/// The parts of a request line, as far as they can be told apart.
pub(super) struct FirstLine<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a [u8],
    pub(super) protocol: &'a str,
}

impl<'a> FirstLine<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let shown = bytes.get(..SHOWN).unwrap_or(bytes);
        let line = shown.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let mut parts = line.split(|byte| *byte == b' ');
        let mut word = || parts.next().unwrap_or_default();
        let (method, target, protocol) = (word(), word(), word());
        let text = |bytes| std::str::from_utf8(bytes).ok().filter(|text| text.len() <= 32 && text.is_ascii());
        Self { method: text(method).unwrap_or("-"), target, protocol: text(protocol).unwrap_or("-") }
    }
}

/// Ends this turn of the task. The two halves of an exchange wake each other, and with each other the task that they
/// share, so that it will be polled once more in any case: to look for the next request now would be to look twice.
async fn polled_again() {
    let mut polled = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// A refusal of the guard as a reason of the house.
pub fn reason_of(refusal: Refusal) -> Reason {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    Reason::custom(refusal.reason(), status, status.canonical_reason().unwrap_or("Bad request"))
}

fn serialize(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Vec<u8> {
    let mut wire = Vec::with_capacity(512 + body.len());
    wire.extend_from_slice(b"HTTP/1.1 ");
    wire.extend_from_slice(status.as_str().as_bytes());
    wire.push(b' ');
    wire.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    for (name, value) in headers {
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(name.as_str().as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value.as_bytes());
    }
    wire.extend_from_slice(b"\r\nconnection: close\r\n\r\n");
    wire.extend_from_slice(body);
    wire
}

/// Lets the client read our last words before the socket goes: a socket closed with unread bytes in it is reset,
/// and the reset can overtake the reply (RFC 9112, section 9.6).
pub(super) async fn linger(mut socket: Socket) {
    let drained = async {
        if socket.shutdown().await.is_err() {
            return;
        }
        let mut socket = socket.into_tcp();
        let mut sink = [0; 1024];
        let mut seen = 0;
        while let Ok(n) = socket.read(&mut sink).await {
            seen += n;
            if n == 0 || seen > LINGER_BYTES {
                return;
            }
        }
    };
    // Whoever goes on sending after that is cut off.
    let _ = tokio::time::timeout(LINGER, drained).await;
}
