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
#[must_use = "the place is given back with it"]
pub struct Slot(Arc<Limit>);

/// How important a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Turned away first.
    Low = 0,
    /// As most are.
    #[default]
    Normal = 1,
    /// Waits before all others.
    High = 2,
}

impl Priority {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
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
    /// Whether there is a place that nobody waits for. Where the limit has risen, those who wait are let in first.
    pub fn has_room(self: &Arc<Self>, max_requests: u32) -> bool {
        let max = self.told(max_requests);
        let counts = self.counts.load(Ordering::Acquire);
        if waiting(counts) > 0 && under_way(counts) < max {
            self.admit();
        }
        waiting(counts) == 0 && under_way(counts) < max
    }

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
mod tests;
