//! The gateway's program as a child of the test, in a folder and on an address of its own.

use std::fmt::Display;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::client::{Response, get, request};

/// The longest that anything is waited for. On a busy machine a reload, which gives way to all else, takes its time.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");

/// Where a gateway lives: a folder with its configuration, and addresses that are nobody else's.
pub struct Home {
    folder: tempfile::TempDir,
    ip: IpAddr,
    pub web: SocketAddr,
    pub admin: SocketAddr,
}

/// The words of a configuration, as YAML in flow style.
#[derive(Clone)]
pub struct Words {
    pub server: String,
    pub listeners: String,
    pub telemetry: String,
    pub upstreams: String,
    pub routes: String,
    pub more: String,
}

/// A running gateway.
pub struct Gateway {
    pub home: Home,
    child: Child,
    log: Lines,
    out: Lines,
}

/// What a program has written so far, line by line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Home {
    /// A new home. Its IP address is a loopback address that no other test has, so that a port found free stays free.
    pub fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let process = std::process::id().to_be_bytes()[3];
        let ip = IpAddr::V4(Ipv4Addr::new(127, 1 + process % 250, high, low));
        let folder = tempfile::tempdir().unwrap();
        Self { folder, ip, web: free(ip), admin: free(ip) }
    }

    /// Another free address.
    pub fn free(&self) -> SocketAddr {
        free(self.ip)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("portcullis.yaml")
    }

    pub fn upgrade_socket(&self) -> PathBuf {
        self.path("run/upgrade.sock")
    }

    /// Everything to this upstream; nothing logged but by the process.
    pub fn words(&self, origin: impl Display) -> Words {
        Words {
            server: format!(
                "threads: 2, grace_period: 30s, upgrade_socket: {}",
                self.upgrade_socket().display()
            ),
            listeners: format!("{{ name: web, address: \"{}\" }}", self.web),
            telemetry: "access_log: { output: off }".into(),
            upstreams: format!("origin: {{ endpoints: [\"{origin}\"] }}"),
            routes: "{ name: all, path: /*, upstream: origin }".into(),
            more: String::new(),
        }
    }

    /// The same with an access log, and where it is.
    pub fn words_logged(&self, origin: impl Display) -> (Words, PathBuf) {
        let path = self.path("access.log");
        let telemetry = format!("access_log: {{ output: {} }}", path.display());
        (Words { telemetry, ..self.words(origin) }, path)
    }

    /// Puts the words into the file, which is swapped in whole.
    pub fn write(&self, words: &Words) {
        let Words { server, listeners, telemetry, upstreams, routes, more } = words;
        let admin = self.admin;
        self.write_text(&format!(
            "version: 1\nserver: {{ {server} }}\nlisteners: [{listeners}]\nadmin: {{ address: \"{admin}\" }}\n\
             telemetry: {{ {telemetry} }}\nupstreams: {{ {upstreams} }}\nroutes: [{routes}]\n{more}\n"
        ));
    }

    pub fn write_text(&self, text: &str) {
        let fresh = self.path("portcullis.fresh");
        fs::write(&fresh, text).unwrap();
        fs::rename(&fresh, self.config()).unwrap();
    }

    /// The program with some arguments, without anything of the test's environment that it could read.
    pub fn command(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program.as_ref());
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("PORT") || name == "NOTIFY_SOCKET" {
                command.env_remove(&*name);
            }
        }
        command
    }

    /// Runs the program to its end.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        self.command(PROGRAM, arguments).output().unwrap()
    }

    /// Runs a gateway that will not start.
    pub fn fails(&self) -> Output {
        self.ask(&["run", "-c", &self.config().to_string_lossy()])
    }

    /// Starts the gateway with the configuration that was written; it is ready on return.
    pub fn start(self) -> Gateway {
        let config = self.config();
        let command = self.command(PROGRAM, &["run", "-c", &config.to_string_lossy()]);
        self.run(command)
    }

    /// The same by a command of the test's own.
    pub fn run(self, command: Command) -> Gateway {
        let gateway = self.spawn(command);
        gateway.logged("\"msg\":\"ready\"");
        gateway
    }

    /// Starts it and does not wait. All processes that come of it are one group, so that none outlives the test.
    pub fn spawn(self, mut command: Command) -> Gateway {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        let out = Lines::of(child.stdout.take().unwrap());
        Gateway { home: self, child, log, out }
    }
}

fn free(ip: IpAddr) -> SocketAddr {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

impl Gateway {
    /// The process that was started first.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that answers for the gateway now.
    pub fn serving(&self) -> u32 {
        u32::try_from(self.status()["pid"].as_u64().unwrap()).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    pub fn get(&self, path: &str) -> std::io::Result<Response> {
        get(self.home.web, path)
    }

    pub fn body(&self, path: &str) -> String {
        self.get(path).unwrap().text()
    }

    pub fn admin(&self, method: &str, path: &str) -> std::io::Result<Response> {
        request(self.home.admin, method, path)
    }

    pub fn status(&self) -> Value {
        serde_json::from_slice(&self.admin("GET", "/status").unwrap().body).unwrap()
    }

    /// The value of a metric, labels included in its name; 0 when it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.admin("GET", "/metrics").unwrap().text();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Runs a command that takes the configuration file.
    pub fn ask(&self, command: &str) -> Output {
        self.home.ask(&[command, "-c", &self.home.config().to_string_lossy()])
    }

    /// Waits until a line of the process log holds this text.
    pub fn logged(&self, text: &str) -> String {
        eventually(&format!("a log line with {text}"), || {
            let found = self.log().into_iter().find(|line| line.contains(text));
            assert!(found.is_some() || !self.is_silent(), "no line with {text}:\n{}", self.log().join("\n"));
            found
        })
    }

    pub fn log(&self) -> Vec<String> {
        self.log.0.lock().unwrap().clone()
    }

    /// The lines on standard output.
    pub fn out(&self) -> Vec<String> {
        self.out.0.lock().unwrap().clone()
    }

    /// Nobody is left who could write to the log.
    fn is_silent(&self) -> bool {
        Arc::strong_count(&self.log.0) == 1
    }

    /// Waits until the process that was started first has ended.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the end of the process", || self.child.try_wait().unwrap())
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Processes that came of this gateway and have not ended.
    pub fn processes(&self) -> Vec<u32> {
        group(self.pid()).into_iter().filter(|(_, state)| state != "Z").map(|(pid, _)| pid).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the gateway said:\n{}", self.log().join("\n"));
        }
    }
}

impl Lines {
    fn of(source: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let written = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                written.0.lock().unwrap().push(line);
            }
        });
        lines
    }
}

pub fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Whether there is such a process, zombies left out.
pub fn exists(pid: u32) -> bool {
    stat(&pid.to_string()).is_some_and(|(_, _, state)| state != "Z")
}

/// The processes of a group and their states.
pub fn group(group: u32) -> Vec<(u32, String)> {
    let processes =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let stats = processes.filter_map(|name| stat(&name));
    stats.filter(|(_, own, _)| *own == group).map(|(pid, _, state)| (pid, state)).collect()
}

/// Number, group and state.
fn stat(process: &str) -> Option<(u32, u32, String)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let words: Vec<_> = rest.split(' ').collect();
    Some((process.parse().ok()?, words[2].parse().ok()?, words[0].to_owned()))
}

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Standard error as text.
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
