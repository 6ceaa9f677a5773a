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
    /// How many keys wait at most to be told.
    most: usize,
    shared: Arc<Shared>,
    every: Duration,
    clock: Clock,
    queue: Mutex<Queue>,
}

/// What is known and owed of one key.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    bucket: Tat,
    /// When all would be back by what the store has said last, and nothing used here since.
    told: u64,
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
    /// What the store does not know of yet is not forgotten for one that would be as good as new.
    fn idle_at(&self) -> u64 {
        if self.queued || self.sending > 0 { u64::MAX - 1 } else { self.bucket.0 }
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

/// What is known here.
enum Here {
    /// The decision, and whether there is something to settle from now on.
    Decided(Decision, bool),
    /// More would be owed than may be: this much is, since then, and is to be paid now.
    Ask(u32, u64),
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

impl Account {
    /// Takes `cost` where less than `limit` is unknown to the store, and says whether there is something to settle from now
    /// on. Where nothing is left even here, nobody needs to be asked.
    fn take(&mut self, bucket: TokenBucket, cost: u64, limit: u64, now: u64) -> Option<(Decision, bool)> {
        if self.unknown() + cost > limit {
            let mut copy = self.bucket;
            let decision = bucket.take(&mut copy, cost, now);
            return decision.refused().then(|| (decision, self.is_due()));
        }
        let decision = bucket.take(&mut self.bucket, cost, now);
        if !decision.refused() {
            self.owe(narrow(cost), now);
        }
        Some((decision, self.is_due()))
    }

    /// What is owed is on its way to the store from now on.
    fn pay(&mut self) -> Here {
        let owed = std::mem::take(&mut self.owed);
        self.sending = self.sending.saturating_add(owed);
        Here::Ask(owed, self.since)
    }

    /// So much has been taken while the store was away. Not all of that is held against everyone when it is back.
    fn alone(&mut self, bucket: TokenBucket, cost: u32, limit: u32, now: u64) {
        self.owe(cost, now);
        self.owed = self.owed.min(limit);
        self.told = self.bucket.0.saturating_sub(bucket.time(self.unknown()));
    }

    /// The store has been told of so much, and says when all will be back.
    fn paid(&mut self, owed: u32, bucket: TokenBucket, full_at: u64) {
        self.sending = self.sending.saturating_sub(owed);
        // Answers may overtake each other: the one that knows of most is the latest. One that knows of what is still on
        // its way to us makes too much of that only until it is here.
        self.told = self.told.max(full_at);
        self.bucket.0 = self.told.saturating_add(bucket.time(self.unknown()));
    }

    /// The store has not been told, or does not say so.
    fn unpaid(&mut self, owed: u32, since: u64) {
        self.sending = self.sending.saturating_sub(owed);
        if owed > 0 {
            self.owe(owed, since);
            self.since = self.since.min(since);
        }
    }

    /// How much passed here that the store is not known to know of.
    fn unknown(&self) -> u64 {
        u64::from(self.owed) + u64::from(self.sending)
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

fn narrow(cost: u64) -> u32 {
    u32::try_from(cost).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// One request a second, ten at once, a credit of three.
    fn take(account: &mut Account, now: u64) -> Option<u64> {
        let bucket = TokenBucket::new(1, SECOND, 10);
        account.take(bucket, 1, 3, now).map(|(decision, _)| decision.remaining)
    }

    #[test]
    fn what_two_answers_tell_of_counts_once() {
        let bucket = TokenBucket::new(1, SECOND, 10);
        let (mut account, now) = (Account::default(), 100 * SECOND);
        assert_eq!([(); 2].map(|()| take(&mut account, now)), [Some(9), Some(8)]);
        let (told, since) = account.send();
        assert_eq!((told, since), (2, now));
        assert_eq!((take(&mut account, now), take(&mut account, now)), (Some(7), None));
        let Here::Ask(asked, _) = account.pay() else { panic!("it asks") };
        // The question came second and knows of all: of two and one that passed on credit, and of its own.
        account.paid(asked, bucket, now + 4 * SECOND);
        account.paid(told, bucket, now + 2 * SECOND);
        assert_eq!((account.unknown(), account.bucket.0), (0, now + 4 * SECOND));
        assert_eq!(take(&mut account, now), Some(5));
    }

    #[test]
    fn what_is_not_told_is_owed_again() {
        let (mut account, now) = (Account::default(), 100 * SECOND);
        take(&mut account, now);
        let (told, since) = account.send();
        take(&mut account, now + SECOND);
        account.unpaid(told, since);
        assert_eq!((account.owed, account.sending, account.since), (2, 0, now));
    }

    #[test]
    fn what_is_to_be_told_is_not_forgotten_before_what_is_known() {
        let (mut account, now) = (Account::default(), 100 * SECOND);
        take(&mut account, now);
        assert!(account.is_due() || account.queued);
        assert!(account.idle_at() > now + 1000 * SECOND);
        let (told, _) = account.send();
        assert!(account.idle_at() > now + 1000 * SECOND);
        account.paid(told, TokenBucket::new(1, SECOND, 10), now + SECOND);
        assert_eq!(account.idle_at(), now + SECOND);
    }

    #[test]
    fn what_was_counted_alone_is_not_forgotten() {
        let bucket = TokenBucket::new(1, SECOND, 10);
        let (mut account, now) = (Account::default(), 100 * SECOND);
        for _ in 0..8 {
            bucket.take(&mut account.bucket, 1, now);
            account.alone(bucket, 1, 3, now);
        }
        let (told, _) = account.send();
        account.paid(told, bucket, now + 3 * SECOND);
        assert!(account.bucket.0 >= now + 5 * SECOND, "{account:?}");
    }
}
