//! The origin behind every proxy: fixed answers over keep-alive, on the caller's thread.
//!
//! It shares the load generator's runtime. That spares a context switch per exchange against a server in a process of
//! its own, and so leaves the load core the most headroom.

mod http1;
mod http2;
mod page;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

pub use http2::grpc_message;

/// Paths of the large answers; every other path gives the small one.
pub const LARGE_PATH: &str = "/large";
/// What can be compressed.
pub const PAGE_PATH: &str = "/page";
pub const SMALL_BODY: usize = 100;
pub const LARGE_BODY: usize = 64 * 1024;

/// A running origin; dropping it closes the listeners and every connection.
pub struct Origin {
    /// Of HTTP/1.1.
    pub address: SocketAddr,
    /// Of HTTP/2 with prior knowledge.
    pub http2: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Origin {
    pub async fn start() -> io::Result<Self> {
        let (listener, http2_listener) =
            (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let (address, http2) = (listener.local_addr()?, http2_listener.local_addr()?);
        let (answers, http2_answers) = (http1::Answers::new(), Arc::new(http2::Answers::new()));
        let tasks = [
            tokio::spawn(accept(listener, move |stream| {
                let answers = answers.clone();
                async move {
                    // A fault on the connection shows as a failed request at the client.
                    let _ = http1::serve(stream, answers).await;
                }
            })),
            tokio::spawn(accept(http2_listener, move |stream| {
                let answers = http2_answers.clone();
                async move {
                    let _ = http2::serve(stream, &answers).await;
                }
            })),
        ];
        Ok(Self { address, http2, tasks })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::response::ResponseReader;
    use super::*;

    async fn body_length(stream: &mut TcpStream, path: &str) -> u64 {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut reader, mut buffer) = (ResponseReader::default(), [0; 4096]);
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            if let Some(response) = reader.feed(&buffer[..read]).unwrap() {
                return response.body;
            }
        }
    }

    #[tokio::test]
    async fn answers_small_and_large_on_one_connection() {
        let origin = Origin::start().await.unwrap();
        let mut stream = TcpStream::connect(origin.address).await.unwrap();
        for (path, length) in [("/", SMALL_BODY), (LARGE_PATH, LARGE_BODY), (PAGE_PATH, LARGE_BODY)] {
            assert_eq!(body_length(&mut stream, path).await, length as u64);
        }
    }
}
