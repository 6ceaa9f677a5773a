//! Watches what the process bears, and sheds new requests above the marks of `server.shed`.
//!
//! 1. One task looks, a few times a second; requests read one switch.
//! 2. Memory is what is resident, against the least of the control group's limits (v1 and v2) and the machine's memory.
//! 3. The operator's listener is not asked: health checks go on, so that an orchestrator does not end what only needs air.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::edge::{Drain, Shedding};
use crate::snapshot::{Live, Watermarks};
use crate::telemetry::{EventKind, Events, Subject};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(250);
const GROUPS: &str = "/sys/fs/cgroup";

/// What is above its mark.
#[derive(Debug, PartialEq, Eq)]
enum Pressure {
    Memory { resident: u64, mark: u64 },
    Connections { open: usize, mark: usize },
}

/// Looks, and switches.
#[derive(Clone)]
pub(super) struct PressureWatch {
    pub(super) live: Arc<Live>,
    pub(super) drain: Drain,
    pub(super) shedding: Shedding,
    pub(super) events: Events,
}

impl PressureWatch {
    /// Looks for as long as it is polled.
    pub(super) async fn run(self) {
        let available = available();
        loop {
            self.look(available);
            tokio::time::sleep(LOOK).await;
        }
    }

    fn look(&self, available: Option<u64>) {
        let marks = self.live.load().shed;
        // Nobody who names no mark pays for the reading.
        let resident = marks.memory.and_then(|_| resident());
        let found = pressure(marks, available, resident, self.drain.connections());
        if self.shedding.set(found.is_some()) {
            let tell = |kind, why: &dyn fmt::Display, message: fmt::Arguments<'_>| {
                self.events.tell(kind, Subject::default(), why, message);
            };
            match found {
                Some(found) => {
                    let message = format_args!("new requests are refused: {found}");
                    tell(EventKind::SheddingStarted, &found, message);
                }
                None => {
                    let why = "nothing is above its mark any more";
                    tell(EventKind::SheddingEnded, &why, format_args!("new requests are taken again"));
                }
            }
        }
    }
}

fn pressure(
    marks: Watermarks,
    available: Option<u64>,
    resident: Option<u64>,
    open: usize,
) -> Option<Pressure> {
    let memory = marks.memory.and_then(|mark| mark.bytes(available)).zip(resident);
    match (memory, marks.connections) {
        (Some((mark, resident)), _) if resident > mark => Some(Pressure::Memory { resident, mark }),
        (_, Some(mark)) if open > mark => Some(Pressure::Connections { open, mark }),
        _ => None,
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { resident, mark } => write!(f, "{resident} bytes are resident, above {mark}"),
            Self::Connections { open, mark } => write!(f, "{open} connections are open, above {mark}"),
        }
    }
}

/// Bytes of this process that are in memory.
fn resident() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Bytes that this process may use.
fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kibibytes(&text, "MemTotal:"));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(limit_file).flat_map(|(folder, group, file)| {
        // The limit of each group holds for those below it. In a container the path is often not that of its own view.
        let group = Path::new(group.trim_start_matches('/')).to_owned();
        let folders: Vec<PathBuf> = group.ancestors().map(|above| folder.join(above)).collect();
        folders
            .into_iter()
            .filter_map(move |folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok())
    });
    limits.chain(machine).min()
}

/// Where a line of `/proc/self/cgroup` says that a limit may be: the hierarchy's folder, the group in it, the file.
fn limit_file(line: &str) -> Option<(PathBuf, &str, &'static str)> {
    let mut words = line.splitn(3, ':').skip(1);
    let (controllers, group) = (words.next()?, words.next()?);
    match controllers {
        "" => Some((GROUPS.into(), group, "memory.max")),
        _ if controllers.split(',').any(|name| name == "memory") => {
            Some((Path::new(GROUPS).join("memory"), group, "memory.limit_in_bytes"))
        }
        _ => None,
    }
}

/// The number of a line such as `VmRSS:     1234 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let number = text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix("kB")?;
    number.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_its_mark_is_told() {
        let marks = |memory: Option<&str>, connections| Watermarks {
            memory: memory.map(|mark| mark.parse().unwrap()),
            connections,
        };
        let rows = [
            (marks(None, None), None),
            (marks(Some("80%"), None), Some(Pressure::Memory { resident: 900, mark: 800 })),
            (marks(Some("90%"), None), None),
            (marks(Some("899B"), Some(1)), Some(Pressure::Memory { resident: 900, mark: 899 })),
            (marks(Some("90%"), Some(9)), Some(Pressure::Connections { open: 10, mark: 9 })),
            (marks(None, Some(10)), None),
        ];
        for (marks, expected) in rows {
            assert_eq!(pressure(marks, Some(1000), Some(900), 10), expected, "{marks:?}");
        }
        assert_eq!(
            pressure(marks(Some("1%"), None), None, Some(900), 10),
            None,
            "a share of what is not known"
        );
    }

    #[test]
    fn this_process_is_in_memory_and_below_what_it_may_use() {
        let (resident, available) = (resident().unwrap(), available().unwrap());
        assert!(0 < resident && resident < available, "{resident} of {available}");
    }

    #[test]
    fn limits_are_where_the_kernel_keeps_them() {
        let found =
            |line| limit_file(line).map(|(folder, group, file)| (folder.display().to_string(), group, file));
        assert_eq!(found("0::/a/b"), Some(("/sys/fs/cgroup".into(), "/a/b", "memory.max")));
        assert_eq!(
            found("4:cpu,memory:/x"),
            Some(("/sys/fs/cgroup/memory".into(), "/x", "memory.limit_in_bytes"))
        );
        assert_eq!((found("8:pids:/x"), found("")), (None, None));
        assert_eq!(kibibytes("VmPeak: 9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 << 10));
    }
}
