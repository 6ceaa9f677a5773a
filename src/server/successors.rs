//! Life after an upgrade as process 1, as in a container.
//!
//! 1. The kernel ends all of a PID namespace with its process 1. So a process 1 that has handed over stays, without
//!    sockets or work, until the last of its successors has ended; then it ends with the exit code of that one.
//! 2. Meanwhile it is what a supervisor is: it passes its signals on and reaps who ends.

use std::fs;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};
use tokio::signal::unix::SignalKind;

/// Whether the end of this process would be the end of all others.
pub(super) fn is_needed() -> bool {
    getpid().is_init()
}

/// Passes a signal on to the successors.
pub(super) fn tell(heard: SignalKind) {
    let Some(signal) = Signal::from_named_raw(heard.as_raw_value()).filter(|_| is_needed()) else { return };
    for successor in successors() {
        if let Err(error) = kill_process(successor, signal) {
            log::warn!("process {successor:?} did not get signal {signal:?}: {error}");
        }
    }
}

/// Stays until no successor is left. Returns the exit code of the last one.
pub(super) fn outlive() -> i32 {
    log::info!("process 1 stays for those that come after it");
    let mut code = 0;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((_, status))) => code = exit_code(status),
            Err(rustix::io::Errno::INTR) => continue,
            Ok(None) | Err(_) => return code,
        }
        if successors().is_empty() {
            return code;
        }
    }
}

/// As shells tell it: 128 and the signal, when a signal ended the process.
fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| Some(128 + status.terminating_signal()?)).unwrap_or(1)
}

/// The children of this process in its own process group: the process it handed over to, and whoever that one handed
/// over to and left to process 1. What was started in a container by others has a group of its own.
fn successors() -> Vec<Pid> {
    let Some(own) = Stat::of("self") else { return Vec::new() };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let stats = numbered.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    stats
        .filter_map(|name| Stat::of(&name))
        .filter(|stat| stat.parent == own.pid && stat.group == own.group && !stat.ended)
        .filter_map(|stat| Pid::from_raw(stat.pid))
        .collect()
}

/// What `/proc/PID/stat` says of a process.
struct Stat {
    pid: i32,
    parent: i32,
    group: i32,
    /// It has ended, and nobody has taken note yet.
    ended: bool,
}

impl Stat {
    fn of(process: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    /// The second word is the program's name in parentheses; anything may stand in it.
    fn parse(text: &str) -> Option<Self> {
        let pid = text.split(' ').next()?.parse().ok()?;
        let (_, rest) = text.rsplit_once(')')?;
        let mut words = rest.split_ascii_whitespace();
        let ended = matches!(words.next()?, "Z" | "X");
        Some(Self { pid, parent: words.next()?.parse().ok()?, group: words.next()?.parse().ok()?, ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let stat = Stat::parse("17 (a) Z 3 4) S 1 9 9 0 -1\n").unwrap();
        assert_eq!((stat.pid, stat.parent, stat.group, stat.ended), (17, 1, 9, false));
        assert!(Stat::parse("17 (x) Z 1 9 9").unwrap().ended);
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn this_process_is_read() {
        assert_eq!(Stat::of("self").unwrap().pid, getpid().as_raw_nonzero().get());
    }
}
