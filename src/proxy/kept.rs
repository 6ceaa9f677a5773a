//! What is kept of a request body, to send it anew with another attempt.
//!
//! 1. Pieces are kept as they come, before the chain sees them: each attempt shows it the same body.
//! 2. They are of use only while they are all that has come. What does not fit, by the route's policy or into the memory that
//!    all requests share, takes with it what was kept before.
//! 3. Small pieces are copied together: alone, each would hold on to the buffer that it was read into.
//! 4. A piece counts until nobody holds it any more, and once, whoever does: what is kept for retries and for a copy as well is
//!    in memory once, if the chain left it as it was and it is not a small one.

use bytes::{Bytes, BytesMut};
use pingora::Result;
use pingora::http::RequestHeader;
use prometheus::IntGauge;

use super::attempt;
use super::context::{Call, Context};
use crate::snapshot::Live;
use crate::upstream::RetryPolicy;

/// What is kept where only the engine's own retries could want it: those of requests that no endpoint has looked at.
const LITTLE: u64 = 64 << 10;
/// From here on a piece is kept as it is.
const SMALL: usize = 8 << 10;
/// How many bytes of small ones make a piece.
const GATHERED: usize = 16 << 10;

/// The memory that all kept bodies share.
#[derive(Debug, Clone)]
struct Memory {
    /// How much of it is taken, and the metric that tells.
    taken: IntGauge,
    most: i64,
}

/// What is kept of one body.
#[derive(Default)]
pub(super) struct Kept {
    memory: Option<Memory>,
    /// The longest body that is kept.
    most: u64,
    /// Each gives its memory back itself.
    pieces: Vec<Bytes>,
    /// Taken, and not in a piece yet.
    small: BytesMut,
    /// Bytes of the body that have come, in whichever attempt that was.
    come: u64,
    /// Bytes that are kept.
    held: u64,
}

/// A piece that gives its memory back when nobody holds it any more.
struct Counted {
    piece: Bytes,
    memory: Memory,
}

/// There was no memory left.
pub(super) struct Full;

impl Memory {
    fn new(taken: &IntGauge, most: u64) -> Self {
        Self { taken: taken.clone(), most: i64::try_from(most).unwrap_or(i64::MAX) }
    }

    /// Taken before it is looked at: requests at the same moment may turn each other away, but never take too much.
    fn take(&self, bytes: usize) -> Result<(), Full> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.taken.add(bytes);
        if self.taken.get() <= self.most {
            return Ok(());
        }
        self.taken.sub(bytes);
        Err(Full)
    }

    /// A piece that there is memory for.
    fn hold(&self, piece: Bytes) -> Bytes {
        Bytes::from_owner(Counted { piece, memory: self.clone() })
    }

    fn give_back(&self, bytes: usize) {
        self.taken.sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.memory.give_back(self.piece.len());
    }
}

/// Lets the body of a request that goes to an upstream be kept.
pub(super) fn begin(live: &Live, taken: &IntGauge, context: &mut Context) -> Result<()> {
    let (arrival, pinned) = context.parts()?;
    if arrival.has_body() && pinned.goes_upstream() {
        let most = live.load().retry_memory;
        pinned.kept.memory = (most > 0).then(|| Memory::new(taken, most));
    }
    Ok(())
}

/// Keeps a body of at most so many bytes for something else than an attempt, in the same memory.
pub(super) fn aside(live: &Live, taken: &IntGauge, most: u64) -> Kept {
    let mut kept = Kept::default();
    kept.memory = Some(Memory::new(taken, live.load().retry_memory));
    kept.up_to(most);
    kept
}

/// How much of a request's body is of use for another attempt.
pub(super) fn most(policy: &RetryPolicy, request: &RequestHeader, call: Option<Call>, http2: bool) -> u64 {
    if policy.may_send_anew(attempt::may_repeat(policy, request), call.is_some()) {
        policy.max_body
    } else if http2 || request.method.is_idempotent() {
        policy.max_body.min(LITTLE)
    } else {
        0
    }
}

impl Kept {
    /// How long a body may be to be kept, for the attempt that begins.
    pub(super) fn up_to(&mut self, most: u64) {
        self.most = most;
    }

    /// A piece of the body has come that begins at this byte of it, and may be kept `beside` already.
    pub(super) fn came(&mut self, at: u64, piece: &Bytes, beside: Option<&Self>) -> Result<(), Full> {
        // What was sent before comes again from us.
        let known = usize::try_from(self.come.saturating_sub(at)).unwrap_or(usize::MAX);
        if known >= piece.len() {
            return Ok(());
        }
        let new = piece.slice(known..);
        let whole = self.is_whole();
        self.come += new.len() as u64;
        let Some(memory) = self.memory.as_ref().filter(|_| whole) else { return Ok(()) };
        if self.come > self.most {
            self.let_go();
            return Ok(());
        }
        let (memory, bytes) = (memory.clone(), new.len());
        if let Some(same) = beside.and_then(|beside| beside.newest(&new)) {
            self.gather();
            self.pieces.push(same);
        } else if let Err(full) = memory.take(bytes) {
            self.let_go();
            return Err(full);
        } else {
            self.add(new, &memory);
        }
        self.held += bytes as u64;
        Ok(())
    }

    fn add(&mut self, piece: Bytes, memory: &Memory) {
        let small = piece.len() < SMALL;
        if !self.small.is_empty() && (!small || self.small.len() + piece.len() > GATHERED) {
            self.gather();
        }
        match small {
            true => self.small.extend_from_slice(&piece),
            false => self.pieces.push(memory.hold(piece)),
        }
    }

    fn gather(&mut self) {
        if let Some(memory) = self.memory.as_ref().filter(|_| !self.small.is_empty()) {
            self.pieces.push(memory.hold(self.small.split().freeze()));
        }
    }

    /// What was kept last, if it is these very bytes.
    fn newest(&self, piece: &Bytes) -> Option<Bytes> {
        let same = |last: &&Bytes| last.as_ptr() == piece.as_ptr() && last.len() == piece.len();
        self.pieces.last().filter(same).cloned()
    }

    /// Whether something of the body has come, which another attempt needs.
    pub(super) fn has_begun(&self) -> bool {
        self.come > 0
    }

    /// Bytes of the body that have come.
    pub(super) fn come(&self) -> u64 {
        self.come
    }

    /// Whether all that has come is kept.
    pub(super) fn is_whole(&self) -> bool {
        self.come == self.held
    }

    /// What is kept, in order. It stays kept.
    pub(super) fn pieces(&mut self) -> &[Bytes] {
        self.gather();
        &self.pieces
    }

    /// The same as one piece. The engine hands on a few at a time, and looks at nothing else while it waits to do so: with
    /// one, the clocks and the client are watched while a slow endpoint takes it.
    pub(super) fn in_one(&mut self) -> Bytes {
        self.gather();
        if let Some(memory) = self.memory.as_ref().filter(|_| self.pieces.len() > 1) {
            let whole = Bytes::from(self.pieces.concat());
            // Most often the pieces give as much back at once.
            memory.taken.add(i64::try_from(whole.len()).unwrap_or(i64::MAX));
            self.pieces = vec![memory.hold(whole)];
        }
        self.pieces.first().cloned().unwrap_or_default()
    }

    /// No other attempt follows: nothing is kept any more.
    pub(super) fn end(&mut self) {
        self.let_go();
        self.most = 0;
    }

    fn let_go(&mut self) {
        if let Some(memory) = self.memory.as_ref().filter(|_| !self.small.is_empty()) {
            memory.give_back(self.small.len());
        }
        self.held = 0;
        (self.pieces, self.small) = Default::default();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(taken: &IntGauge, memory: u64, most: u64) -> Kept {
        let mut kept = Kept::default();
        kept.memory = Some(Memory::new(taken, memory));
        kept.up_to(most);
        kept
    }

    fn gauge() -> IntGauge {
        IntGauge::new("taken", "taken").unwrap()
    }

    fn whole(kept: &mut Kept) -> Vec<u8> {
        kept.pieces().concat()
    }

    #[test]
    fn what_is_too_long_is_not_kept_and_its_memory_is_free() {
        let taken = gauge();
        let mut long = kept(&taken, 100, 10);
        assert!(long.came(0, &Bytes::from_static(b"0123456789"), None).is_ok() && long.is_whole());
        assert_eq!(taken.get(), 10);
        assert!(long.came(10, &Bytes::from_static(b"x"), None).is_ok() && !long.is_whole());
        assert!(long.came(11, &Bytes::from_static(b"y"), None).is_ok() && !long.is_whole());
        assert_eq!(taken.get(), 0);
    }

    #[test]
    fn memory_is_for_all_and_comes_back() {
        let taken = gauge();
        let piece = Bytes::from_static(b"012345");
        let mut first = kept(&taken, 10, 100);
        let mut second = kept(&taken, 10, 100);
        assert!(first.came(0, &piece, None).is_ok() && second.came(0, &piece, None).is_err());
        assert!(first.is_whole() && !second.is_whole());
        assert!(second.came(6, &Bytes::from_static(b"x"), None).is_ok() && !second.is_whole());
        first.end();
        assert!(first.came(6, &piece, None).is_ok());
        assert_eq!(taken.get(), 0);
        let mut third = kept(&taken, 10, 100);
        assert!(third.came(0, &piece, None).is_ok());
        drop(third);
        assert_eq!(taken.get(), 0);
    }

    #[test]
    fn what_is_kept_twice_counts_once_and_until_the_last_lets_go() {
        let taken = gauge();
        let (mut ours, mut other) = (kept(&taken, 100_000, 100_000), kept(&taken, 100_000, 100_000));
        let (little, piece) = (Bytes::from(vec![1; 10]), Bytes::from(vec![2; SMALL]));
        for (at, piece) in [(0, &little), (10, &piece), (10 + SMALL as u64, &piece.clone())] {
            assert!(ours.came(at, piece, None).is_ok());
            assert!(other.came(at, piece, Some(&ours)).is_ok());
        }
        let length = 2 * SMALL as i64;
        assert_eq!(taken.get(), length + 20, "what is small is copied");
        assert_eq!(whole(&mut ours), whole(&mut other));
        ours.end();
        assert_eq!(taken.get(), length + 10);
        assert_eq!(other.in_one().len(), 2 * SMALL + 10);
        assert_eq!(taken.get(), length + 10);
        drop(other);
        assert_eq!(taken.get(), 0);
    }

    proptest! {
        #[test]
        fn each_attempt_gets_the_same_body(
            lengths in prop::collection::vec(1usize..20_000, 0..12),
            sizes in prop::collection::vec(1usize..30_000, 1..40),
            broken in 0usize..12,
        ) {
            let taken = gauge();
            let mut kept = kept(&taken, 1 << 20, 1 << 20);
            let words = (0u32..).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes());
            let body: Vec<u8> = words.take(lengths.iter().sum()).collect();
            let mut at = 0;
            for length in lengths.iter().take(broken) {
                prop_assert!(kept.came(at as u64, &Bytes::copy_from_slice(&body[at..at + length]), None).is_ok());
                at += length;
            }
            prop_assert_eq!(&whole(&mut kept), &body[..at]);
            // Another attempt, whose pieces are cut otherwise.
            let (mut again, mut sizes) = (0, sizes.iter().cycle());
            while again < body.len() {
                let end = (again + sizes.next().unwrap()).min(body.len());
                prop_assert!(kept.came(again as u64, &Bytes::copy_from_slice(&body[again..end]), None).is_ok());
                again = end;
            }
            prop_assert_eq!(whole(&mut kept), body);
            prop_assert!(kept.is_whole());
            prop_assert_eq!(taken.get() as u64, kept.held);
        }
    }
}
