//! How many requests an endpoint has at once, and who waits for their turn.
//!
//! 1. Below the limit with nobody waiting, a request begins at once: one atomic change and no lock.
//! 2. At the limit requests wait in a queue that is bounded. Higher priorities go first, and within one, who came first.
//!    Nobody who comes later overtakes those who wait, even if there is room for a moment.
//! 3. In a full queue one of a higher priority takes the place of the youngest of the lowest priority below its own, which is
//!    turned away. So in an overload the important survive.
//! 4. Limits are told with every call, and the last one told holds: they may change under way. One that has fallen ends no
//!    request, and one that has risen lets in those who wait with the next call or the next end of a request.
//! 5. A request that gives up gives its place back, at whatever moment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use thiserror::Error;
use tokio::sync::oneshot;

/// No limit.
pub const UNLIMITED: u32 = u32::MAX;

/// Classes of those who wait.
const PRIORITIES: usize = 3;

/// The requests that one endpoint has, and those that wait. Outlives snapshots.
#[derive(Debug)]
pub struct Limit {
    /// Those under way, and in the upper half those that wait. Together, so that one cannot change unseen by the other.
    counts: AtomicU64,
    /// The limit that was last told.
    max: AtomicU32,
    queue: Mutex<Queue>,
}

/// A request's place at an endpoint, for as long as this lives.
#[derive(Debug)]
pub struct Slot(Arc<Limit>);

/// How important a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Turned away first.
    Low = 0,
    /// As most are.
    #[default]
    Normal = 1,
    /// Waits before all others.
    High = 2,
}

/// Why a request does not get a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// The queue is full, or one that is more important has taken the request's place in it.
    #[error("the queue is full")]
    Full,
    /// Its turn did not come in time.
    #[error("its turn did not come in time")]
    TimedOut,
}

#[derive(Debug, Default)]
struct Queue {
    classes: [VecDeque<Waiter>; PRIORITIES],
    next: u64,
}

/// One that waits. Within a class the tickets ascend.
#[derive(Debug)]
struct Waiter {
    ticket: u64,
    /// Told that it has a place. Dropped without a word when it loses its place in the queue.
    turn: oneshot::Sender<Slot>,
}

/// Those whose turn has come. They are told when the queue is no longer locked: one that is gone gives its place back.
type Admitted = SmallVec<[oneshot::Sender<Slot>; 4]>;

const WAITING: u64 = 1 << 32;

fn under_way(counts: u64) -> u32 {
    counts as u32
}

fn waiting(counts: u64) -> u32 {
    (counts >> 32) as u32
}

impl Default for Limit {
    fn default() -> Self {
        Self { counts: AtomicU64::new(0), max: AtomicU32::new(UNLIMITED), queue: Mutex::default() }
    }
}

impl Limit {
    /// A place, if there is one and nobody waits for it. A limit of zero is taken for one.
    pub fn try_begin(self: &Arc<Self>, max_requests: u32) -> Option<Slot> {
        let max = self.told(max_requests);
        let begin = |counts| (waiting(counts) == 0 && under_way(counts) < max).then_some(counts + 1);
        match self.counts.try_update(Ordering::AcqRel, Ordering::Acquire, begin) {
            Ok(_) => Some(Slot(Arc::clone(self))),
            Err(counts) => {
                if waiting(counts) > 0 && under_way(counts) < max {
                    // The limit has risen.
                    self.admit();
                }
                None
            }
        }
    }

    /// A place, now or when its turn comes within the `timeout`. At most `max_queue` wait at once.
    ///
    /// # Errors
    ///
    /// When there is no room to wait, when the room is lost to one that is more important, or when the time is over.
    pub async fn wait(
        self: &Arc<Self>,
        priority: Priority,
        max_requests: u32,
        max_queue: u32,
        timeout: Duration,
    ) -> Result<Slot, Refused> {
        if let Some(slot) = self.try_begin(max_requests) {
            return Ok(slot);
        }
        let (ticket, mut turn) = match self.enter(priority, max_queue)? {
            Entered::Begun(slot) => return Ok(slot),
            Entered::Waits { ticket, turn } => (ticket, turn),
        };
        // Dropped before `turn`, in which a place may lie.
        let place = Place { limit: self, priority, ticket };
        match tokio::time::timeout(timeout, &mut turn).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(Refused::Full),
            Err(_) => {
                drop(place);
                turn.try_recv().map_err(|_| Refused::TimedOut)
            }
        }
    }

    /// Requests under way.
    pub fn under_way(&self) -> u32 {
        under_way(self.counts.load(Ordering::Relaxed))
    }

    /// Requests that wait.
    pub fn waiting(&self) -> u32 {
        waiting(self.counts.load(Ordering::Relaxed))
    }

    /// Takes note of the limit.
    fn told(&self, max_requests: u32) -> u32 {
        let max = max_requests.max(1);
        if self.max.load(Ordering::Relaxed) != max {
            self.max.store(max, Ordering::Relaxed);
        }
        max
    }

    /// Takes a place in the queue, unless there is room to begin after all.
    fn enter(self: &Arc<Self>, priority: Priority, max_queue: u32) -> Result<Entered, Refused> {
        let mut queue = self.queue.lock();
        let full = queue.len() >= max_queue as usize;
        let weakest = if full { queue.weakest_below(priority) } else { None };
        let max = self.max.load(Ordering::Relaxed);
        let change = |counts| match waiting(counts) == 0 && under_way(counts) < max {
            true => Some(counts + 1),
            false if !full => Some(counts + WAITING),
            // Another's place, or none.
            false => None,
        };
        match self.counts.try_update(Ordering::AcqRel, Ordering::Acquire, change) {
            Ok(counts) if waiting(counts) == 0 && under_way(counts) < max => {
                return Ok(Entered::Begun(Slot(Arc::clone(self))));
            }
            Ok(_) => {}
            Err(_) => match weakest.and_then(|class| queue.classes.get_mut(class)?.pop_back()) {
                // It learns of it as this is dropped.
                Some(evicted) => drop(evicted),
                None => return Err(Refused::Full),
            },
        }
        let (sender, turn) = oneshot::channel();
        let ticket = queue.next;
        queue.next += 1;
        if let Some(class) = queue.classes.get_mut(priority as usize) {
            class.push_back(Waiter { ticket, turn: sender });
        }
        Ok(Entered::Waits { ticket, turn })
    }

    /// Gives a place back.
    fn end(self: &Arc<Self>) {
        if waiting(self.counts.fetch_sub(1, Ordering::AcqRel)) > 0 {
            self.admit();
        }
    }

    /// Lets in those for whom there is room.
    ///
    /// Whoever begins to wait does so while no place is free, in one change of both counts. So a place that comes free later is
    /// given back by one that sees that somebody waits, and comes here.
    fn admit(self: &Arc<Self>) {
        let mut admitted = Admitted::new();
        {
            let mut queue = self.queue.lock();
            loop {
                let max = self.max.load(Ordering::Relaxed);
                let admit =
                    |counts| (waiting(counts) > 0 && under_way(counts) < max).then(|| counts - WAITING + 1);
                if self.counts.try_update(Ordering::AcqRel, Ordering::Acquire, admit).is_err() {
                    break;
                }
                // As many are counted as there are in the queue, while it is locked.
                let Some(waiter) = queue.pop() else { break };
                admitted.push(waiter.turn);
            }
        }
        for turn in admitted {
            // One that has left gives its place back at once.
            let _ = turn.send(Slot(Arc::clone(self)));
        }
    }

    /// Leaves the queue.
    fn leave(&self, priority: Priority, ticket: u64) {
        let mut queue = self.queue.lock();
        if queue.remove(priority, ticket) {
            self.counts.fetch_sub(WAITING, Ordering::AcqRel);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.end();
    }
}

enum Entered {
    Begun(Slot),
    Waits { ticket: u64, turn: oneshot::Receiver<Slot> },
}

/// A place in the queue, which is given back when nobody waits in it any longer.
struct Place<'a> {
    limit: &'a Arc<Limit>,
    priority: Priority,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.limit.leave(self.priority, self.ticket);
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    fn pop(&mut self) -> Option<Waiter> {
        self.classes.iter_mut().rev().find_map(VecDeque::pop_front)
    }

    fn weakest_below(&self, priority: Priority) -> Option<usize> {
        self.classes.iter().take(priority as usize).position(|class| !class.is_empty())
    }

    fn remove(&mut self, priority: Priority, ticket: u64) -> bool {
        let Some(class) = self.classes.get_mut(priority as usize) else { return false };
        let at = class.binary_search_by_key(&ticket, |waiter| waiter.ticket);
        at.is_ok_and(|at| class.remove(at).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use futures_util::future::BoxFuture;
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    type Waits = BoxFuture<'static, Result<Slot, Refused>>;

    fn waits(limit: &Arc<Limit>, priority: Priority, max: u32, queue: u32, timeout: Duration) -> Waits {
        let limit = Arc::clone(limit);
        Box::pin(async move { limit.wait(priority, max, queue, timeout).await })
    }

    fn poll(waits: &mut Waits) -> Option<Result<Slot, Refused>> {
        match waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    /// One that has begun to wait.
    fn waiter(limit: &Arc<Limit>, priority: Priority, max: u32, queue: u32) -> Waits {
        let mut waits = waits(limit, priority, max, queue, LONG);
        assert!(poll(&mut waits).is_none());
        waits
    }

    #[tokio::test]
    async fn places_are_given_and_given_back() {
        let limit = Arc::new(Limit::default());
        let slots = [limit.try_begin(2).unwrap(), limit.try_begin(2).unwrap()];
        assert!(limit.try_begin(2).is_none());
        assert_eq!(limit.under_way(), 2);
        drop(slots);
        assert_eq!(limit.under_way(), 0);
        assert!(limit.try_begin(0).is_some());
        assert!(limit.try_begin(UNLIMITED).is_some());
    }

    #[tokio::test]
    async fn the_important_go_first_then_who_came_first() {
        let limit = Arc::new(Limit::default());
        let slot = limit.try_begin(1).unwrap();
        let order = [Priority::Low, Priority::Normal, Priority::High, Priority::Normal];
        let mut waiting = order.map(|priority| Some(waiter(&limit, priority, 1, 10)));
        drop(slot);
        for next in [2, 1, 3, 0] {
            let mut turn = waiting[next].take().unwrap();
            for other in waiting.iter_mut().flatten() {
                assert!(poll(other).is_none());
            }
            assert_eq!(limit.under_way(), 1);
            assert!(poll(&mut turn).unwrap().is_ok());
        }
        assert_eq!((limit.under_way(), limit.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn nobody_overtakes_those_who_wait() {
        let limit = Arc::new(Limit::default());
        let slot = limit.try_begin(1).unwrap();
        let mut waiting = waiter(&limit, Priority::Low, 1, 10);
        drop(slot);
        assert!(limit.try_begin(1).is_none(), "the place is taken, though its owner has not looked yet");
        let slot = poll(&mut waiting).unwrap().unwrap();
        let first = waiter(&limit, Priority::Normal, 1, 10);
        drop((slot, first));
        assert_eq!((limit.under_way(), limit.waiting()), (0, 0), "a place that was given to one that left");
    }

    #[tokio::test]
    async fn in_a_full_queue_the_youngest_of_the_lowest_makes_room() {
        let limit = Arc::new(Limit::default());
        let slot = limit.try_begin(1).unwrap();
        let mut old = waiter(&limit, Priority::Low, 1, 2);
        let mut young = waiter(&limit, Priority::Low, 1, 2);
        let mut equal = waits(&limit, Priority::Low, 1, 2, LONG);
        assert_eq!(poll(&mut equal).unwrap().unwrap_err(), Refused::Full);
        let mut high = waiter(&limit, Priority::High, 1, 2);
        assert_eq!(poll(&mut young).unwrap().unwrap_err(), Refused::Full);
        assert!(poll(&mut old).is_none());
        let mut normal = waiter(&limit, Priority::Normal, 1, 2);
        assert_eq!(poll(&mut old).unwrap().unwrap_err(), Refused::Full);
        assert_eq!(limit.waiting(), 2);
        drop(slot);
        drop(poll(&mut high).unwrap().unwrap());
        drop(poll(&mut normal).unwrap().unwrap());
        assert_eq!((limit.under_way(), limit.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn a_turn_that_does_not_come_is_told() {
        let limit = Arc::new(Limit::default());
        let _slot = limit.try_begin(1).unwrap();
        let late = limit.wait(Priority::Normal, 1, 10, Duration::from_millis(5)).await;
        assert_eq!(late.unwrap_err(), Refused::TimedOut);
        assert_eq!(limit.waiting(), 0);
    }

    #[tokio::test]
    async fn a_limit_that_rises_lets_in_with_the_next_call() {
        let limit = Arc::new(Limit::default());
        let _slot = limit.try_begin(1).unwrap();
        let mut waiting = [waiter(&limit, Priority::Low, 1, 9), waiter(&limit, Priority::Low, 1, 9)];
        assert!(limit.try_begin(3).is_none());
        let slots = waiting.each_mut().map(|waits| poll(waits).unwrap().unwrap());
        assert_eq!((limit.under_way(), limit.waiting()), (3, 0));
        assert!(limit.try_begin(1).is_none());
        drop(slots);
    }

    #[test]
    fn under_stress_nobody_is_forgotten() {
        const MAX: u32 = 3;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        let limit = Arc::new(Limit::default());
        let most = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..64u32)
            .map(|task| {
                let (limit, most) = (Arc::clone(&limit), Arc::clone(&most));
                runtime.spawn(async move {
                    let mut begun = 0;
                    for round in 0..400 {
                        let priority = [Priority::Low, Priority::Normal, Priority::High][(task % 3) as usize];
                        let patience = if (task + round) % 5 == 0 { Duration::ZERO } else { LONG };
                        let mut waits = Box::pin(limit.wait(priority, MAX, 48, patience));
                        if (task + round) % 7 == 0 {
                            // It leaves after a moment.
                            tokio::select! {
                                biased;
                                outcome = &mut waits => drop(outcome),
                                () = tokio::task::yield_now() => {}
                            }
                            continue;
                        }
                        if let Ok(slot) = waits.await {
                            most.fetch_max(limit.under_way(), Ordering::Relaxed);
                            begun += 1;
                            if round % 2 == 0 {
                                tokio::task::yield_now().await;
                            }
                            drop(slot);
                        }
                    }
                    begun
                })
            })
            .collect();
        let begun = runtime.block_on(async {
            let all = futures_util::future::join_all(tasks);
            let all = tokio::time::timeout(LONG, all).await.expect("somebody waits for ever");
            all.into_iter().map(|begun| begun.unwrap()).sum::<u32>()
        });
        assert!(begun > 0);
        assert_eq!(most.load(Ordering::Relaxed), MAX);
        assert_eq!((limit.under_way(), limit.waiting()), (0, 0));
        assert_eq!(limit.queue.lock().len(), 0);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Try,
        Wait(usize),
        End(usize),
        Leave(usize),
        Max(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Try),
            (0..3usize).prop_map(Step::Wait),
            any::<usize>().prop_map(Step::End),
            any::<usize>().prop_map(Step::Leave),
            (1..5u32).prop_map(Step::Max),
        ]
    }

    proptest! {
        #[test]
        fn no_place_is_lost_and_none_is_left_over(steps in prop::collection::vec(step(), 1..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _inside = runtime.enter();
            let limit = Arc::new(Limit::default());
            let (mut max, mut highest) = (2, 2);
            let mut slots: Vec<Slot> = Vec::new();
            let mut waiting: Vec<Waits> = Vec::new();
            for step in steps {
                match step {
                    Step::Try => slots.extend(limit.try_begin(max)),
                    Step::Wait(class) => {
                        let priority = [Priority::Low, Priority::Normal, Priority::High][class];
                        waiting.push(waits(&limit, priority, max, 4, LONG));
                    }
                    Step::End(at) if !slots.is_empty() => drop(slots.swap_remove(at % slots.len())),
                    Step::Leave(at) if !waiting.is_empty() => drop(waiting.swap_remove(at % waiting.len())),
                    Step::End(_) | Step::Leave(_) => {}
                    Step::Max(told) => {
                        max = told;
                        highest = highest.max(told);
                        slots.extend(limit.try_begin(max));
                    }
                }
                waiting.retain_mut(|waits| match poll(waits) {
                    None => true,
                    Some(Ok(slot)) => {
                        slots.push(slot);
                        false
                    }
                    Some(Err(refused)) => {
                        assert_eq!(refused, Refused::Full);
                        false
                    }
                });
                prop_assert!(slots.len() <= highest as usize);
                prop_assert_eq!(limit.waiting() as usize, limit.queue.lock().len());
                prop_assert!(limit.waiting() <= 4);
                // Somebody waits only while there is no room.
                prop_assert!(waiting.is_empty() || limit.under_way() >= max);
            }
            drop(slots);
            for mut waits in waiting {
                if let Some(outcome) = poll(&mut waits) {
                    drop(outcome);
                }
            }
            prop_assert_eq!((limit.under_way(), limit.waiting()), (0, 0));
        }
    }
}
