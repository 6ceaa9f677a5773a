//! Where lines end up, and what happens when that fails: the error is counted, reported at most once a minute, and
//! the next batch tries again.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

/// Opens (and, after a log rotation, opens again) an output.
pub(super) type Open = Box<dyn Fn() -> io::Result<Box<dyn Write + Send>> + Send>;

const REPORT_EVERY: Duration = Duration::from_secs(60);

/// An open output that outlives its failures.
pub(super) struct Sink {
    open: Open,
    out: Box<dyn Write + Send>,
    /// The last write ended within a line.
    torn: bool,
    reported: Option<Instant>,
}

impl Sink {
    /// Opens the output.
    pub(super) fn open(open: Open) -> io::Result<Self> {
        let out = open()?;
        Ok(Self { open, out, torn: false, reported: None })
    }

    /// Opens the output anew. When that fails the old one stays in use, and the error tells of no line lost.
    pub(super) fn reopen(&mut self) -> Result<(), u64> {
        match (self.open)() {
            Ok(out) => {
                self.out = out;
                self.torn = false;
                Ok(())
            }
            Err(error) => {
                self.report("reopened", &error);
                Err(0)
            }
        }
    }

    /// Writes whole lines. The error is the number of lines lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), u64> {
        let mut rest = lines;
        let written = self.mend().and_then(|()| self.write_all(&mut rest)).and_then(|()| self.out.flush());
        written.map_err(|error| {
            self.report("written", &error);
            rest.iter().filter(|byte| **byte == b'\n').count() as u64
        })
    }

    /// Ends a line that a failed write left half done, so that the next one stands alone.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn { self.write_all(&mut b"\n".as_slice()) } else { Ok(()) }
    }

    /// `Write::write_all` that tells how far it came.
    fn write_all(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    let (done, left) = rest.split_at(count);
                    self.torn = done.last() != Some(&b'\n');
                    *rest = left;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn report(&mut self, what: &str, error: &io::Error) {
        let now = Instant::now();
        if self.reported.is_none_or(|last| now.duration_since(last) >= REPORT_EVERY) {
            self.reported = Some(now);
            log::warn!("the access log cannot be {what}: {error}");
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("torn", &self.torn).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    /// A disk with so many bytes left.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        fn sink(&self) -> Sink {
            let disk = self.clone();
            Sink::open(Box::new(move || Ok(Box::new(disk.clone()) as Box<dyn Write + Send>))).unwrap()
        }

        fn room(&self, bytes: usize) {
            self.0.lock().0 = bytes;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().1.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, written) = &mut *self.0.lock();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            *room -= count;
            written.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_the_lines_that_did_not_fit_and_no_other() {
        let disk = Disk::default();
        let mut sink = disk.sink();
        disk.room(7);
        assert_eq!(sink.write(b"one\ntwo\nthree\n"), Err(2));
        assert_eq!(sink.write(b"four\n"), Err(1));
        disk.room(100);
        assert_eq!(sink.write(b"five\n"), Ok(()));
        assert_eq!(disk.text(), "one\ntwo\nfive\n");
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let disk = Disk::default();
        let mut sink = disk.sink();
        disk.room(5);
        assert_eq!(sink.write(b"one\ntwo\n"), Err(1));
        disk.room(100);
        assert_eq!(sink.write(b"three\n"), Ok(()));
        assert_eq!(disk.text(), "one\nt\nthree\n");
    }

    #[test]
    fn failures_are_reported_once_a_minute() {
        let disk = Disk::default();
        let mut sink = disk.sink();
        assert_eq!(sink.write(b"one\n"), Err(1));
        let first = sink.reported.unwrap();
        assert_eq!(sink.write(b"two\n"), Err(1));
        assert_eq!(sink.reported, Some(first));
    }

    #[test]
    fn a_failed_reopening_keeps_the_old_output() {
        let disk = Disk::default();
        let mut sink = disk.sink();
        disk.room(100);
        sink.open = Box::new(|| Err(ErrorKind::NotFound.into()));
        assert_eq!(sink.reopen(), Err(0));
        assert_eq!(sink.write(b"one\n"), Ok(()));
        assert_eq!(disk.text(), "one\n");
    }
}
