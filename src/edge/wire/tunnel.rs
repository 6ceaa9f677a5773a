//! A connection that became a WebSocket: bytes pass as they are, and the end is said in its own words.
//!
//! When the gateway drains, or the connection was idle or open for too long, the client gets a Close frame with 1001
//! after the frame under way, and some time to answer it. What it answers still goes upstream; what the upstream says
//! after that does not go out. A client that has said Close itself and ends its side still gets what the upstream
//! answers.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use memchr::memmem;
use tokio::io::ReadBuf;

use super::{GATHER, Wire};
use crate::edge::drain::Draining;
use crate::edge::websocket::{Frames, GOING_AWAY};

/// How long the other side has to answer a Close.
const FAREWELL: Duration = Duration::from_secs(5);
/// What ends the head of the 101.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// What the wire knows of a WebSocket on it.
pub(super) struct Tunnel {
    draining: Draining,
    /// The end of the 101's head as far as it was sent; `None` once all of it was.
    head: Option<Vec<u8>>,
    sent: Frames,
    received: Frames,
    /// Since when we want to end it.
    parting: Option<Instant>,
    /// Whether our Close is out.
    said: bool,
    /// Since when the client has ended its side, having said Close.
    left: Option<Instant>,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("parting", &self.parting)
            .field("said", &self.said)
            .finish_non_exhaustive()
    }
}

impl Tunnel {
    pub(super) fn new(draining: Draining) -> Self {
        Self {
            draining,
            head: Some(Vec::new()),
            sent: Frames::default(),
            received: Frames::default(),
            parting: None,
            said: false,
            left: None,
        }
    }

    /// The frames in `data`, which follow the head of the 101.
    fn frames<'d>(&mut self, data: &'d [u8]) -> &'d [u8] {
        let Some(head) = &mut self.head else { return data };
        let before = head.len();
        head.extend_from_slice(data);
        match memmem::find(head, HEAD_END) {
            Some(end) => {
                self.head = None;
                data.get(end + HEAD_END.len() - before..).unwrap_or_default()
            }
            None => {
                head.drain(..head.len().saturating_sub(HEAD_END.len() - 1));
                &[]
            }
        }
    }

    /// Whether a frame of our own can be sent.
    fn between_frames(&self) -> bool {
        self.head.is_none() && self.sent.at_boundary()
    }
}

impl Wire {
    /// Delivers what the client sends, and sees to the end.
    pub(super) fn poll_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let left = self.tunnel().left.is_some();
        if !left && let Poll::Ready(read) = self.poll_body(cx, buf) {
            read?;
            let fresh = buf.filled().get(before..).unwrap_or_default();
            let now = Instant::now();
            let tunnel = self.tunnel();
            tunnel.received.pass(fresh);
            if !fresh.is_empty() || !tunnel.received.closed() || tunnel.said {
                return Poll::Ready(Ok(()));
            }
            // The engine would end the answer with the request.
            tunnel.left = Some(now);
        }
        if self.tunnel().parting.is_none() && self.poll_reason_to_part(cx).is_ready() {
            self.tunnel().parting = Some(Instant::now());
            self.say_goodbye();
        }
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        let tunnel = self.tunnel();
        if tunnel.said && tunnel.received.closed() {
            return Poll::Ready(Ok(()));
        }
        let Some(since) = tunnel.parting.or(tunnel.left) else { return Poll::Pending };
        ready!(self.poll_alarm(cx, since + FAREWELL));
        Poll::Ready(Ok(()))
    }

    /// Takes what the upstream sends. What is said after our Close is dropped.
    pub(super) fn poll_write_tunnel(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.tunnel().said {
            return Poll::Ready(Ok(data.len()));
        }
        if self.out.len() >= GATHER {
            ready!(self.poll_send(cx))?;
        }
        let parts = self.tunnel().parting.is_some();
        let data = if parts { data } else { &data[..data.len().min(GATHER)] };
        let tunnel = self.tunnel();
        let frames = tunnel.frames(data);
        let others = data.len() - frames.len();
        if parts {
            let rest = tunnel.sent.pass_frame(frames);
            self.out.extend_from_slice(&data[..others + rest]);
            self.say_goodbye();
        } else {
            tunnel.sent.pass(frames);
            self.out.extend_from_slice(data);
        }
        Poll::Ready(Ok(data.len()))
    }

    fn tunnel(&mut self) -> &mut Tunnel {
        self.tunnel.get_or_insert_with(|| Box::new(Tunnel::new(self.drain.wait())))
    }

    /// Sends our Close, if no frame is under way.
    fn say_goodbye(&mut self) {
        let tunnel = self.tunnel();
        if !tunnel.said && tunnel.between_frames() {
            tunnel.said = true;
            self.out.extend_from_slice(&GOING_AWAY);
        }
    }

    fn poll_reason_to_part(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.tunnel().draining.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some((timer, at)) = self.connection.next_deadline(true) else { return Poll::Pending };
        ready!(self.poll_alarm(cx, at));
        self.connection.fire(timer);
        Poll::Ready(())
    }
}
