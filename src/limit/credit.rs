//! Counting together, settled in the background: a gateway lets requests through on credit, and tells the store later.
//!
//! 1. Of a key, at most a credit of `rate × settle_every` (at least one request) may have passed here that the store does not
//!    know of. A request beyond that asks the store first, and pays what is owed with it.
//! 2. What passed on credit is told the store within `settle_every`, many keys at once. What the store says then, which is
//!    what all gateways have used, is what is counted on from here.
//! 3. So all gateways together let through at most what the limit says and one credit each. What was too much is owed: the
//!    next ones wait for it, and over time it is no more than the rate.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::cells::Tat;
use super::shared::{Shared, Terms, Unanswered, Want};
use super::table::{Cell, Table};
use super::token_bucket::TokenBucket;
use super::{Clock, Decision, Verdict};

/// How many keys are told in one go.
const AT_ONCE: usize = 256;

/// How much later than it should a gateway may tell.
const LATE: Duration = Duration::from_secs(2);

/// What is known and owed of each key.
pub struct Credit {
    table: Table<Account>,
    shared: Arc<Shared>,
    every: Duration,
    clock: Clock,
    queue: Mutex<Queue>,
}

/// What is known and owed of one key.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    bucket: Tat,
    /// What the store does not know of, and has not been told.
    owed: u32,
    /// What it is being told.
    sending: u32,
    /// Since when, in nanoseconds.
    since: u64,
    /// Whether the key is in the queue.
    queued: bool,
}

impl Cell for Account {
    fn idle_at(&self) -> u64 {
        self.bucket.0
    }
}

#[derive(Default)]
struct Queue {
    due: Vec<Due>,
    /// Whether somebody is at it.
    served: bool,
}

/// A key that has something to settle.
struct Due {
    key: u128,
    spelled: String,
    terms: Terms,
    bucket: TokenBucket,
}

/// A key as all sides know it.
#[derive(Clone, Copy)]
pub struct Debtor<'k> {
    /// Here.
    pub key: u128,
    /// At the store.
    pub spelled: &'k str,
    /// What it may have, in the store's words.
    pub terms: Terms,
    /// The same as a bucket.
    pub bucket: TokenBucket,
}

/// What is known here.
enum Here {
    Decided(Decision, bool),
    /// More would be owed than may be: this much is, since then, and is to be paid now.
    Ask(u32, u64),
}

impl Credit {
    /// Credit for so many keys, settled so often.
    pub fn new(shared: Arc<Shared>, every: Duration, max_keys: usize) -> Self {
        Self { table: Table::new(max_keys), shared, every, clock: Clock::start(), queue: Mutex::default() }
    }

    /// How many keys are known.
    pub fn keys(&self) -> usize {
        self.table.len()
    }

    /// The most of a key that the store may not know of.
    pub fn limit(terms: Terms, every: Duration) -> u64 {
        let micros = every.as_micros();
        let passes = u128::from(terms.amount) * micros / u128::from(terms.period.max(1));
        u64::try_from(passes).unwrap_or(u64::MAX).clamp(1, u32::MAX.into())
    }

    /// Takes `cost`, on credit where there is some.
    ///
    /// # Errors
    ///
    /// When the store has to be asked and does not answer. Nothing is taken then.
    pub async fn take(self: &Arc<Self>, debtor: Debtor<'_>, cost: u64) -> Result<Decision, Unanswered> {
        let limit = Self::limit(debtor.terms, self.every);
        let now = self.clock.now();
        let here = self.table.with(debtor.key, now, |account| account.take(debtor.bucket, cost, limit, now));
        match here {
            Some(Here::Decided(decision, due)) => {
                if due {
                    self.queue(debtor.key, debtor.spelled.to_owned(), debtor.terms, debtor.bucket);
                }
                Ok(decision)
            }
            Some(Here::Ask(owed, since)) => self.ask(debtor, cost, (owed, since)).await,
            None => Err(Unanswered),
        }
    }

    /// Counts alone, for as long as the store does not answer.
    pub fn alone(&self, debtor: Debtor<'_>, cost: u64) -> Decision {
        let (limit, now) = (narrow(Self::limit(debtor.terms, self.every)), self.clock.now());
        let taken = self.table.with(debtor.key, now, |account| {
            let decision = debtor.bucket.take(&mut account.bucket, cost, now);
            if !decision.refused() {
                // What was used while it was away is not all held against everyone when it is back.
                account.owe(narrow(cost), now);
                account.owed = account.owed.min(limit);
            }
            decision
        });
        taken.unwrap_or(Decision { verdict: Verdict::Pass, remaining: 0, reset: 0 })
    }

    /// Takes more, or gives back, whatever there is: the store is told in time.
    pub fn settle(self: &Arc<Self>, debtor: Debtor<'_>, more: i64) {
        let now = self.clock.now();
        let amount = more.unsigned_abs();
        let mut paid = 0;
        let due = self.table.with(debtor.key, now, |account| {
            if more > 0 {
                debtor.bucket.charge(&mut account.bucket, amount, now);
                account.owe(narrow(amount), now);
                return !std::mem::replace(&mut account.queued, true);
            }
            let back = account.owed.min(narrow(amount));
            debtor.bucket.give_back(&mut account.bucket, amount);
            account.owed -= back;
            paid = amount - u64::from(back);
            false
        });
        if paid > 0 {
            // The store knows of it already, and has to give it back.
            let debt = -i64::try_from(paid).unwrap_or(i64::MAX);
            let want = self.want(debtor.spelled, debtor.terms, debt, (0, 0));
            let shared = Arc::clone(&self.shared);
            self.shared.aside(async move {
                // Why not is told where the next asks.
                let _ = shared.take(&[want]).await;
            });
        }
        if due == Some(true) {
            self.queue(debtor.key, debtor.spelled.to_owned(), debtor.terms, debtor.bucket);
        }
    }

    async fn ask(
        &self,
        debtor: Debtor<'_>,
        cost: u64,
        (owed, since): (u32, u64),
    ) -> Result<Decision, Unanswered> {
        let age = self.age(since);
        let want = self.want(debtor.spelled, debtor.terms, owed.into(), (age, cost));
        // Whatever becomes of this future, what it was sending is either paid or owed again.
        let sending =
            Sending { credit: self, key: debtor.key, owed, since, paid: None, bucket: debtor.bucket };
        let mut decisions = self.shared.take(&[want]).await?;
        let decision = decisions.pop().ok_or(Unanswered)?;
        sending.paid(decision.reset);
        Ok(decision)
    }

    /// What the store is told and asked. Until all gateways have told it what they let through up to now, it has to know what
    /// the others used at that time.
    fn want(&self, key: &str, terms: Terms, debt: i64, (age, cost): (u64, u64)) -> Want {
        let lag = u64::try_from((2 * self.every + LATE).as_micros()).unwrap_or(u64::MAX);
        Want { key: key.to_owned(), terms, debt, age, cost, lag }
    }

    fn age(&self, since: u64) -> u64 {
        self.clock.now().saturating_sub(since) / 1000
    }

    fn queue(self: &Arc<Self>, key: u128, spelled: String, terms: Terms, bucket: TokenBucket) {
        let mut queue = self.queue.lock();
        queue.due.push(Due { key, spelled, terms, bucket });
        if std::mem::replace(&mut queue.served, true) {
            return;
        }
        drop(queue);
        let credit = Arc::clone(self);
        self.shared.aside(async move { credit.serve().await });
    }

    /// Settles what is due, time and again, until nothing is.
    async fn serve(&self) {
        let _leaving = Leaving(self);
        loop {
            tokio::time::sleep(self.every).await;
            let due = std::mem::take(&mut self.queue.lock().due);
            if due.is_empty() {
                let mut queue = self.queue.lock();
                if queue.due.is_empty() {
                    queue.served = false;
                    return;
                }
                continue;
            }
            for some in due.chunks(AT_ONCE) {
                self.tell(some).await;
            }
        }
    }

    async fn tell(&self, some: &[Due]) {
        let mut sending = Vec::with_capacity(some.len());
        let mut wants = Vec::with_capacity(some.len());
        for Due { key, spelled, terms, bucket } in some {
            let (owed, since) = self.table.known(*key, Account::send).unwrap_or_default();
            if owed > 0 {
                wants.push(self.want(spelled, *terms, owed.into(), (self.age(since), 0)));
                sending.push(Sending { credit: self, key: *key, owed, since, paid: None, bucket: *bucket });
            }
        }
        if wants.is_empty() {
            return;
        }
        if let Ok(decisions) = self.shared.take(&wants).await {
            for (sending, decision) in sending.into_iter().zip(decisions) {
                sending.paid(decision.reset);
            }
        }
    }
}

impl Account {
    fn take(&mut self, bucket: TokenBucket, cost: u64, limit: u64, now: u64) -> Here {
        let unknown = u64::from(self.owed) + u64::from(self.sending) + cost;
        if unknown > limit {
            // Where nothing is left even here, nobody needs to be asked.
            let mut copy = self.bucket;
            let decision = bucket.take(&mut copy, cost, now);
            if decision.refused() {
                return Here::Decided(decision, self.is_due());
            }
            let owed = std::mem::take(&mut self.owed);
            self.sending = self.sending.saturating_add(owed);
            return Here::Ask(owed, self.since);
        }
        let decision = bucket.take(&mut self.bucket, cost, now);
        if decision.refused() {
            return Here::Decided(decision, self.is_due());
        }
        self.owe(narrow(cost), now);
        Here::Decided(decision, self.is_due())
    }

    /// Whether it has something to settle and is not in the queue, which it is from now on.
    fn is_due(&mut self) -> bool {
        self.owed > 0 && !std::mem::replace(&mut self.queued, true)
    }

    fn owe(&mut self, more: u32, now: u64) {
        if self.owed == 0 {
            self.since = now;
        }
        self.owed = self.owed.saturating_add(more);
    }

    fn send(&mut self) -> (u32, u64) {
        self.queued = false;
        let owed = std::mem::take(&mut self.owed);
        self.sending = self.sending.saturating_add(owed);
        (owed, self.since)
    }
}

/// What the store is being told of a key. Dropped unpaid, it is owed again.
struct Sending<'c> {
    credit: &'c Credit,
    key: u128,
    owed: u32,
    since: u64,
    /// When all is back, by the store's account.
    paid: Option<u64>,
    bucket: TokenBucket,
}

impl Sending<'_> {
    fn paid(mut self, reset: u64) {
        self.paid = Some(reset);
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let now = self.credit.clock.now();
        self.credit.table.known(self.key, |account| {
            account.sending = account.sending.saturating_sub(self.owed);
            match self.paid {
                None if self.owed > 0 => {
                    account.owe(self.owed, self.since);
                    account.since = account.since.min(self.since);
                }
                None => {}
                Some(reset) => {
                    let unknown = u64::from(account.owed) + u64::from(account.sending);
                    let full = now.saturating_add(reset).saturating_add(self.bucket.time(unknown));
                    // What passed here was counted here.
                    account.bucket.0 = account.bucket.0.max(full);
                }
            }
        });
    }
}

/// Whoever serves the queue leaves word of it, even when the runtime ends.
struct Leaving<'c>(&'c Credit);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().served = false;
    }
}

fn narrow(cost: u64) -> u32 {
    u32::try_from(cost).unwrap_or(u32::MAX)
}
