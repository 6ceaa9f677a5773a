//! A strict reader of HTTP/1.1 messages, independent of the one under test: what it takes can be read in one way only.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

/// The fields of a head or trailer section, in order, names as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

/// A request as an origin got it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub fields: Fields,
    /// Its content, framing removed; `None` when it has none or it was not read.
    pub body: Option<Vec<u8>>,
    pub trailers: Fields,
    /// The connection it came on, from 0.
    pub connection: usize,
}

/// A response as a client got it.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub version: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
}

impl Fields {
    /// The values of every field with this name, in lower case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = self.0.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of the only field with this name.
    ///
    /// # Panics
    /// When there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} is there {} times", all.len());
        all.first().copied()
    }

    /// Whether a list field has this member.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name)
            .iter()
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(member)))
    }
}

impl Request {
    /// The value of the only field with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// The content; empty when there is none.
    pub fn content(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }
}

impl Response {
    /// The value of the only field with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The reason code of a problem document.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Status and reason code of a problem document.
    pub fn problem(&self) -> (u16, String) {
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "the body tells another status");
        (self.status, self.code())
    }
}

/// A socket with what was read ahead. A breach of the rules is [`io::ErrorKind::InvalidData`].
#[derive(Debug)]
pub struct Stream {
    pub socket: TcpStream,
    /// The client's side of TLS, when bytes are encrypted.
    pub tls: Option<Box<rustls::ClientConnection>>,
    ahead: Vec<u8>,
    record: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Stream {
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, tls: None, ahead: Vec::new(), record: None }
    }

    /// Copies every byte that is read.
    pub fn recorded(socket: TcpStream, record: Arc<Mutex<Vec<u8>>>) -> Self {
        Self { record: Some(record), ..Self::new(socket) }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.socket.write_all(bytes),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).write_all(bytes),
        }
    }

    /// Some bytes, as they come; none at the end.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    pub fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < count {
            self.fill_some()?;
        }
        let rest = self.ahead.split_off(count);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    pub fn until_end(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.ahead))
    }

    /// A request head; `None` when the connection ends before one.
    pub fn request_head(&mut self) -> io::Result<Option<Request>> {
        if self.ahead.is_empty() && self.fill()? == 0 {
            return Ok(None);
        }
        let line = self.line()?;
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().filter(|word| !word.is_empty());
        let (Some(method), Some(target), Some(version), None) = (word(), word(), word(), word()) else {
            return Err(breach(format!("request line {line:?}")));
        };
        if !is_token(&method) || !matches!(version.as_str(), "HTTP/1.1" | "HTTP/1.0") {
            return Err(breach(format!("request line {line:?}")));
        }
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(breach(format!("target {target:?}")));
        }
        let fields = self.fields()?;
        Ok(Some(Request { method, target, version, fields, ..Request::default() }))
    }

    /// The content of a request with these fields, and its trailers.
    pub fn request_body(&mut self, fields: &Fields) -> io::Result<(Option<Vec<u8>>, Fields)> {
        match framing(fields)? {
            Framing::None => Ok((None, Fields::default())),
            Framing::Length(length) => Ok((Some(self.exactly(length)?), Fields::default())),
            Framing::Chunked => self.chunked().map(|(body, trailers)| (Some(body), trailers)),
        }
    }

    /// A response head, interim ones included.
    pub fn response_head(&mut self) -> io::Result<Response> {
        let line = self.line()?;
        let status = line.get(9..12).and_then(|status| status.parse().ok());
        let Some(status) = status.filter(|_| line.starts_with("HTTP/1.") && line.as_bytes()[8] == b' ')
        else {
            return Err(breach(format!("status line {line:?}")));
        };
        let version = line[..8].to_owned();
        Ok(Response { status, version, fields: self.fields()?, ..Response::default() })
    }

    /// A whole response to a request with this method.
    pub fn response(&mut self, method: &str) -> io::Result<Response> {
        let mut response = self.response_head()?;
        if method == "HEAD" || matches!(response.status, 100..200 | 204 | 304) {
            return Ok(response);
        }
        match framing(&response.fields)? {
            Framing::None => response.body = self.until_end()?,
            Framing::Length(length) => response.body = self.exactly(length)?,
            Framing::Chunked => (response.body, response.trailers) = self.chunked()?,
        }
        Ok(response)
    }

    /// The data of the next chunk; empty at the last one, whose trailers are still to be read.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = self.line()?;
        let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let length = usize::from_str_radix(&size, 16).ok().filter(|_| digits);
        let length = length.ok_or_else(|| breach(format!("chunk size {size:?}")))?;
        if length == 0 {
            return Ok(Vec::new());
        }
        let data = self.exactly(length)?;
        match self.exactly(2)?.as_slice() {
            b"\r\n" => Ok(data),
            other => Err(breach(format!("end of chunk {other:?}"))),
        }
    }

    fn chunked(&mut self) -> io::Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok((body, self.fields()?));
            }
            body.extend(chunk);
        }
    }

    /// Field lines up to the empty line.
    pub fn fields(&mut self) -> io::Result<Fields> {
        let mut fields = Fields::default();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| breach(format!("field {line:?}")))?;
            let text = value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
            if !is_token(name) || !text {
                return Err(breach(format!("field {line:?}")));
            }
            fields.0.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// A line that ends with CRLF, without it. Bytes beyond ASCII are read as Latin-1.
    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=end).collect();
                let line = line.strip_suffix(b"\r\n").ok_or_else(|| breach("a bare LF".into()))?;
                if line.contains(&b'\r') {
                    return Err(breach("a bare CR".into()));
                }
                return Ok(line.iter().map(|byte| char::from(*byte)).collect());
            }
            self.fill_some()?;
        }
    }

    fn fill_some(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut room = [0; 16 << 10];
        let count = match &mut self.tls {
            None => self.socket.read(&mut room)?,
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).read(&mut room)?,
        };
        self.ahead.extend_from_slice(&room[..count]);
        if let Some(record) = &self.record {
            record.lock().unwrap().extend_from_slice(&room[..count]);
        }
        Ok(count)
    }
}

enum Framing {
    None,
    Length(usize),
    Chunked,
}

/// The one reading of the framing fields; anything that another reader could take otherwise is a breach.
fn framing(fields: &Fields) -> io::Result<Framing> {
    match (fields.all("content-length").as_slice(), fields.all("transfer-encoding").as_slice()) {
        ([], []) => Ok(Framing::None),
        ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            length.parse().map(Framing::Length).map_err(|_| breach(format!("length {length:?}")))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        both => Err(breach(format!("framing {both:?}"))),
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn breach(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
