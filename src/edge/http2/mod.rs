//! An HTTP/2 connection: its streams through the guard, each handed to the proxy engine as an exchange of its own.
//!
//! 1. The library keeps the protocol, with its bounds against floods (RFC 9113, section 10.5): streams at once, resets,
//!    CONTINUATION frames, header lists.
//! 2. A stream that the guard refuses is answered and logged here; the others do not notice.
//! 3. A connection ends with GOAWAY: when the gateway drains, after so many requests, idle for too long, or too old.

mod session;
mod stream;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason as ErrorCode, RecvStream};
use http::header::ACCEPT;
use http::{Method, Request, Response};
use pingora::apps::HttpServerApp;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use tokio::io::{AsyncRead, AsyncWrite};

use self::stream::Stream;
use super::Arrival;
use super::alarm::Alarm;
use super::connection::Connection;
use super::drain::Draining;
use super::serve::{Edge, FirstLine, Refused, reason_of};
use crate::exchange::{Reply, RequestId};
use crate::guard::{Refusal, http2};
use crate::snapshot::{Http2Limits, ListenerPolicy};

/// What a client may send on one stream before the gateway has passed it on.
const STREAM_WINDOW: u32 = 256 << 10;
/// The most that it may send on all streams together. Up to it, streams whose upstreams take nothing leave room for the
/// others.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// What waits in memory for a stream's client to take it.
const SEND_BUFFER: usize = 128 << 10;
/// How long a client has to close a connection that we said goodbye on.
const FAREWELL: Duration = Duration::from_secs(5);

type Wire<S> = server::Connection<S, Bytes>;

/// Serves a connection whose client speaks HTTP/2.
pub(super) async fn serve<A, S>(edge: Arc<Edge<A>>, io: S, connection: Arc<Connection>, draining: Draining)
where
    A: HttpServerApp + Send + Sync + 'static,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let policy = edge.policy();
    let Some(limits) = policy.http2 else { return };
    let handshake = tokio::time::timeout(policy.header_timeout, builder(&limits).handshake(io));
    let shaken = tokio::select! {
        biased;
        shaken = handshake => shaken,
        () = edge.drain.after_courtesy(Instant::now()) => return,
    };
    match shaken {
        Ok(Ok(wire)) => {
            let watch = Watch { draining, alarm: None, parted: None, streams: Arc::new(Streams::new()) };
            Http2 { edge, connection, policy, watch, served: 0 }.run(wire).await;
        }
        Ok(Err(error)) => log::debug!("no HTTP/2 connection: {error}"),
        Err(_) => log::debug!("no HTTP/2 connection: the preface took too long"),
    }
}

fn builder(limits: &Http2Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(limits.max_header_list)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(
            STREAM_WINDOW.saturating_mul(limits.max_streams).min(CONNECTION_WINDOW),
        )
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

struct Http2<A> {
    edge: Arc<Edge<A>>,
    connection: Arc<Connection>,
    policy: Arc<ListenerPolicy>,
    watch: Watch,
    served: u32,
}

/// What a connection waits for beside its next stream.
struct Watch {
    draining: Draining,
    alarm: Option<Alarm>,
    /// When we said goodbye.
    parted: Option<Instant>,
    streams: Arc<Streams>,
}

/// The streams under way.
struct Streams {
    active: AtomicUsize,
    epoch: Instant,
    /// When the last one ended, in nanoseconds from the epoch.
    quiet_since: AtomicU64,
}

/// A stream under way.
struct Under(Arc<Streams>);

#[allow(clippy::large_enum_variant, reason = "made and taken apart at once")]
enum Event {
    Stream(Request<RecvStream>, SendResponse<Bytes>),
    Goodbye,
    End,
}

impl<A: HttpServerApp + Send + Sync + 'static> Http2<A> {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut self, mut wire: Wire<S>) {
        loop {
            let idle = self.policy.idle_timeout;
            let until = self.connection.until(self.policy.connection_lifetime);
            match poll_fn(|cx| self.watch.poll(cx, &mut wire, idle, until)).await {
                Event::Stream(request, mut respond) => {
                    self.policy = self.edge.policy();
                    self.served += 1;
                    let enough = self.served >= self.policy.requests_per_connection;
                    if enough || !self.is_spoken() || self.edge.shedding.is_on() {
                        self.watch.goodbye(&mut wire);
                    }
                    if self.takes_more() {
                        self.begin(request, respond);
                    } else {
                        respond.send_reset(ErrorCode::REFUSED_STREAM);
                    }
                }
                Event::Goodbye => self.watch.goodbye(&mut wire),
                Event::End => return,
            }
        }
    }

    /// Whether what is in force still lets connections of this kind be.
    fn is_spoken(&self) -> bool {
        self.policy.http2.is_some() && self.policy.tls.is_some() == self.connection.tls().is_some()
    }

    /// Whether another stream is taken. One that the client has reset is none to the library, but may still be at work
    /// here; one that is answered may not have ended. And some time after the goodbye there is none any more.
    fn takes_more(&self) -> bool {
        let most = self.policy.http2.map_or(0, |limits| 2 * limits.max_streams as usize);
        let is_over = self.watch.parted.is_some_and(|parted| parted.elapsed() > FAREWELL);
        self.watch.streams.active.load(Ordering::Acquire) < most && !is_over
    }

    fn begin(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let at = Instant::now();
        let (mut parts, mut body) = request.into_parts();
        let complete = body.is_end_stream();
        let mut head = match http2::read(&mut parts, complete, &self.policy.head) {
            Ok(head) => head,
            Err(refusal) => return self.refuse(refusal, &parts, respond),
        };
        let connection = Arc::new(self.connection.stream());
        let first = if complete { None } else { stream::first(&mut body) };
        connection.reset(body.is_end_stream());
        // Who has begun with the body waits for no word of ours.
        head.expect_continue &= first.is_none();
        parts.extensions.insert(Arrival { connection: Arc::clone(&connection), head, at });
        let stream = Stream::new(RequestHeader::from(parts), (first, body), respond, connection);
        let session = ServerSession::new_custom(Box::new(stream));
        let app = Arc::clone(&self.edge.app);
        let draining = self.watch.draining.receiver().clone();
        let under = self.watch.streams.begin();
        pingora_runtime::current_handle().spawn(async move {
            // A stream is served once: nothing comes back.
            let _ = app.process_new_http(session, &draining).await;
            drop(under);
        });
    }

    /// Says why, on the stream. What is still to come of its body is not wanted.
    fn refuse(&self, refusal: Refusal, parts: &http::request::Parts, mut respond: SendResponse<Bytes>) {
        let started = Instant::now();
        let reason = reason_of(refusal);
        let id = RequestId::generate(SystemTime::now());
        let reply = Reply::refuse(reason).detail(refusal.detail());
        let accept = parts.headers.get(ACCEPT);
        let (headers, body) = self.edge.refusal(&self.connection, reply, accept, &id);
        let mut response = Response::new(());
        *response.status_mut() = reason.status();
        *response.headers_mut() = headers;
        let silent = parts.method == Method::HEAD;
        let sent = if silent { 0 } else { body.len() };
        let told = respond.send_response(response, silent).and_then(|mut out| match silent {
            true => Ok(()),
            false => out.send_data(body, true),
        });
        self.edge.metrics.refused(reason.code());
        let line = FirstLine {
            method: parts.method.as_str(),
            target: parts.uri.path().as_bytes(),
            protocol: "HTTP/2.0",
        };
        let sent = if told.is_ok() { sent } else { 0 };
        self.edge.log(&self.connection, &Refused { reason, id, line, started, sent });
    }
}

impl Watch {
    fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire<S>,
        idle: Duration,
        until: Option<Instant>,
    ) -> Poll<Event> {
        if let Poll::Ready(event) = wire.poll_accept(cx) {
            return Poll::Ready(match event {
                Some(Ok((request, respond))) => Event::Stream(request, respond),
                Some(Err(error)) => {
                    log::debug!("an HTTP/2 connection failed: {error}");
                    Event::End
                }
                None => Event::End,
            });
        }
        if self.parted.is_none() && self.draining.poll(cx).is_ready() {
            return Poll::Ready(Event::Goodbye);
        }
        let (since, wait) = match self.parted {
            Some(parted) => (parted, FAREWELL),
            None => (self.streams.epoch, idle),
        };
        // While a stream is under way the connection is not idle, however long it takes.
        let busy = self.streams.active.load(Ordering::Acquire) > 0;
        let since = if busy { Instant::now() } else { since.max(self.streams.quiet_since()) };
        let until = until.filter(|_| self.parted.is_none());
        let by = until.map_or(since + wait, |until| until.min(since + wait)).into();
        let alarm = self.alarm.get_or_insert_with(|| Alarm::new(by));
        alarm.poll_by(cx, by).map(|()| if self.parted.is_some() { Event::End } else { Event::Goodbye })
    }

    /// Tells the client to take its next requests elsewhere (RFC 9113, section 6.8).
    fn goodbye<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) {
        if self.parted.is_none() {
            wire.graceful_shutdown();
            self.parted = Some(Instant::now());
        }
    }
}

impl Streams {
    fn new() -> Self {
        Self { active: AtomicUsize::new(0), epoch: Instant::now(), quiet_since: AtomicU64::new(0) }
    }

    fn begin(self: &Arc<Self>) -> Under {
        self.active.fetch_add(1, Ordering::Relaxed);
        Under(Arc::clone(self))
    }

    fn quiet_since(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.quiet_since.load(Ordering::Relaxed))
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        let nanos = u64::try_from(self.0.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.quiet_since.store(nanos, Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Release);
    }
}
