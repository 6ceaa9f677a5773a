//! The load generator: a fleet of connections that all run on the caller's thread.
//!
//! 1. A closed loop sends the next request when the answer is in; it finds the capacity.
//! 2. An open loop sends on a schedule and counts latency from the moment a request was *due*, so that a stalled proxy is
//!    charged for every request it kept waiting (no coordinated omission).
//! 3. Only a complete 200 counts. Everything else is a failed request; none is retried.

mod connection;
mod http2;
mod idle;
mod tls;

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::net::TcpStream;

use super::Result;
use super::response::Response;
use super::timer::PreciseTimer;
use super::websocket;
use connection::{Connection, Dialer};

pub use http2::Call;
pub use idle::IdleCrowd;
pub use tls::{Group, Hello};

/// How long after its end a run waits for the answers still due.
const GRACE: Duration = Duration::from_secs(5);
/// Keeps a proxy that refuses everything from turning the loop into a storm of connection attempts.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
/// One connection with many streams is opened where there are so many with one request at a time each.
const SHARERS: usize = 8;

/// Where the load goes, and what it is.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Option<Hello>,
    pub load: Load,
}

/// What goes over a connection.
#[derive(Clone)]
pub enum Load {
    /// Whole requests, sent in turn by each connection.
    Http1 {
        requests: Arc<[Bytes]>,
        /// Whether a connection serves more than one request.
        keep_alive: bool,
        /// Whether the answers must have a Content-Encoding.
        encoded: bool,
    },
    /// So many at once on each connection.
    Http2 { call: Arc<Call>, streams: usize },
    /// A message after another's echo.
    WebSocket(Arc<Messages>),
}

/// What is sent over a WebSocket, and what must come back.
pub struct Messages {
    sent: Vec<u8>,
    echoed: Vec<u8>,
}

impl Load {
    pub fn keep_alive(requests: impl Into<Arc<[Bytes]>>) -> Self {
        Self::Http1 { requests: requests.into(), keep_alive: true, encoded: false }
    }

    pub fn websocket() -> Self {
        let messages = Messages { sent: websocket::client_frame(), echoed: websocket::server_frame() };
        Self::WebSocket(messages.into())
    }

    /// How many connections to open where a load of one request at a time takes `connections`.
    fn connections(&self, connections: usize) -> usize {
        match self {
            Self::Http2 { .. } => connections.div_ceil(SHARERS),
            Self::Http1 { .. } | Self::WebSocket(_) => connections,
        }
    }
}

/// When the next request is sent.
#[derive(Clone, Copy)]
pub enum Pace {
    /// As soon as the last is answered.
    Closed,
    /// This many a second over the whole fleet, whatever the answers do.
    Open { per_second: f64 },
}

/// What became of the requests of one run.
pub struct Tally {
    pub completed: u64,
    pub failed: u64,
    pub first_failure: Option<String>,
    /// Bytes of all answers' bodies.
    pub received: u64,
    /// Nanoseconds.
    pub latencies: Histogram<u64>,
}

/// Connections ready to load a target.
pub struct Fleet(Vec<Member>);

enum Member {
    OneAtATime(Client),
    ManyAtOnce(http2::Client),
}

impl Fleet {
    /// Opens the connections, so that a run measures requests only. Where each request takes a connection of its own
    /// there is nothing to open yet, but a session to get that can be resumed.
    pub async fn connect(target: &Target, connections: usize) -> Result<Self> {
        let size = target.load.connections(connections);
        let mut members = Vec::with_capacity(size);
        for index in 0..size {
            let dialer = Dialer::new(target.address, target.tls)?;
            members.push(match &target.load {
                Load::Http2 { call, streams } => {
                    Member::ManyAtOnce(http2::Client::connect(dialer, call.clone(), *streams).await?)
                }
                load => Member::OneAtATime(Client::connect(dialer, load.clone(), index, size).await?),
            });
        }
        Ok(Self(members))
    }

    /// Runs for `duration`, and at most a grace longer for the answers still due.
    pub async fn run(self, pace: Pace, duration: Duration) -> Result<Tally> {
        let start = Instant::now();
        let (size, end) = (self.0.len(), start + duration);
        let mut tasks = Vec::with_capacity(size);
        for (index, member) in self.0.into_iter().enumerate() {
            let tally = Tally::new()?;
            tasks.push(match (member, pace) {
                (Member::OneAtATime(client), _) => {
                    let schedule = Schedule::new(pace, start, index, size)?;
                    tokio::spawn(client.run(schedule, tally, end))
                }
                (Member::ManyAtOnce(client), Pace::Closed) => tokio::spawn(client.run(tally, end)),
                (Member::ManyAtOnce(_), Pace::Open { .. }) => {
                    return Err("there is no open loop over HTTP/2".into());
                }
            });
        }
        let mut tally = Tally::new()?;
        for task in tasks {
            tally.add(task.await?);
        }
        Ok(tally)
    }
}

/// Sends one request of HTTP/1.1 on a connection of its own and returns the status.
pub async fn send_once(address: SocketAddr, tls: Option<Hello>, request: &[u8]) -> Result<u16> {
    let stream = Dialer::new(address, tls)?.dial().await?;
    Ok(Connection::new(stream).exchange(request).await?.status)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request after the other.
struct Client {
    dialer: Dialer,
    load: Load,
    connection: Option<Connection>,
    next_request: usize,
}

impl Client {
    async fn connect(dialer: Dialer, load: Load, index: usize, size: usize) -> Result<Self> {
        // Clients start at different requests: with many distinct ones they must not march in step.
        let next_request = match &load {
            Load::Http1 { requests, .. } => index * requests.len() / size,
            Load::Http2 { .. } | Load::WebSocket(_) => 0,
        };
        let mut client = Self { dialer, load, connection: None, next_request };
        if client.dialer.resumes() {
            client.exchange().await?;
        } else if !matches!(client.load, Load::Http1 { keep_alive: false, .. }) {
            client.connection = Some(client.open().await?);
        }
        Ok(client)
    }

    async fn run(mut self, mut schedule: Schedule, mut tally: Tally, end: Instant) -> Tally {
        let mut give_up = std::pin::pin!(tokio::time::sleep_until((end + GRACE).into()));
        while let Some(due) = schedule.next(end).await {
            let outcome = tokio::select! {
                biased;
                outcome = self.exchange() => outcome,
                () = &mut give_up => {
                    // Its turns that can no longer come count, too: a standstill must not look like a lighter load.
                    tally.fail(&"no answer within the grace");
                    tally.failed += schedule.turns_left(end);
                    break;
                }
            };
            match outcome {
                Ok(received) => tally.complete(due.elapsed(), received),
                Err(failure) => {
                    tally.fail(&failure);
                    self.connection = None;
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
        tally
    }

    /// How many bytes of body came.
    async fn exchange(&mut self) -> Result<u64> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let (received, reusable) = match &self.load {
            Load::Http1 { requests, keep_alive, encoded } => {
                let response = connection.exchange(&requests[self.next_request % requests.len()]).await?;
                self.next_request += 1;
                let reusable = response.reusable && *keep_alive;
                if !reusable {
                    connection.await_close().await?;
                }
                if response.status != 200 || response.encoded != *encoded {
                    let Response { status, encoded, .. } = response;
                    return Err(format!("status {status}, encoded: {encoded}").into());
                }
                (response.body, reusable)
            }
            Load::WebSocket(messages) => {
                connection.echo(&messages.sent, &messages.echoed).await?;
                (messages.echoed.len() as u64, true)
            }
            Load::Http2 { .. } => return Err("one request at a time is not what HTTP/2 is for".into()),
        };
        self.connection = Some(connection).filter(|_| reusable);
        Ok(received)
    }

    async fn open(&mut self) -> Result<Connection> {
        let mut connection = Connection::new(self.dialer.dial().await?);
        if matches!(self.load, Load::WebSocket(_)) {
            connection.upgrade().await?;
        }
        Ok(connection)
    }
}

/// One connection's share of the pace.
enum Schedule {
    BackToBack,
    Every { due: Instant, period: Duration, timer: PreciseTimer },
}

impl Schedule {
    fn new(pace: Pace, start: Instant, index: usize, size: usize) -> io::Result<Self> {
        match pace {
            Pace::Closed => Ok(Self::BackToBack),
            Pace::Open { per_second } => {
                let period = Duration::from_secs_f64(size as f64 / per_second);
                let due = start + period.mul_f64(index as f64 / size as f64);
                Ok(Self::Every { due, period, timer: PreciseTimer::new()? })
            }
        }
    }

    /// Waits for the next request's turn and returns when it was due; `None` when no turn is left before `end`.
    async fn next(&mut self, end: Instant) -> Option<Instant> {
        match self {
            Self::BackToBack => Some(Instant::now()).filter(|now| *now < end),
            Self::Every { due, period, timer } => {
                let turn = *due;
                if turn >= end {
                    return None;
                }
                timer.sleep_until(turn).await.ok()?;
                *due += *period;
                Some(turn)
            }
        }
    }

    fn turns_left(&self, end: Instant) -> u64 {
        match self {
            Self::BackToBack => 0,
            Self::Every { due, period, .. } => {
                end.saturating_duration_since(*due).as_nanos().div_ceil(period.as_nanos().max(1)) as u64
            }
        }
    }
}

impl Tally {
    pub fn new() -> Result<Self> {
        // From a microsecond to a minute, to three digits.
        let latencies = Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?;
        Ok(Self { completed: 0, failed: 0, first_failure: None, received: 0, latencies })
    }

    /// Takes in what another connection, or another round, counted.
    pub fn add(&mut self, other: Tally) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.received += other.received;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        // Both have the same bounds, so that no value can be out of range.
        let _ = self.latencies.add(&other.latencies);
    }

    fn complete(&mut self, latency: Duration, received: u64) {
        self.completed += 1;
        self.received += received;
        self.latencies.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    fn fail(&mut self, failure: &impl Display) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| failure.to_string());
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::origin::Origin;
    use super::*;

    fn target(address: SocketAddr, keep_alive: bool) -> Target {
        let request = Bytes::from_static(match keep_alive {
            true => b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n",
            false => b"GET / HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n",
        });
        let load = Load::Http1 { requests: Arc::new([request]), keep_alive, encoded: false };
        Target { address, tls: None, load }
    }

    async fn run(target: &Target, pace: Pace, milliseconds: u64) -> Tally {
        let fleet = Fleet::connect(target, 4).await.unwrap();
        fleet.run(pace, Duration::from_millis(milliseconds)).await.unwrap()
    }

    #[tokio::test]
    async fn a_closed_loop_completes_requests_with_and_without_keep_alive() {
        let origin = Origin::start().await.unwrap();
        for keep_alive in [true, false] {
            let tally = run(&target(origin.address, keep_alive), Pace::Closed, 200).await;
            assert_eq!((tally.failed, &tally.first_failure), (0, &None));
            assert!(tally.completed > 0);
            assert_eq!(tally.latencies.len(), tally.completed);
        }
    }

    #[tokio::test]
    async fn a_closed_loop_completes_echoes() {
        let origin = Origin::start().await.unwrap();
        let target = Target { address: origin.address, tls: None, load: Load::websocket() };
        let tally = run(&target, Pace::Closed, 100).await;
        assert_eq!((tally.failed, &tally.first_failure), (0, &None));
        assert!(tally.completed > 0);
    }

    #[tokio::test]
    async fn an_answer_that_is_not_encoded_as_asked_is_a_failure() {
        let origin = Origin::start().await.unwrap();
        let mut target = target(origin.address, true);
        let Load::Http1 { encoded, .. } = &mut target.load else { unreachable!() };
        *encoded = true;
        let tally = run(&target, Pace::Closed, 50).await;
        assert_eq!(tally.completed, 0);
        assert_eq!(tally.first_failure.as_deref(), Some("status 200, encoded: false"));
    }

    #[tokio::test]
    async fn an_open_loop_sends_exactly_its_schedule() {
        let origin = Origin::start().await.unwrap();
        let tally = run(&target(origin.address, true), Pace::Open { per_second: 2_000.0 }, 100).await;
        assert_eq!((tally.completed, tally.failed), (200, 0));
    }

    #[tokio::test]
    async fn an_open_loop_charges_a_stall_to_every_request_it_delayed() {
        let origin = Origin::start().await.unwrap();
        let stall = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            std::thread::sleep(Duration::from_millis(100)); // the origin shares this thread
        };
        let (target, pace) = (target(origin.address, true), Pace::Open { per_second: 1_000.0 });
        let (tally, ()) = tokio::join!(run(&target, pace, 200), stall);
        assert_eq!((tally.completed, tally.failed), (200, 0));
        // About half of the requests fell due within the stall; evenly spread, the median of those waited 50 ms.
        assert!(tally.latencies.value_at_quantile(0.70) > 15_000_000);
        assert!(tally.latencies.value_at_quantile(0.98) > 80_000_000);
    }

    #[tokio::test]
    async fn an_open_loop_counts_the_turns_that_a_standstill_costs() {
        let start = Instant::now();
        let end = start + Duration::from_secs(1);
        let mut schedule = Schedule::new(Pace::Open { per_second: 100.0 }, start, 0, 1).unwrap();
        assert_eq!(schedule.turns_left(end), 100);
        schedule.next(end).await.unwrap();
        assert_eq!(schedule.turns_left(end), 99);
        assert_eq!(schedule.turns_left(start), 0);
    }

    #[tokio::test]
    async fn counts_a_closed_connection_and_a_wrong_status_as_failures() {
        for answer in [&b""[..], b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(answer).await;
                }
            });
            let tally = run(&target(address, true), Pace::Closed, 200).await;
            assert_eq!(tally.completed, 0);
            assert!(tally.failed >= 4);
            server.abort();
        }
    }

    #[tokio::test]
    async fn an_idle_crowd_notices_closed_connections() {
        let origin = Origin::start().await.unwrap();
        let crowd = IdleCrowd::gather(&target(origin.address, true), 100).await.unwrap();
        assert_eq!(crowd.closed(), 0);
        drop(origin);
        let deadline = Instant::now() + Duration::from_secs(5);
        while crowd.closed() < 100 {
            assert!(Instant::now() < deadline, "closed connections go unnoticed");
            tokio::task::yield_now().await;
        }
    }
}
