//! A client that speaks HTTP/2, by the library or frame by frame.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::SOON;

/// A connection that speaks HTTP/2.
pub struct Http2 {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    authority: String,
}

/// A request on its way.
pub struct Asked {
    pub body: SendStream<Bytes>,
    pub answer: ResponseFuture,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The status and the reason code of a problem.
    pub fn problem(&self) -> (u16, String) {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        (self.status.as_u16(), problem["code"].as_str().unwrap_or_default().to_owned())
    }
}

impl Http2 {
    /// A connection that begins with the preface.
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(
            &address.to_string(),
            async move { tokio::net::TcpStream::connect(address).await.unwrap() },
        )
    }

    /// A connection over what `connect` makes.
    pub fn over<S>(authority: &str, connect: impl Future<Output = S>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let send = runtime.block_on(async {
            let socket = connect.await;
            let (send, connection) = h2::client::Builder::new()
                .initial_window_size(1 << 20)
                .handshake::<_, Bytes>(socket)
                .await
                .unwrap();
            tokio::spawn(connection);
            send
        });
        Self { runtime, send, authority: authority.to_owned() }
    }

    /// A request for this connection, to be filled.
    pub fn request(&self, method: &str, target: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{target}", self.authority))
    }

    /// Begins a request, whose body may follow.
    pub fn begin(&mut self, request: http::request::Builder, end: bool) -> Asked {
        let request = request.body(()).unwrap();
        let send = self.send.clone();
        let begun = self.within(async { send.ready().await?.send_request(request, end) });
        let (answer, body) = begun.unwrap();
        Asked { body, answer }
    }

    /// Whether another request can be begun.
    pub fn is_open(&mut self) -> bool {
        let send = self.send.clone();
        self.within(async { send.ready().await.is_ok() })
    }

    /// Asks without a body.
    pub fn ask(&mut self, request: http::request::Builder) -> Answer {
        let asked = self.begin(request, true);
        self.answer(asked.answer).unwrap()
    }

    pub fn get(&mut self, target: &str) -> Answer {
        let request = self.request("GET", target);
        self.ask(request)
    }

    /// Asks with a body, sent as the windows allow.
    pub fn send(&mut self, request: http::request::Builder, body: &[u8]) -> Answer {
        let mut asked = self.begin(request, false);
        self.write(&mut asked.body, body, true);
        self.answer(asked.answer).unwrap()
    }

    /// Sends a piece of a body; it may be cut short when the answer is there already.
    pub fn write(&mut self, out: &mut SendStream<Bytes>, piece: &[u8], end: bool) {
        let mut piece = Bytes::copy_from_slice(piece);
        self.within(async {
            while !piece.is_empty() {
                out.reserve_capacity(piece.len());
                let Some(Ok(room)) = std::future::poll_fn(|cx| out.poll_capacity(cx)).await else { return };
                let part = piece.split_to(room.min(piece.len()));
                if out.send_data(part, false).is_err() {
                    return;
                }
            }
            if end {
                let _ = out.send_data(Bytes::new(), true);
            }
        });
    }

    /// Whether no answer comes within `moment`.
    pub fn is_silent(&self, answer: &mut ResponseFuture, moment: Duration) -> bool {
        self.within(async { timeout(moment, answer).await.is_err() })
    }

    /// The whole answer.
    pub fn answer(&self, answer: ResponseFuture) -> Result<Answer, h2::Error> {
        self.within(async {
            let (head, body) = answer.await?.into_parts();
            let (body, trailers) = whole(body).await?;
            Ok(Answer { status: head.status, fields: head.headers, body, trailers })
        })
    }

    /// Runs `task` to its end, which comes soon.
    pub fn within<T>(&self, task: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { timeout(SOON, task).await.expect("in time") })
    }
}

async fn whole(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, body.trailers().await?))
}

/// A connection that is spoken to frame by frame.
pub struct Frames {
    pub socket: TcpStream,
}

/// A frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frames {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RESET: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;

    /// Connects, and begins with the preface and empty settings.
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.set_write_timeout(Some(SOON)).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut frames = Self { socket };
        frames.socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        frames.send(Self::SETTINGS, 0, 0, &[]);
        frames
    }

    /// Sends a frame; says whether the other side still takes any.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.socket.write_all(&Self::spell(kind, flags, stream, payload)).is_ok()
    }

    /// A frame as bytes.
    pub fn spell(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The next frame; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.socket.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & (u32::MAX >> 1);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Waits until the other side has read what was sent so far: it answers frames in their order.
    pub fn ping(&mut self) {
        self.send(Self::PING, 0, 0, b"pingpong");
        assert!(self.next_of(Self::PING).is_some(), "an answer to a ping");
    }

    /// The next frame of this kind; `None` when the connection ends before it.
    pub fn next_of(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == kind)
    }

    /// The error code of the GOAWAY that ends the connection; `None` when it ends without one.
    pub fn goaway(&mut self) -> Option<u32> {
        let frame = self.next_of(Self::GOAWAY)?;
        Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()))
    }

    /// Whether the other side closes within `time`, whatever it says before.
    pub fn ends(&mut self, time: Duration) -> bool {
        let by = std::time::Instant::now() + time;
        let mut sink = [0; 4096];
        while let Some(left) = by.checked_duration_since(std::time::Instant::now()) {
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            match self.socket.read(&mut sink) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    );
                }
            }
        }
        false
    }
}

/// Header fields in HPACK, each spelled out and kept in no table.
pub fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0x10);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn length(block: &mut Vec<u8>, mut length: usize) {
    if length < 127 {
        return block.push(u8::try_from(length).unwrap());
    }
    block.push(127);
    length -= 127;
    while length >= 128 {
        block.push(u8::try_from(length % 128 + 128).unwrap());
        length /= 128;
    }
    block.push(u8::try_from(length).unwrap());
}
