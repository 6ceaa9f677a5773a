//! A Redis server of a test's own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use redis::{Connection, FromRedisValue};
use tempfile::TempDir;

use super::SOON;
use super::tls::Authority;

/// A server that runs until this is dropped. It keeps nothing on disk.
pub struct Redis {
    address: SocketAddr,
    /// Where it speaks TLS, if it does that beside.
    secure: Option<SocketAddr>,
    password: &'static str,
    tls: Option<Authority>,
    dir: TempDir,
    child: Option<Child>,
}

impl Redis {
    /// One that anybody may ask.
    pub fn start() -> Self {
        Self::start_as("", None)
    }

    /// One that wants a password.
    pub fn with_password(password: &'static str) -> Self {
        Self::start_as(password, None)
    }

    /// One that speaks TLS alone, with a certificate of this authority for 127.0.0.1.
    pub fn with_tls(pki: Authority) -> Self {
        pki.issue("redis", &["127.0.0.1"]);
        Self::start_as("", Some(pki))
    }

    /// One that speaks TLS beside, at a port of its own and to its like, with a certificate of this authority for 127.0.0.1.
    pub fn beside_tls(pki: &Authority) -> Self {
        loop {
            let mut server = Self::away();
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
            command.arg(server.dir.path()).args(["--port", &server.address.port().to_string()]);
            command.args(
                server
                    .words_of_tls(pki)
                    .iter()
                    .flat_map(|(name, value)| [format!("--{name}"), value.clone()]),
            );
            if server.spawn(command) {
                return server;
            }
        }
    }

    /// What it is told to speak TLS beside.
    fn words_of_tls(&mut self, pki: &Authority) -> Vec<(&'static str, String)> {
        let secure = *self.secure.insert(free());
        pki.issue("redis", &["127.0.0.1"]);
        let path = |name| pki.path(name).display().to_string();
        vec![
            ("tls-port", secure.port().to_string()),
            ("tls-auth-clients", "no".into()),
            ("tls-replication", "yes".into()),
            ("tls-cert-file", path("redis.pem")),
            ("tls-key-file", path("redis.key")),
            ("tls-ca-cert-file", pki.ca().display().to_string()),
        ]
    }

    /// Where it speaks TLS beside.
    pub fn secure(&self) -> SocketAddr {
        self.secure.unwrap()
    }

    /// One that follows another, and is its copy.
    pub fn following(first: &Redis) -> Self {
        Self::start().follows(first)
    }

    /// The same, as the copy of another.
    pub fn follows(self, first: &Redis) -> Self {
        let server = self;
        let port = first.secure.unwrap_or(first.address).port().to_string();
        server.ask::<()>(&["REPLICAOF", "127.0.0.1", &port]);
        super::eventually("it is a copy", || {
            let told: String = server.ask(&["INFO", "replication"]);
            told.contains("master_link_status:up")
        });
        server
    }

    /// A cluster of so many, each with its share of the slots.
    pub fn cluster(count: u16) -> Vec<Self> {
        Self::cluster_by(count, None)
    }

    /// The same, of servers that speak TLS beside and among themselves.
    pub fn cluster_with_tls(count: u16, pki: &Authority) -> Vec<Self> {
        Self::cluster_by(count, Some(pki))
    }

    fn cluster_by(count: u16, pki: Option<&Authority>) -> Vec<Self> {
        let start = || loop {
            let mut server = Self::away();
            let bus = free().port();
            let mut command = Command::new("redis-server");
            command.args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--cluster-enabled",
                "yes",
            ]);
            command.args(["--port", &server.address.port().to_string(), "--cluster-port", &bus.to_string()]);
            command.arg("--dir").arg(server.dir.path());
            if let Some(pki) = pki {
                let words = server.words_of_tls(pki);
                command.args(words.iter().flat_map(|(name, value)| [format!("--{name}"), value.clone()]));
                command.args(["--tls-cluster", "yes"]);
            }
            if server.spawn(command) {
                break (server, bus);
            }
        };
        let servers: Vec<_> = (0..count).map(|_| start()).collect();
        for (at, (server, _)) in (0..).zip(&servers) {
            let (from, to) =
                (16384 / count * at, if at + 1 == count { 16383 } else { 16384 / count * (at + 1) - 1 });
            server.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]);
            let (first, bus) = &servers[0];
            let port = first.secure.unwrap_or(first.address).port().to_string();
            server.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus.to_string()]);
        }
        let servers: Vec<_> = servers.into_iter().map(|(server, _)| server).collect();
        super::eventually("they are one cluster", || {
            servers.iter().all(|server| {
                let told: String = server.ask(&["CLUSTER", "INFO"]);
                told.contains("cluster_state:ok") && told.contains(&format!("cluster_known_nodes:{count}"))
            })
        });
        servers
    }

    /// A sentinel that calls this server `main`, and puts another in its place soon after it is gone.
    pub fn sentinel(first: &Redis) -> Self {
        Self::sentinel_by(first, None)
    }

    /// The same, which speaks TLS beside, and to the servers.
    pub fn sentinel_with_tls(first: &Redis, pki: &Authority) -> Self {
        Self::sentinel_by(first, Some(pki))
    }

    fn sentinel_by(first: &Redis, pki: Option<&Authority>) -> Self {
        let mut sentinel = Self::away();
        loop {
            let more = pki.map(|pki| sentinel.words_of_tls(pki)).unwrap_or_default();
            let more: String = more.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
            let words = format!(
                "port {}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
                 sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n",
                sentinel.address.port(),
                first.secure.unwrap_or(first.address).port()
            );
            let file = sentinel.dir.path().join("sentinel.conf");
            std::fs::write(&file, format!("{more}{words}")).unwrap();
            let mut command = Command::new("redis-server");
            command.arg(&file).arg("--sentinel");
            if sentinel.spawn(command) {
                return sentinel;
            }
            sentinel.address = free();
        }
    }

    /// A port where one will be, and nobody is.
    pub fn away() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { address: free(), secure: None, password: "", tls: None, dir, child: None }
    }

    fn start_as(password: &'static str, tls: Option<Authority>) -> Self {
        let mut server = Self::away();
        (server.password, server.tls) = (password, tls);
        while !server.attempt() {
            // Somebody else took the port first.
            server.address = free();
        }
        server
    }

    /// Starts it again where it was, empty.
    pub fn start_again(&mut self) {
        self.stop();
        assert!(self.attempt(), "the port is taken");
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    fn attempt(&mut self) -> bool {
        let port = self.address.port().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(self.dir.path());
        match &self.tls {
            None => command.args(["--port", &port]),
            Some(pki) => {
                command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
                command.arg("--tls-cert-file").arg(pki.path("redis.pem"));
                command.arg("--tls-key-file").arg(pki.path("redis.key"));
                command.arg("--tls-ca-cert-file").arg(pki.ca())
            }
        };
        if !self.password.is_empty() {
            command.args(["--requirepass", self.password]);
        }
        self.spawn(command)
    }

    /// Whether it listens.
    fn spawn(&mut self, mut command: Command) -> bool {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("Debian has it in the package `redis-server`");
        let by = Instant::now() + SOON;
        while TcpStream::connect(self.address).is_err() {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < by, "redis-server does not listen");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.child = Some(child);
        true
    }

    /// Where it is, with the password it wants.
    pub fn url(&self) -> String {
        let user = if self.password.is_empty() { String::new() } else { format!(":{}@", self.password) };
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{user}{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority of its certificate.
    pub fn pki(&self) -> &Authority {
        self.tls.as_ref().unwrap()
    }

    /// What it answers. A server that speaks TLS is not asked by tests.
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut self.connection()).unwrap()
    }

    fn connection(&self) -> Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Its keys that end so.
    pub fn keys(&self, end: &str) -> Vec<String> {
        self.ask(&["KEYS", &format!("*{end}")])
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The key where the lock, the certificate and so on (`what`) for one host from a directory is.
pub fn key(directory: &str, what: &str, host: &str) -> String {
    let short = |text: &str| {
        let digest = digest(&SHA256, text.as_bytes());
        digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let at = directory.strip_prefix("https://").unwrap().split([':', '/']).next().unwrap();
    format!("portcullis:acme:{{{at}-{}}}:{what}:{host}-{}", short(directory), short(host))
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
