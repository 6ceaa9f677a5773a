//! The origin behind every proxy: two fixed answers over keep-alive, on the caller's thread.
//!
//! It shares the load generator's runtime. That spares a context switch per exchange against a server in a process of
//! its own, and so leaves the load core the most headroom.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Path of the large answer; every other path gives the small one.
pub const LARGE_PATH: &str = "/large";
const SMALL_BODY: usize = 100;
const LARGE_BODY: usize = 64 * 1024;
const MAX_HEAD: usize = 8 * 1024;

/// A running origin; dropping it closes the listener and every connection.
pub struct Origin {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Origin {
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { address, task: tokio::spawn(accept(listener)) })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener) {
    let answers = Answers { small: answer(SMALL_BODY), large: answer(LARGE_BODY) };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, answers.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Whole responses, head and body.
#[derive(Clone)]
struct Answers {
    small: Bytes,
    large: Bytes,
}

fn answer(body: usize) -> Bytes {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\nContent-Length: {body}\r\n\r\n"
    );
    Bytes::from([head.into_bytes(), vec![b'x'; body]].concat())
}

/// Answers requests without a body, one at a time; a fault on the connection shows as a failed request at the client.
async fn serve(mut stream: TcpStream, answers: Answers) -> io::Result<()> {
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
        let large = head.strip_prefix(b"GET ").is_some_and(|rest| rest.starts_with(LARGE_PATH.as_bytes()));
        stream.write_all(if large { &answers.large } else { &answers.small }).await?;
        // The load generator writes this field last; no proxy asks it of a pooled connection.
        if head[..filled].ends_with(b"Connection: close\r\n\r\n") {
            return Ok(());
        }
        filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::response::ResponseReader;
    use super::*;

    async fn body_length(stream: &mut TcpStream, request: &str) -> usize {
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut reader, mut buffer, mut received) = (ResponseReader::default(), [0; 4096], Vec::new());
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            received.extend_from_slice(&buffer[..read]);
            if reader.feed(&buffer[..read]).unwrap().is_some() {
                let head = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
                return received.len() - head;
            }
        }
    }

    #[tokio::test]
    async fn answers_small_and_large_on_one_connection() {
        let origin = Origin::start().await.unwrap();
        let mut stream = TcpStream::connect(origin.address).await.unwrap();
        assert_eq!(body_length(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await, SMALL_BODY);
        assert_eq!(body_length(&mut stream, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await, LARGE_BODY);
    }
}
