//! The load generator: a fleet of connections that all run on the caller's thread.
//!
//! 1. A closed loop sends the next request when the answer is in; it finds the capacity.
//! 2. An open loop sends on a schedule and counts latency from the moment a request was *due*, so that a stalled proxy is
//!    charged for every request it kept waiting (no coordinated omission).
//! 3. Only a complete 200 counts. Everything else is a failed request; none is retried.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Result;
use super::response::{Response, ResponseReader};
use super::timer::PreciseTimer;

/// How long after its end a run waits for the answers still due.
const GRACE: Duration = Duration::from_secs(5);
/// Keeps a proxy that refuses everything from turning the loop into a storm of connection attempts.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
/// Connections of an idle crowd that are being opened at the same time.
const OPENING_AT_ONCE: usize = 64;
const READ_BUFFER: usize = 64 * 1024;

/// Where the requests go, and what they are.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// Whole requests as bytes, sent in turn by each connection.
    pub requests: Arc<[Bytes]>,
    /// Whether a connection serves more than one request.
    pub keep_alive: bool,
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
    /// Nanoseconds.
    pub latencies: Histogram<u64>,
}

/// Connections ready to load a target.
pub struct Fleet(Vec<Client>);

impl Fleet {
    /// Opens the connections, so that a run measures requests only. Without keep-alive there is nothing to open yet.
    pub async fn connect(target: &Target, size: usize) -> Result<Self> {
        let mut clients = Vec::with_capacity(size);
        for index in 0..size {
            let connection =
                if target.keep_alive { Some(Connection::open(target.address).await?) } else { None };
            // Clients start at different requests: with many distinct ones they must not march in step.
            let next_request = index * target.requests.len() / size;
            clients.push(Client { target: target.clone(), connection, next_request });
        }
        Ok(Self(clients))
    }

    /// Runs for `duration`, and at most a grace longer for the answers still due.
    pub async fn run(self, pace: Pace, duration: Duration) -> Result<Tally> {
        let start = Instant::now();
        let size = self.0.len();
        let mut tasks = Vec::with_capacity(size);
        for (index, client) in self.0.into_iter().enumerate() {
            let schedule = Schedule::new(pace, start, index, size)?;
            tasks.push(tokio::spawn(client.run(schedule, Tally::new()?, start + duration)));
        }
        let mut tally = Tally::new()?;
        for task in tasks {
            tally.add(task.await?);
        }
        Ok(tally)
    }
}

/// Sends one request on a connection of its own and returns the status.
pub async fn send_once(address: SocketAddr, request: &[u8]) -> Result<u16> {
    Ok(Connection::open(address).await?.exchange(request).await?.status)
}

/// Connections that were served one request each and then stay open in silence.
pub struct IdleCrowd(Vec<TcpStream>);

impl IdleCrowd {
    /// Opens `size` connections, some at a time, each serving the target's first request.
    pub async fn gather(target: &Target, size: usize) -> Result<Self> {
        let mut streams = Vec::with_capacity(size);
        while streams.len() < size {
            let batch: Vec<_> = (streams.len()..size)
                .take(OPENING_AT_ONCE)
                .map(|_| tokio::spawn(idle_connection(target.clone())))
                .collect();
            for task in batch {
                streams.push(task.await??);
            }
        }
        Ok(Self(streams))
    }

    /// How many of them the proxy has closed.
    pub fn closed(&self) -> usize {
        self.0.iter().filter(|stream| !is_open(stream)).count()
    }
}

/// An idle connection that is still open has nothing to read, not even its end.
fn is_open(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 1]) {
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

async fn idle_connection(target: Target) -> Result<TcpStream> {
    let mut connection = Connection::open(target.address).await?;
    let response = connection.exchange(&target.requests[0]).await?;
    if response.status == 200 && response.reusable {
        Ok(connection.stream)
    } else {
        Err(format!("status {}, kept alive: {}", response.status, response.reusable).into())
    }
}

struct Client {
    target: Target,
    connection: Option<Connection>,
    next_request: usize,
}

impl Client {
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
                Ok(()) => tally.complete(due.elapsed()),
                Err(failure) => {
                    tally.fail(&failure);
                    self.connection = None;
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
        tally
    }

    async fn exchange(&mut self) -> Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.target.address).await?,
        };
        let requests = &self.target.requests;
        let response = connection.exchange(&requests[self.next_request % requests.len()]).await?;
        self.next_request += 1;
        if response.reusable && self.target.keep_alive {
            self.connection = Some(connection);
        } else {
            connection.await_close().await?;
        }
        if response.status == 200 { Ok(()) } else { Err(format!("status {}", response.status).into()) }
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

struct Connection {
    stream: TcpStream,
    reader: ResponseReader,
    buffer: Box<[u8]>,
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let buffer = vec![0; READ_BUFFER].into_boxed_slice();
        Ok(Self { stream, reader: ResponseReader::default(), buffer })
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Response> {
        self.stream.write_all(request).await?;
        loop {
            let read = self.stream.read(&mut self.buffer).await?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if let Some(response) = self.reader.feed(&self.buffer[..read])? {
                return Ok(response);
            }
        }
    }

    /// Lets the other side close first: it is the first to close that keeps the port busy (TIME_WAIT), and a client runs
    /// out of ports where a listener does not.
    async fn await_close(&mut self) -> Result<()> {
        match self.stream.read(&mut self.buffer).await? {
            0 => Ok(()),
            _ => Err("bytes after a closing response".into()),
        }
    }
}

impl Tally {
    pub fn new() -> Result<Self> {
        // From a microsecond to a minute, to three digits.
        let latencies = Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?;
        Ok(Self { completed: 0, failed: 0, first_failure: None, latencies })
    }

    /// Takes in what another connection, or another round, counted.
    pub fn add(&mut self, other: Tally) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        // Both have the same bounds, so that no value can be out of range.
        let _ = self.latencies.add(&other.latencies);
    }

    fn complete(&mut self, latency: Duration) {
        self.completed += 1;
        self.latencies.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    fn fail(&mut self, failure: &impl Display) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| failure.to_string());
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::origin::Origin;
    use super::*;

    fn target(address: SocketAddr, keep_alive: bool) -> Target {
        let request = Bytes::from_static(match keep_alive {
            true => b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n",
            false => b"GET / HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n",
        });
        Target { address, requests: Arc::new([request]), keep_alive }
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
