//! A limit of requests at once that finds its own way: as many as an endpoint answers without making them wait.
//!
//! 1. The rule is Gradient2 of Netflix' concurrency-limits
//!    (<https://github.com/Netflix/concurrency-limits>, `Gradient2Limit`): the time of answers now is held against what it was
//!    on the long run. As long as it is less than half as much again, the limit grows by a headroom; above that it shrinks in
//!    proportion, to a half at most, and only by a fifth of that with each window.
//! 2. A window is 250 ms and at least 10 answers. The headroom is the square root of the limit, as in Envoy's adaptive
//!    concurrency filter.
//! 3. While less than half of the limit is in use, nothing is learnt of it, and it stays.
//! 4. A window with a request that was dropped by the endpoint (a timeout, a 503) takes a tenth off, as TCP would.
//! 5. In an overload that lasts, or is there from the beginning, Gradient2 comes to believe that slow is normal. So after a
//!    minute at the limit it is quartered for one window, and the long run starts again from what that window saw (Envoy:
//!    `minRTT` calculation). The first time comes after 3 s at the limit, and the next one as soon when it made a difference.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The shortest window.
const WINDOW: Duration = Duration::from_millis(250);
/// The fewest answers in a window.
const FEWEST: u64 = 10;
/// Where the limit starts, if that is within its bounds.
const START: f64 = 20.0;
/// How much slower than on the long run answers may be.
const TOLERANCE: f64 = 1.5;
/// How much of a change is made with one window.
const SMOOTHING: f64 = 0.2;
/// Windows that the long run looks back on.
const LONG_RUN: f64 = 2400.0;
/// Windows until the long run is as slow as that.
const WARM: u32 = 10;
/// What is left of the limit after a drop.
const AFTER_DROP: f64 = 0.9;
/// Windows at the limit until it is quartered for one.
const PROBE_AFTER: u32 = 240;
/// What is left of it then. The limit may be some times what keeps all workers busy, and is to be below that.
const PROBED: f64 = 0.25;
/// The windows until then, the first time and after one that made a difference.
const PROBE_SOON: u32 = 12;
/// What answers take at a quarter of the limit, in parts of what they take on the long run, when that makes a difference.
const DIFFERENCE: f64 = 0.8;
/// The most by which the long run rises with a probe.
const PROBE_RISE: f64 = 1.25;

/// Within which bounds a limit finds its way, in requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveBounds {
    /// The lowest; at least 1.
    pub min: u32,
    /// The highest.
    pub max: u32,
}

/// A limit that finds its own way. Outlives snapshots.
#[derive(Debug)]
pub struct AdaptiveLimit {
    born: Instant,
    limit: AtomicU32,
    /// When the window may end, in nanoseconds since `born`.
    window_ends: AtomicU64,
    /// The fewest answers that it needs to have.
    needed: AtomicU64,
    answers: AtomicU64,
    /// Their times together, in nanoseconds.
    time: AtomicU64,
    most_under_way: AtomicU32,
    dropped: AtomicBool,
    learnt: Mutex<Learnt>,
}

/// What is learnt, once for each window.
#[derive(Debug)]
struct Learnt {
    limit: f64,
    /// How long answers take on the long run, in nanoseconds; zero before the first.
    long_run: f64,
    windows: u32,
    at_limit: u32,
    probe: Probe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    No,
    /// Requests from before are still under way.
    Settles,
    /// What is seen now is an endpoint with little load.
    Looks,
}

/// What one window saw.
struct Window {
    mean: f64,
    most_under_way: u32,
    dropped: bool,
}

impl AdaptiveLimit {
    /// A limit that nothing is known of.
    pub fn new(now: Instant) -> Self {
        let learnt = Learnt {
            limit: START,
            long_run: 0.0,
            windows: 0,
            at_limit: PROBE_AFTER - PROBE_SOON,
            probe: Probe::No,
        };
        Self {
            born: now,
            limit: AtomicU32::new(START as u32),
            window_ends: AtomicU64::new(nanos(WINDOW)),
            needed: AtomicU64::new(FEWEST),
            answers: AtomicU64::new(0),
            time: AtomicU64::new(0),
            most_under_way: AtomicU32::new(0),
            dropped: AtomicBool::new(false),
            learnt: Mutex::new(learnt),
        }
    }

    /// Requests that may be under way at once.
    pub fn limit(&self, bounds: &AdaptiveBounds) -> u32 {
        let (min, max) = bounds.sane();
        self.limit.load(Ordering::Relaxed).clamp(min, max)
    }

    /// Takes note of an answer: how long it took, and how many requests were under way when it began, itself among them.
    /// One that was `dropped` tells nothing by its time.
    pub fn sample(
        &self,
        bounds: &AdaptiveBounds,
        now: Instant,
        rtt: Duration,
        in_flight: u32,
        dropped: bool,
    ) {
        if dropped {
            self.dropped.store(true, Ordering::Relaxed);
        } else {
            self.time.fetch_add(nanos(rtt), Ordering::Relaxed);
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        self.most_under_way.fetch_max(in_flight, Ordering::Relaxed);
        let at = nanos(now.saturating_duration_since(self.born));
        if at < self.window_ends.load(Ordering::Relaxed) {
            return;
        }
        let enough = dropped || self.answers.load(Ordering::Relaxed) >= self.needed.load(Ordering::Relaxed);
        // One ends the window; nobody waits for it.
        if enough && let Some(mut learnt) = self.learnt.try_lock() {
            self.end_window(&mut learnt, bounds, at);
        }
    }

    fn end_window(&self, learnt: &mut Learnt, bounds: &AdaptiveBounds, at: u64) {
        if at < self.window_ends.load(Ordering::Relaxed) {
            // Another has just done so.
            return;
        }
        let (answers, time) = (self.answers.swap(0, Ordering::Relaxed), self.time.swap(0, Ordering::Relaxed));
        let window = Window {
            mean: if answers == 0 { 0.0 } else { time as f64 / answers as f64 },
            most_under_way: self.most_under_way.swap(0, Ordering::Relaxed),
            dropped: self.dropped.swap(false, Ordering::Relaxed),
        };
        let limit = learnt.learn(&window, bounds);
        self.limit.store(limit, Ordering::Relaxed);
        // What settles is not looked at: any answer ends it.
        let (needed, settling) =
            if learnt.probe == Probe::Settles { (1, 2.0 * window.mean) } else { (FEWEST, 0.0) };
        self.needed.store(needed, Ordering::Relaxed);
        let next = at.saturating_add(nanos(WINDOW).max(settling as u64));
        self.window_ends.store(next, Ordering::Relaxed);
    }
}

impl Learnt {
    /// Says what the limit is from now on.
    fn learn(&mut self, window: &Window, bounds: &AdaptiveBounds) -> u32 {
        let (min, max) = bounds.sane();
        let within = |limit: f64| limit.clamp(f64::from(min), f64::from(max));
        self.limit = within(self.limit);
        match self.probe {
            Probe::No => self.follow(window),
            Probe::Settles => {
                self.probe = Probe::Looks;
                return within(self.limit * PROBED) as u32;
            }
            Probe::Looks => {
                self.probe = Probe::No;
                if window.mean > 0.0 {
                    if window.mean < self.long_run * DIFFERENCE {
                        self.at_limit = PROBE_AFTER - PROBE_SOON;
                    }
                    self.long_run = window.mean.min(self.long_run * PROBE_RISE);
                }
            }
        }
        self.limit = within(self.limit);
        if self.at_limit >= PROBE_AFTER {
            (self.at_limit, self.probe) = (0, Probe::Settles);
            return within(self.limit * PROBED) as u32;
        }
        self.limit as u32
    }

    fn follow(&mut self, window: &Window) {
        if window.dropped {
            self.limit *= AFTER_DROP;
            return;
        }
        if window.mean <= 0.0 {
            return;
        }
        self.look_back(window.mean);
        if f64::from(window.most_under_way) < self.limit / 2.0 {
            return;
        }
        self.at_limit += 1;
        let gradient = (TOLERANCE * self.long_run / window.mean).clamp(0.5, 1.0);
        let target = self.limit * gradient + self.limit.sqrt();
        self.limit = self.limit * (1.0 - SMOOTHING) + target * SMOOTHING;
    }

    fn look_back(&mut self, mean: f64) {
        self.windows = self.windows.saturating_add(1);
        if self.windows <= WARM {
            self.long_run += (mean - self.long_run) / f64::from(self.windows);
            return;
        }
        self.long_run += (mean - self.long_run) * 2.0 / (LONG_RUN + 1.0);
        if self.long_run > 2.0 * mean {
            // An overload is over.
            self.long_run *= 0.95;
        }
    }
}

impl AdaptiveBounds {
    fn sane(&self) -> (u32, u32) {
        let min = self.min.max(1);
        (min, self.max.max(min))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
