//! What a gateway knows and owes of one key that is counted on credit.

use super::Decision;
use super::cells::Tat;
use super::table::Cell;
use super::token_bucket::TokenBucket;

/// What is known and owed of one key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Account {
    pub(super) bucket: Tat,
    /// When all would be back by what the store has said last, and nothing used here since.
    pub(super) told: u64,
    /// What the store does not know of, and has not been told.
    pub(super) owed: u32,
    /// What it is being told.
    sending: u32,
    /// Since when, in nanoseconds.
    since: u64,
    /// Whether the key is in the queue.
    pub(super) queued: bool,
}

impl Cell for Account {
    /// What the store does not know of yet is not forgotten for one that would be as good as new.
    fn idle_at(&self) -> u64 {
        if self.queued || self.sending > 0 { u64::MAX - 1 } else { self.bucket.0 }
    }
}

/// What is known here.
pub(super) enum Here {
    /// The decision, and whether there is something to settle from now on.
    Decided(Decision, bool),
    /// More would be owed than may be: this much is, since then, and is to be paid now.
    Ask(u32, u64),
}

impl Account {
    /// Takes `cost` where less than `limit` is unknown to the store, and says whether there is something to settle from now
    /// on. Where nothing is left even here, nobody needs to be asked.
    pub(super) fn take(
        &mut self,
        bucket: TokenBucket,
        cost: u64,
        limit: u64,
        now: u64,
    ) -> Option<(Decision, bool)> {
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
    pub(super) fn pay(&mut self) -> Here {
        let owed = std::mem::take(&mut self.owed);
        self.sending = self.sending.saturating_add(owed);
        Here::Ask(owed, self.since)
    }

    /// So much has been taken while the store was away. Not all of that is held against everyone when it is back.
    pub(super) fn alone(&mut self, bucket: TokenBucket, cost: u32, limit: u32, now: u64) {
        self.owe(cost, now);
        self.owed = self.owed.min(limit);
        self.told = self.bucket.0.saturating_sub(bucket.time(self.unknown()));
    }

    /// The store has been told of so much, and says when all will be back.
    pub(super) fn paid(&mut self, owed: u32, bucket: TokenBucket, full_at: u64) {
        self.sending = self.sending.saturating_sub(owed);
        // Answers may overtake each other: the one that knows of most is the latest. One that knows of what is still on
        // its way to us makes too much of that only until it is here.
        self.told = self.told.max(full_at);
        self.bucket.0 = self.told.saturating_add(bucket.time(self.unknown()));
    }

    /// The store has not been told, or does not say so.
    pub(super) fn unpaid(&mut self, owed: u32, since: u64) {
        self.sending = self.sending.saturating_sub(owed);
        if owed > 0 {
            self.owe(owed, since);
            self.since = self.since.min(since);
        }
    }

    /// How much passed here that the store is not known to know of.
    pub(super) fn unknown(&self) -> u64 {
        u64::from(self.owed) + u64::from(self.sending)
    }

    /// Whether it has something to settle and is not in the queue, which it is from now on.
    pub(super) fn is_due(&mut self) -> bool {
        self.owed > 0 && !std::mem::replace(&mut self.queued, true)
    }

    pub(super) fn owe(&mut self, more: u32, now: u64) {
        if self.owed == 0 {
            self.since = now;
        }
        self.owed = self.owed.saturating_add(more);
    }

    pub(super) fn send(&mut self) -> (u32, u64) {
        self.queued = false;
        let owed = std::mem::take(&mut self.owed);
        self.sending = self.sending.saturating_add(owed);
        (owed, self.since)
    }
}

/// A cost as accounts keep it.
pub(super) fn narrow(cost: u64) -> u32 {
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
