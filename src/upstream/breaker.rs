//! A circuit breaker (Nygard, "Release It!"): an endpoint that fails is left alone for a while, then tried with care.
//!
//! 1. Closed: every call goes. It opens when failures follow each other without a success between, or when the share
//!    of failed or of slow calls over the window is too high among enough calls. Only a call that failed or was slow
//!    opens it, so that no success ever does. A call that was given up for another's answer is slow if it had waited that long,
//!    and nothing otherwise.
//! 2. Open: no call goes, for `open_for`. The first call after that makes it half-open.
//! 3. Half-open: a few calls at once are let through. Enough successes close it, one failure opens it again; a slow
//!    call is a failure here.
//! 4. Each change begins an era. A call counts in the era that it was begun in and in no other, so that what was under
//!    way before a change says nothing after it.
//! 5. The whole state is one word, changed by compare-and-exchange: two threads cannot take the same place. A call
//!    that succeeds while it is closed only reads it.
//!
//! A [`Ticket`] must come back through [`Breaker::end`], with [`Verdict::Neutral`] if nothing became of the call: a
//! half-open breaker whose tickets are lost has no place left to find out that the endpoint has recovered.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use super::born::{Born, nanos};
use super::outcome::Verdict;
use super::window::Window;

/// What a breaker knows of its endpoint. It outlives policies: each call is told the one in force.
#[derive(Debug)]
pub struct Breaker {
    born: Born,
    word: AtomicU64,
    /// When it last opened or closed.
    since: AtomicU64,
    window: Window,
}

/// When a breaker opens, and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it; at most 65535.
    pub consecutive_failures: Option<u32>,
    /// The share of failed calls that opens it, 0 to 1.
    pub error_rate: Option<f64>,
    /// The share of slow calls that opens it.
    pub slow_call: Option<SlowCall>,
    /// Calls in the window below which shares say nothing.
    pub min_requests: u32,
    /// The time that shares are of.
    pub window: Duration,
    /// How long it stays open.
    pub open_for: Duration,
    /// Calls under way at once while it is half-open; 1 to 65535.
    pub half_open_requests: u32,
    /// Successes that close it; 1 to 65535.
    pub close_after: u32,
}

/// What a slow call is, and how many are too many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowCall {
    /// A call that takes longer is slow.
    pub duration: Duration,
    /// The share of slow calls that opens the breaker, 0 to 1.
    pub rate: f64,
}

/// Whether calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All of them.
    Closed,
    /// None.
    Open,
    /// A few, to find out.
    HalfOpen,
}

impl State {
    /// Its number in metrics: the more, the less goes.
    pub fn number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// The leave to make one call; to be given back to [`Breaker::end`].
#[derive(Debug)]
#[must_use = "a place of a half-open breaker is lost with it"]
pub struct Ticket {
    era: u32,
    first: bool,
}

/// A breaker's change of state, told to exactly one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// What made it change.
    pub why: Cause,
}

/// What made a breaker change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It opened: failures in a row.
    ConsecutiveFailures,
    /// It opened: too many calls failed.
    ErrorRate,
    /// It opened: too many calls were slow.
    SlowCalls,
    /// It is half-open: it was open for long enough.
    Waited,
    /// It opened again: a call failed.
    ProbeFailed,
    /// It opened again: a call was slow.
    ProbeSlow,
    /// It closed.
    ProbesSucceeded,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConsecutiveFailures => "too many failures in a row",
            Self::ErrorRate => "too many calls failed",
            Self::SlowCalls => "too many calls were slow",
            Self::Waited => "it was open for long enough",
            Self::ProbeFailed => "a call failed again",
            Self::ProbeSlow => "a call was slow again",
            Self::ProbesSucceeded => "calls succeed again",
        })
    }
}

impl Breaker {
    /// A closed breaker, made at this time.
    pub fn new(born: Instant) -> Self {
        let word = AtomicU64::new(Word { era: 0, state: State::Closed, counted: 0, probes: 0 }.into());
        Self { born: Born(born), word, since: AtomicU64::new(0), window: Window::default() }
    }

    /// Whether a call would go now. It takes no place: only [`begin`](Self::begin) tells for sure.
    pub fn admits(&self, policy: &BreakerPolicy, now: Instant) -> bool {
        let word = self.word();
        match word.state {
            State::Closed => true,
            State::Open => self.left(policy, now) == 0,
            State::HalfOpen => word.probes < policy.places(),
        }
    }

    /// Begins a call; `None` when it may not go.
    pub fn begin(&self, policy: &BreakerPolicy, now: Instant) -> Option<Ticket> {
        let word = self.word();
        if word.state == State::Closed {
            return Some(Ticket { era: word.era, first: false });
        }
        let before = self.update(|word| match word.state {
            State::Closed => Some(word),
            State::Open => {
                (self.left(policy, now) == 0).then(|| Word { probes: 1, ..word.next(State::HalfOpen) })
            }
            State::HalfOpen => {
                (word.probes < policy.places()).then(|| Word { probes: word.probes + 1, ..word })
            }
        })?;
        let first = before.state == State::Open;
        let era = if first { before.next(State::HalfOpen).era } else { before.era };
        Some(Ticket { era, first })
    }

    /// Ends a call that took this long, or, if it was given up, would have taken longer. The change that it made, if any.
    pub fn end(
        &self,
        policy: &BreakerPolicy,
        now: Instant,
        ticket: Ticket,
        verdict: Verdict,
        took: Duration,
    ) -> Option<Change> {
        let word = self.word();
        if word.era != ticket.era {
            return None;
        }
        let slow = policy.slow_call.is_some_and(|slow| took > slow.duration);
        match (word.state, verdict) {
            (State::HalfOpen, _) => self.end_probe(policy, now, word.era, verdict, slow),
            (State::Closed, Verdict::Neutral) if !slow => None,
            (State::Closed, _) => self.end_call(policy, now, word, verdict, slow),
            (State::Open, _) => None,
        }
    }

    /// Whether the call with this ticket is one of those by which it finds out.
    pub fn is_trial(&self, ticket: &Ticket) -> bool {
        let word = self.word();
        word.state == State::HalfOpen && word.era == ticket.era
    }

    /// Its state. It is half-open as soon as a call may go, even if none has yet.
    pub fn state(&self, policy: &BreakerPolicy, now: Instant) -> State {
        match self.word().state {
            State::Open if self.left(policy, now) == 0 => State::HalfOpen,
            state => state,
        }
    }

    /// How long until the next call may go; `None` when one may go now.
    ///
    /// Nobody knows how long calls that hold all places of a half-open breaker take: it is `open_for` then, as it is if
    /// they fail.
    pub fn retry_after(&self, policy: &BreakerPolicy, now: Instant) -> Option<Duration> {
        let word = self.word();
        match word.state {
            State::Closed => None,
            State::Open => Some(self.left(policy, now)).filter(|left| *left > 0).map(Duration::from_nanos),
            State::HalfOpen => (word.probes >= policy.places()).then_some(policy.open_for),
        }
    }

    fn end_call(
        &self,
        policy: &BreakerPolicy,
        now: Instant,
        seen: Word,
        verdict: Verdict,
        slow: bool,
    ) -> Option<Change> {
        let failed = verdict == Verdict::Failure;
        if policy.error_rate.is_some() || policy.slow_call.is_some() {
            self.window.add(self.born.nanos(now), policy.window, failed, slow);
        }
        if !failed && !slow && seen.counted == 0 {
            return None;
        }
        let at = self.born.nanos(now);
        let rate = if failed || slow { self.exceeded(policy, at) } else { None };
        let mut cause = None;
        self.update(|word| {
            let counted = match verdict {
                Verdict::Failure => word.counted.saturating_add(1),
                Verdict::Success => 0,
                Verdict::Neutral => word.counted,
            };
            let in_a_row = failed && policy.consecutive_failures.is_some_and(|limit| counted >= fit(limit));
            cause = if in_a_row { Some(Cause::ConsecutiveFailures) } else { rate };
            let same = word.era == seen.era;
            same.then(|| cause.map_or(Word { counted, ..word }, |_| self.turned(word, State::Open, at)))
        })?;
        cause.map(|why| Change { from: State::Closed, to: State::Open, why })
    }

    fn end_probe(
        &self,
        policy: &BreakerPolicy,
        now: Instant,
        era: u32,
        verdict: Verdict,
        slow: bool,
    ) -> Option<Change> {
        let at = self.born.nanos(now);
        let mut change = None;
        self.update(|word| {
            let rest = Word { probes: word.probes.saturating_sub(1), ..word };
            let counted = word.counted.saturating_add(1);
            change = match verdict {
                Verdict::Failure => Some((State::Open, Cause::ProbeFailed)),
                Verdict::Success | Verdict::Neutral if slow => Some((State::Open, Cause::ProbeSlow)),
                Verdict::Success => {
                    (counted >= fit(policy.close_after)).then_some((State::Closed, Cause::ProbesSucceeded))
                }
                Verdict::Neutral => None,
            };
            let counted = if verdict == Verdict::Success { counted } else { word.counted };
            let same = word.era == era;
            same.then(|| change.map_or(Word { counted, ..rest }, |(to, _)| self.turned(word, to, at)))
        })?;
        change.map(|(to, why)| Change { from: State::HalfOpen, to, why })
    }

    /// The share that is too high.
    fn exceeded(&self, policy: &BreakerPolicy, at: u64) -> Option<Cause> {
        let totals = self.window.totals(at, policy.window);
        if totals.total < u64::from(policy.min_requests) {
            return None;
        }
        let errors = policy.error_rate.filter(|rate| totals.failed > 0 && totals.error_rate() >= *rate);
        let slow = policy.slow_call.filter(|slow| totals.slow > 0 && totals.slow_rate() >= slow.rate);
        errors.map(|_| Cause::ErrorRate).or(slow.map(|_| Cause::SlowCalls))
    }

    /// Nanoseconds that an open breaker stays open.
    fn left(&self, policy: &BreakerPolicy, now: Instant) -> u64 {
        fence(Ordering::Acquire);
        let due = self.since.load(Ordering::Relaxed).saturating_add(nanos(policy.open_for));
        due.saturating_sub(self.born.nanos(now))
    }

    /// The word of the next era, and what must be so before anyone sees it: when it began, and that what the window
    /// holds of the time before the outage does not open a breaker that has just closed.
    fn turned(&self, word: Word, to: State, at: u64) -> Word {
        self.since.fetch_max(at, Ordering::Relaxed);
        if to == State::Closed {
            self.window.clear();
        }
        word.next(to)
    }

    fn word(&self) -> Word {
        self.word.load(Ordering::Relaxed).into()
    }

    /// Changes the word, and returns what it was; `None` when `change` wants none.
    fn update(&self, mut change: impl FnMut(Word) -> Option<Word>) -> Option<Word> {
        let change = |word: u64| change(word.into()).map(u64::from);
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).ok().map(Word::from)
    }
}

impl Ticket {
    /// The change that its call made by beginning: the first call of a half-open breaker makes it half-open.
    pub fn change(&self) -> Option<Change> {
        self.first.then_some(Change { from: State::Open, to: State::HalfOpen, why: Cause::Waited })
    }
}

impl BreakerPolicy {
    fn places(&self) -> u16 {
        fit(self.half_open_requests)
    }
}

/// The state of a breaker, in 64 bits: 30 of the era, 2 of the state, 16 of each count.
#[derive(Clone, Copy)]
struct Word {
    era: u32,
    state: State,
    /// Closed: failures in a row. Half-open: successes.
    counted: u16,
    /// Half-open: calls under way.
    probes: u16,
}

const ERAS: u32 = (1 << 30) - 1;

impl Word {
    fn next(self, state: State) -> Self {
        Self { era: self.era.wrapping_add(1) & ERAS, state, counted: 0, probes: 0 }
    }
}

impl From<u64> for Word {
    fn from(word: u64) -> Self {
        let state = match word >> 32 & 3 {
            0 => State::Closed,
            1 => State::Open,
            _ => State::HalfOpen,
        };
        Self { era: (word >> 34) as u32, state, counted: (word >> 16) as u16, probes: word as u16 }
    }
}

impl From<Word> for u64 {
    fn from(word: Word) -> Self {
        let state = match word.state {
            State::Closed => 0,
            State::Open => 1,
            State::HalfOpen => 2,
        };
        u64::from(word.era) << 34 | state << 32 | u64::from(word.counted) << 16 | u64::from(word.probes)
    }
}

/// A limit as it fits into a word.
fn fit(limit: u32) -> u16 {
    u16::try_from(limit).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use proptest::prelude::*;

    use super::*;

    const MILLIS: fn(u64) -> Duration = Duration::from_millis;
    const SLOW: Duration = Duration::from_millis(100);

    fn policy() -> BreakerPolicy {
        BreakerPolicy {
            consecutive_failures: Some(3),
            error_rate: None,
            slow_call: None,
            min_requests: 4,
            window: Duration::from_secs(1),
            open_for: MILLIS(500),
            half_open_requests: 2,
            close_after: 2,
        }
    }

    fn call(breaker: &Breaker, policy: &BreakerPolicy, now: Instant, verdict: Verdict) -> Option<Change> {
        let ticket = breaker.begin(policy, now).unwrap();
        breaker.end(policy, now, ticket, verdict, Duration::ZERO)
    }

    fn opened(policy: &BreakerPolicy, now: Instant) -> Breaker {
        let breaker = Breaker::new(now);
        let change = (0..3).find_map(|_| call(&breaker, policy, now, Verdict::Failure));
        assert_eq!(change.map(|change| change.why), Some(Cause::ConsecutiveFailures));
        breaker
    }

    #[test]
    fn goes_round() {
        let (now, policy) = (Instant::now(), policy());
        let breaker = opened(&policy, now);
        let early = now + MILLIS(499);
        assert!(!breaker.admits(&policy, early) && breaker.begin(&policy, early).is_none());
        assert_eq!(breaker.retry_after(&policy, early), Some(MILLIS(1)));
        let due = now + policy.open_for;
        assert_eq!((breaker.state(&policy, due), breaker.retry_after(&policy, due)), (State::HalfOpen, None));
        let first = breaker.begin(&policy, due).unwrap();
        let waited = Change { from: State::Open, to: State::HalfOpen, why: Cause::Waited };
        assert_eq!(first.change(), Some(waited));
        let second = breaker.begin(&policy, due).unwrap();
        assert_eq!(second.change(), None);
        assert!(!breaker.admits(&policy, due) && breaker.begin(&policy, due).is_none());
        assert_eq!(breaker.retry_after(&policy, due), Some(policy.open_for));
        assert_eq!(breaker.end(&policy, due, first, Verdict::Neutral, Duration::ZERO), None);
        assert_eq!(breaker.end(&policy, due, second, Verdict::Success, Duration::ZERO), None);
        let closed = Change { from: State::HalfOpen, to: State::Closed, why: Cause::ProbesSucceeded };
        assert_eq!(call(&breaker, &policy, due, Verdict::Success), Some(closed));
    }

    #[test]
    fn a_closed_breaker_forgets_the_outage() {
        let now = Instant::now();
        let policy = BreakerPolicy { error_rate: Some(0.5), open_for: MILLIS(1), close_after: 1, ..policy() };
        let breaker = opened(&policy, now);
        let due = now + policy.open_for;
        assert!(call(&breaker, &policy, due, Verdict::Success).is_some());
        for _ in 0..2 {
            assert_eq!(call(&breaker, &policy, due, Verdict::Failure), None);
        }
    }

    #[test]
    fn only_a_bad_call_opens() {
        let now = Instant::now();
        let policy = BreakerPolicy { consecutive_failures: None, error_rate: Some(0.5), ..policy() };
        let breaker = Breaker::new(now);
        for verdict in
            [Verdict::Failure, Verdict::Failure, Verdict::Failure, Verdict::Success, Verdict::Neutral]
        {
            assert_eq!(call(&breaker, &policy, now, verdict), None);
        }
        let change = call(&breaker, &policy, now, Verdict::Failure);
        assert_eq!(change.map(|change| change.why), Some(Cause::ErrorRate));
    }

    #[test]
    fn slow_calls_open_and_keep_open() {
        let now = Instant::now();
        let slow_call = Some(SlowCall { duration: SLOW, rate: 1.0 });
        let policy = BreakerPolicy { consecutive_failures: None, slow_call, ..policy() };
        let breaker = Breaker::new(now);
        let slow = |now| {
            let ticket = breaker.begin(&policy, now)?;
            breaker.end(&policy, now, ticket, Verdict::Success, SLOW + MILLIS(1))
        };
        let causes: Vec<_> = (0..4).map(|_| slow(now).map(|change| change.why)).collect();
        assert_eq!(causes, [None, None, None, Some(Cause::SlowCalls)]);
        assert_eq!(slow(now + policy.open_for).map(|change| change.why), Some(Cause::ProbeSlow));
    }

    #[test]
    fn a_policy_holds_from_the_next_call_on() {
        let (now, strict) = (Instant::now(), policy());
        let breaker = opened(&strict, now);
        let lax = BreakerPolicy { open_for: Duration::ZERO, half_open_requests: 1, close_after: 1, ..strict };
        assert!(!breaker.admits(&strict, now) && breaker.admits(&lax, now));
        let ticket = breaker.begin(&lax, now).unwrap();
        assert!(breaker.admits(&strict, now) && !breaker.admits(&lax, now));
        breaker.end(&lax, now, ticket, Verdict::Success, Duration::ZERO);
        assert_eq!(breaker.state(&strict, now), State::Closed);
    }

    #[test]
    fn a_word_holds_what_it_is_made_of() {
        for state in [State::Closed, State::Open, State::HalfOpen] {
            let word = Word::from(u64::from(Word { era: ERAS, state, counted: u16::MAX, probes: 7 }));
            assert_eq!((word.era, word.state, word.counted, word.probes), (ERAS, state, u16::MAX, 7));
            assert_eq!(word.next(State::Open).era, 0);
        }
    }

    /// The rules written down plainly, with a list of calls for the window.
    struct Model {
        state: State,
        era: usize,
        since: u64,
        calls: Vec<(u64, bool, bool)>,
        in_a_row: u32,
        successes: u32,
        probes: u32,
    }

    impl Model {
        fn turn(&mut self, to: State, at: u64) {
            let era = self.era + 1;
            *self =
                Self { state: to, era, since: at, calls: Vec::new(), in_a_row: 0, successes: 0, probes: 0 };
        }

        fn admits(&self, policy: &BreakerPolicy, at: u64) -> bool {
            match self.state {
                State::Closed => true,
                State::Open => at >= self.since + policy.open_for.as_millis() as u64,
                State::HalfOpen => self.probes < policy.half_open_requests,
            }
        }

        fn begin(&mut self, policy: &BreakerPolicy, at: u64) -> Option<usize> {
            if !self.admits(policy, at) {
                return None;
            }
            if self.state == State::Open {
                self.turn(State::HalfOpen, at);
            }
            self.probes += 1;
            Some(self.era)
        }

        fn end(&mut self, policy: &BreakerPolicy, at: u64, era: usize, verdict: Verdict, slow: bool) {
            if era != self.era {
                return;
            }
            self.probes -= 1;
            let failed = verdict == Verdict::Failure;
            let bad = failed || slow;
            match self.state {
                _ if verdict == Verdict::Neutral && !slow => {}
                State::HalfOpen if bad => self.turn(State::Open, at),
                State::HalfOpen => {
                    self.successes += 1;
                    if self.successes >= policy.close_after {
                        self.turn(State::Closed, at);
                    }
                }
                State::Closed => {
                    self.in_a_row = match verdict {
                        Verdict::Failure => self.in_a_row + 1,
                        Verdict::Success => 0,
                        Verdict::Neutral => self.in_a_row,
                    };
                    self.calls.push((at / 100, failed, slow));
                    let inside: Vec<_> = self.calls.iter().filter(|call| call.0 + 10 > at / 100).collect();
                    let share = |count: usize| count as f64 / inside.len() as f64;
                    let errors = share(inside.iter().filter(|call| call.1).count());
                    let slowness = share(inside.iter().filter(|call| call.2).count());
                    let enough = inside.len() >= policy.min_requests as usize;
                    let over =
                        |limit: Option<f64>, share: f64| limit.is_some_and(|limit| enough && share >= limit);
                    let in_a_row =
                        failed && policy.consecutive_failures.is_some_and(|limit| self.in_a_row >= limit);
                    let slow_rate = policy.slow_call.map(|slow| slow.rate);
                    if in_a_row || bad && (over(policy.error_rate, errors) || over(slow_rate, slowness)) {
                        self.turn(State::Open, at);
                    }
                }
                State::Open => {}
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin,
        End(usize, Verdict, bool),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let verdict = prop_oneof![
            4 => Just(Verdict::Success), 4 => Just(Verdict::Failure), 1 => Just(Verdict::Neutral)
        ];
        let end = (any::<usize>(), verdict, prop::bool::weighted(0.2));
        let step = prop_oneof![
            5 => Just(Step::Begin),
            5 => end.prop_map(|(which, verdict, slow)| Step::End(which, verdict, slow)),
            1 => (0_u64..400).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..300)
    }

    prop_compose! {
        fn policies()(
            consecutive_failures in prop::option::of(1_u32..6),
            error_rate in prop::option::of(0.1..1.0),
            slow_rate in prop::option::of(0.1..1.0),
            min_requests in 1_u32..12,
            open_for in 0_u64..1000,
            half_open_requests in 1_u32..4,
            close_after in 1_u32..5,
        ) -> BreakerPolicy {
            let slow_call = slow_rate.map(|rate| SlowCall { duration: SLOW, rate });
            BreakerPolicy {
                consecutive_failures, error_rate, slow_call, min_requests, window: Duration::from_secs(1),
                open_for: MILLIS(open_for), half_open_requests, close_after,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn does_what_the_rules_say(policy in policies(), steps in steps()) {
            let born = Instant::now();
            let breaker = Breaker::new(born);
            let mut model = Model {
                state: State::Closed, era: 0, since: 0, calls: Vec::new(), in_a_row: 0, successes: 0, probes: 0,
            };
            let (mut at, mut held) = (0, Vec::new());
            for step in steps {
                let now = born + MILLIS(at);
                prop_assert_eq!(breaker.admits(&policy, now), model.admits(&policy, at));
                prop_assert_eq!(breaker.retry_after(&policy, now).is_none(), model.admits(&policy, at));
                let before = model.state;
                match step {
                    Step::Wait(pause) => at += pause,
                    Step::Begin => {
                        let (ticket, era) = (breaker.begin(&policy, now), model.begin(&policy, at));
                        prop_assert_eq!(ticket.as_ref().map(|ticket| ticket.era as usize), era);
                        let change = ticket.as_ref().and_then(Ticket::change);
                        prop_assert_eq!(change.is_some(), before != model.state);
                        held.extend(ticket.zip(era));
                    }
                    Step::End(which, verdict, slow) if !held.is_empty() => {
                        let (ticket, era) = held.swap_remove(which % held.len());
                        let (stale, word) = (era != model.era, breaker.word.load(Ordering::Relaxed));
                        let slow = slow && policy.slow_call.is_some();
                        model.end(&policy, at, era, verdict, slow);
                        let took = if slow { SLOW + MILLIS(1) } else { SLOW };
                        let change = breaker.end(&policy, now, ticket, verdict, took);
                        prop_assert_eq!(change.is_some(), before != model.state);
                        if let Some(change) = change {
                            prop_assert_eq!((change.from, change.to), (before, model.state));
                        }
                        prop_assert!(!stale || breaker.word.load(Ordering::Relaxed) == word);
                    }
                    Step::End(..) => {}
                }
                prop_assert_eq!(breaker.word().state, model.state);
                let probes = held.iter().filter(|(_, era)| *era == model.era).count();
                prop_assert!(model.state != State::HalfOpen || probes <= policy.half_open_requests as usize);
            }
        }

        #[test]
        fn is_closed_soon_after_the_outage(policy in policies(), steps in steps()) {
            let born = Instant::now();
            let breaker = Breaker::new(born);
            let (mut now, mut held) = (born, Vec::new());
            for step in steps {
                match step {
                    Step::Wait(pause) => now += MILLIS(pause),
                    Step::Begin => held.extend(breaker.begin(&policy, now)),
                    Step::End(which, _, _) if !held.is_empty() => {
                        let ticket = held.swap_remove(which % held.len());
                        breaker.end(&policy, now, ticket, Verdict::Failure, Duration::ZERO);
                    }
                    Step::End(..) => {}
                }
            }
            for ticket in held {
                breaker.end(&policy, now, ticket, Verdict::Neutral, Duration::ZERO);
            }
            now += policy.open_for;
            for _ in 0..policy.close_after {
                let ticket = breaker.begin(&policy, now);
                prop_assert!(ticket.is_some());
                ticket.and_then(|ticket| breaker.end(&policy, now, ticket, Verdict::Success, Duration::ZERO));
            }
            prop_assert_eq!(breaker.state(&policy, now), State::Closed);
        }
    }

    #[test]
    fn who_is_given_up_after_a_long_wait_was_slow() {
        let now = Instant::now();
        let slow_call = Some(SlowCall { duration: SLOW, rate: 1.0 });
        let policy = BreakerPolicy { slow_call, ..policy() };
        let (breaker, given_up) = (Breaker::new(now), |breaker: &Breaker, now, waited| {
            let ticket = breaker.begin(&policy, now).unwrap();
            breaker.end(&policy, now, ticket, Verdict::Neutral, waited)
        });
        call(&breaker, &policy, now, Verdict::Failure);
        call(&breaker, &policy, now, Verdict::Failure);
        for _ in 0..9 {
            assert_eq!(given_up(&breaker, now, SLOW), None, "it may have been about to answer");
        }
        let later = now + MILLIS(2000);
        for _ in 0..3 {
            assert_eq!(given_up(&breaker, later, 2 * SLOW), None);
        }
        assert_eq!(given_up(&breaker, later, 2 * SLOW).map(|change| change.why), Some(Cause::SlowCalls));
        let due = later + policy.open_for;
        assert_eq!(given_up(&breaker, due, SLOW), None);
        assert_eq!(breaker.state(&policy, due), State::HalfOpen);
        assert_eq!(given_up(&breaker, due, 2 * SLOW).map(|change| change.why), Some(Cause::ProbeSlow));
    }

    #[test]
    fn threads_never_exceed_the_places() {
        let born = Instant::now();
        let policy =
            BreakerPolicy { open_for: MILLIS(1), half_open_requests: 3, close_after: 60_000, ..policy() };
        let breaker = opened(&policy, born);
        let clock = AtomicU64::new(1);
        // Calls under way in each era.
        let live: Vec<AtomicU32> = std::iter::repeat_with(AtomicU32::default).take(1 << 16).collect();
        let changes = AtomicU64::new(0);
        let work = |seed| {
            let mut dice = fastrand::Rng::with_seed(seed);
            for _ in 0..10_000 {
                let now = born + MILLIS(clock.load(Ordering::Relaxed));
                let Some(ticket) = breaker.begin(&policy, now) else {
                    clock.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                let live = &live[ticket.era as usize];
                assert!(live.fetch_add(1, Ordering::SeqCst) < 3);
                if dice.bool() {
                    std::thread::yield_now();
                }
                live.fetch_sub(1, Ordering::SeqCst);
                let verdict = match dice.u8(0..8) {
                    0 => Verdict::Failure,
                    1..4 => Verdict::Neutral,
                    _ => Verdict::Success,
                };
                let change = ticket.change().or(breaker.end(&policy, now, ticket, verdict, Duration::ZERO));
                changes.fetch_add(u64::from(change.is_some()), Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|seed| _ = scope.spawn(move || work(seed))));
        assert_eq!(breaker.word().probes, 0);
        assert!(changes.load(Ordering::Relaxed) > 0);
    }
}
