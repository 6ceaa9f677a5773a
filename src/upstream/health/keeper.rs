//! Probes what is due: all endpoints of all upstreams, from one task.
//!
//! 1. An endpoint is probed by one probe at a time, and at most [`AT_ONCE`] are under way together. When more are due, those
//!    that wait longest go first; pauses grow then, and nothing else does.
//! 2. What is wanted is read again when something changed. An endpoint that is still wanted keeps its turn, or gets an earlier
//!    one when its interval has become shorter; one that is new is probed soon.
//! 3. A probe that takes too long, or panics, has failed. One under way for an endpoint that is no longer wanted is not
//!    recorded.
//! 4. At the end everything is dropped: probes under way with their connections.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ahash::RandomState;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;

use super::{Change, Checked, HealthCheck, ProbeError, Probed, Target, Thresholds, first_pause, pause};

/// Probes under way at once.
const AT_ONCE: usize = 64;

/// An endpoint that is to be probed.
#[derive(Clone)]
pub struct Check {
    /// What it is told by when everything is read again: the upstream's name, the endpoint's address and what it is asked.
    pub key: Arc<str>,
    /// Who is probed.
    pub target: Target,
    /// How often, and what follows.
    pub policy: Policy,
    /// How.
    pub probe: Arc<dyn HealthCheck>,
    /// What is known of it.
    pub state: Arc<Checked>,
    /// Called for every probe, once it is recorded. Everything waits for it.
    pub told: Arc<Told>,
}

/// Hears the result of a probe, `success` or the [`code`](ProbeError::code) of its error, and what changed with it.
pub type Told = dyn Fn(&'static str, Option<Change>) + Send + Sync;

/// How often an endpoint is probed, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Between the end of a probe and the beginning of the next, as a rule (see [`pause`]).
    pub interval: Duration,
    /// The longest that a whole probe may take.
    pub timeout: Duration,
    /// How many probes in a row change what is thought of it.
    pub thresholds: Thresholds,
}

/// Sees to it that all that is to be probed is probed.
pub struct HealthKeeper {
    /// What is to be probed now. A key that comes twice counts once.
    pub wanted: Box<dyn Fn() -> Vec<Check> + Send + Sync>,
}

impl HealthKeeper {
    /// Keeps at it until the `end`, when probes under way are dropped, or until it is dropped. Reads again what is wanted when
    /// something `changed`.
    pub async fn keep(self, changed: &Notify, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        let mut rounds = Rounds::default();
        rounds.adopt((self.wanted)(), Instant::now());
        loop {
            let next = rounds.start_due(Instant::now());
            if let Some(next) = next
                && alarm.deadline().into_std() != next
            {
                alarm.as_mut().reset(next.into());
            }
            tokio::select! {
                () = &mut end => return,
                () = changed.notified() => rounds.adopt((self.wanted)(), Instant::now()),
                Some(ended) = rounds.under_way.next() => rounds.record(ended, Instant::now()),
                () = &mut alarm, if next.is_some() => {}
            }
        }
    }
}

/// Whose turn it is, and what is under way.
#[derive(Default)]
struct Rounds {
    turns: HashMap<Arc<str>, Turn, RandomState>,
    /// Turns by time. One that was moved leaves its old time behind, which is passed over.
    due: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
}

struct Turn {
    check: Check,
    /// When it is probed next; `None` while it is being probed.
    at: Option<Instant>,
    wanted: bool,
}

/// A probe that has ended.
struct Ended {
    key: Arc<str>,
    state: Arc<Checked>,
    probed: Probed,
}

impl Rounds {
    /// Takes over what is wanted now.
    fn adopt(&mut self, wanted: Vec<Check>, now: Instant) {
        self.turns.values_mut().for_each(|turn| turn.wanted = false);
        for check in wanted {
            match self.turns.entry(Arc::clone(&check.key)) {
                Entry::Occupied(mut known) => {
                    let turn = known.get_mut();
                    turn.wanted = true;
                    let latest = now + pause(check.policy.interval, &check.state, false, 1.0);
                    if turn.at.is_some_and(|at| at > latest) {
                        turn.at = Some(latest);
                        self.due.push(Reverse((latest, Arc::clone(&check.key))));
                    }
                    turn.check = check;
                }
                Entry::Vacant(place) => {
                    let at = now + first_pause(check.policy.interval, fastrand::f64());
                    self.due.push(Reverse((at, Arc::clone(&check.key))));
                    place.insert(Turn { check, at: Some(at), wanted: true });
                }
            }
        }
        self.turns.retain(|_, turn| turn.wanted || turn.at.is_none());
        let turns = &self.turns;
        self.due.retain(|Reverse((at, key))| turns.get(key).is_some_and(|turn| turn.at == Some(*at)));
    }

    /// Begins what is due, as far as there is room. Says when the next is due, if it need not wait for another to end.
    fn start_due(&mut self, now: Instant) -> Option<Instant> {
        while self.under_way.len() < AT_ONCE {
            let Reverse((at, key)) = self.due.peek()?;
            let turn = self.turns.get_mut(key).filter(|turn| turn.at == Some(*at));
            if turn.is_some() && *at > now {
                return Some(*at);
            }
            if let Some(turn) = turn {
                turn.at = None;
                self.under_way.push(Box::pin(probe(turn.check.clone())));
            }
            self.due.pop();
        }
        None
    }

    fn record(&mut self, Ended { key, state, probed }: Ended, now: Instant) {
        let Entry::Occupied(mut known) = self.turns.entry(key) else { return };
        if !known.get().wanted {
            known.remove();
            return;
        }
        let turn = known.get_mut();
        let Check { key, policy, state: current, told, .. } = &turn.check;
        let mut first = !current.is_probed();
        if Arc::ptr_eq(&state, current) {
            let result = probed.outcome.as_ref().map_or_else(ProbeError::code, |()| "success");
            let change = current.record(&policy.thresholds, probed);
            // One that panics is not to end all others.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| told(result, change)));
        } else {
            // It was asked for somebody else.
            first = false;
        }
        let at = now + pause(policy.interval, current, first, fastrand::f64());
        self.due.push(Reverse((at, Arc::clone(key))));
        turn.at = Some(at);
    }
}

async fn probe(check: Check) -> Ended {
    let Check { key, target, policy, probe, state, .. } = check;
    let (at, begun) = (SystemTime::now(), Instant::now());
    let asked = AssertUnwindSafe(async { probe.probe(&target).await }).catch_unwind();
    let outcome = match tokio::time::timeout(policy.timeout, asked).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(ProbeError::Broken),
        Err(_) => Err(ProbeError::Timeout),
    };
    Ended { key, state, probed: Probed { at, took: begun.elapsed(), outcome } }
}

#[cfg(test)]
mod tests;
