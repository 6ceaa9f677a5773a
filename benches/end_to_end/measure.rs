//! What the kernel knows (proc(5)): processor time and memory of a process tree, and how busy the two cores were.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A process and all its descendants.
#[derive(Clone, Copy)]
pub struct ProcessTree(pub u32);

impl ProcessTree {
    /// User and system time of all threads so far, to one clock tick (10 ms as a rule).
    pub fn cpu_time(self) -> io::Result<Duration> {
        let mut ticks = 0;
        for pid in self.processes()? {
            // Children that ended between the listing and here have nothing more to add.
            ticks += read_stat(pid).map_or(0, |stat| stat.cpu_ticks);
        }
        Ok(ticks_to_duration(ticks))
    }

    /// Resident memory now, in bytes.
    pub fn resident(self) -> io::Result<u64> {
        self.sum_of_status("VmRSS:")
    }

    /// The highest resident memory so far, in bytes; over several processes the sum of each one's peak.
    pub fn peak_resident(self) -> io::Result<u64> {
        self.sum_of_status("VmHWM:")
    }

    fn sum_of_status(self, field: &str) -> io::Result<u64> {
        let mut bytes = 0;
        for pid in self.processes()? {
            if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
                bytes += kibibytes(&status, field).unwrap_or(0) * 1024;
            }
        }
        Ok(bytes)
    }

    /// Errors when the root itself is gone: no figure of a dead process passes for a measurement.
    fn processes(self) -> io::Result<Vec<u32>> {
        let root = read_stat(self.0)?;
        if matches!(root.state, b'Z' | b'X') {
            return Err(io::Error::other(format!("process {} has ended", self.0)));
        }
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, read_stat(pid).ok()?.parent)))
            .collect();
        let mut tree = vec![self.0];
        let mut next = 0;
        while let Some(&parent) = tree.get(next) {
            tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| pid));
            next += 1;
        }
        Ok(tree)
    }
}

struct Stat {
    state: u8,
    parent: u32,
    cpu_ticks: u64,
}

fn read_stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::other("malformed /proc/PID/stat"))
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The command's name stands in parentheses and may hold anything, parentheses included.
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        cpu_ticks: number(11)? + number(12)?,
    })
}

/// A stretch of load on one proxy, from [`Window::open`] to [`Window::close`].
pub struct Window {
    cores: Cores,
    proxy: ProcessTree,
    opened: Instant,
    proxy_cpu: Duration,
    own_cpu: Duration,
    proxy_core: CoreTime,
    load_core: CoreTime,
}

/// What went on in a window.
pub struct Usage {
    pub proxy_cpu: Duration,
    /// Share of the time in which the load core had nothing to do, 0 to 1.
    pub load_idle: f64,
    /// Share of a core that neither the proxy nor this process used, on the core where that is more: the disturbance.
    pub foreign: f64,
}

impl Window {
    pub fn open(cores: Cores, proxy: ProcessTree) -> io::Result<Self> {
        Ok(Self {
            cores,
            proxy,
            opened: Instant::now(),
            proxy_cpu: proxy.cpu_time()?,
            own_cpu: own_cpu_time()?,
            proxy_core: CoreTime::now(cores.proxy)?,
            load_core: CoreTime::now(cores.load)?,
        })
    }

    pub fn close(self) -> io::Result<Usage> {
        let elapsed = self.opened.elapsed();
        let proxy_cpu = self.proxy.cpu_time()?.saturating_sub(self.proxy_cpu);
        let own_cpu = own_cpu_time()?.saturating_sub(self.own_cpu);
        let proxy_idle = CoreTime::now(self.cores.proxy)?.idle_share_since(self.proxy_core);
        let load_idle = CoreTime::now(self.cores.load)?.idle_share_since(self.load_core);
        let share = |cpu: Duration| cpu.as_secs_f64() / elapsed.as_secs_f64();
        let foreign = (1.0 - proxy_idle - share(proxy_cpu)).max(1.0 - load_idle - share(own_cpu));
        Ok(Usage { proxy_cpu, load_idle, foreign: foreign.clamp(0.0, 1.0) })
    }
}

/// Of this process alone, without the proxies it started.
fn own_cpu_time() -> io::Result<Duration> {
    Ok(ticks_to_duration(read_stat(std::process::id())?.cpu_ticks))
}

/// One core's time so far.
#[derive(Clone, Copy)]
struct CoreTime {
    idle: u64,
    total: u64,
}

impl CoreTime {
    fn now(core: usize) -> io::Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        parse_core(&text, core).ok_or_else(|| io::Error::other(format!("no core {core} in /proc/stat")))
    }

    /// Share of the time since `earlier` in which the core had nothing to do, 0 to 1.
    fn idle_share_since(self, earlier: Self) -> f64 {
        match self.total.saturating_sub(earlier.total) {
            0 => 0.0,
            total => self.idle.saturating_sub(earlier.idle) as f64 / total as f64,
        }
    }
}

fn parse_core(text: &str, core: usize) -> Option<CoreTime> {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} ")))?;
    // user nice system idle iowait irq softirq steal; guest time is already within user.
    let times: Vec<u64> = line.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    Some(CoreTime { idle: times.get(3)? + times.get(4)?, total: times.iter().sum() })
}

/// The two cores of the bench.
#[derive(Clone, Copy)]
pub struct Cores {
    pub proxy: usize,
    /// Of the load generator and the origin.
    pub load: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    pub fn find() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        match (cores.next(), cores.next()) {
            (Some(proxy), Some(load)) => Ok(Self { proxy, load }),
            _ => {
                Err(io::Error::other("the bench needs two cores: one for the proxy, one for load and origin"))
            }
        }
    }

    /// Keeps this thread, and the threads it starts, on the load core.
    pub fn pin_load(self) -> io::Result<()> {
        let mut only = CpuSet::new();
        only.set(self.load);
        Ok(sched_setaffinity(None, &only)?)
    }
}

/// The machine in the three words that the report names.
pub struct Machine {
    pub cores: usize,
    pub memory_gib: u64,
    /// `6.12.3`, without what a distribution appends.
    pub kernel: String,
}

impl Machine {
    /// To be asked before any pinning, which would hide cores.
    pub fn describe() -> io::Result<Self> {
        let memory = kibibytes(&fs::read_to_string("/proc/meminfo")?, "MemTotal:").unwrap_or(0);
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let kernel = release.trim().split(['-', '+']).next().unwrap_or_default().to_owned();
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: memory.div_ceil(1024 * 1024),
            kernel,
        })
    }
}

/// The value of a `Name:   123 kB` line.
fn kibibytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

fn ticks_to_duration(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_hostile_command_name_does_not_shift_the_fields() {
        let text = "42 (a) R 7 (b) S 17 1 1 0 -1 0 0 0 0 0 150 30 9 9 20 0 1 0 5 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.cpu_ticks), (b'S', 17, 180));
        assert!(parse_stat("42 (a) S 17").is_none());
    }

    #[test]
    fn idle_share_counts_waiting_as_idle_and_steal_as_busy() {
        let text = |times| format!("cpu  1 1 1 1\ncpu1 {times}\ncpu10 9 9 9 9 9 9 9 9 9 9\n");
        let before = parse_core(&text("10 0 10 100 0 0 0 0 0 0"), 1).unwrap();
        let after = parse_core(&text("30 0 20 130 10 5 5 20 0 0"), 1).unwrap();
        assert!((after.idle_share_since(before) - 0.4).abs() < 1e-12);
        assert_eq!(before.idle_share_since(before), 0.0);
        assert!(parse_core(&text("1 1 1 1"), 2).is_none());
    }

    #[test]
    fn sizes_of_a_status_file() {
        assert_eq!(kibibytes("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n", "VmRSS:"), Some(1024));
        assert_eq!(kibibytes("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn processor_time_grows_with_work() {
        let tree = ProcessTree(std::process::id());
        let before = tree.cpu_time().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while tree.cpu_time().unwrap() < before + Duration::from_millis(50) {
            assert!(Instant::now() < deadline, "processor time stands still");
        }
        assert!(tree.peak_resident().unwrap() >= tree.resident().unwrap() / 2);
    }

    #[test]
    fn a_window_tells_the_proxy_from_the_rest() {
        let window = Window::open(Cores::find().unwrap(), ProcessTree(std::process::id())).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while ProcessTree(std::process::id()).cpu_time().unwrap()
            < window.proxy_cpu + Duration::from_millis(50)
        {
            assert!(Instant::now() < deadline, "processor time stands still");
        }
        let usage = window.close().unwrap();
        assert!(usage.proxy_cpu >= Duration::from_millis(50));
        assert!((0.0..=1.0).contains(&usage.foreign) && (0.0..=1.0).contains(&usage.load_idle));
    }

    #[test]
    fn a_tree_holds_the_descendants_and_errors_once_its_root_has_ended() {
        let mut child = Command::new("sh")
            .args(["-c", "cat | cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let tree = ProcessTree(child.id());
        let deadline = Instant::now() + Duration::from_secs(10);
        while tree.processes().unwrap().len() < 3 {
            assert!(Instant::now() < deadline, "the children do not show");
        }
        drop(child.stdin.take());
        while tree.processes().is_ok() {
            assert!(Instant::now() < deadline, "an ended process passes for a live one");
        }
        child.wait().unwrap();
    }

    #[test]
    fn the_machine_has_cores_memory_and_a_plain_kernel_version() {
        let machine = Machine::describe().unwrap();
        assert!(machine.cores > 0 && machine.memory_gib > 0);
        assert!(machine.kernel.chars().all(|c| c.is_ascii_digit() || c == '.'));
    }
}
