//! One line an exchange, for people and log readers.
//!
//! 1. [`AccessLog::wants`] decides (sampling) before anything is gathered or spelled.
//! 2. [`AccessLog::write`] spells a [`Record`] into the calling thread's buffer. It never waits: what finds no room is
//!    dropped and counted.
//! 3. A writer thread writes the buffers every 50 ms, or sooner when 256 KiB have gathered.
//!
//! Nothing that a client sends can end a line or close a quote, whatever the format.

mod clock;
mod format;
mod record;
mod redact;
mod sampling;
mod sink;
mod template;
mod writer;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use prometheus::IntCounter;

pub use clock::rfc3339;
pub use format::Format;
pub use record::{Address, Record, TlsRecord};
pub use redact::Redact;
pub use sampling::Sampling;
pub use template::{Template, TemplateError};

use sink::Open;
use writer::Writer;

/// How long a dropped log may take to write its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Everything the operator may say about the access log, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where lines go.
    pub output: Output,
    /// What they look like.
    pub format: Format,
    /// Which exchanges get one.
    pub sampling: Sampling,
    /// Headers whose values they hide.
    pub redact: Redact,
}

impl Settings {
    /// No log at all.
    pub fn off() -> Self {
        Self {
            output: Output::Off,
            format: Format::Json,
            sampling: Sampling::default(),
            redact: Redact::default(),
        }
    }
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to; created with mode 0640 since lines hold personal data.
    File(PathBuf),
    /// Nowhere: no line is made.
    Off,
}

/// An `output:` that is neither a word nor a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an output: write stdout, stderr, off, or a path with a slash in it")]
pub struct UnknownOutput(String);

impl FromStr for Output {
    type Err = UnknownOutput;

    /// Reads what stands under `output:`. A path needs a slash, so that a misspelt word does not become a file.
    fn from_str(text: &str) -> Result<Self, UnknownOutput> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            "off" => Ok(Self::Off),
            path if path.contains('/') => Ok(Self::File(path.into())),
            other => Err(UnknownOutput(other.to_owned())),
        }
    }
}

/// The access log: shared by all workers, closed when dropped.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    sampling: Sampling,
    redact: Redact,
    /// None when the output is off.
    writer: Option<Writer>,
    dropped: Option<IntCounter>,
}

impl AccessLog {
    /// A log that writes nothing.
    pub fn off() -> Self {
        let Settings { format, sampling, redact, .. } = Settings::off();
        Self { format, sampling, redact, writer: None, dropped: None }
    }

    /// Whether lines may show response headers, which must be kept for them.
    pub fn shows_response_headers(&self) -> bool {
        self.writer.is_some() && self.format.shows_response_headers()
    }

    /// Opens the output and starts the writer thread; neither when the output is off. Lines lost are counted in
    /// `dropped`, which outlives this log (a reload may replace it).
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or no thread be started.
    pub fn open(settings: Settings, dropped: IntCounter) -> io::Result<Self> {
        let writer = match opener(&settings.output) {
            Some(open) => Some(Writer::start(open, dropped.clone())?),
            None => None,
        };
        let Settings { format, sampling, redact, .. } = settings;
        Ok(Self { format, sampling, redact, writer, dropped: Some(dropped) })
    }

    /// The query parameters whose values no line shows: whoever makes a [`Record`] masks them.
    pub fn hidden_queries(&self) -> &[String] {
        self.redact.hidden_queries()
    }

    /// Whether these settings hide the same as this log does.
    pub fn hides_as(&self, settings: &Settings) -> bool {
        self.redact == settings.redact
    }

    /// Whether an exchange gets a line: ask before building its [`Record`]. `random` draws from `0.0..1.0`.
    pub fn wants(&self, status: u16, duration: Duration, random: impl FnOnce() -> f64) -> bool {
        self.writer.is_some() && self.sampling.keeps(status, duration, random)
    }

    /// Hands over the line for `record`. Never waits.
    pub fn write(&self, record: &Record<'_>) {
        if let Some(writer) = &self.writer {
            writer.append(|clock, out| self.format.write(record, &self.redact, clock, out));
        }
    }

    /// Opens the output's path anew, soon: call it after a log rotation.
    pub fn reopen(&self) {
        self.writer.iter().for_each(Writer::reopen);
    }

    /// Takes no more lines and waits, at most `timeout`, until all are written. Says whether they are. Later lines
    /// count as dropped.
    pub fn close(&self, timeout: Duration) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.close(timeout))
    }

    /// Lines lost so far: no room, a failed write, or a log already closed.
    pub fn dropped(&self) -> u64 {
        self.dropped.as_ref().map_or(0, IntCounter::get)
    }

    /// Writes and reopenings that failed so far.
    pub fn errors(&self) -> u64 {
        self.writer.as_ref().map_or(0, Writer::errors)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close(LAST_LINES);
    }
}

fn opener(output: &Output) -> Option<Open> {
    match output {
        Output::Stdout => Some(Box::new(|| Ok(Box::new(io::stdout())))),
        Output::Stderr => Some(Box::new(|| Ok(Box::new(io::stderr())))),
        Output::File(path) => {
            let path = path.clone();
            Some(Box::new(move || open_file(&path)))
        }
        Output::Off => None,
    }
}

fn open_file(path: &Path) -> io::Result<Box<dyn Write + Send>> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    let file = options
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("access log {}: {error}", path.display())))?;
    Ok(Box::new(file))
}

#[cfg(test)]
mod tests {
    use super::record::tests::full;
    use super::*;
    use std::fs;
    use std::thread;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(10);

    fn settings(output: Output) -> Settings {
        let format = "{status} {tries}".parse().unwrap();
        Settings { output, format, sampling: Sampling::default(), redact: Redact::default() }
    }

    fn open(output: Output) -> AccessLog {
        AccessLog::open(settings(output), IntCounter::new("dropped", "lines").unwrap()).unwrap()
    }

    fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + LONG;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn a_line_appears_without_being_pushed_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let log = open(Output::File(path.clone()));
        for count in 1..=3 {
            let start = Instant::now();
            log.write(&full());
            until("the line is written", || fs::read_to_string(&path).unwrap() == "502 2\n".repeat(count));
            // Promised are 100 ms; the rest is for a loaded machine.
            assert!(start.elapsed() < Duration::from_secs(1));
        }
    }

    #[test]
    fn closing_writes_every_line_whole_and_takes_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let log = open(Output::File(path.clone()));
        thread::scope(|scope| {
            for thread in 0..8 {
                let log = &log;
                scope.spawn(move || {
                    (0..5000).for_each(|tries| log.write(&Record { status: thread, tries, ..full() }))
                });
            }
        });
        assert!(log.close(LONG));
        log.write(&full());
        assert!(log.close(LONG), "closing twice is harmless");

        assert_eq!(log.dropped(), 1);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 40_000);
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 40_000);
    }

    #[test]
    fn lines_follow_the_path_after_a_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let (path, rotated) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
        let log = open(Output::File(path.clone()));
        log.write(&full());
        until("the first line is written", || fs::read_to_string(&path).unwrap() == "502 2\n");
        fs::rename(&path, &rotated).unwrap();
        log.reopen();
        until("the path is opened anew", || path.exists());
        log.write(&full());
        assert!(log.close(LONG));
        assert_eq!(fs::read_to_string(&path).unwrap(), "502 2\n");
        assert_eq!(fs::read_to_string(&rotated).unwrap(), "502 2\n");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_counted_and_survived() {
        let log = open(Output::File("/dev/full".into()));
        log.write(&full());
        until("the write has failed", || log.errors() == 1 && log.dropped() == 1);
        log.write(&full());
        assert!(log.close(LONG));
        assert_eq!((log.errors(), log.dropped()), (2, 2));
    }

    #[test]
    #[cfg(unix)]
    fn a_log_file_is_not_for_everyone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        drop(open(Output::File(path.clone())));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
    }

    #[test]
    fn dropping_the_log_writes_its_last_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let log = open(Output::File(path.clone()));
        log.write(&full());
        drop(log);
        assert_eq!(fs::read_to_string(&path).unwrap(), "502 2\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let output = Output::File("/nowhere/access.log".into());
        let error =
            AccessLog::open(settings(output), IntCounter::new("dropped", "lines").unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("access log /nowhere/access.log: "), "{error}");
    }

    #[test]
    fn an_output_that_is_off_wants_nothing() {
        let log = open(Output::Off);
        assert!(!log.wants(500, LONG, || 0.0));
        log.write(&full());
        log.reopen();
        assert!(log.close(Duration::ZERO));
        assert_eq!((log.dropped(), log.errors()), (0, 0));
    }

    #[test]
    fn sampling_is_asked() {
        let sampling = Sampling { success: 0.0, slow: None, errors: 1.0 };
        let settings = Settings { sampling, ..settings(Output::Stderr) };
        let log = AccessLog::open(settings, IntCounter::new("dropped", "lines").unwrap()).unwrap();
        assert!(log.wants(500, Duration::ZERO, || 0.5));
        assert!(!log.wants(200, Duration::ZERO, || 0.5));
    }

    #[test]
    fn outputs_are_words_or_paths() {
        assert_eq!("stdout".parse(), Ok(Output::Stdout));
        assert_eq!("stderr".parse(), Ok(Output::Stderr));
        assert_eq!("off".parse(), Ok(Output::Off));
        assert_eq!("/var/log/a.log".parse(), Ok(Output::File("/var/log/a.log".into())));
        assert_eq!("stdotu".parse::<Output>(), Err(UnknownOutput("stdotu".to_owned())));
    }
}
