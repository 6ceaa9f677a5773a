//! Sends what is kept of a body anew.
//!
//! The engine sends up to 64 KiB of an HTTP/1.1 client's body anew by itself. For all else the client's session is put behind
//! one that yields the kept pieces before the rest. It stands no longer than it must:
//!
//! 1. It is put up when the engine has looked at the session to shape the request head: the head of each attempt is shaped in
//!    the same way.
//! 2. It is taken down when an answer begins, and when the attempt ends: what closes a connection or keeps it is said to the
//!    client's own session. Only for an endpoint that answers before it was sent all pieces it is put up again.
//! 3. It is there for first attempts, too, where the body is still coming: by it [`super::stall`] sees whether it is taken.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as Custom;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora_proxy::Session;

use super::context::{Context, Pinned};
use super::stall::{Pace, Watch};

type Pieces = VecDeque<Bytes>;
type Messages = Box<dyn futures_util::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

/// Where a session that is taken down leaves what it was made of: the engine hands it back as what cannot be taken apart.
pub(super) type Rest = Arc<Mutex<Option<(ServerSession, Pieces)>>>;

/// A session whose body begins with pieces that were read before.
struct Replay {
    client: ServerSession,
    pieces: Pieces,
    rest: Rest,
    pace: Option<Arc<Pace>>,
}

/// An attempt begins: what has come of the body comes anew.
pub(super) fn begin(session: &mut Session, context: &mut Context, http2: bool) -> Result<()> {
    let (arrival, pinned) = context.parts()?;
    pinned.watch = Watch::new(arrival, pinned.route.bounds.upstream.write, http2);
    // What comes through a session of ours does not come into the engine's buffer, nor does the engine send that through one.
    pinned.watched |= pinned.watch.is_some();
    let ours = pinned.watched;
    let early = pinned.early.clone().unwrap_or_default();
    if pinned.kept.come() <= early.len() as u64 && !early.is_empty() {
        put_up(session, pinned, Pieces::from([early]));
    } else if pinned.kept.has_begun() && (ours || !early.is_empty() || !is_sent_by_the_engine(session)) {
        let piece = pinned.kept.in_one();
        put_up(session, pinned, Pieces::from([piece]));
    } else if pinned.watch.is_some() {
        put_up(session, pinned, Pieces::new());
    }
    Ok(())
}

fn is_sent_by_the_engine(session: &Session) -> bool {
    !session.as_downstream().is_custom() && !session.as_downstream().retry_buffer_truncated()
}

/// An answer begins, or an attempt has ended: the client's own session is back. What was left of the pieces.
pub(super) fn end(session: &mut Session, context: &mut Context) -> Pieces {
    let rest = context.pinned.as_mut().and_then(|pinned| pinned.replay.take());
    let Some(rest) = rest else { return Pieces::new() };
    // Dropped, it leaves the client's session.
    drop(mem::replace(session.as_downstream_mut(), nobody()));
    let Some((client, pieces)) = rest.lock().take() else { return Pieces::new() };
    *session.as_downstream_mut() = client;
    pieces
}

/// An answer is about to go out, and `pieces` are still to be sent. If it is no interim one, there will be no other attempt.
pub(super) fn go_on(
    session: &mut Session,
    context: &mut Context,
    pieces: Pieces,
    head: &ResponseHeader,
) -> Result<()> {
    let pinned = context.pinned()?;
    if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
        pinned.kept.end();
        pinned.early = None;
        pinned.watch = None;
    }
    if !pieces.is_empty() || pinned.watch.is_some() {
        put_up(session, pinned, pieces);
    }
    Ok(())
}

fn put_up(session: &mut Session, pinned: &mut Pinned, pieces: Pieces) {
    let rest = Rest::default();
    pinned.replay = Some(Arc::clone(&rest));
    let client = mem::replace(session.as_downstream_mut(), nobody());
    let replay = Replay { client, pieces, rest, pace: pinned.watch.as_ref().map(Watch::pace) };
    *session.as_downstream_mut() = ServerSession::new_custom(Box::new(replay));
}

/// What stands in the place of a session for a moment.
fn nobody() -> ServerSession {
    ServerSession::new_custom(Box::new(()))
}

impl Drop for Replay {
    fn drop(&mut self) {
        let client = mem::replace(&mut self.client, nobody());
        *self.rest.lock() = Some((client, mem::take(&mut self.pieces)));
    }
}

#[async_trait]
impl Custom for Replay {
    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        match self.pieces.pop_front() {
            Some(piece) => Ok(Some(piece)),
            None => self.client.read_request_body().await,
        }
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected {
            if let Some(pace) = &self.pace {
                pace.asked();
            }
            return self.client.read_body_or_idle(true).await;
        }
        if let Some(pace) = &self.pace {
            pace.asked();
        }
        let piece = match self.pieces.pop_front() {
            Some(piece) => Ok(Some(piece)),
            None => self.client.read_body_or_idle(false).await,
        };
        if let Some(pace) = &self.pace {
            pace.gave();
        }
        piece
    }

    fn is_body_done(&mut self) -> bool {
        self.pieces.is_empty() && self.client.is_body_done()
    }

    fn is_body_empty(&mut self) -> bool {
        self.client.is_body_empty()
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.pieces.clear();
        self.client.drain_request_body().await
    }

    fn enable_retry_buffering(&mut self) {}

    fn retry_buffer_truncated(&self) -> bool {
        self.client.retry_buffer_truncated()
    }

    /// The pieces come as if they came from the client.
    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    fn req_header(&self) -> &RequestHeader {
        self.client.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.client.req_header_mut()
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.client.write_response_header(head).await?;
        if end { self.client.finish_body().await } else { Ok(()) }
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(head.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.client.write_response_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.client.write_response_trailers(trailers).await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        self.client.response_duplex_vec(tasks).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.client.get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.client.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.client.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.client.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.client.response_written()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.client.shutdown().await;
    }

    async fn finish(&mut self) -> Result<()> {
        self.client.finish_body().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.client.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.client.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.client.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.client.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.client.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.client.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.client.to_h1_raw()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    /// There are none, but the engine wants somebody who would read them beside one who writes.
    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        self.pace.as_ref().map(|_| Box::new(futures_util::stream::empty()) as Messages)
    }

    fn restore_custom_message_reader(&mut self, _: Messages) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        self.pace.as_ref().map(Pace::alarm)
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }

    fn is_upgrade_req(&self) -> bool {
        self.client.is_upgrade_req()
    }

    fn was_upgraded(&self) -> bool {
        self.client.was_upgraded()
    }
}
