//! Sockets that clients come on: TCP and Unix.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::types::Peer;

/// A socket that is listened to.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(UnixListener),
}

/// The socket of one connection.
#[derive(Debug)]
pub enum Transport {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client's.
    pub peer: Peer,
    /// Ours, if it has an address.
    pub local: Option<SocketAddr>,
}

impl Listener {
    /// Hands a TCP socket to the runtime, in whose context this is called.
    ///
    /// # Errors
    ///
    /// When it cannot be waited at.
    pub fn tcp(socket: OwnedFd) -> io::Result<Self> {
        TcpListener::from_std(socket.into()).map(Self::Tcp)
    }

    /// Hands a Unix socket to the runtime, in whose context this is called.
    ///
    /// # Errors
    ///
    /// When it cannot be waited at.
    pub fn unix(socket: OwnedFd) -> io::Result<Self> {
        UnixListener::from_std(socket.into()).map(Self::Unix)
    }

    /// Accepts one connection.
    pub(super) async fn accept(&self) -> io::Result<(Transport, Ends)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                // Latency over packet count: replies are gathered before they are written. A socket that is gone already
                // says so when it is read.
                let _ = socket.set_nodelay(true);
                let ends = Ends { peer: Peer::Ip(peer), local: socket.local_addr().ok() };
                Ok((Transport::Tcp(socket), ends))
            }
            Self::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok((Transport::Unix(socket), Ends { peer: Peer::Unix, local: None }))
            }
        }
    }
}

impl Transport {
    /// Ready when a read may find something.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            Self::Unix(socket) => socket.poll_read_ready(cx),
        }
    }

    /// Looks at the bytes that have come, and leaves them. Waits until there are more than `seen`; the client's end of
    /// sending is an error.
    pub(super) async fn peek_beyond(&self, seen: usize, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let ready = match self {
                Self::Tcp(socket) => socket.ready(Interest::READABLE).await?,
                Self::Unix(socket) => socket.ready(Interest::READABLE).await?,
            };
            // What would block tells the runtime to wait for news: the bytes seen are none.
            let peeked = self.try_io(|| match rustix::net::recv(self, &mut *buf, RecvFlags::PEEK)? {
                (count, _) if count > seen => Ok(count),
                (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
                _ if ready.is_read_closed() => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            });
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return peeked,
            }
        }
    }

    fn try_io<T>(&self, io: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(socket) => socket.try_io(Interest::READABLE, io),
            Self::Unix(socket) => socket.try_io(Interest::READABLE, io),
        }
    }
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, data),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A record of TLS mostly comes alone, for which the system has a shorter way.
        if let [one] = data {
            return self.poll_write(cx, one);
        }
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, data),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
