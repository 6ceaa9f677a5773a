//! Connections to upstreams for requests that may become WebSockets.
//!
//! As the engine sends the head of such a request it queues the end of the request's empty body. When it reads the 101
//! before it comes to that, it takes the one for the end of the other, and the WebSocket is over before it began
//! (pingora's issue 946). So a read that follows a write lets go first whatever else is ready.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::edge::Connection;

/// Connects for the request under way on a client's connection.
#[derive(Debug)]
pub(super) struct Dialer(pub(super) Arc<Connection>);

#[async_trait]
impl Connect for Dialer {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(inet) = address.as_inet() else {
            return Error::e_explain(ErrorType::ConnectError, "not an address of the network");
        };
        let socket = TcpStream::connect(inet).await.or_err(ErrorType::ConnectError, "connecting")?;
        let yielding = Yielding { socket, client: Arc::clone(&self.0), wrote: false };
        Ok(Stream::from(VirtualSocketStream::new(Box::new(yielding))))
    }
}

/// A socket whose first read after a write is put off once, until there is a WebSocket.
#[derive(Debug)]
struct Yielding {
    socket: TcpStream,
    client: Arc<Connection>,
    wrote: bool,
}

impl AsyncRead for Yielding {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.wrote) && !self.client.is_tunnel() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Yielding {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, data))?;
        self.wrote = true;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl VirtualSocket for Yielding {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.socket.set_nodelay(true),
            // Nobody asks for another.
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}
