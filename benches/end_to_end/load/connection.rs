//! One connection of the load generator, with or without TLS, and what goes over it a request at a time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::super::Result;
use super::super::response::{Response, ResponseReader};
use super::super::websocket;
use super::tls::{Hello, Tls};

pub const READ_BUFFER: usize = 64 * 1024;

/// Opens connections to one address.
pub struct Dialer {
    address: SocketAddr,
    tls: Option<Tls>,
}

impl Dialer {
    pub fn new(address: SocketAddr, hello: Option<Hello>) -> Result<Self> {
        Ok(Self { address, tls: hello.map(Tls::new).transpose()? })
    }

    /// Whether a connection depends on an earlier one.
    pub fn resumes(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::resumes)
    }

    pub async fn dial(&mut self) -> Result<Stream> {
        Ok(match &mut self.tls {
            Some(tls) => Stream::Tls(tls.connect(self.address).await?),
            None => Stream::Plain(super::connect(self.address).await?),
        })
    }
}

/// A connection's bytes.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether the other side has left it open. What may still have come on an idle connection, such as acknowledgements
    /// of HTTP/2, is of no account.
    pub fn is_open(&self) -> bool {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        };
        loop {
            match socket.try_read(&mut [0; 1024]) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// A connection for one exchange at a time: HTTP/1.1, or a WebSocket once it was upgraded.
pub struct Connection {
    stream: Stream,
    reader: ResponseReader,
    buffer: Box<[u8]>,
}

impl Connection {
    pub fn new(stream: Stream) -> Self {
        let buffer = vec![0; READ_BUFFER].into_boxed_slice();
        Self { stream, reader: ResponseReader::default(), buffer }
    }

    /// Gives up what only a busy connection needs.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    pub async fn exchange(&mut self, request: &[u8]) -> Result<Response> {
        self.send(request).await?;
        loop {
            let read = self.receive().await?;
            if let Some(response) = self.reader.feed(&self.buffer[..read])? {
                return Ok(response);
            }
        }
    }

    /// Makes a WebSocket of it.
    pub async fn upgrade(&mut self) -> Result<()> {
        match self.exchange(websocket::UPGRADE.as_bytes()).await?.status {
            101 => Ok(()),
            status => Err(format!("status {status} instead of a WebSocket").into()),
        }
    }

    /// Sends a WebSocket message and awaits its echo.
    pub async fn echo(&mut self, frame: &[u8], expected: &[u8]) -> Result<()> {
        self.send(frame).await?;
        let mut filled = 0;
        while filled < expected.len() {
            match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                read => filled += read,
            }
        }
        if self.buffer[..filled] == *expected { Ok(()) } else { Err("not the message's echo".into()) }
    }

    /// Lets the other side close first: it is the first to close that keeps the port busy (TIME_WAIT), and a client runs
    /// out of ports where a listener does not.
    pub async fn await_close(&mut self) -> Result<()> {
        match self.stream.read(&mut self.buffer).await {
            Ok(0) => Ok(()),
            Ok(_) => Err("bytes after a closing response".into()),
            // Without TLS' own farewell; the answer was complete.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        // TLS keeps what the socket did not take.
        Ok(self.stream.flush().await?)
    }

    async fn receive(&mut self) -> Result<usize> {
        match self.stream.read(&mut self.buffer).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            read => Ok(read),
        }
    }
}
