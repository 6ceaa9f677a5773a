//! The connection to a server: made when it is first needed, and again when it is lost.

use std::sync::Arc;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::Error;
use super::server::Server;

/// How long connecting may take, greeting and password included.
const CONNECT: Duration = Duration::from_secs(2);
/// How long to leave a server alone that could not be reached; each time twice as long.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// The connection to a server.
pub(super) struct Line {
    server: Server,
    state: watch::Sender<State>,
}

/// A connection with the number that tells it from the ones before.
#[derive(Clone)]
pub(super) struct Numbered {
    pub(super) connection: MultiplexedConnection,
    number: u64,
}

enum State {
    /// Nobody has needed it, or it was lost.
    None,
    /// It is being made.
    Connecting,
    /// It is there.
    There(Numbered),
    /// It could not be made, and is not tried again before this.
    Failed { error: Error, until: Instant, failures: u32 },
}

impl Line {
    pub(super) fn new(server: Server) -> Self {
        Self { server, state: watch::Sender::new(State::None) }
    }

    pub(super) fn place(&self) -> &str {
        &self.server.place
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// The connection, or why there is none.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Numbered, Error> {
        let mut seen = self.state.subscribe();
        loop {
            self.begin();
            match &*seen.borrow_and_update() {
                State::There(numbered) => return Ok(numbered.clone()),
                State::Failed { error, .. } => return Err(error.clone()),
                State::None | State::Connecting => {}
            }
            // The sender is ours.
            let _ = seen.changed().await;
        }
    }

    /// Lets go of a connection that is of no use any more, unless there is another already.
    pub(super) fn lost(&self, lost: &Numbered) {
        self.state.send_if_modified(|state| {
            let same = matches!(state, State::There(known) if known.number == lost.number);
            if same {
                *state = State::None;
            }
            same
        });
    }

    /// Has it made where it is time to.
    fn begin(self: &Arc<Self>) {
        let mut failures = 0;
        let begun = self.state.send_if_modified(|state| {
            match state {
                State::None => {}
                State::Failed { until, failures: known, .. } if *until <= Instant::now() => failures = *known,
                _ => return false,
            }
            *state = State::Connecting;
            true
        });
        if begun {
            let making = Making { line: Arc::clone(self), outcome: State::None };
            tokio::spawn(making.make(failures));
        }
    }
}

/// A connection that is being made. However that ends, it is told.
struct Making {
    line: Arc<Line>,
    outcome: State,
}

impl Making {
    async fn make(mut self, failures: u32) {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            // Deadlines are kept outside.
            .set_response_timeout(None);
        let place = self.line.place();
        let made = async {
            let client = self.line.server.find().await?;
            client.get_multiplexed_async_connection_with_config(&config).await
        };
        self.outcome = match tokio::time::timeout(CONNECT, made).await {
            Ok(Ok(connection)) => State::There(Numbered { connection, number: fastrand::u64(..) }),
            Ok(Err(error)) if !error.is_timeout() => {
                failed(Error::unreachable(place, &error), failures.saturating_add(1))
            }
            Ok(Err(_)) | Err(_) => {
                let error = Error::Timeout { place: place.into(), patience: CONNECT };
                failed(error, failures.saturating_add(1))
            }
        };
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.line.state.send_replace(std::mem::replace(&mut self.outcome, State::None));
    }
}

fn failed(error: Error, failures: u32) -> State {
    let growth = 2_u32.saturating_pow(failures.saturating_sub(1));
    let wait = FIRST.saturating_mul(growth).min(LONGEST).mul_f64(1.0 + fastrand::f64() / 5.0);
    State::Failed { error, until: Instant::now() + wait, failures }
}
