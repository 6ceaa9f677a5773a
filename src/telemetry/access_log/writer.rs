//! From many workers to one file. Each worker thread appends its lines to a buffer of its own; one writer thread
//! takes the buffers away every few milliseconds, or when 256 KiB have gathered, and writes each with one call.
//!
//! A worker only ever *tries* a lock, and the writer holds one no longer than swapping two vectors takes: a disk that
//! hangs costs lines, never time. Lines of one thread keep their order; between threads it holds to some 50 ms.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use std::{io, mem};

use parking_lot::{Condvar, Mutex, MutexGuard};
use prometheus::IntCounter;

use super::clock::Clock;
use super::sink::{Open, Sink};

/// How long the writer lets lines gather.
const GATHER: Duration = Duration::from_millis(50);
/// Bytes of one buffer that wake the writer before that.
const BATCH: usize = 256 * 1024;
/// Bytes that one buffer may hold: what a stalled output costs in memory for each worker thread.
const CAPACITY: usize = 2 * 1024 * 1024;
/// Threads beyond one a core must find a shard, too: no lock is ever waited for.
const LEAST_SHARDS: usize = 16;

/// The writer thread, seen from the workers.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Writer {
    /// Opens the output and starts the thread. Lines that get lost are counted in `dropped`.
    ///
    /// # Errors
    ///
    /// When the output cannot be opened, or no thread be started.
    pub(super) fn start(open: Open, dropped: IntCounter) -> io::Result<Self> {
        let mut sink = Sink::open(open)?;
        let shared = Arc::new(Shared::new(dropped));
        let worker = Arc::clone(&shared);
        let handle =
            thread::Builder::new().name("access-log".to_owned()).spawn(move || worker.run(&mut sink))?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// Lets `render` append one line (or more) to this thread's buffer. Never waits: a line that finds no room is
    /// dropped and counted.
    pub(super) fn append(&self, render: impl FnOnce(&mut Clock, &mut Vec<u8>)) {
        let Some(mut shard) = self.shared.try_shard() else {
            return self.shared.dropped.inc();
        };
        if shard.closed || shard.lines.len() >= CAPACITY {
            return self.shared.dropped.inc();
        }
        let Shard { clock, lines, .. } = &mut *shard;
        let before = lines.len();
        render(clock, lines);
        let batch_is_full = before < BATCH && lines.len() >= BATCH;
        drop(shard);
        if batch_is_full || self.shared.rouse() {
            self.thread.unpark();
        }
    }

    /// Opens the output anew before the next write.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Takes no more lines and waits until all are written, at most `timeout`. Says whether they are.
    pub(super) fn close(&self, timeout: Duration) -> bool {
        self.shared.closing.store(true, Ordering::Release);
        self.thread.unpark();
        let deadline = Instant::now() + timeout;
        let mut finished = self.shared.finished.lock();
        while !*finished {
            if self.shared.finish.wait_until(&mut finished, deadline).timed_out() {
                break;
            }
        }
        *finished
    }

    /// Writes (and reopenings) that failed.
    pub(super) fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Shared {
    shards: Box<[Aligned]>,
    /// The writer has seen every shard empty and sleeps until the next line.
    idle: AtomicBool,
    reopen: AtomicBool,
    closing: AtomicBool,
    finished: Mutex<bool>,
    finish: Condvar,
    dropped: IntCounter,
    errors: AtomicU64,
}

/// Keeps the shards of two threads out of one cache line (and its prefetched neighbour).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned(Mutex<Shard>);

#[derive(Debug, Default)]
struct Shard {
    lines: Vec<u8>,
    clock: Clock,
    closed: bool,
}

impl Shared {
    fn new(dropped: IntCounter) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let shards = (2 * cores).next_power_of_two().max(LEAST_SHARDS);
        Self {
            shards: (0..shards).map(|_| Aligned::default()).collect(),
            idle: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            finished: Mutex::new(false),
            finish: Condvar::new(),
            dropped,
            errors: AtomicU64::new(0),
        }
    }

    /// This thread's shard, or, when another thread holds it, the next free one.
    fn try_shard(&self) -> Option<MutexGuard<'_, Shard>> {
        let home = thread_number();
        (0..self.shards.len())
            .find_map(|step| self.shards[(home + step) & (self.shards.len() - 1)].0.try_lock())
    }

    /// Whether the writer sleeps for want of lines and the caller is the one to wake it.
    fn rouse(&self) -> bool {
        // The plain load keeps the line shared between cores. It cannot miss: the writer announces that it is idle
        // before it looks, with every shard's lock in turn, for lines that came too early to see the announcement.
        self.idle.load(Ordering::Acquire) && self.idle.swap(false, Ordering::AcqRel)
    }

    fn run(&self, sink: &mut Sink) {
        let mut spare = Vec::new();
        loop {
            let closing = self.closing.load(Ordering::Acquire);
            if self.reopen.swap(false, Ordering::AcqRel) {
                self.note(sink.reopen());
            }
            let wrote = self.drain(sink, &mut spare, closing);
            if closing {
                break;
            }
            if wrote {
                self.idle.store(false, Ordering::Release);
                thread::park_timeout(GATHER);
            } else if self.idle.swap(true, Ordering::AcqRel) {
                thread::park();
                if !self.idle.load(Ordering::Acquire) {
                    thread::park_timeout(GATHER);
                }
            }
        }
        *self.finished.lock() = true;
        self.finish.notify_all();
    }

    /// Writes what every shard holds and says whether there was anything. The last time, it closes them.
    fn drain(&self, sink: &mut Sink, spare: &mut Vec<u8>, closing: bool) -> bool {
        let mut wrote = false;
        for shard in &self.shards {
            let mut shard = shard.0.lock();
            shard.closed = closing;
            if shard.lines.is_empty() {
                // The spare buffer is for a thread that has a use for it; when nobody wrote, no room is kept.
                if self.idle.load(Ordering::Acquire) {
                    shard.lines = Vec::new();
                }
                continue;
            }
            mem::swap(&mut shard.lines, spare);
            drop(shard);
            wrote = true;
            self.note(sink.write(spare));
            let kept = kept(spare.len());
            spare.clear();
            spare.shrink_to(kept);
        }
        wrote
    }

    /// Counts a failed write and the lines lost by it.
    fn note(&self, result: Result<(), u64>) {
        if let Err(lost) = result {
            self.errors.fetch_add(1, Ordering::Relaxed);
            self.dropped.inc_by(lost);
        }
    }
}

/// How large a buffer stays for the next lines, by the bytes it held: doubled, and rounded so that it does not change
/// with every batch. What one burst has needed is not kept for ever.
fn kept(held: usize) -> usize {
    (2 * held).next_power_of_two().min(2 * BATCH)
}

/// A small number that tells this thread's shard from others'.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.get().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(Some(number));
        number
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const LONG: Duration = Duration::from_secs(10);

    /// An output that says when a write begins, waits for leave to end it, and keeps what was written.
    struct Gate {
        began: Sender<()>,
        leave: Arc<Mutex<Receiver<()>>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.began.send(());
            let _ = self.leave.lock().recv();
            self.written.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Gated {
        writer: Writer,
        dropped: IntCounter,
        began: Receiver<()>,
        leave: Sender<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    fn gated() -> Gated {
        let (began_in, began) = channel();
        let (leave, leave_out) = channel();
        let leave_out = Arc::new(Mutex::new(leave_out));
        let written = Arc::new(Mutex::new(Vec::new()));
        let dropped = IntCounter::new("dropped", "lines").unwrap();
        let kept = Arc::clone(&written);
        let open: Open = Box::new(move || {
            let (leave, written) = (Arc::clone(&leave_out), Arc::clone(&kept));
            Ok(Box::new(Gate { began: began_in.clone(), leave, written }))
        });
        let writer = Writer::start(open, dropped.clone()).unwrap();
        Gated { writer, dropped, began, leave, written }
    }

    fn append(writer: &Writer, line: &[u8]) {
        writer.append(|_, out| out.extend_from_slice(line));
    }

    #[test]
    fn a_hung_output_costs_lines_and_never_waits() {
        let gated = gated();
        append(&gated.writer, b"first\n");
        gated.began.recv_timeout(LONG).unwrap();

        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<_>>();
        let fit = CAPACITY / line.len();
        for _ in 0..fit + 5 {
            append(&gated.writer, &line);
        }
        assert_eq!(gated.dropped.get(), 5);
        assert!(!gated.writer.close(Duration::from_millis(1)), "closing is bounded");

        drop(gated.leave);
        assert!(gated.writer.close(LONG));
        assert_eq!(gated.written.lock().len(), b"first\n".len() + fit * line.len());
        assert_eq!(gated.dropped.get(), 5);
    }

    #[test]
    fn a_full_batch_is_one_write() {
        let gated = gated();
        append(&gated.writer, b"first\n");
        gated.began.recv_timeout(LONG).unwrap();
        for _ in 0..1000 {
            append(&gated.writer, b"gathered while the first is written\n");
        }
        drop(gated.leave);
        assert!(gated.writer.close(LONG));
        assert_eq!(gated.began.try_iter().count(), 1);
        assert_eq!(gated.written.lock().len(), 6 + 1000 * 36);
    }

    #[test]
    fn a_buffer_comes_back_to_the_thread_that_fills_it() {
        let shared = Shared::new(IntCounter::new("dropped", "lines").unwrap());
        let mut sink = Sink::open(Box::new(|| Ok(Box::new(io::sink())))).unwrap();
        let mut spare = Vec::new();
        for _ in 0..3 {
            shared.shards[3].0.lock().lines.extend_from_slice(&[b'\n'; 1000]);
            assert!(shared.drain(&mut sink, &mut spare, false));
        }
        let kept = |shard: usize| shared.shards[shard].0.lock().lines.capacity();
        assert!(kept(3) >= 1000, "the next lines find room");
        assert!((0..shared.shards.len()).all(|shard| shard == 3 || kept(shard) == 0));

        shared.shards[3].0.lock().lines.extend_from_slice(&[b'\n'; CAPACITY]);
        (0..3).for_each(|_| {
            shared.shards[3].0.lock().lines.push(b'\n');
            shared.drain(&mut sink, &mut spare, false);
        });
        assert!(kept(3).max(spare.capacity()) < 1000, "what a burst took is given back");
    }
}
