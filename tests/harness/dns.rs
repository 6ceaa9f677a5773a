//! A name server of a test's own (dnsmasq), whose records change.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::SOON;

/// A server for names below `.internal` that runs until this is dropped. Its answers hold for a second.
pub struct NameServer {
    address: SocketAddr,
    dir: TempDir,
    child: Option<Child>,
}

/// A service under `_http._tcp.app.internal`.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    pub address: SocketAddr,
    pub priority: u16,
    pub weight: u16,
}

impl NameServer {
    /// A port where one will be, and nobody is.
    pub fn away() -> Self {
        Self { address: free(), dir: tempfile::tempdir().unwrap(), child: None }
    }

    /// One that knows `app.internal` by these addresses.
    pub fn start(addresses: &[&str]) -> Self {
        let mut server = Self::away();
        server.write(addresses);
        while !server.attempt(&[]) {
            // Somebody else took the port first.
            server.address = free();
        }
        server
    }

    /// Starts it where nobody is so far.
    pub fn arrive(&mut self, addresses: &[&str]) {
        self.write(addresses);
        assert!(self.attempt(&[]), "the port is taken");
    }

    /// Starts it anew with these services.
    pub fn serve(&mut self, services: &[Service]) {
        self.stop();
        fs::write(self.hosts(), "127.0.0.1 host.internal\n").unwrap();
        let record = |service: &Service| {
            let Service { address, priority, weight } = service;
            format!("--srv-host=_http._tcp.app.internal,host.internal,{},{priority},{weight}", address.port())
        };
        assert!(self.attempt(&services.iter().map(record).collect::<Vec<_>>()), "the port is taken");
    }

    /// From now on `app.internal` has these addresses.
    pub fn tell(&self, addresses: &[&str]) {
        self.write(addresses);
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id().try_into().unwrap()));
        kill_process(pid.unwrap(), Signal::HUP).unwrap();
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn hosts(&self) -> PathBuf {
        self.dir.path().join("hosts")
    }

    fn write(&self, addresses: &[&str]) {
        let lines: Vec<String> =
            addresses.iter().map(|address| format!("{address} app.internal\n")).collect();
        fs::write(self.hosts(), lines.concat()).unwrap();
    }

    fn attempt(&mut self, more: &[String]) -> bool {
        let mut command = Command::new("dnsmasq");
        // It would become nobody, who cannot read the test's files.
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args([
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--local=/internal/",
            "--local-ttl=1",
        ]);
        command.arg(format!("--port={}", self.address.port()));
        command.arg(format!("--addn-hosts={}", self.hosts().display())).args(more);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("Debian has it in the package `dnsmasq-base`");
        let by = Instant::now() + SOON;
        while TcpStream::connect(self.address).is_err() {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < by, "dnsmasq does not listen");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.child = Some(child);
        true
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
