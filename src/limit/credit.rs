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
use tokio::sync::oneshot;

use super::account::{Account, Here, narrow};
use super::shared::{Shared, Terms, Unanswered, Want};
use super::table::Table;
use super::token_bucket::TokenBucket;
use super::{Clock, Decision, Verdict};

/// How many keys are told in one go.
const AT_ONCE: usize = 256;

/// How much later than it should a gateway may tell.
const LATE: Duration = Duration::from_secs(2);

/// What is known and owed of each key.
pub struct Credit {
    table: Table<Account>,
    /// How many keys wait at most to be told.
    most: usize,
    shared: Arc<Shared>,
    every: Duration,
    clock: Clock,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    due: Vec<Due>,
    /// Whether somebody is at it.
    served: bool,
}

/// A key that has something to settle.
struct Due {
    debtor: Debtor,
    /// What it is called at the store.
    spelled: String,
}

/// A key as it is known here, and what it may have.
#[derive(Clone, Copy)]
pub struct Debtor {
    /// The key.
    pub key: u128,
    /// What it may have, in the store's words.
    pub terms: Terms,
    /// The same as a bucket.
    pub bucket: TokenBucket,
}

impl Credit {
    /// Credit for so many keys, settled so often.
    pub fn new(shared: Arc<Shared>, every: Duration, max_keys: usize) -> Self {
        let table = Table::new(max_keys);
        Self { table, most: max_keys, shared, every, clock: Clock::start(), queue: Mutex::default() }
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

    /// Takes `cost` on credit. `None` where there is none left: then the store has to be asked. What the key is called
    /// there is asked for only where it will be told.
    pub fn at_once(
        self: &Arc<Self>,
        debtor: Debtor,
        cost: u64,
        spelled: impl FnOnce() -> String,
    ) -> Option<Decision> {
        let (limit, now) = (Self::limit(debtor.terms, self.every), self.clock.now());
        let here = self.table.with(debtor.key, now, |account| account.take(debtor.bucket, cost, limit, now));
        let (decision, due) = here??;
        if due {
            self.queue(debtor, spelled());
        }
        Some(decision)
    }

    /// Takes `cost`, on credit where there is some.
    ///
    /// # Errors
    ///
    /// When the store has to be asked and does not answer. Nothing is taken then.
    pub async fn take(
        self: &Arc<Self>,
        debtor: Debtor,
        cost: u64,
        spelled: &str,
    ) -> Result<Decision, Unanswered> {
        let (limit, now) = (Self::limit(debtor.terms, self.every), self.clock.now());
        let here =
            self.table.with(debtor.key, now, |account| match account.take(debtor.bucket, cost, limit, now) {
                Some((decision, due)) => Here::Decided(decision, due),
                None => account.pay(),
            });
        match here {
            Some(Here::Decided(decision, due)) => {
                if due {
                    self.queue(debtor, spelled.to_owned());
                }
                Ok(decision)
            }
            Some(Here::Ask(owed, since)) => {
                let (tell, told) = oneshot::channel();
                let (credit, spelled) = (Arc::clone(self), spelled.to_owned());
                // Whether or not the client waits for it: the store counts what it is asked for, so the answer counts, too.
                self.shared.aside(async move {
                    let _ = tell.send(credit.ask(debtor, cost, (owed, since), &spelled).await);
                });
                told.await.unwrap_or(Err(Unanswered))
            }
            None => Err(Unanswered),
        }
    }

    /// Counts alone, for as long as the store does not answer.
    pub fn alone(&self, debtor: Debtor, cost: u64) -> Decision {
        let (limit, now) = (narrow(Self::limit(debtor.terms, self.every)), self.clock.now());
        let taken = self.table.with(debtor.key, now, |account| {
            let decision = debtor.bucket.take(&mut account.bucket, cost, now);
            if !decision.refused() {
                account.alone(debtor.bucket, narrow(cost), limit, now);
            }
            decision
        });
        taken.unwrap_or(Decision { verdict: Verdict::Pass, remaining: 0, reset: 0 })
    }

    /// Takes more, or gives back, whatever there is: the store is told in time, by what it calls the key. Where it has never
    /// heard of what was taken, it has no name.
    pub fn settle(self: &Arc<Self>, debtor: Debtor, more: i64, spelled: Option<&str>) {
        let now = self.clock.now();
        let amount = more.unsigned_abs();
        let mut paid = 0;
        let due = self.table.with(debtor.key, now, |account| {
            if more > 0 {
                debtor.bucket.charge(&mut account.bucket, amount, now);
                if spelled.is_none() {
                    return false;
                }
                account.owe(narrow(amount), now);
                return account.is_due();
            }
            let back = account.owed.min(narrow(amount));
            debtor.bucket.give_back(&mut account.bucket, amount);
            account.owed -= back;
            paid = amount - u64::from(back);
            account.told = account.told.saturating_sub(debtor.bucket.time(paid));
            false
        });
        let Some(spelled) = spelled else { return };
        if paid > 0 {
            // The store knows of it already, and has to give it back.
            let debt = -i64::try_from(paid).unwrap_or(i64::MAX);
            let want = self.want(spelled, debtor.terms, debt, (0, 0));
            let shared = Arc::clone(&self.shared);
            self.shared.aside(async move {
                // Why not is told where the next asks.
                let _ = shared.take(&[want]).await;
            });
        }
        if due == Some(true) {
            self.queue(debtor, spelled.to_owned());
        }
    }

    async fn ask(
        &self,
        debtor: Debtor,
        cost: u64,
        (owed, since): (u32, u64),
        spelled: &str,
    ) -> Result<Decision, Unanswered> {
        let age = self.age(since);
        let want = self.want(spelled, debtor.terms, owed.into(), (age, cost));
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

    fn queue(self: &Arc<Self>, debtor: Debtor, spelled: String) {
        let mut queue = self.queue.lock();
        if queue.due.len() >= self.most {
            // Its next request comes back to it.
            drop(queue);
            self.table.known(debtor.key, |account| account.queued = false);
            return;
        }
        queue.due.push(Due { debtor, spelled });
        if std::mem::replace(&mut queue.served, true) {
            return;
        }
        drop(queue);
        let credit = Arc::clone(self);
        self.shared.aside(async move { credit.serve().await });
    }

    /// Settles what is due, time and again, until nothing is.
    async fn serve(&self) {
        let leaving = Leaving(self);
        loop {
            tokio::time::sleep(self.every).await;
            let due = std::mem::take(&mut self.queue.lock().due);
            if due.is_empty() {
                let mut queue = self.queue.lock();
                if queue.due.is_empty() {
                    queue.served = false;
                    // The next to come may have been served again before this is dropped.
                    std::mem::forget(leaving);
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
        for Due { debtor, spelled } in some {
            let Debtor { key, terms, bucket } = *debtor;
            let (owed, since) = self.table.known(key, Account::send).unwrap_or_default();
            if owed > 0 {
                wants.push(self.want(spelled, terms, owed.into(), (self.age(since), 0)));
                sending.push(Sending { credit: self, key, owed, since, paid: None, bucket });
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
        self.credit.table.known(self.key, |account| match self.paid {
            Some(reset) => account.paid(self.owed, self.bucket, now.saturating_add(reset)),
            None => account.unpaid(self.owed, self.since),
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
