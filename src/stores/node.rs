//! One server: commands within deadlines, over a connection that is given up when nothing comes any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind};

use super::error::Error;
use super::line::Line;
use super::server::Server;

/// How many commands in a row may go unanswered before the connection is taken for dead: a machine that is gone tells
/// nobody.
pub(super) const SILENCE: u32 = 3;

/// One server.
pub(super) struct Node {
    line: Arc<Line>,
    unanswered: AtomicU32,
}

/// Why there is no answer, and who may have one.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) elsewhere: Option<Elsewhere>,
}

/// Another server of a cluster has the key.
pub(super) struct Elsewhere {
    pub(super) place: Box<str>,
    pub(super) slot: u16,
    /// For this command alone: the key is on its way there.
    pub(super) once: bool,
}

impl Node {
    pub(super) fn new(server: Server) -> Self {
        Self { line: Arc::new(Line::new(server)), unanswered: AtomicU32::new(0) }
    }

    pub(super) fn server(&self) -> &Server {
        self.line.server()
    }

    /// Sends a command and reads its answer. One that is sent on its way to another server has to say so.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        command: &Cmd,
        patience: Duration,
        sent_on: bool,
    ) -> Result<T, Failure> {
        let place = self.line.place();
        let mut used = None;
        let asked = async {
            let line = used.insert(self.line.connection().await?);
            Ok::<_, Error>(match sent_on {
                false => command.query_async::<T>(&mut line.connection).await,
                true => {
                    let mut both = redis::pipe();
                    both.cmd("ASKING").ignore().add_command(command.clone());
                    both.query_async::<(T,)>(&mut line.connection).await.map(|(answer,)| answer)
                }
            })
        };
        let answer = match tokio::time::timeout(patience, asked).await {
            Ok(answer) => answer?,
            Err(_) => {
                let silent = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= SILENCE;
                if let Some(used) = used.filter(|_| silent) {
                    self.unanswered.store(0, Ordering::Relaxed);
                    self.line.lost(&used);
                }
                return Err(Error::Timeout { place: place.into(), patience }.into());
            }
        };
        self.unanswered.store(0, Ordering::Relaxed);
        answer.map_err(|error| {
            if let Some(used) = used.filter(|_| is_lost(&error)) {
                self.line.lost(&used);
            }
            let elsewhere = error.redirect_node().map(|(place, slot)| Elsewhere {
                place: place.into(),
                slot,
                once: error.kind() == ErrorKind::Server(ServerErrorKind::Ask),
            });
            let error = match error.kind() {
                ErrorKind::Server(ServerErrorKind::NoScript) => Error::Unscripted { place: place.into() },
                ErrorKind::Io => Error::unreachable(place, &error),
                _ => Error::refused(place, &error),
            };
            Failure { error, elsewhere }
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, elsewhere: None }
    }
}

/// Whether another connection is needed: this one is gone, or has ended at a server that is not the first any more.
fn is_lost(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}
