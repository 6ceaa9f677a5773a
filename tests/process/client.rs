//! A small HTTP/1.1 client that hides nothing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::gateway::PATIENCE;

/// A connection that may serve several requests.
pub struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The head without its first line, in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

/// One request on a connection of its own.
pub fn request(address: SocketAddr, method: &str, path: &str) -> io::Result<Response> {
    let mut client = Client::connect(address)?;
    client.send(method, path, "connection: close\r\n")?;
    client.receive()
}

pub fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    request(address, "GET", path)
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream: BufReader::new(stream) })
    }

    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.send("GET", path, "")?;
        self.receive()
    }

    pub fn send(&mut self, method: &str, path: &str, fields: &str) -> io::Result<()> {
        let host = self.address;
        let length = if method == "GET" { "" } else { "content-length: 0\r\n" };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{length}{fields}\r\n");
        self.stream.get_mut().write_all(head.as_bytes())
    }

    /// Sends a part of a request.
    pub fn write(&mut self, bytes: &str) {
        self.stream.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    /// Asks another host.
    pub fn send_for(&mut self, host: &str, path: &str) -> io::Result<()> {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.stream.get_mut().write_all(head.as_bytes())
    }

    pub fn receive(&mut self) -> io::Result<Response> {
        let (status, head) = self.head()?;
        let mut body = Vec::new();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if let Some(length) = field("content-length:") {
            body.resize(length.parse().map_err(io::Error::other)?, 0);
            self.stream.read_exact(&mut body)?;
        } else if field("transfer-encoding:").is_some() {
            self.chunks(&mut body)?;
        } else {
            self.stream.read_to_end(&mut body)?;
        }
        Ok(Response { status, head, body })
    }

    /// The status and the fields of the next response; its body is still to come.
    pub fn head(&mut self) -> io::Result<(u16, String)> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut head = String::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status.ok_or(io::ErrorKind::InvalidData)?, head));
            }
            head.push_str(&line.to_ascii_lowercase());
            head.push('\n');
        }
    }

    /// Whether the other end has closed the connection, without a byte more. Waits until it does.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.line()?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the connection serves no further request.
    pub fn closes(&self) -> bool {
        self.head.contains("connection: close")
    }
}
