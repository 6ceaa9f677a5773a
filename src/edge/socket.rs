//! The socket of a connection, in the clear or encrypted.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use super::transport::Transport;
use bytes::BytesMut;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// A socket of a client.
#[derive(Debug)]
pub(super) enum Socket {
    /// In the clear.
    Plain(Transport),
    /// Encrypted.
    Tls(Box<TlsStream<Transport>>),
}

impl Socket {
    /// Reads what is there into `into`, which gets `room` when it is empty. Takes no memory while nothing has come.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut BytesMut,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => {
                ready!(socket.poll_read_ready(cx))?;
                into.reserve(if into.is_empty() { room } else { 1 });
                // Not `try_read`: this read knows by its length that the socket is drained, and saves the next one.
                let read = pin!(socket.read_buf(into)).poll(cx);
                if read.is_pending() && into.is_empty() {
                    *into = BytesMut::new();
                }
                read
            }
            Self::Tls(stream) => {
                let mut stream = Pin::new(&mut **stream);
                let read = ready!(stream.as_mut().poll_fill_buf(cx))?;
                let count = read.len();
                into.reserve(if into.is_empty() { room.max(count) } else { count });
                into.extend_from_slice(read);
                stream.consume(count);
                Poll::Ready(Ok(count))
            }
        }
    }

    /// What is below the encryption.
    pub(super) fn into_tcp(self) -> Transport {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.into_inner().0,
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Plain(socket) => socket.as_raw_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_raw_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
        }
    }

    /// Encrypted bytes may wait in the stream: they are not sent before this is ready.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    /// Says that nothing more will come, by `close_notify` first when it is encrypted.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
