//! The origin in HTTP/2 without TLS: the small answer to every request, the answer of a call to every request with a body.

use std::collections::{HashSet, VecDeque};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::Result;
use super::super::http2::{Block, Event, Wire};
use super::SMALL_BODY;

/// A message of gRPC, not compressed: its flag, its length, itself.
pub fn grpc_message() -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, SMALL_BODY as u8];
    message.resize(5 + SMALL_BODY, b'x');
    message
}

/// Prepared for all connections.
pub struct Answers {
    head: Vec<u8>,
    body: Vec<u8>,
    grpc_head: Vec<u8>,
    grpc_body: Vec<u8>,
    grpc_trailers: Vec<u8>,
}

impl Answers {
    pub fn new() -> Self {
        let ok = || Block::default().indexed(8).field("server", "origin");
        let length = SMALL_BODY.to_string();
        Self {
            head: ok().field("content-type", "text/plain").field("content-length", &length).bytes(),
            body: vec![b'x'; SMALL_BODY],
            grpc_head: ok().field("content-type", "application/grpc").bytes(),
            grpc_body: grpc_message(),
            grpc_trailers: Block::default().field("grpc-status", "0").bytes(),
        }
    }

    fn send(&self, wire: &mut Wire, stream: u32, grpc: bool) {
        if grpc {
            wire.send_headers(stream, &self.grpc_head, false);
            wire.send_data(stream, &self.grpc_body, false);
            wire.send_headers(stream, &self.grpc_trailers, true);
        } else {
            wire.send_headers(stream, &self.head, false);
            wire.send_data(stream, &self.body, true);
        }
    }
}

pub async fn serve(mut stream: TcpStream, answers: &Answers) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = Wire::server();
    let mut buffer = vec![0; 32 * 1024];
    let mut with_body = HashSet::new();
    let mut asked = VecDeque::new();
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        wire.feed(&buffer[..read]);
        while let Some(event) = wire.next_event()? {
            if let Event::Data { stream, length: 1.., .. } = event {
                with_body.insert(stream);
            }
            if let Event::Headers { stream, end: true, .. } | Event::Data { stream, end: true, .. } = event {
                asked.push_back(stream);
            }
        }
        while wire.has_window(answers.grpc_body.len())
            && let Some(stream) = asked.pop_front()
        {
            let grpc = with_body.remove(&stream);
            answers.send(&mut wire, stream, grpc);
        }
        stream.write_all(&wire.output).await?;
        wire.output.clear();
    }
}
