//! A Redis server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::cluster::Cluster;
use super::error::Error;
use super::node::Node;
use super::server::Server;

/// A Redis server that is asked within deadlines. Making one connects to nobody.
pub struct Redis {
    /// The server, or one of those of a cluster.
    node: Arc<Node>,
    cluster: Option<Arc<Cluster>>,
    timeout: Duration,
    /// What the names of keys begin with.
    prefix: Box<str>,
    fingerprint: Box<str>,
    /// Commands that nobody waits for.
    errands: watch::Sender<usize>,
}

/// A command that nobody waits for.
struct Errand(Arc<Redis>);

impl Redis {
    /// The server; a command takes `timeout` at most, and the names of keys begin with `prefix`.
    pub fn new(server: Server, timeout: Duration, prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
            fingerprint: format!("{} {prefix}", server.fingerprint()).into(),
            cluster: server.is_of_a_cluster().then(Arc::default),
            node: Arc::new(Node::new(server)),
            timeout,
            errands: watch::Sender::new(0),
        }
    }

    /// Host and port.
    pub fn place(&self) -> &str {
        &self.node.server().place
    }

    /// Whether it is many servers, and leaves those alone that do not answer.
    pub fn leaves_alone(&self) -> bool {
        self.cluster.is_some()
    }

    /// How long a command may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Tells these keys of this server, and who we are to it, from others.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What the names of keys begin with, before a colon.
    pub fn prefix(&self) -> &str {
        &self.prefix
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
        match &self.cluster {
            None => self.node.ask(command, patience, false).await.map_err(|failure| failure.error),
            Some(cluster) => Box::pin(cluster.ask(&self.node, command, patience)).await,
        }
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::stores::PREFIX;
    use crate::stores::node::SILENCE;
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
        (Redis::new(Server::new(&url, None).unwrap(), Duration::from_millis(200), PREFIX), connections)
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
        let redis = Redis::new(Server::new(&url, None).unwrap(), Duration::from_secs(5), PREFIX);
        for _ in 0..3 {
            let begun = std::time::Instant::now();
            let error = ping(&redis).await.unwrap_err();
            assert!(begun.elapsed() < Duration::from_secs(1));
            let told = error.to_string();
            assert!(told.contains("cannot be reached") && !told.contains("hunter2"), "{told}");
        }
    }
}
