//! One HTTP/2 stream: what comes and goes on it, and its deadlines.
//!
//! 1. Deadlines of the exchange end a read or a write that would wait beyond them, as the wire of HTTP/1.1 does.
//! 2. The engine sees no empty piece of a body: it would take one for the end.
//! 3. Interim answers are passed on, 101 excepted: HTTP/2 has none.
//! 4. Fields that belong to a connection of HTTP/1.1 do not leave (RFC 9113, section 8.2.2).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{DATE, HeaderName};
use http::{HeaderMap, Response, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::date::get_cached_date;
use pingora::{Error, ErrorType, Result};

use crate::edge::alarm::Alarm;
use crate::edge::connection::Connection;

/// Whether a field belongs to a connection of HTTP/1.1.
fn is_of_a_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    )
}

/// One HTTP/2 stream.
pub(super) struct Stream {
    pub(super) request: RequestHeader,
    body: RecvStream,
    /// What of the body came with the head.
    first: Option<Bytes>,
    pub(super) body_done: bool,
    respond: SendResponse<Bytes>,
    out: Option<SendStream<Bytes>>,
    /// The status of the answer, without its fields.
    pub(super) written: Option<Box<ResponseHeader>>,
    /// Our side of the stream has ended.
    ended: bool,
    pub(super) read: usize,
    pub(super) sent: usize,
    clock: Clock,
    pub(super) digest: Digest,
}

/// The deadlines of the exchange on this stream.
struct Clock {
    connection: Arc<Connection>,
    alarm: Option<Alarm>,
}

impl Clock {
    /// Pending until a deadline passes. `waiting` says that the client is not the one who is waited for.
    fn poll(&mut self, cx: &mut Context<'_>, waiting: bool) -> Poll<Box<Error>> {
        let Some((timer, at)) = self.connection.next_deadline(waiting) else {
            return Poll::Pending;
        };
        let alarm = self.alarm.get_or_insert_with(|| Alarm::new(at.into()));
        ready!(alarm.poll_by(cx, at.into()));
        self.connection.fire(timer);
        Poll::Ready(Error::explain(ErrorType::ReadTimedout, "a deadline of the exchange passed").into_down())
    }
}

/// What is here of a body already: all of it, in most calls. Of more than that the client is told nothing.
pub(super) fn first(body: &mut RecvStream) -> Option<Bytes> {
    match body.poll_data(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(piece))) => Some(piece),
        // What is wrong with a stream is found out by whoever reads it.
        Poll::Ready(_) | Poll::Pending => None,
    }
}

impl Stream {
    /// A stream whose request head has passed the guard, and what of its body came with that.
    pub(super) fn new(
        request: RequestHeader,
        (first, body): (Option<Bytes>, RecvStream),
        respond: SendResponse<Bytes>,
        connection: Arc<Connection>,
    ) -> Self {
        Self {
            request,
            body_done: first.is_none() && body.is_end_stream(),
            body,
            first,
            respond,
            out: None,
            written: None,
            ended: false,
            read: 0,
            sent: 0,
            clock: Clock { connection, alarm: None },
            digest: Digest::default(),
        }
    }

    /// The next piece of the body; `None` at its end.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            if self.body_done {
                return Poll::Ready(Ok(None));
            }
            if self.ended {
                return Poll::Ready(Err(self.answered()));
            }
            let data = self
                .first
                .take()
                .map_or_else(|| self.body.poll_data(cx), |first| Poll::Ready(Some(Ok(first))));
            let Poll::Ready(data) = data else {
                self.clock.connection.awaits_body();
                return self.clock.poll(cx, true).map(Err);
            };
            let now = Instant::now();
            self.clock.connection.moved(now);
            let piece = data.transpose().map_err(|error| gone(ErrorType::ReadError, error))?;
            if let Some(piece) = &piece {
                self.read += piece.len();
                self.clock.connection.took_body(now, piece.len());
                // A stream that was reset has no window to open any more.
                let _ = self.body.flow_control().release_capacity(piece.len());
            }
            if piece.is_none() || self.body.is_end_stream() {
                self.body_done = true;
                if !self.clock.connection.request_complete() {
                    self.clock.connection.request_completed(now);
                }
            }
            if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
                return Poll::Ready(Ok(Some(piece)));
            }
        }
    }

    /// The answer is whole, so that the rest of the request is not waited for. It is an error to the engine: the end of
    /// the body would make a part of it look like all.
    fn answered(&self) -> Box<Error> {
        self.clock.connection.answered();
        Error::explain(ErrorType::ConnectionClosed, "the answer came before the end of the request")
            .into_down()
    }

    /// Pending until the client gives the stream up, which is an error.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        let reset = match &mut self.out {
            Some(out) => out.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        match reset {
            Poll::Ready(Ok(reason)) => {
                let why = format!("the client reset the stream: {reason}");
                Poll::Ready(Error::explain(ErrorType::ConnectionClosed, why).into_down())
            }
            Poll::Ready(Err(error)) => Poll::Ready(gone(ErrorType::ConnectionClosed, error)),
            Poll::Pending => self.clock.poll(cx, true),
        }
    }

    /// Sends what the client's window takes of `data`.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes, end: bool) -> Poll<Result<()>> {
        let Some(out) = &mut self.out else {
            return Poll::Ready(Err(Error::explain(ErrorType::InternalError, "a body before its head")));
        };
        while !data.is_empty() {
            out.reserve_capacity(data.len());
            let room = match out.poll_capacity(cx) {
                Poll::Ready(Some(Ok(room))) => room,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(gone(ErrorType::WriteError, error))),
                Poll::Ready(None) => {
                    let error = Error::explain(ErrorType::WriteError, "the client reset the stream");
                    return Poll::Ready(Err(error.into_down()));
                }
                Poll::Pending => return self.clock.poll(cx, false).map(Err),
            };
            let piece = data.split_to(room.min(data.len()));
            self.sent += piece.len();
            self.clock.connection.moved(Instant::now());
            out.send_data(piece, end && data.is_empty())
                .map_err(|error| gone(ErrorType::WriteError, error))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn write_head(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.ended || self.written.as_ref().is_some_and(|head| !head.status.is_informational()) {
            return Ok(());
        }
        while let Some(name) = head.headers.keys().find(|name| is_of_a_connection(name)).cloned() {
            head.remove_header(&name);
        }
        if head.status.is_informational() {
            if head.status != StatusCode::SWITCHING_PROTOCOLS {
                let interim = Response::from_parts(head.as_owned_parts(), ());
                self.respond
                    .send_informational(interim)
                    .map_err(|error| gone(ErrorType::WriteError, error))?;
            }
            return Ok(());
        }
        if !head.headers.contains_key(DATE) {
            // Spelled once a second, for all.
            head.insert_header(DATE, get_cached_date())?;
        }
        // The fields leave. Nobody asks for more than the status of what was written.
        let written = ResponseHeader::build(head.status, Some(0))?;
        let out = self.respond.send_response(Response::from_parts((*head).into(), ()), end);
        self.out = Some(out.map_err(|error| gone(ErrorType::WriteError, error))?);
        self.written = Some(Box::new(written));
        self.ended = end;
        Ok(())
    }

    pub(super) async fn write_piece(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        if data.is_empty() {
            return if end { self.end() } else { Ok(()) };
        }
        if self.clock.connection.is_overdue() {
            return Err(poll_fn(|cx| self.clock.poll(cx, false)).await);
        }
        poll_fn(|cx| self.poll_send(cx, &mut data, end)).await?;
        self.ended = end;
        Ok(())
    }

    pub(super) fn write_last(&mut self, trailers: HeaderMap) -> Result<()> {
        if let Some(out) = self.out.as_mut().filter(|_| !self.ended) {
            out.send_trailers(trailers).map_err(|error| gone(ErrorType::WriteError, error))?;
            self.ended = true;
        }
        Ok(())
    }

    /// Ends our side, when it has begun. A stream that has not is reset when it is dropped.
    pub(super) fn end(&mut self) -> Result<()> {
        if let Some(out) = self.out.as_mut().filter(|_| !self.ended) {
            out.send_data(Bytes::new(), true).map_err(|error| gone(ErrorType::WriteError, error))?;
            self.ended = true;
        }
        Ok(())
    }

    /// Gives the stream up in the middle of its message.
    pub(super) fn reset(&mut self) {
        if !self.ended {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
            self.ended = true;
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // An answer that was cut short must not look like one that nobody wants any more.
        if self.out.is_some() {
            self.reset();
        }
    }
}

fn gone(kind: ErrorType, error: h2::Error) -> Box<Error> {
    Error::because(kind, "the client's stream", error).into_down()
}
