//! What both ends of the house know of one connection: the wire front and the proxy share it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;

use super::body_clock::BodyClock;
use super::socket::Socket;
use super::transport::Ends;
use crate::guard::Refusal;
use crate::snapshot::{Deadlines, WebSocketLimits};
use crate::tls::Session;

/// One accepted connection.
///
/// The proxy sets the deadlines of the exchange under way; the wire front enforces them, since it is polled whenever
/// the engine waits for the client or, the request being complete, for the upstream.
#[derive(Debug)]
pub struct Connection {
    listener: usize,
    ends: Ends,
    /// What every request of this connection says of the peer and of our port, spelled once.
    peer_ip: OnceLock<HeaderValue>,
    local_port: OnceLock<HeaderValue>,
    /// Deadlines count from here, in nanoseconds; 0 means none.
    epoch: Instant,
    head_by: AtomicU64,
    request_timeout: AtomicU64,
    total_by: AtomicU64,
    stream_idle: AtomicU64,
    moved: AtomicU64,
    upstream_read: AtomicU64,
    asked: AtomicU64,
    per_try: AtomicU64,
    body: BodyClock,
    /// The client waits for a word of ours (100) before it sends its body.
    held: AtomicBool,
    responding: AtomicBool,
    tunnel: AtomicBool,
    answered: AtomicBool,
    request_complete: AtomicBool,
    fired: AtomicU8,
    refused: Mutex<Option<Refusal>>,
    returned: Mutex<Option<Socket>>,
    tls: Option<Arc<Session>>,
}

/// A deadline of an exchange that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Timer {
    /// No response head in time.
    Request = 1,
    /// Nothing of the request body came.
    RequestBody,
    /// The request body came too slowly.
    BodyRate,
    /// Nothing of the response moved.
    StreamIdle,
    /// The exchange as a whole.
    Total,
    /// The upstream sent nothing.
    UpstreamRead,
    /// The attempt had its time.
    Try,
}

impl Connection {
    /// A connection between these ends, just accepted on the listener with this index, and what its handshake came to if
    /// it is encrypted.
    pub fn new(listener: usize, ends: Ends, tls: Option<Arc<Session>>) -> Self {
        Self {
            listener,
            ends,
            peer_ip: OnceLock::new(),
            local_port: OnceLock::new(),
            epoch: Instant::now(),
            head_by: AtomicU64::new(0),
            request_timeout: AtomicU64::new(0),
            total_by: AtomicU64::new(0),
            stream_idle: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            upstream_read: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            per_try: AtomicU64::new(0),
            body: BodyClock::default(),
            held: AtomicBool::new(false),
            responding: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            request_complete: AtomicBool::new(true),
            fired: AtomicU8::new(0),
            refused: Mutex::new(None),
            returned: Mutex::new(None),
            tls,
        }
    }

    /// One of the streams of this connection, with clocks of its own.
    pub(super) fn stream(&self) -> Self {
        let stream = Self::new(self.listener, self.ends, self.tls.clone());
        // Spelled once for all streams; the cells are new, so this cannot fail.
        let _ = self.peer_ip().map(|ip| stream.peer_ip.set(ip.clone()));
        let _ = self.local_port().map(|port| stream.local_port.set(port.clone()));
        stream
    }

    /// What its handshake came to; `None` in the clear.
    pub fn tls(&self) -> Option<&Arc<Session>> {
        self.tls.as_ref()
    }

    /// The index of the listener that accepted it.
    pub fn listener(&self) -> usize {
        self.listener
    }

    /// Its two ends: as accepted, or as a proxy in front has told them.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// When it ends, if it may live for so long: after the request under way then.
    pub(super) fn until(&self, lifetime: Option<Duration>) -> Option<Instant> {
        self.epoch.checked_add(lifetime?)
    }

    /// The peer's address as a header value.
    pub fn peer_ip(&self) -> Option<&HeaderValue> {
        let ip = self.ends.peer.ip()?;
        Some(self.peer_ip.get_or_init(|| {
            // The text of an address is always a valid value.
            HeaderValue::try_from(ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"))
        }))
    }

    /// Our port as a header value.
    pub fn local_port(&self) -> Option<&HeaderValue> {
        let local = self.ends.local?;
        Some(self.local_port.get_or_init(|| HeaderValue::from(local.port())))
    }

    /// Starts the clocks of the exchange whose head was complete at `started`.
    pub fn begin(&self, started: Instant, deadlines: &Deadlines) {
        let started = self.nanos(started);
        self.request_timeout.store(nanos(deadlines.request), Ordering::Relaxed);
        self.stream_idle.store(nanos(deadlines.stream_idle), Ordering::Relaxed);
        self.total_by.store(deadlines.total.map_or(0, |total| started + nanos(total)), Ordering::Relaxed);
        self.moved.store(started, Ordering::Relaxed);
        let head_by = if self.request_complete.load(Ordering::Relaxed) {
            started + nanos(deadlines.request)
        } else {
            0
        };
        self.head_by.store(head_by, Ordering::Relaxed);
    }

    /// The body of the request under way has to come at this rate, in bytes a second. 0 is none. When it is `held` back
    /// until we say 100, the time for the response head runs instead, from where [`begin`](Self::begin) has it.
    pub fn expect_body(&self, rate: u64, held: bool) {
        if self.request_complete() {
            return;
        }
        self.body.begin(rate);
        if held {
            let started = self.moved.load(Ordering::Relaxed);
            self.head_by.store(started + self.request_timeout.load(Ordering::Relaxed), Ordering::Relaxed);
            self.held.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the client waits for 100 before it sends its body.
    pub fn is_body_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// The client is told to send its body, or has not waited for it: from here on it is waited for.
    pub fn go_on(&self, now: Instant) {
        if self.is_body_held() {
            self.held.store(false, Ordering::Relaxed);
            self.head_by.store(0, Ordering::Relaxed);
            self.moved(now);
        }
    }

    /// An upstream is being asked, and has `read` for its next bytes once the whole request is here, and `per_try` for its
    /// response head.
    pub fn asking(&self, now: Instant, read: Duration, per_try: Option<Duration>) {
        self.asked.store(self.nanos(now), Ordering::Relaxed);
        self.per_try.store(per_try.map_or(0, nanos), Ordering::Relaxed);
        self.upstream_read.store(nanos(read), Ordering::Relaxed);
    }

    /// What ran out was one attempt's time, and there is another. In between nobody waits for the client.
    pub fn rearm(&self) {
        self.body.take(self.nanos(Instant::now()), 0);
        self.fired.store(0, Ordering::Relaxed);
        self.upstream_read.store(0, Ordering::Relaxed);
        self.per_try.store(0, Ordering::Relaxed);
    }

    /// The response head is on its way: from here only bodies count.
    pub fn responding(&self, now: Instant) {
        self.moved.store(self.nanos(now), Ordering::Relaxed);
        self.responding.store(true, Ordering::Relaxed);
    }

    /// The answer tells of events: the upstream may be silent until there is one.
    pub fn telling(&self) {
        self.upstream_read.store(0, Ordering::Relaxed);
    }

    /// The connection became a WebSocket (101): bytes pass as they are from here on, and its own clocks run.
    pub fn tunnel(&self, now: Instant, limits: &WebSocketLimits) {
        self.stream_idle.store(nanos(limits.idle), Ordering::Relaxed);
        self.total_by.store(self.nanos(now).saturating_add(nanos(limits.lifetime)), Ordering::Relaxed);
        self.tunnel.store(true, Ordering::Relaxed);
    }

    /// What is left until the response head must be there, and the clock that says so; `None` while none runs.
    pub fn left_for_head(&self, now: Instant) -> Option<(Duration, Timer)> {
        let clocks = [(&self.head_by, Timer::Request), (&self.total_by, Timer::Total)];
        let running = clocks.map(|(by, timer)| (by.load(Ordering::Relaxed), timer));
        let (by, timer) = running.into_iter().filter(|(by, _)| *by != 0).min_by_key(|(by, _)| *by)?;
        Some((Duration::from_nanos(by.saturating_sub(self.nanos(now))), timer))
    }

    /// What is left of the whole exchange's time; `None` when it has no end.
    pub fn left_in_all(&self, now: Instant) -> Option<Duration> {
        let by = self.total_by.load(Ordering::Relaxed);
        (by != 0).then(|| Duration::from_nanos(by.saturating_sub(self.nanos(now))))
    }

    /// The deadline that ended the exchange.
    pub fn fired(&self) -> Option<Timer> {
        match self.fired.load(Ordering::Relaxed) {
            1 => Some(Timer::Request),
            2 => Some(Timer::RequestBody),
            3 => Some(Timer::BodyRate),
            4 => Some(Timer::StreamIdle),
            5 => Some(Timer::Total),
            6 => Some(Timer::UpstreamRead),
            7 => Some(Timer::Try),
            _ => None,
        }
    }

    /// Why the guard refused the body of the request under way.
    pub fn refused(&self) -> Option<Refusal> {
        *self.refused.lock()
    }

    /// Whether the whole request is here, its body included.
    pub fn request_complete(&self) -> bool {
        self.request_complete.load(Ordering::Relaxed)
    }

    /// The client has its whole answer, though not all of its request is here.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether the client has its whole answer, and the rest of its request was not waited for.
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Leaves so long for a last reply, whatever clock has run out.
    pub fn last_words(&self, time: Duration) {
        self.reset(true);
        self.total_by.store(self.nanos(Instant::now() + time), Ordering::Relaxed);
    }

    pub(super) fn refuse(&self, refusal: Refusal) {
        *self.refused.lock() = Some(refusal);
    }

    /// A new exchange whose request is complete, or still has a body to come.
    pub(super) fn reset(&self, complete: bool) {
        self.head_by.store(0, Ordering::Relaxed);
        self.total_by.store(0, Ordering::Relaxed);
        self.stream_idle.store(0, Ordering::Relaxed);
        self.upstream_read.store(0, Ordering::Relaxed);
        self.per_try.store(0, Ordering::Relaxed);
        self.body.begin(0);
        self.held.store(false, Ordering::Relaxed);
        self.responding.store(false, Ordering::Relaxed);
        self.request_complete.store(complete, Ordering::Relaxed);
    }

    /// The last byte of the request body came.
    pub(super) fn request_completed(&self, now: Instant) {
        self.request_complete.store(true, Ordering::Relaxed);
        let timeout = self.request_timeout.load(Ordering::Relaxed);
        self.head_by.store(self.nanos(now) + timeout, Ordering::Relaxed);
        self.asked.store(self.nanos(now), Ordering::Relaxed);
    }

    /// Bytes moved.
    pub(super) fn moved(&self, now: Instant) {
        self.moved.store(self.nanos(now), Ordering::Relaxed);
    }

    /// Whether the connection became a WebSocket.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }

    /// The engine asked for more of the request body, and nothing is there.
    pub(super) fn awaits_body(&self) {
        if !self.request_complete() && !self.is_body_held() && self.body.is_idle() {
            self.body.wait(self.nanos(Instant::now()));
        }
    }

    /// So many bytes of the request body came.
    pub(super) fn took_body(&self, now: Instant, bytes: usize) {
        self.go_on(now);
        self.body.take(self.nanos(now), bytes);
    }

    /// Whether the exchange as a whole has taken too long. Asked where bytes are at hand, and nothing waits.
    pub(super) fn is_overdue(&self) -> bool {
        let by = self.total_by.load(Ordering::Relaxed);
        by != 0 && self.nanos(Instant::now()) >= by
    }

    /// The next deadline of the exchange under way and when it passes. `waiting` says that the engine waits for
    /// someone else than the client, who is not to blame for its own slowness.
    pub(super) fn next_deadline(&self, waiting: bool) -> Option<(Timer, Instant)> {
        let total = self.total_by.load(Ordering::Relaxed);
        let idle = self.stream_idle.load(Ordering::Relaxed);
        let idle_by = if idle == 0 { 0 } else { self.moved.load(Ordering::Relaxed).saturating_add(idle) };
        let current = if self.responding.load(Ordering::Relaxed) {
            (Timer::StreamIdle, idle_by)
        } else if self.request_complete() || self.is_body_held() {
            (Timer::Request, self.head_by.load(Ordering::Relaxed))
        } else {
            (Timer::RequestBody, idle_by)
        };
        let (too_slow, read) = (self.body_by(), self.upstream_read_by(waiting));
        let per_try = self.try_by(waiting);
        let others = [(Timer::BodyRate, too_slow), (Timer::UpstreamRead, read), (Timer::Try, per_try)];
        [(Timer::Total, total), current]
            .into_iter()
            .chain(others)
            .filter(|(_, by)| *by != 0)
            .min_by_key(|(_, by)| *by)
            .and_then(|(timer, by)| Some((timer, self.epoch.checked_add(Duration::from_nanos(by))?)))
    }

    /// Once an answer is on its way, a client may take its time with what is left of its request.
    fn body_by(&self) -> u64 {
        let counts = !self.request_complete() && !self.responding.load(Ordering::Relaxed);
        if counts { self.body.deadline() } else { 0 }
    }

    /// An attempt is over when its time is, unless its answer is on its way or it is the client who takes its time.
    fn try_by(&self, waiting: bool) -> u64 {
        let per_try = self.per_try.load(Ordering::Relaxed);
        let counts = waiting && self.request_complete() && !self.responding.load(Ordering::Relaxed);
        if per_try != 0 && counts { self.asked.load(Ordering::Relaxed).saturating_add(per_try) } else { 0 }
    }

    /// What the upstream sends is passed on at once, so what moved last tells when it last sent.
    fn upstream_read_by(&self, waiting: bool) -> u64 {
        let read = self.upstream_read.load(Ordering::Relaxed);
        if !waiting || read == 0 || self.is_tunnel() || !self.request_complete() {
            return 0;
        }
        let since = if self.responding.load(Ordering::Relaxed) { &self.moved } else { &self.asked };
        since.load(Ordering::Relaxed).saturating_add(read)
    }

    pub(super) fn fire(&self, timer: Timer) {
        self.fired.store(timer as u8, Ordering::Relaxed);
    }

    /// The wire was dropped by the engine: its socket comes back, to be closed with care.
    pub(super) fn give_back(&self, socket: Socket) {
        *self.returned.lock() = Some(socket);
    }

    pub(super) fn take_back(&self) -> Option<Socket> {
        self.returned.lock().take()
    }

    /// Nanoseconds since the epoch, never 0.
    fn nanos(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.epoch)).max(1)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Peer;

    const WEBSOCKET: WebSocketLimits =
        WebSocketLimits { idle: Duration::from_secs(600), lifetime: Duration::from_secs(3600) };
    const DEADLINES: Deadlines = Deadlines {
        request: Duration::from_secs(30),
        per_try: None,
        stream_idle: Duration::from_secs(300),
        total: Some(Duration::from_secs(600)),
        websocket: WEBSOCKET,
    };

    fn connection() -> Connection {
        Connection::new(0, Ends { peer: Peer::Unix, local: None }, None)
    }

    fn next(connection: &Connection) -> (Timer, u64) {
        let (timer, at) = connection.next_deadline(true).unwrap();
        (timer, at.duration_since(connection.epoch).as_secs())
    }

    #[test]
    fn each_part_of_an_exchange_has_its_clock() {
        let connection = connection();
        assert_eq!(connection.next_deadline(true), None);
        connection.reset(false);
        connection.begin(connection.epoch, &DEADLINES);
        assert_eq!(next(&connection), (Timer::RequestBody, 300));
        connection.request_completed(connection.epoch + Duration::from_secs(100));
        assert_eq!(next(&connection), (Timer::Request, 130));
        connection.responding(Instant::now());
        assert_eq!(next(&connection).0, Timer::StreamIdle);
        connection.moved(connection.epoch + Duration::from_secs(400));
        assert_eq!(next(&connection), (Timer::Total, 600));
    }

    #[test]
    fn an_upstream_is_waited_for_while_it_is_the_one_to_speak() {
        let connection = connection();
        let at = |secs| connection.epoch + Duration::from_secs(secs);
        connection.reset(true);
        connection.begin(at(0), &DEADLINES);
        connection.asking(at(1), Duration::from_secs(5), Some(Duration::from_secs(29)));
        assert_eq!(next(&connection), (Timer::UpstreamRead, 6));
        assert_eq!(connection.next_deadline(false).unwrap().0, Timer::Request);
        connection.responding(at(3));
        assert_eq!(next(&connection), (Timer::UpstreamRead, 8));
        connection.moved(at(7));
        assert_eq!(next(&connection), (Timer::UpstreamRead, 12));
        connection.tunnel(connection.epoch, &WEBSOCKET);
        assert_eq!(next(&connection).0, Timer::StreamIdle);
    }

    #[test]
    fn a_body_that_does_not_come_is_too_slow_while_it_is_waited_for() {
        let connection = connection();
        connection.reset(false);
        connection.begin(connection.epoch, &DEADLINES);
        connection.expect_body(100, false);
        assert_eq!(next(&connection).0, Timer::RequestBody, "nobody waits");
        connection.awaits_body();
        assert_eq!(next(&connection).0, Timer::BodyRate);
        connection.rearm();
        assert_eq!(next(&connection).0, Timer::RequestBody, "another attempt begins");
        connection.awaits_body();
        connection.responding(Instant::now());
        assert_eq!(next(&connection).0, Timer::StreamIdle);
        connection.reset(true);
        connection.begin(connection.epoch, &DEADLINES);
        connection.expect_body(100, false);
        connection.awaits_body();
        assert_eq!(next(&connection).0, Timer::Request);
    }

    #[test]
    fn a_body_that_is_held_back_is_waited_for_from_the_word_or_the_first_byte_on() {
        for by_word in [true, false] {
            let connection = connection();
            connection.reset(false);
            connection.begin(connection.epoch, &DEADLINES);
            connection.expect_body(100, true);
            connection.awaits_body();
            assert_eq!(next(&connection), (Timer::Request, 30));
            let at = connection.epoch + Duration::from_secs(20);
            if by_word {
                connection.go_on(at)
            } else {
                connection.took_body(at, 1)
            }
            assert_eq!(next(&connection), (Timer::RequestBody, 320));
            assert_eq!(connection.left_for_head(at).unwrap().1, Timer::Total);
            connection.awaits_body();
            assert_eq!(next(&connection).0, Timer::BodyRate);
            connection.reset(false);
            assert!(!connection.is_body_held());
        }
    }

    #[test]
    fn the_time_left_is_the_nearer_of_head_and_total() {
        let connection = connection();
        assert_eq!(connection.left_for_head(connection.epoch), None);
        connection.reset(true);
        connection.begin(connection.epoch, &DEADLINES);
        let (left, timer) = connection.left_for_head(connection.epoch).unwrap();
        assert_eq!((left.as_secs(), timer), (30, Timer::Request));
        let short = Deadlines { total: Some(Duration::from_secs(10)), ..DEADLINES };
        connection.begin(connection.epoch, &short);
        assert_eq!(
            connection.left_for_head(connection.epoch + Duration::from_secs(20)),
            Some((Duration::ZERO, Timer::Total))
        );
    }
}
