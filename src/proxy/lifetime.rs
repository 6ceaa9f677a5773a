//! Which pooled connections a request may take, so that none is begun on one older than its lifetime.
//!
//! The engine's pool does not know how old a connection is, but hands out only those that were asked for by the same key. So
//! the key changes with time, in turns of 0.8 lifetimes. To change it for all at once would renew all connections at once:
//! in the last quarter of a turn requests take the key of the next one by and by. The oldest connection with a key is from
//! that quarter, the last request with it from the end of the key's turn: a turn and a quarter later, which is a lifetime.
//! What has a key that nobody takes any more idles until `timeouts.idle` is over.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What keeps an endpoint's connections of one turn apart from those of others. Turns are counted since it is known.
pub(super) fn key(endpoint: SocketAddr, known: Instant, lifetime: Duration, now: Instant) -> u64 {
    // Endpoints take turns at different times.
    let phase = (hash(endpoint) >> 11) as f64 / (1u64 << 53) as f64;
    let turn = turn(now.saturating_duration_since(known), lifetime, phase, fastrand::f64());
    hash((turn, lifetime, known))
}

/// The turn that a request has part in after so much time, by a die between 0 and 1.
fn turn(since: Duration, lifetime: Duration, phase: f64, die: f64) -> u64 {
    let turns = since.as_secs_f64() / (lifetime.as_secs_f64() * 0.8) + phase;
    let late = (turns.fract() - 0.75) * 4.0;
    turns as u64 + u64::from(die < late)
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn share_of_the_next(turns: f64) -> f64 {
        let since = HOUR.mul_f64(0.8 * turns);
        let next = (0..1000).filter(|die| turn(since, HOUR, 0.0, f64::from(*die) / 1000.0) > turns as u64);
        next.count() as f64 / 1000.0
    }

    #[test]
    fn connections_are_renewed_by_and_by() {
        for (turns, share) in [(7.0, 0.0), (7.74, 0.0), (7.8, 0.2), (7.875, 0.5), (7.95, 0.8), (7.999, 0.996)]
        {
            assert!((share_of_the_next(turns) - share).abs() < 0.01, "{turns}");
        }
    }

    #[test]
    fn endpoints_take_turns_at_different_times() {
        let known = Instant::now();
        let key = |port| key(([10, 0, 0, 1], port).into(), known, HOUR, known + HOUR * 10);
        let mut keys: Vec<_> = (1..100).map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert!(keys.len() > 1);
    }

    proptest! {
        /// Whoever takes the same turn does so within a lifetime, whatever the dice say.
        #[test]
        fn nothing_is_begun_on_what_is_too_old(
            since in 0.0..1e7, later in 0.0..3.0, lifetime in 1.0..1e6, phase in 0.0..1.0, dice: [f64; 2],
        ) {
            let [opens, takes] = dice.map(|die| die.abs().fract());
            let lifetime = Duration::from_secs_f64(lifetime);
            let at = |seconds| Duration::from_secs_f64(seconds);
            let opened = turn(at(since), lifetime, phase, opens);
            let taken = turn(at(since + later * lifetime.as_secs_f64()), lifetime, phase, takes);
            prop_assert!(taken != opened || later <= 1.0 + 1e-6);
        }

        /// No turn is left out for long: a connection serves at least half its lifetime, where all take its turn.
        #[test]
        fn turns_follow_one_another(since in 0.0..1e6, phase in 0.0..1.0, die in 0.0..1.0) {
            let at = |seconds| turn(Duration::from_secs_f64(seconds), HOUR, phase, die);
            let passed = at(since + 0.8 * HOUR.as_secs_f64()).abs_diff(at(since));
            prop_assert!((0..=2).contains(&passed));
            prop_assert!(at(since + 2.0 * HOUR.as_secs_f64()) > at(since));
        }
    }
}
