//! A client that sends exactly the bytes it is given.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

use super::SOON;
use super::message::{Response, Stream};
use super::origin::reset;

/// A raw connection to a gateway.
pub struct Client {
    pub stream: Stream,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// Connects from an address of the loopback network.
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrV4::new(source, 0)).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        Self::over(TcpStream::from(socket))
    }

    /// Connects with a small receive buffer, so that what is not read is soon felt.
    pub fn connect_small(address: SocketAddr) -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        Self::over(TcpStream::from(socket))
    }

    /// Connects to a Unix socket.
    pub fn connect_unix(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        // Read and written alike, whatever its kind.
        Self::over_any(TcpStream::from(OwnedFd::from(socket)))
    }

    /// A client over a socket that is connected already.
    pub fn over(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        Self::over_any(socket)
    }

    fn over_any(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.set_write_timeout(Some(SOON)).unwrap();
        Self { stream: Stream::new(socket) }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.send(bytes.as_ref()).unwrap();
        self
    }

    /// Sends a GET.
    pub fn send_get(&mut self, target: &str) -> &mut Self {
        self.send(format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n\r\n"))
    }

    /// Sends a GET and reads its response.
    pub fn get(&mut self, target: &str) -> Response {
        self.send_get(target).response()
    }

    /// Sends bytes and reads a response.
    pub fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        self.send(bytes).response()
    }

    /// Reads a response, an interim one included.
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads a response to a request with this method.
    pub fn response_to(&mut self, method: &str) -> Response {
        self.try_response(method).unwrap_or_else(|error| panic!("no response: {error}"))
    }

    /// Reads a response, or fails.
    pub fn try_response(&mut self, method: &str) -> io::Result<Response> {
        self.stream.response(method)
    }

    /// Reads a response head and leaves its body.
    pub fn head(&mut self) -> Response {
        self.stream.response_head().unwrap()
    }

    /// Reads so many bytes.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        self.stream.exactly(count).unwrap()
    }

    /// Reads what comes until the connection ends, by a close or a reset.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.stream.some() {
                Ok(bytes) if bytes.is_empty() => return all,
                Ok(bytes) => all.extend(bytes),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return all,
                Err(error) => panic!("the connection did not end: {error}"),
            }
        }
    }

    /// Whether the connection ends now, without another byte.
    pub fn ends(&mut self) -> bool {
        self.rest().is_empty()
    }

    /// Whether nothing comes for a moment.
    pub fn is_silent(&mut self, moment: Duration) -> bool {
        self.stream.socket.set_read_timeout(Some(moment)).unwrap();
        let read = self.stream.some();
        self.stream.socket.set_read_timeout(Some(SOON)).unwrap();
        matches!(read, Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) -> &mut Self {
        self.stream.socket.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Resets the connection.
    pub fn reset(self) {
        reset(&self.stream.socket);
    }
}
