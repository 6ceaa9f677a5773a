//! The origin in HTTP/1.1: fixed answers by path, and an echo of WebSocket messages.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::websocket::{self, ECHO_PATH};
use super::page::page;
use super::{LARGE_BODY, LARGE_PATH, PAGE_PATH, SMALL_BODY};

const MAX_HEAD: usize = 8 * 1024;

/// Whole responses, head and body.
#[derive(Clone)]
pub struct Answers {
    small: Bytes,
    large: Bytes,
    page: Bytes,
}

impl Answers {
    pub fn new() -> Self {
        Self {
            small: answer("text/plain", vec![b'x'; SMALL_BODY]),
            large: answer("text/plain", vec![b'x'; LARGE_BODY]),
            page: answer("application/json", page(LARGE_BODY)),
        }
    }

    /// `None` for a WebSocket.
    fn to(&self, head: &[u8]) -> Option<&Bytes> {
        let target = head.strip_prefix(b"GET ").unwrap_or_default();
        let asks = |path: &str| target.starts_with(path.as_bytes());
        match () {
            () if asks(LARGE_PATH) => Some(&self.large),
            () if asks(PAGE_PATH) => Some(&self.page),
            () if asks(ECHO_PATH) => None,
            () => Some(&self.small),
        }
    }
}

fn answer(media_type: &str, body: Vec<u8>) -> Bytes {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Bytes::from([head.into_bytes(), body].concat())
}

/// Answers requests without a body, one at a time; a fault on the connection shows as a failed request at the client.
pub async fn serve(mut stream: TcpStream, answers: Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = [0; MAX_HEAD];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut head[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if !head[..filled].ends_with(b"\r\n\r\n") {
            continue;
        }
        let Some(answer) = answers.to(&head[..filled]) else { break };
        stream.write_all(answer).await?;
        // The load generator writes this field last; no proxy asks it of a pooled connection.
        if head[..filled].ends_with(b"Connection: close\r\n\r\n") {
            return Ok(());
        }
        filled = 0;
    }
    echo(stream).await
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(websocket::UPGRADED.as_bytes()).await?;
    let mut frames = Vec::with_capacity(1024);
    while stream.read_buf(&mut frames).await? > 0 {
        stream.write_all(&websocket::echo(&mut frames)).await?;
    }
    Ok(())
}
