//! Passive health: an endpoint that fails calls which others would answer is ejected for a while (Envoy's outlier
//! detection).
//!
//! 1. An endpoint is ejected by errors in a row, or by the share of errors over the window among enough calls. Only an
//!    error ejects.
//! 2. No more than a share of an upstream's endpoints is ejected at once. It is looked at when one is about to be:
//!    endpoints that leave can raise the share of those that are ejected already.
//! 3. An endpoint that is ejected time after time stays out longer: `eject_for` times the ejections in a row, at most
//!    ten. Each `eject_for` that it spends in between forgives it one.
//! 4. Calls that end while it is ejected, begun before or sent all the same, count for nothing. It comes back with a
//!    clean record.
//! 5. A success takes no lock; to eject and to come back do.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::born::{Born, nanos};
use super::outcome::Verdict;
use super::window::Window;

/// What passive health knows of an endpoint. It outlives policies: each call is told the one in force.
///
/// One that is dropped while it is ejected gives its place back.
#[derive(Debug)]
pub struct Passive {
    born: Born,
    /// When the ejection ends; zero when there is none.
    until: AtomicU64,
    consecutive: AtomicU32,
    window: Window,
    record: Mutex<Record>,
}

/// When an endpoint is ejected, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PassivePolicy {
    /// Errors in a row that eject.
    pub consecutive_errors: Option<u32>,
    /// The share of errors that ejects, 0 to 1.
    pub error_rate: Option<f64>,
    /// Calls in the window below which the share says nothing.
    pub min_requests: u32,
    /// The time that the share is of.
    pub window: Duration,
    /// How long the first ejection lasts.
    pub eject_for: Duration,
    /// The share of the endpoints that may be ejected at once, 0 to 1. A lone endpoint is ejected only at 1.
    pub max_ejected: f64,
}

/// The endpoints of an upstream that are ejected now; shared by all of them. A clone is the same count.
#[derive(Debug, Clone, Default)]
pub struct Ejections(Arc<AtomicUsize>);

/// An ejection, told to exactly one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejected {
    /// When it ends.
    pub until: Instant,
    /// Which one in a row it is, counted from one to ten.
    pub times: u32,
    /// What the endpoint did.
    pub why: Outlier,
}

/// What makes an endpoint an outlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlier {
    /// Errors in a row.
    ConsecutiveErrors,
    /// Too many errors.
    ErrorRate,
}

/// The ejections of an endpoint.
#[derive(Debug, Default)]
struct Record {
    place: Option<Place>,
    times: u32,
    /// When the last one ended.
    ended: u64,
}

/// The most that an ejection grows by.
const MAX_TIMES: u32 = 10;

impl fmt::Display for Outlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConsecutiveErrors => "too many errors in a row",
            Self::ErrorRate => "too many of its answers were errors",
        })
    }
}

impl Passive {
    /// An endpoint of which nothing is known, made at this time.
    pub fn new(born: Instant) -> Self {
        Self {
            born: Born(born),
            until: AtomicU64::new(0),
            consecutive: AtomicU32::new(0),
            window: Window::default(),
            record: Mutex::default(),
        }
    }

    /// Notes how a call ended, at one of so many endpoints. The ejection that follows, if any.
    ///
    /// An ejection that has run out must be [settled](Self::settle) before there is another.
    pub fn record(
        &self,
        policy: &PassivePolicy,
        now: Instant,
        verdict: Verdict,
        ejections: &Ejections,
        endpoints: usize,
    ) -> Option<Ejected> {
        if verdict == Verdict::Neutral || self.is_ejected(now) {
            return None;
        }
        let failed = verdict == Verdict::Failure;
        if policy.error_rate.is_some() {
            self.window.add(self.born.nanos(now), policy.window, failed, false);
        }
        if !failed {
            // Others read what lies beside it: it is written only if there is something to forget.
            if self.consecutive.load(Ordering::Relaxed) != 0 {
                self.consecutive.store(0, Ordering::Relaxed);
            }
            return None;
        }
        let why = self.outlier(policy, now)?;
        self.eject(policy, now, why, ejections.place(policy.max_ejected, endpoints)?)
    }

    /// Whether it is ejected now.
    pub fn is_ejected(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && self.born.nanos(now) < until
    }

    /// For how long it is ejected still.
    pub fn ejected_for(&self, now: Instant) -> Option<Duration> {
        let left = self.until.load(Ordering::Relaxed).saturating_sub(self.born.nanos(now));
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// Ends an ejection that has run out; `true` exactly once for each.
    pub fn settle(&self, now: Instant) -> bool {
        if self.until.load(Ordering::Relaxed) == 0 || self.is_ejected(now) {
            return false;
        }
        let mut record = self.record.lock();
        // Another thread may have ended it, and yet another have ejected it again.
        !self.is_ejected(now) && self.end(&mut record)
    }

    /// Notes an error, and says whether it is one too many.
    fn outlier(&self, policy: &PassivePolicy, now: Instant) -> Option<Outlier> {
        let consecutive = self.consecutive.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if policy.consecutive_errors.is_some_and(|limit| consecutive >= limit) {
            return Some(Outlier::ConsecutiveErrors);
        }
        let rate = policy.error_rate?;
        let totals = self.window.totals(self.born.nanos(now), policy.window);
        let enough = totals.failed > 0 && totals.total >= u64::from(policy.min_requests);
        (enough && totals.error_rate() >= rate).then_some(Outlier::ErrorRate)
    }

    fn eject(&self, policy: &PassivePolicy, now: Instant, why: Outlier, place: Place) -> Option<Ejected> {
        let mut record = self.record.lock();
        if record.place.is_some() {
            return None;
        }
        let (at, step) = (self.born.nanos(now), nanos(policy.eject_for).max(1));
        let forgiven = u32::try_from(at.saturating_sub(record.ended) / step).unwrap_or(u32::MAX);
        let times = (record.times.saturating_sub(forgiven) + 1).min(MAX_TIMES);
        let until = at.saturating_add(step.saturating_mul(times.into()));
        *record = Record { place: Some(place), times, ended: until };
        self.consecutive.store(0, Ordering::Relaxed);
        self.window.clear();
        self.until.store(until, Ordering::Relaxed);
        Some(Ejected { until: self.born.instant(until), times, why })
    }

    /// Gives its place back; whether it held one.
    fn end(&self, record: &mut Record) -> bool {
        let ended = record.place.take().is_some();
        if ended {
            self.until.store(0, Ordering::Relaxed);
        }
        ended
    }
}

impl Ejections {
    /// How many endpoints are ejected.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A place for one more, if the share allows it.
    fn place(&self, max: f64, endpoints: usize) -> Option<Place> {
        // Divided, not multiplied: 29 of 100 are 29%, but 0.29 times 100 is less than 29.
        let fits = |ejected: usize| (ejected + 1) as f64 / endpoints as f64 <= max;
        let more = |ejected| fits(ejected).then_some(ejected + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(self.clone()))
    }
}

/// One endpoint's part in the count.
#[derive(Debug)]
struct Place(Ejections);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const MILLIS: fn(u64) -> Duration = Duration::from_millis;
    const EJECT_FOR: Duration = Duration::from_secs(30);

    fn policy() -> PassivePolicy {
        PassivePolicy {
            consecutive_errors: Some(3),
            error_rate: None,
            min_requests: 10,
            window: Duration::from_secs(10),
            eject_for: EJECT_FOR,
            max_ejected: 0.5,
        }
    }

    /// Fails calls until the endpoint is ejected.
    fn fail(
        passive: &Passive,
        policy: &PassivePolicy,
        now: Instant,
        ejections: &Ejections,
    ) -> Option<Ejected> {
        (0..3).find_map(|_| passive.record(policy, now, Verdict::Failure, ejections, 4))
    }

    #[test]
    fn errors_in_a_row_eject() {
        let now = Instant::now();
        let (passive, ejections) = (Passive::new(now), Ejections::default());
        let note = |verdict| passive.record(&policy(), now, verdict, &ejections, 2);
        for verdict in
            [Verdict::Failure, Verdict::Failure, Verdict::Success, Verdict::Failure, Verdict::Failure]
        {
            assert_eq!(note(verdict), None);
        }
        assert_eq!(note(Verdict::Neutral), None);
        let ejected = Ejected { until: now + EJECT_FOR, times: 1, why: Outlier::ConsecutiveErrors };
        assert_eq!(note(Verdict::Failure), Some(ejected));
        assert!(passive.is_ejected(now) && !passive.is_ejected(now + EJECT_FOR));
        assert_eq!(ejections.count(), 1);
        assert!(!passive.settle(now));
        assert!(passive.settle(now + EJECT_FOR));
        assert!(!passive.settle(now + EJECT_FOR));
        assert_eq!(ejections.count(), 0);
    }

    #[test]
    fn the_share_of_errors_ejects_among_enough_calls() {
        let now = Instant::now();
        let (passive, ejections) = (Passive::new(now), Ejections::default());
        let policy = PassivePolicy { consecutive_errors: None, error_rate: Some(0.4), ..policy() };
        let note = |verdict| passive.record(&policy, now, verdict, &ejections, 2);
        for _ in 0..3 {
            assert_eq!(note(Verdict::Failure), None);
        }
        for _ in 0..6 {
            assert_eq!(note(Verdict::Success), None);
        }
        assert_eq!(note(Verdict::Failure).map(|ejected| ejected.why), Some(Outlier::ErrorRate));
    }

    #[test]
    fn times_grow_to_ten_and_are_forgiven() {
        let mut now = Instant::now();
        let (passive, ejections, policy) = (Passive::new(now), Ejections::default(), policy());
        for round in 1..=13 {
            let ejected = fail(&passive, &policy, now, &ejections).unwrap();
            assert_eq!(ejected.times, round.min(10));
            assert_eq!(ejected.until, now + EJECT_FOR * ejected.times);
            now = ejected.until;
            assert!(passive.settle(now));
        }
        now += EJECT_FOR * 4 + EJECT_FOR / 2;
        assert_eq!(fail(&passive, &policy, now, &ejections).unwrap().times, 7);
    }

    #[test]
    fn one_that_has_run_out_is_settled_before_it_is_ejected_again() {
        let now = Instant::now();
        let (passive, ejections, policy) = (Passive::new(now), Ejections::default(), policy());
        let until = fail(&passive, &policy, now, &ejections).unwrap().until;
        assert_eq!(fail(&passive, &policy, until, &ejections), None);
        assert!(passive.settle(until));
        assert!(fail(&passive, &policy, until, &ejections).is_some());
    }

    #[test]
    fn one_that_goes_away_gives_its_place_back() {
        let now = Instant::now();
        let (passive, ejections, policy) = (Passive::new(now), Ejections::default(), policy());
        fail(&passive, &policy, now, &ejections).unwrap();
        drop(passive);
        assert_eq!(ejections.count(), 0);
    }

    #[test]
    fn a_lone_endpoint_stays_unless_all_may_go() {
        let now = Instant::now();
        for (max, endpoints, places) in
            [(0.99, 1, 0), (1.0, 1, 1), (0.29, 100, 29), (0.5, 3, 1), (1.0, 0, 0), (0.0, 9, 0)]
        {
            let ejections = Ejections::default();
            let held: Vec<_> = std::iter::from_fn(|| ejections.place(max, endpoints)).collect();
            assert_eq!(held.len(), places, "{max} of {endpoints}");
        }
        let (passive, ejections) = (Passive::new(now), Ejections::default());
        for _ in 0..9 {
            assert_eq!(passive.record(&policy(), now, Verdict::Failure, &ejections, 1), None);
        }
    }

    #[test]
    fn threads_never_exceed_the_cap() {
        let born = Instant::now();
        let ejections = Ejections::default();
        let endpoints: Vec<_> = (0..8).map(|_| Passive::new(born)).collect();
        let policy =
            PassivePolicy { consecutive_errors: Some(1), eject_for: MILLIS(1), max_ejected: 0.4, ..policy() };
        let work = |seed| {
            let mut dice = fastrand::Rng::with_seed(seed);
            for at in 0..20_000 {
                let now = born + MILLIS(at / 10);
                let endpoint = &endpoints[dice.usize(0..8)];
                endpoint.record(&policy, now, Verdict::Failure, &ejections, 8);
                assert!(ejections.count() <= 3);
                endpoint.settle(now);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|seed| _ = scope.spawn(move || work(seed))));
        drop(endpoints);
        assert_eq!(ejections.count(), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Come,
        Go(usize),
        Note(usize, bool),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            1 => Just(Step::Come),
            1 => any::<usize>().prop_map(Step::Go),
            8 => (any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(at, failed)| Step::Note(at, failed)),
            1 => (0_u64..60_000).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        #[test]
        fn the_share_is_never_above_the_cap(max_ejected in 0.0..=1.0, first in 1_usize..8, steps in steps()) {
            let born = Instant::now();
            let policy = PassivePolicy { max_ejected, ..policy() };
            let ejections = Ejections::default();
            let mut endpoints: Vec<_> = (0..first).map(|at| (at, Passive::new(born))).collect();
            // How often each was ejected in a row, and when the last ejection ended.
            let mut past: HashMap<usize, (u32, Instant)> = HashMap::new();
            let (mut now, mut next) = (born, first);
            for step in steps {
                let count = endpoints.len();
                match step {
                    Step::Come => {
                        endpoints.push((next, Passive::new(born)));
                        next += 1;
                    }
                    Step::Go(at) if count > 0 => _ = endpoints.swap_remove(at % count),
                    Step::Note(at, failed) if count > 0 => {
                        let (name, passive) = &endpoints[at % count];
                        let verdict = if failed { Verdict::Failure } else { Verdict::Success };
                        let before = ejections.count();
                        if let Some(ejected) = passive.record(&policy, now, verdict, &ejections, count) {
                            prop_assert!(failed && passive.is_ejected(now));
                            prop_assert_eq!(ejections.count(), before + 1);
                            prop_assert!((before + 1) as f64 / count as f64 <= max_ejected);
                            let (times, ended) = past.get(name).copied().unwrap_or((0, now));
                            let healthy = now.duration_since(ended).as_nanos() / EJECT_FOR.as_nanos();
                            let times = (u128::from(times).saturating_sub(healthy) as u32 + 1).min(10);
                            prop_assert_eq!(ejected.times, times);
                            prop_assert_eq!(ejected.until, now + EJECT_FOR * times);
                            past.insert(*name, (times, ejected.until));
                        } else {
                            prop_assert_eq!(ejections.count(), before);
                        }
                    }
                    Step::Wait(pause) => {
                        now += MILLIS(pause);
                        for (name, passive) in &endpoints {
                            let over = past.get(name).is_some_and(|(_, until)| *until <= now);
                            prop_assert!(!passive.settle(now) || over);
                        }
                    }
                    Step::Go(_) | Step::Note(..) => {}
                }
                let held = endpoints.iter().filter(|(_, passive)| passive.is_ejected(now)).count();
                prop_assert_eq!(ejections.count(), held);
            }
        }
    }
}
