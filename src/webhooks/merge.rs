//! Keeps what flaps from flooding a webhook.
//!
//! 1. What happens to a subject is told at once, unless the same kind of event was told of it within the last second.
//! 2. Then it waits, and so does whatever happens to that subject after it, so that the order stays true.
//! 3. Of the same kind only the latest waits, with the number of those it stands for. What waits is told together as
//!    soon as none of it is too early: within a second.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::telemetry::{Event, EventKind, Subject};

/// How long after an event the same one is not told again.
const QUIET: Duration = Duration::from_secs(1);

/// An event to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The latest of them.
    pub event: Event,
    /// How many it stands for.
    pub times: u32,
}

/// What was told of late, and what waits.
#[derive(Debug, Default)]
pub(super) struct Merger(HashMap<Subject, Recent>);

#[derive(Debug, Default)]
struct Recent {
    told: Vec<(EventKind, Instant)>,
    waiting: Vec<Merged>,
}

impl Merger {
    /// Takes an event; gives it back when it is to be told now.
    pub(super) fn offer(&mut self, event: Event, now: Instant) -> Option<Merged> {
        self.0.retain(|_, recent| recent.matters(now));
        let recent = self.0.entry(event.subject.clone()).or_default();
        if recent.waiting.is_empty() && recent.quiet_until(event.kind).is_none_or(|until| until <= now) {
            recent.tells(event.kind, now);
            return Some(Merged { event, times: 1 });
        }
        let same = recent.waiting.iter().position(|waiting| waiting.event.kind == event.kind);
        let before = same.map_or(0, |at| recent.waiting.remove(at).times);
        recent.waiting.push(Merged { event, times: before.saturating_add(1) });
        None
    }

    /// When the next of what waits is to be told.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().filter_map(Recent::due).min()
    }

    /// Takes what is to be told now.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Merged> {
        let mut taken = Vec::new();
        for recent in self.0.values_mut().filter(|recent| recent.due().is_some_and(|due| due <= now)) {
            for merged in std::mem::take(&mut recent.waiting) {
                recent.tells(merged.event.kind, now);
                taken.push(merged);
            }
        }
        taken
    }
}

impl Recent {
    fn tells(&mut self, kind: EventKind, now: Instant) {
        self.told.retain(|(told, at)| *told != kind && *at + QUIET > now);
        self.told.push((kind, now));
    }

    fn quiet_until(&self, kind: EventKind) -> Option<Instant> {
        self.told.iter().find(|(told, _)| *told == kind).map(|(_, at)| *at + QUIET)
    }

    /// When all of what waits may be told.
    fn due(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|waiting| self.quiet_until(waiting.event.kind)).max()
    }

    fn matters(&self, now: Instant) -> bool {
        !self.waiting.is_empty() || self.told.iter().any(|(_, at)| *at + QUIET > now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;

    const MILLIS: fn(u64) -> Duration = Duration::from_millis;
    const KINDS: [EventKind; 2] = [EventKind::EndpointDown, EventKind::EndpointUp];

    fn event(kind: EventKind, listener: u8, number: usize) -> Event {
        let subject = Subject { listener: Some(listener.to_string().into()), ..Subject::default() };
        Event {
            kind,
            at: SystemTime::UNIX_EPOCH,
            subject,
            why: number.to_string().into(),
            message: "".into(),
        }
    }

    #[test]
    fn what_flaps_is_told_once_a_second_and_in_order() {
        let (mut merger, start) = (Merger::default(), Instant::now());
        let [down, up] = KINDS;
        let mut offer = |kind, at, number| merger.offer(event(kind, 0, number), start + MILLIS(at));
        assert!(offer(down, 0, 1).is_some());
        assert!(offer(up, 100, 2).is_some());
        assert!(offer(down, 200, 3).is_none());
        assert!(offer(up, 300, 4).is_none());
        assert!(offer(down, 400, 5).is_none());
        assert!(merger.offer(event(down, 1, 6), start + MILLIS(400)).is_some(), "another is another");

        assert_eq!(merger.next(), Some(start + MILLIS(1100)));
        assert!(merger.take(start + MILLIS(1099)).is_empty());
        let taken = merger.take(start + MILLIS(1100));
        let told: Vec<_> = taken.iter().map(|told| (told.event.kind, &*told.event.why, told.times)).collect();
        assert_eq!(told, [(up, "4", 1), (down, "5", 2)]);
        assert_eq!(merger.next(), None);
        assert!(merger.offer(event(up, 2, 7), start + MILLIS(9000)).is_some());
        assert_eq!(merger.0.len(), 1, "what is long ago is forgotten");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_early(
            steps in prop::collection::vec((0..2_usize, 0..2_u8, 0..700_u64), 1..60),
        ) {
            let (mut merger, mut now) = (Merger::default(), Instant::now());
            let mut last: HashMap<(EventKind, Subject), Instant> = HashMap::new();
            let mut told = 0;
            let mut check = |merged: Merged, now: Instant| {
                let key = (merged.event.kind, merged.event.subject);
                told += merged.times;
                last.insert(key, now).is_none_or(|before| now >= before + QUIET)
            };
            let total = u32::try_from(steps.len()).unwrap();
            for (number, (kind, listener, pause)) in steps.into_iter().enumerate() {
                let until = now + MILLIS(pause);
                while let Some(due) = merger.next().filter(|due| *due <= until) {
                    let due = due.max(now);
                    for merged in merger.take(due) {
                        prop_assert!(check(merged, due));
                    }
                }
                now = until;
                if let Some(merged) = merger.offer(event(KINDS[kind], listener, number), now) {
                    prop_assert!(check(merged, now));
                }
            }
            if let Some(due) = merger.next() {
                prop_assert!(due <= now + QUIET, "nothing waits for longer than a second");
            }
            for merged in merger.take(now + QUIET) {
                prop_assert!(check(merged, now + QUIET));
            }
            prop_assert_eq!(told, total);
        }
    }
}
