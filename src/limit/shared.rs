//! Counting together: one script at a store that machines share, for all rules of a filter at once.
//!
//! ```text
//! portcullis:limit:{RULE:KEY}        of a filter with one rule: spread over a cluster
//! portcullis:limit:{FILTER}:RULE:KEY of several, which are counted in one step
//! ```
//!
//! Instead of `portcullis` they begin with the store's `prefix`.
//!
//! 1. Time is the store's alone, and a key expires when it would be as good as new.
//! 2. A client waits for the store's timeout at most. When that has passed three times in a row the store is left alone and
//!    tried in the background, so a dead store delays nobody. A cluster does that itself, with each of its servers.
//! 3. What the store says of a key is known here, too: that is where counting alone goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{Context, SHA256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key::Found;
use super::{Algorithm, Clock, Decision, Verdict};
use crate::stores::{Advice, Error, Redis, Script, Trust};

/// The script, and the store that it runs at.
pub struct Shared {
    redis: Arc<Redis>,
    script: Script,
    health: Arc<Health>,
    clock: Clock,
}

/// How a store has behaved, for all who count there.
#[derive(Debug, Default)]
pub struct Health {
    trust: Trust,
    /// When it last refused, since it began to; else zero.
    refused_at: AtomicU64,
}

/// For how long a store has to refuse nothing until that is over, in nanoseconds: one key alone may be refused.
const WILLING: u64 = 3_000_000_000;

/// How much a key may have, in the script's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// [`Algorithm::TokenBucket`], [`Algorithm::FixedWindow`] or [`Algorithm::SlidingWindow`].
    pub algorithm: Algorithm,
    /// How many.
    pub amount: u64,
    /// In how many microseconds; 0 is a month of the calendar, with [`Algorithm::FixedWindow`].
    pub period: u64,
    /// How many at once.
    pub burst: u64,
}

/// What is wanted of one key.
#[derive(Debug, Clone)]
pub struct Want {
    /// The key at the store.
    pub key: String,
    /// How much it may have.
    pub terms: Terms,
    /// What is taken whether it is there or not; below zero what is given back.
    pub debt: i64,
    /// For how many microseconds it has been owed.
    pub age: u64,
    /// What is taken where every key has its own.
    pub cost: u64,
    /// For how many microseconds others may owe something before they tell it, with [`Algorithm::TokenBucket`].
    pub lag: u64,
}

/// What becomes of requests while the store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreError {
    /// This gateway counts alone, from what it knows.
    #[default]
    Local,
    /// They pass uncounted.
    Open,
    /// They are refused (503).
    Closed,
}

/// There is no answer that can be used; why was told to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered;

impl Shared {
    /// Counting at a store.
    pub fn new(redis: Arc<Redis>, health: Arc<Health>) -> Self {
        Self { redis, script: Script::new(include_str!("limit.lua")), health, clock: Clock::start() }
    }

    /// Whether the store keeps counts by an algorithm.
    pub fn knows(algorithm: Algorithm) -> bool {
        word(algorithm).is_some()
    }

    /// What the names of keys begin with, before a colon.
    pub fn prefix(&self) -> &str {
        self.redis.prefix()
    }

    /// Has something done that nobody waits for.
    pub fn aside(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.redis.aside(work);
    }

    /// Takes what is wanted of every key, or of none. The decisions are in the order of what is wanted.
    ///
    /// # Errors
    ///
    /// When the store does not say in time, or is not asked because of that.
    pub async fn take(&self, wants: &[Want]) -> Result<Vec<Decision>, Unanswered> {
        if !self.may_ask() {
            return Err(Unanswered);
        }
        let keys: Vec<&str> = wants.iter().map(|want| want.key.as_str()).collect();
        let arguments: Vec<String> = wants.iter().flat_map(Want::arguments).collect();
        let answer = self.redis.run::<Vec<i64>>(&self.script, &keys, &arguments).await;
        match answer {
            Ok(numbers) => {
                self.praise();
                decisions(&numbers, wants.len()).ok_or(Unanswered)
            }
            Err(error) => {
                self.blame(&error);
                Err(Unanswered)
            }
        }
    }

    fn may_ask(&self) -> bool {
        if self.redis.leaves_alone() {
            return true;
        }
        match self.health.trust.advise(self.clock.now()) {
            Advice::Ask => true,
            Advice::Leave => false,
            Advice::Try => {
                self.attempt();
                false
            }
        }
    }

    fn praise(&self) {
        self.health.trust.succeeded();
        let refused_at = self.health.refused_at.load(Ordering::Relaxed);
        if refused_at != 0
            && self.clock.now().saturating_sub(refused_at) > WILLING
            && self.health.refused_at.swap(0, Ordering::Relaxed) != 0
        {
            log::info!("limits: {} refuses no more", self.redis.place());
        }
    }

    fn blame(&self, error: &Error) {
        match error {
            // It is there, and quick: only this question has no answer.
            Error::Refused { .. } | Error::Unscripted { .. } => {
                match self.health.refused_at.swap(self.clock.now(), Ordering::Relaxed) {
                    0 => log::warn!("limits: {error}: until it does not, `on_store_error` says what happens"),
                    _ => log::debug!("limits: {error}"),
                }
            }
            Error::Timeout { .. } | Error::Unreachable { .. } if self.redis.leaves_alone() => {
                log::debug!("limits: {error}");
            }
            Error::Timeout { .. } | Error::Unreachable { .. } => {
                if self.health.trust.failed(self.clock.now()) {
                    log::warn!("limits: {error}: it is not asked until it answers again");
                }
            }
        }
    }

    /// Tries the store in the background.
    fn attempt(&self) {
        let (redis, health, clock) = (Arc::clone(&self.redis), Arc::clone(&self.health), self.clock);
        self.redis.aside(async move {
            match redis.ask::<String>(&redis::cmd("PING")).await {
                Err(Error::Timeout { .. } | Error::Unreachable { .. }) => {
                    health.trust.tried_in_vain(clock.now());
                }
                // Whatever it says, it is there.
                Ok(_) | Err(_) => {
                    if health.trust.succeeded() {
                        log::info!("limits: {} answers again", redis.place());
                    }
                }
            }
        });
    }
}

impl Want {
    fn arguments(&self) -> [String; 8] {
        let Terms { algorithm, amount, period, burst } = self.terms;
        let word = word(algorithm).unwrap_or_default().to_owned();
        let [amount, period, burst, age, cost, lag] =
            [amount, period, burst, self.age, self.cost, self.lag].map(|number| number.to_string());
        [word, amount, period, burst, self.debt.to_string(), age, cost, lag]
    }
}

/// The script's word for an algorithm.
fn word(algorithm: Algorithm) -> Option<&'static str> {
    match algorithm {
        Algorithm::TokenBucket => Some("bucket"),
        Algorithm::FixedWindow => Some("fixed"),
        Algorithm::SlidingWindow => Some("sliding"),
        Algorithm::LeakyBucket | Algorithm::SlidingLog => None,
    }
}

fn decisions(numbers: &[i64], count: usize) -> Option<Vec<Decision>> {
    let (_, numbers) = numbers.split_first()?;
    let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
    let nanos = |micros: i64| unsigned(micros).saturating_mul(1000);
    let decisions = numbers.chunks_exact(3).map(|rule| Decision {
        verdict: if rule[0] == 0 { Verdict::Pass } else { Verdict::Refuse(nanos(rule[0])) },
        remaining: unsigned(rule[1]),
        reset: nanos(rule[2]),
    });
    let decisions: Vec<_> = decisions.collect();
    (decisions.len() == count).then_some(decisions)
}

/// A short name of what something means, the same on every machine.
pub fn mark(of: &str) -> String {
    spelled(|digest| digest.update(of.as_bytes()), 8)
}

/// A key's name at the store: nothing of it can be read there.
pub fn spell(found: &Found<'_>, plan: &str) -> String {
    spelled(
        |digest| {
            digest.update(&(plan.len() as u64).to_le_bytes());
            digest.update(plan.as_bytes());
            found.write(|bytes| digest.update(bytes));
        },
        16,
    )
}

fn spelled(fill: impl FnOnce(&mut Context), bytes: usize) -> String {
    let mut digest = Context::new(&SHA256);
    fill(&mut digest);
    let digest = digest.finish();
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'));
    digest.as_ref().iter().take(bytes).flat_map(digits).collect()
}
