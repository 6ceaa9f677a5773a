//! The proxies under test: found, configured, started on the proxy core, and ended with the value that holds them.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Result;
use super::certificate::Certificate;
use super::configs::{self, Policy, Setting, Setup};
use super::load::{Hello, send_once};
use super::measure::ProcessTree;
use super::options::Options;

const READY_WITHIN: Duration = Duration::from_secs(60);
const BETWEEN_PROBES: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    BarePingora,
    Portcullis,
    Nginx,
    HaProxy,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::BarePingora, Self::Portcullis, Self::Nginx, Self::HaProxy];

    pub fn name(self) -> &'static str {
        match self {
            Self::BarePingora => "bare Pingora",
            Self::Portcullis => "Portcullis",
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
        }
    }
}

/// A proxy's program on this machine.
pub struct Program {
    pub kind: Kind,
    path: PathBuf,
}

impl Program {
    /// `Err` holds the line that says what is missing.
    pub fn find(kind: Kind, options: &Options) -> Result<Self, String> {
        let (path, hint) = match kind {
            Kind::BarePingora => {
                (options.bare_pingora.clone(), "build it: cargo build --release --example bare_pingora")
            }
            Kind::Portcullis => {
                (options.portcullis.clone(), "name its binary: --portcullis PATH or PORTCULLIS_BIN")
            }
            Kind::Nginx => (in_path("nginx"), "install it"),
            Kind::HaProxy => (in_path("haproxy"), "install it"),
        };
        match path {
            Some(path) if path.is_file() => Ok(Self { kind, path }),
            Some(path) => Err(format!("{} is skipped: no file {}; {hint}", kind.name(), path.display())),
            None => Err(format!("{} is skipped: not found; {hint}", kind.name())),
        }
    }

    /// Name and version, for the report.
    pub fn describe(&self) -> String {
        let version = match self.kind {
            Kind::BarePingora => Some("0.9.1".to_owned()),
            Kind::Portcullis => first_version(Command::new(&self.path).arg("version")),
            Kind::Nginx | Kind::HaProxy => first_version(Command::new(&self.path).arg("-v")),
        };
        format!("{} {}", self.kind.name(), version.unwrap_or_default()).trim_end().to_owned()
    }

    /// Starts it before `origin` on `core` and waits until it is ready.
    pub async fn start(
        &self,
        setting: Setting,
        certificate: &Certificate,
        origin: SocketAddr,
        core: usize,
    ) -> Result<Proxy> {
        let scratch = Scratch::create()?;
        let [address, admin] = free_addresses()?;
        let redis = match setting.policy {
            Policy::SharedRateLimit { .. } => Some(Redis::start(core, &scratch.0)?),
            _ => None,
        };
        let certificate = &certificate.write(&scratch.0)?;
        let setup = Setup {
            listen: address,
            admin,
            origin,
            redis: redis.as_ref().map(|redis| redis.address),
            setting,
            certificate,
            directory: &scratch.0,
        };
        let file = scratch.0.join("config");
        let arguments = self.configure(&setup, &file)?;
        let revisions = match self.kind {
            Kind::Portcullis => write_revisions(&setup)?,
            _ => Vec::new(),
        };
        let start = Instant::now();
        let process = Process::spawn(&self.path, &arguments, core, &scratch.0)
            .map_err(|error| format!("cannot run taskset for {}: {error}", self.path.display()))?;
        let mut proxy = Proxy {
            kind: self.kind,
            address,
            admin,
            ready_in: Duration::ZERO,
            process,
            _redis: redis,
            revisions,
            scratch,
        };
        proxy.await_ready(setting).await?;
        proxy.ready_in = start.elapsed();
        Ok(proxy)
    }

    /// Writes what the program reads and returns the arguments that name it.
    fn configure(&self, setup: &Setup, file: &Path) -> Result<Vec<String>> {
        let name = file.display().to_string();
        let text = |text: String| fs::write(file, text);
        Ok(match self.kind {
            Kind::BarePingora => configs::bare_pingora(setup),
            Kind::Portcullis => {
                text(configs::portcullis(setup, 0))?;
                vec!["run".into(), "-c".into(), name]
            }
            Kind::Nginx => {
                text(configs::nginx(setup))?;
                let directory = setup.directory.display().to_string();
                // Named here too, or it would first try the system's error log.
                let log = format!("{directory}/error.log");
                vec!["-p".into(), directory, "-e".into(), log, "-c".into(), name]
            }
            Kind::HaProxy => {
                text(configs::haproxy(setup))?;
                vec!["-db".into(), "-f".into(), name]
            }
        })
    }
}

/// A running proxy; dropping it kills the process and removes its files.
pub struct Proxy {
    pub kind: Kind,
    pub address: SocketAddr,
    /// From the start of the program to the first answer that says it is ready.
    pub ready_in: Duration,
    admin: SocketAddr,
    // Before `scratch`: the process must be gone before its files.
    process: Process,
    _redis: Option<Redis>,
    /// Portcullis' configurations to reload in turn; the first is the one in place.
    revisions: Vec<PathBuf>,
    scratch: Scratch,
}

impl Proxy {
    pub fn processes(&self) -> ProcessTree {
        ProcessTree(self.process.0.id())
    }

    /// Puts the next revision in the configuration's place, as an operator would, and asks Portcullis to reload it.
    pub async fn reload(&mut self) -> Result<()> {
        // A link costs the load core nothing, where a write of megabytes would hold up the load.
        let link = self.scratch.0.join("next");
        self.revisions.rotate_left(1);
        fs::hard_link(&self.revisions[0], &link)?;
        fs::rename(&link, self.scratch.0.join("config"))?;
        let request = b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        match send_once(self.admin, None, request).await? {
            200..=299 => Ok(()),
            status => Err(format!("the reload was answered {status}").into()),
        }
    }

    async fn await_ready(&mut self, setting: Setting) -> Result<()> {
        let (address, tls, path) = match self.kind {
            Kind::Portcullis => (self.admin, None, "/readyz"),
            _ => (self.address, setting.tls.then_some(Hello::HTTP1), "/"),
        };
        let probe = format!("GET {path} HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n");
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if matches!(send_once(address, tls, probe.as_bytes()).await, Ok(200)) {
                return Ok(());
            }
            if let Some(status) = self.process.ended()? {
                return Err(self.failure(&format!("ended with {status}")).into());
            }
            if Instant::now() > deadline {
                return Err(self.failure("did not become ready").into());
            }
            tokio::time::sleep(BETWEEN_PROBES).await;
        }
    }

    fn failure(&self, what: &str) -> String {
        let output = fs::read_to_string(self.scratch.0.join("output")).unwrap_or_default();
        let lines: Vec<&str> = output.lines().collect();
        let tail = lines[lines.len().saturating_sub(10)..].join("\n");
        format!("{} {what}:\n{tail}", self.kind.name())
    }
}

/// A child on one core, killed on drop.
struct Process(Child);

impl Process {
    fn spawn(program: &Path, arguments: &[String], core: usize, directory: &Path) -> io::Result<Self> {
        let output = File::create(directory.join("output"))?;
        // taskset becomes the program: the child's id is the program's.
        Command::new("taskset")
            .args(["-c", &core.to_string()])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map(Self)
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Redis server, which keeps nothing on disk.
struct Redis {
    address: SocketAddr,
    _process: Process,
}

impl Redis {
    /// Starts it beside the load: the proxy has its core to itself.
    fn start(proxy_core: usize, directory: &Path) -> Result<Self> {
        let [address, _] = free_addresses()?;
        let program = in_path("redis-server").ok_or("redis-server is not found; install it")?;
        let directory = directory.join("redis");
        fs::create_dir(&directory)?;
        let arguments = ["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"];
        let arguments: Vec<String> =
            arguments.into_iter().map(str::to_owned).chain([directory.display().to_string()]).collect();
        let process = Process::spawn(&program, &arguments, usize::from(proxy_core == 0), &directory)?;
        Ok(Self { address, _process: process })
    }
}

/// A new directory of our own, removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn create() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("portcullis-bench-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write_revisions(setup: &Setup) -> io::Result<Vec<PathBuf>> {
    let write = |revision| {
        let path = setup.directory.join(format!("revision-{revision}"));
        fs::write(&path, configs::portcullis(setup, revision)).map(|()| path)
    };
    (1..=2).map(write).collect()
}

/// Two different addresses that were free a moment ago; held together until both are known.
fn free_addresses() -> io::Result<[SocketAddr; 2]> {
    let listeners =
        [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
    Ok([listeners[0].local_addr()?, listeners[1].local_addr()?])
}

/// Also where Debian puts servers, which is not in every user's PATH.
fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// The first word of a program's output that holds a version: `2.6.12-1` of `HAProxy version 2.6.12-1 2024/01/01`.
fn first_version(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    version_in(&text).map(str::to_owned)
}

fn version_in(text: &str) -> Option<&str> {
    let is_version =
        |word: &&str| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit());
    let word = text.split(|c: char| c.is_whitespace() || c == '/').find(is_version)?;
    word.split(['-', '+']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_peers() {
        assert_eq!(version_in("nginx version: nginx/1.22.1\n"), Some("1.22.1"));
        assert_eq!(version_in("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://x/\n"), Some("2.6.12"));
        assert_eq!(version_in("portcullis 0.1.0\n"), Some("0.1.0"));
        assert_eq!(version_in("no version\n"), None);
    }

    #[test]
    fn dropping_a_process_ends_it_and_its_files() {
        let scratch = Scratch::create().unwrap();
        let directory = scratch.0.clone();
        let core = super::super::measure::Cores::find().unwrap().proxy;
        let process = Process::spawn(Path::new("sleep"), &["60".into()], core, &directory).unwrap();
        let tree = ProcessTree(process.0.id());
        assert!(tree.resident().unwrap() > 0);
        drop((process, scratch));
        assert!(tree.resident().is_err());
        assert!(!directory.exists());
    }

    #[test]
    fn addresses_differ() {
        let [first, second] = free_addresses().unwrap();
        assert_ne!(first, second);
    }
}
