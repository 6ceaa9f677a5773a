//! Whether a store is worth asking: after failures in a row it is left alone, and tried again without a client that waits.

use parking_lot::Mutex;

/// So many failures in a row are enough.
const ENOUGH: u32 = 3;
/// How long a store is left alone, in nanoseconds; each time twice as long.
const FIRST: u64 = 250_000_000;
const LONGEST: u64 = 4_000_000_000;

/// What is known of a store.
#[derive(Debug, Default)]
pub struct Trust(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// When it is tried again, where it is not asked.
    again_at: Option<u64>,
    rest: u64,
}

/// What to do with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Ask.
    Ask,
    /// Do without an answer.
    Leave,
    /// Do without, and have the store tried in the background.
    Try,
}

impl Trust {
    /// Whether to ask.
    pub fn advise(&self, now: u64) -> Advice {
        let mut state = self.0.lock();
        match state.again_at {
            None => Advice::Ask,
            Some(at) if at <= now => {
                // Whoever comes meanwhile does not try, too.
                state.again_at = Some(now.saturating_add(LONGEST));
                Advice::Try
            }
            Some(_) => Advice::Leave,
        }
    }

    /// It answered. Says whether it was left alone until now.
    pub fn succeeded(&self) -> bool {
        let mut state = self.0.lock();
        state.failures = 0;
        state.rest = 0;
        state.again_at.take().is_some()
    }

    /// It did not answer in time. Says whether it is left alone from now on.
    pub fn failed(&self, now: u64) -> bool {
        let mut state = self.0.lock();
        // What was asked before it was left alone says nothing new.
        if state.again_at.is_some() {
            return false;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures < ENOUGH {
            return false;
        }
        state.rest = FIRST;
        state.again_at = Some(now.saturating_add(FIRST));
        true
    }

    /// It was tried in the background, and did not answer in time.
    pub fn tried_in_vain(&self, now: u64) {
        let mut state = self.0.lock();
        if state.again_at.is_some() {
            state.rest = (state.rest * 2).clamp(FIRST, LONGEST);
            state.again_at = Some(now.saturating_add(state.rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_failures_in_a_row_it_is_left_alone_and_tried_by_one() {
        let trust = Trust::default();
        assert_eq!([trust.failed(0), trust.failed(0), trust.succeeded()], [false; 3]);
        assert_eq!(
            [trust.failed(1), trust.failed(1), trust.failed(1), trust.failed(1)],
            [false, false, true, false]
        );
        assert_eq!(trust.advise(FIRST), Advice::Leave);
        assert_eq!([trust.advise(3 * FIRST), trust.advise(3 * FIRST)], [Advice::Try, Advice::Leave]);
        trust.tried_in_vain(3 * FIRST);
        assert_eq!(trust.advise(4 * FIRST), Advice::Leave);
        assert_eq!(trust.advise(5 * FIRST), Advice::Try);
        assert!(trust.succeeded());
        assert_eq!(trust.advise(8 * FIRST), Advice::Ask);
    }

    #[test]
    fn many_that_were_on_their_way_are_one_failure() {
        let trust = Trust::default();
        for _ in 0..40 {
            trust.failed(0);
        }
        assert_eq!(trust.advise(FIRST), Advice::Try);
        for _ in 0..40 {
            trust.failed(FIRST);
        }
        trust.tried_in_vain(FIRST);
        assert_eq!(trust.advise(3 * FIRST), Advice::Try);
        for _ in 0..9 {
            trust.tried_in_vain(0);
        }
        assert_eq!([LONGEST - 1, LONGEST].map(|now| trust.advise(now)), [Advice::Leave, Advice::Try]);
    }
}
