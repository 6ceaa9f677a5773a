//! One request on a connection of its own, written as people write it, and an upstream that says back what it was
//! asked.

use std::io;
use std::net::SocketAddr;

use crate::harness::{Client, Fields, Origin, Response};

/// A request under construction: `Ask::new("GET /a").header("x-b: c").send(address)`.
#[derive(Debug, Clone)]
pub struct Ask {
    line: String,
    fields: Vec<String>,
    body: Vec<u8>,
    from: String,
}

impl Ask {
    /// A request with this method and target.
    pub fn new(line: &str) -> Self {
        Self { line: line.to_owned(), fields: Vec::new(), body: Vec::new(), from: "127.0.0.1".to_owned() }
    }

    /// Adds header lines: one, or several with a line end between them. Without `host:` it goes to `gw.test`.
    pub fn header(mut self, lines: &str) -> Self {
        self.fields.extend(lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        self
    }

    /// Sends this body, with its length.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        let length = format!("content-length: {}", self.body.len());
        self.header(&length)
    }

    /// The same with this in place of that in its first line.
    pub fn retarget(mut self, that: &str, this: &str) -> Self {
        self.line = self.line.replace(that, this);
        self
    }

    /// Comes from this address of the loopback network.
    pub fn from(mut self, ip: &str) -> Self {
        self.from = ip.to_owned();
        self
    }

    /// Sends it and reads the whole answer.
    pub fn send(&self, to: SocketAddr) -> Response {
        self.try_send(to).unwrap_or_else(|error| panic!("no answer to {}: {error}", self.line))
    }

    /// Sends it and reads the whole answer, if there is one.
    pub fn try_send(&self, to: SocketAddr) -> io::Result<Response> {
        let mut client = match self.from.as_str() {
            "127.0.0.1" => Client::connect(to),
            from => Client::connect_from(from.parse().unwrap(), to),
        };
        client.send(self.bytes());
        client.try_response(self.line.split(' ').next().unwrap_or_default())
    }

    fn bytes(&self) -> Vec<u8> {
        let named = |name: &str| self.fields.iter().any(|line| line.to_ascii_lowercase().starts_with(name));
        let mut text = format!("{} HTTP/1.1\r\n", self.line);
        for (name, value) in [("host:", "gw.test"), ("connection:", "close")] {
            if !named(name) {
                text.push_str(&format!("{name} {value}\r\n"));
            }
        }
        self.fields.iter().for_each(|line| text.push_str(&format!("{line}\r\n")));
        [text.as_bytes(), b"\r\n", &self.body].concat()
    }
}

/// Asks with header lines and reads the answer.
pub fn ask(to: SocketAddr, line: &str, headers: &str) -> Response {
    Ask::new(line).header(headers).send(to)
}

/// An upstream that answers with what it was asked, for [`Asked::of`]. The query may ask for another status:
/// `/a?status=503`. It says `server: echo` and `x-origin: yes`.
pub fn echo() -> Origin {
    Origin::start(|visit| {
        let request = &visit.request;
        let mut body = format!("{} {}\n", request.method, request.target);
        for (name, value) in &request.fields.0 {
            body.push_str(&format!("{name}: {value}\n"));
        }
        body.push_str(&format!("\n{}", String::from_utf8_lossy(request.content())));
        let status = request.target.split_once("status=").map_or("200", |(_, rest)| &rest[..3]);
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} Echo\r\nserver: echo\r\nx-origin: yes\r\ncontent-length: {length}\r\n\r\n"
        );
        if request.method == "HEAD" { visit.answer(head) } else { visit.answer(head + &body) }
    })
}

/// What an upstream of [`echo`] was asked.
#[derive(Debug)]
pub struct Asked {
    pub target: String,
    pub fields: Fields,
    pub body: String,
}

impl Asked {
    /// Reads it from the answer.
    pub fn of(answer: &Response) -> Self {
        let text = answer.text();
        let (head, body) = text.split_once("\n\n").unwrap_or_else(|| panic!("not from an echo: {answer:?}"));
        let mut lines = head.lines();
        let target = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            (name.to_owned(), value.to_owned())
        };
        Self { target, fields: Fields(lines.map(field).collect()), body: body.to_owned() }
    }

    /// Every value of a header, joined with `|`; `-` when there is none.
    pub fn header(&self, name: &str) -> String {
        let values = self.fields.all(name);
        if values.is_empty() { "-".to_owned() } else { values.join("|") }
    }
}

/// The words that make an upstream called `echo` of this origin.
pub fn upstream(origin: &Origin) -> String {
    format!("upstreams: {{ echo: {{ endpoints: [\"{}\"] }} }}\n", origin.address())
}
