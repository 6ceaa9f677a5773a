//! The stream that the proxy engine reads from and writes to: the guarded socket.
//!
//! 1. The engine never sees a byte beyond the message under way: what comes early waits here, so pipelined requests
//!    are served one after the other.
//! 2. Body bytes pass the framing guard on their way; a body that breaks the rules ends the exchange.
//! 3. Small writes gather until a flush, 16 KiB, or until the engine waits for something else.
//! 4. Deadlines end a read or a write that would wait beyond them with [`io::ErrorKind::TimedOut`].
//! 5. When the engine drops the stream, the socket goes back to the connection to be closed with care.

mod engine;
mod tunnel;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::tunnel::Tunnel;
use super::alarm::Alarm;
use super::connection::Connection;
use super::drain::{COURTESY, Drain, Draining};
use super::socket::Socket;
use crate::guard::{
    BodyFraming, BodyScanner, Head, HeadLimits, HeadScanner, Progress, Refusal, TargetForm, in_origin_form,
};

/// Writes gather up to so much.
const GATHER: usize = 16 << 10;
/// Early bytes of later requests are taken in up to so much; then the client has to wait.
const AHEAD: usize = 16 << 10;
/// The room for a response at first: for its head and a short body.
const OUT_ROOM: usize = 1 << 10;
/// The room for a request head at first; it grows with the head.
const HEAD_ROOM: usize = 2 << 10;

/// A client's socket behind the guard.
#[derive(Debug)]
pub struct Wire {
    /// `None` only after it was given back.
    socket: Option<Socket>,
    connection: Arc<Connection>,
    /// Bytes read and not yet delivered.
    ahead: BytesMut,
    /// Bytes written and not yet sent.
    out: BytesMut,
    body: BodyScanner,
    body_done: bool,
    alarm: Option<Alarm>,
    drain: Drain,
    /// Once the connection became a WebSocket.
    tunnel: Option<Box<Tunnel>>,
}

/// A request head that passed the guard.
#[derive(Debug)]
pub struct Arrived {
    /// What the guard read in it.
    pub head: Head,
    /// The head and what of its body came with it.
    pub bytes: BytesMut,
    /// When the head was complete.
    pub at: Instant,
}

/// Why no request head arrived.
#[derive(Debug)]
pub enum Ended {
    /// The client left between requests, or was idle for too long, or the gateway is draining.
    Quiet,
    /// The client left in the middle of a head.
    Broken,
    /// The head took too long.
    Slow,
    /// The listener does not speak HTTP/1.1.
    Unspoken,
    /// The head came in the clear where TLS is spoken.
    InTheClear {
        /// What had been read, for the log.
        bytes: BytesMut,
    },
    /// The guard refused the head.
    Refused {
        /// Why.
        refusal: Refusal,
        /// What had been read, for the log.
        bytes: BytesMut,
    },
}

/// How long the parts of waiting for a request may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the first byte.
    pub idle: Duration,
    /// For the whole head from its first byte.
    pub head: Duration,
}

impl Wire {
    /// Guards a socket.
    pub(super) fn new(socket: Socket, connection: Arc<Connection>, drain: Drain) -> Self {
        Self {
            socket: Some(socket),
            connection,
            ahead: BytesMut::new(),
            out: BytesMut::new(),
            body: BodyScanner::new(BodyFraming::None),
            body_done: true,
            alarm: None,
            drain,
            tunnel: None,
        }
    }

    /// The socket, to speak another protocol on it.
    pub(super) fn into_socket(mut self) -> Option<Socket> {
        self.socket.take()
    }

    /// Waits, from `since` on, for the next request head and lets it pass the guard. The drain ends the wait between
    /// requests, when the connection has been quiet for so long that none is on its way.
    pub async fn next_head(
        &mut self,
        limits: &HeadLimits,
        patience: Patience,
        since: Instant,
        draining: &mut Draining,
    ) -> Result<Arrived, Ended> {
        let mut scanner = HeadScanner::new(*limits);
        let mut first_byte: Option<Instant> = None;
        let mut idle_by = since + patience.idle;
        let mut drains = false;
        self.out = BytesMut::new();
        loop {
            if !self.ahead.is_empty() {
                let now = Instant::now();
                first_byte.get_or_insert(now);
                match scanner.advance(&self.ahead) {
                    Progress::NeedMore => {}
                    Progress::Done(head) => return self.arrive(head, now),
                    Progress::Refused(refusal) => {
                        let bytes = std::mem::take(&mut self.ahead);
                        return Err(Ended::Refused { refusal, bytes });
                    }
                }
            }
            let read = std::future::poll_fn(|cx| {
                if let Poll::Ready(read) = self.poll_fill(cx) {
                    return Poll::Ready(Some(read));
                }
                // A client in the middle of a head may finish it.
                if first_byte.is_none() && !drains && draining.poll(cx).is_ready() {
                    drains = true;
                    idle_by = idle_by.min(since + COURTESY);
                }
                let deadline = first_byte.map_or(idle_by, |first| first + patience.head);
                self.poll_alarm(cx, deadline).map(|()| None)
            });
            match (read.await, first_byte) {
                (Some(Ok(n)), _) if n > 0 => {}
                (None, Some(_)) => return Err(Ended::Slow),
                (_, None) => return Err(Ended::Quiet),
                (_, Some(_)) => return Err(Ended::Broken),
            }
        }
    }

    /// The head and the part of its body that is here leave; the bytes after it stay.
    fn arrive(&mut self, mut head: Head, at: Instant) -> Result<Arrived, Ended> {
        self.body = BodyScanner::new(head.framing);
        let body = self.body.feed(&self.ahead[head.len..]);
        let fed = match body {
            Ok(fed) => fed,
            Err(refusal) => {
                let bytes = std::mem::take(&mut self.ahead);
                return Err(Ended::Refused { refusal, bytes });
            }
        };
        self.body_done = fed.done;
        self.connection.reset(fed.done);
        // Who has begun with the body waits for no word of ours.
        head.expect_continue &= fed.consumed == 0;
        let end = head.len + fed.consumed;
        let mut bytes =
            if end == self.ahead.len() { std::mem::take(&mut self.ahead) } else { self.ahead.split_to(end) };
        if head.target_form == TargetForm::Absolute {
            // The engine would compare its authority with Host byte by byte.
            bytes = in_origin_form(&head, &bytes);
        } else {
            // The one empty line that is tolerated before a request is not passed on.
            bytes.advance(head.start);
        }
        Ok(Arrived { head, bytes, at })
    }

    /// Reads what the socket has into `ahead`. Takes no memory while nothing has come.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Some(socket) => socket.poll_fill(cx, &mut self.ahead, HEAD_ROOM),
            None => Poll::Ready(Ok(0)),
        }
    }

    /// Ready when `at` has passed.
    fn poll_alarm(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let at = tokio::time::Instant::from_std(at);
        let alarm = self.alarm.get_or_insert_with(|| Alarm::new(at));
        alarm.poll_by(cx, at)
    }

    /// Pending until a deadline of the exchange passes, which is an error. `waiting` says that the client is not the
    /// one who is waited for.
    fn poll_deadline<T>(&mut self, cx: &mut Context<'_>, waiting: bool) -> Poll<io::Result<T>> {
        let Some((timer, at)) = self.connection.next_deadline(waiting) else {
            return Poll::Pending;
        };
        ready!(self.poll_alarm(cx, at));
        self.connection.fire(timer);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a deadline of the exchange passed")))
    }

    /// Sends what was gathered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let Some(socket) = &mut self.socket else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            let sent = ready!(Pin::new(socket).poll_write(cx, &self.out))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(sent);
            self.connection.moved(Instant::now());
        }
        match &mut self.socket {
            Some(socket @ Socket::Tls(_)) => Pin::new(socket).poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Delivers body bytes, those that came early first.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.ahead.is_empty() {
            let Some(socket) = &mut self.socket else {
                return Poll::Ready(Ok(()));
            };
            ready!(Pin::new(socket).poll_read(cx, buf))?;
        } else {
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(n));
        }
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if fresh.is_empty() || self.connection.is_tunnel() {
            self.connection.moved(Instant::now());
            return Poll::Ready(Ok(()));
        }
        let fed = match self.body.feed(fresh) {
            Ok(fed) => fed,
            Err(refusal) => {
                self.connection.refuse(refusal);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
            }
        };
        let now = Instant::now();
        self.connection.moved(now);
        self.connection.took_body(now, fresh.len());
        if fed.done {
            self.body_done = true;
            self.connection.request_completed(now);
            let beyond = BytesMut::from(fresh.get(fed.consumed..).unwrap_or_default());
            if !beyond.is_empty() {
                let rest = std::mem::replace(&mut self.ahead, beyond);
                self.ahead.extend_from_slice(&rest);
                buf.set_filled(before + fed.consumed);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The message is complete: only the end of the connection is news. What comes early is kept for later.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < AHEAD {
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.connection.is_tunnel() {
            return wire.poll_tunnel(cx, buf);
        }
        if wire.connection.is_overdue() {
            return wire.poll_deadline(cx, true);
        }
        let read = if wire.body_done { wire.poll_quiet(cx) } else { wire.poll_body(cx, buf) };
        if read.is_ready() {
            return read;
        }
        wire.connection.awaits_body();
        // The engine waits: what it has written should not.
        if let Poll::Ready(Err(error)) = wire.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        wire.poll_deadline(cx, true)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if wire.connection.is_tunnel() {
            return match wire.poll_write_tunnel(cx, data) {
                Poll::Pending => wire.poll_deadline(cx, false),
                written => written,
            };
        }
        if wire.connection.is_overdue() {
            return wire.poll_deadline(cx, false);
        }
        if wire.out.len() + data.len() <= GATHER {
            if wire.out.capacity() == 0 {
                wire.out.reserve(data.len().max(OUT_ROOM));
            }
            wire.out.extend_from_slice(data);
            return Poll::Ready(Ok(data.len()));
        }
        match wire.poll_send(cx) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => return wire.poll_deadline(cx, false),
        }
        let Some(socket) = &mut wire.socket else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match Pin::new(socket).poll_write(cx, data) {
            Poll::Ready(written) => {
                wire.connection.moved(Instant::now());
                Poll::Ready(written)
            }
            Poll::Pending => wire.poll_deadline(cx, false),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        match wire.poll_send(cx) {
            Poll::Pending => wire.poll_deadline(cx, false),
            sent => sent,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        ready!(Pin::new(&mut *wire).poll_flush(cx))?;
        match &mut wire.socket {
            Some(socket) => Pin::new(socket).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.connection.give_back(socket);
        }
    }
}
