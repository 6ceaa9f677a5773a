//! A Redis server.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::error::Error;
use super::line::Line;
use super::server::Server;

/// How many commands in a row may go unanswered before the connection is taken for dead: a machine that is gone tells
/// nobody.
const SILENCE: u32 = 3;

/// A Redis server that is asked within deadlines. Making one connects to nobody.
pub struct Redis {
    line: Arc<Line>,
    timeout: Duration,
    unanswered: AtomicU32,
    /// Commands that nobody waits for.
    errands: watch::Sender<usize>,
}

/// A command that nobody waits for.
struct Errand(Arc<Redis>);

impl Redis {
    /// The server; a command takes `timeout` at most.
    pub fn new(server: Server, timeout: Duration) -> Self {
        Self {
            line: Arc::new(Line::new(server)),
            timeout,
            unanswered: AtomicU32::new(0),
            errands: watch::Sender::new(0),
        }
    }

    /// Host and port.
    pub fn place(&self) -> &str {
        self.line.place()
    }

    /// How long a command may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Tells this server, and who we are to it, from others.
    pub fn fingerprint(&self) -> &str {
        self.line.server().fingerprint()
    }

    /// Sends a command and reads its answer, within the store's timeout.
    ///
    /// # Errors
    ///
    /// Why there is no answer that can be used.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.ask_within(command, self.timeout).await
    }

    /// The same for those who have another patience.
    ///
    /// # Errors
    ///
    /// Why there is no answer that can be used.
    pub async fn ask_within<T: FromRedisValue>(&self, command: &Cmd, patience: Duration) -> Result<T, Error> {
        let mut used = None;
        let asked = async {
            let line = used.insert(self.line.connection().await?);
            Ok(command.query_async::<T>(&mut line.connection).await)
        };
        let answer = match tokio::time::timeout(patience, asked).await {
            Ok(answer) => answer?,
            Err(_) => {
                let silent = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= SILENCE;
                if let Some(used) = used.filter(|_| silent) {
                    self.unanswered.store(0, Ordering::Relaxed);
                    self.line.lost(&used);
                }
                return Err(Error::Timeout { place: self.place().into(), patience });
            }
        };
        self.unanswered.store(0, Ordering::Relaxed);
        answer.map_err(|error| {
            if let Some(used) = used.filter(|_| is_lost(&error)) {
                self.line.lost(&used);
            }
            match error.kind() {
                ErrorKind::Server(ServerErrorKind::NoScript) => {
                    Error::Unscripted { place: self.place().into() }
                }
                ErrorKind::Io => Error::unreachable(self.place(), &error),
                _ => Error::refused(self.place(), &error),
            }
        })
    }

    /// Has something done with the store that nobody waits for. Without a runtime it is left undone.
    pub fn aside(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = Handle::try_current() else { return };
        self.errands.send_modify(|errands| *errands += 1);
        let errand = Errand(Arc::clone(self));
        runtime.spawn(async move {
            work.await;
            drop(errand);
        });
    }

    /// Waits until everything of that kind is done.
    pub async fn settled(&self) {
        // The sender is ours.
        let _ = self.errands.subscribe().wait_for(|errands| *errands == 0).await;
    }
}

/// Whether another connection is needed: this one is gone, or has ended at a server that is not the first any more.
fn is_lost(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.0.errands.send_modify(|errands| *errands -= 1);
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("place", &self.place()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::types::Secret;

    /// A server that greets, answers so many commands of the test, and is silent afterwards.
    async fn server(answers: usize) -> (Redis, Arc<AtomicUsize>) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Secret::new(format!("redis://{}", socket.local_addr().unwrap()));
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = socket.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut left = answers;
                tokio::spawn(async move {
                    let mut text = [0; 1024];
                    while let Ok(read @ 1..) = client.read(&mut text).await {
                        let text = String::from_utf8_lossy(&text[..read]).into_owned();
                        let greetings = text.matches("SETINFO").count();
                        let asked = text.matches("PING").count().min(left);
                        left -= asked;
                        let answer = "+OK\r\n".repeat(greetings + asked);
                        client.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        (Redis::new(Server::new(&url, None).unwrap(), Duration::from_millis(200)), connections)
    }

    async fn ping(redis: &Redis) -> Result<String, Error> {
        redis.ask(&redis::cmd("PING")).await
    }

    #[tokio::test]
    async fn commands_share_a_connection_that_is_made_when_it_is_needed() {
        let (redis, connections) = server(100).await;
        assert_eq!(connections.load(Ordering::Relaxed), 0);
        let all = futures_util::future::join_all((0..20).map(|_| ping(&redis))).await;
        assert!(all.iter().all(|answer| answer.as_deref() == Ok("OK")), "{all:?}");
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_server_that_falls_silent_is_left_after_a_while() {
        let (redis, connections) = server(1).await;
        assert_eq!(ping(&redis).await.as_deref(), Ok("OK"));
        for _ in 0..SILENCE {
            assert!(matches!(ping(&redis).await, Err(Error::Timeout { .. })));
        }
        assert_eq!(ping(&redis).await.as_deref(), Ok("OK"), "by another connection");
        assert_eq!(connections.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_told_at_once() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        let url = Secret::new(format!("redis://:hunter2@{address}"));
        let redis = Redis::new(Server::new(&url, None).unwrap(), Duration::from_secs(5));
        for _ in 0..3 {
            let begun = std::time::Instant::now();
            let error = ping(&redis).await.unwrap_err();
            assert!(begun.elapsed() < Duration::from_secs(1));
            let told = error.to_string();
            assert!(told.contains("cannot be reached") && !told.contains("hunter2"), "{told}");
        }
    }
}
