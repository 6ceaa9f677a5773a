//! Pebble, an authority that speaks ACME, with a DNS server that finds every host where the test wants it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::SOON;
use super::tls::{Authority, Caller};

/// A key that it knows, where it wants an external account.
pub const KEY_ID: &str = "kid-1";
pub const HMAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

/// An authority that runs until this is dropped.
pub struct Pebble {
    pki: Authority,
    dir: TempDir,
    address: SocketAddr,
    management: SocketAddr,
    processes: Vec<Process>,
}

/// What an authority is started with.
pub struct Setup {
    /// Where every host is.
    pub hosts_at: IpAddr,
    /// Where it asks over HTTP.
    pub http: u16,
    /// Where it asks in the handshake.
    pub tls: u16,
    /// How long its certificates are valid.
    pub seconds: u32,
    /// Whether it wants an external account.
    pub external: bool,
    /// How many seconds at most it waits before it looks.
    pub sleep: u32,
    /// How many nonces of a hundred it rejects.
    pub nonces: u32,
}

impl Default for Setup {
    fn default() -> Self {
        let hosts_at = Ipv4Addr::LOCALHOST.into();
        Self { hosts_at, http: 1, tls: 1, seconds: 90 * 86_400, external: false, sleep: 0, nonces: 5 }
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pebble {
    /// Starts an authority. A port that somebody else takes first is tried again with another.
    pub fn start(setup: &Setup) -> Self {
        let pki = Authority::new();
        pki.issue("pebble", &["127.0.0.1"]);
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..10 {
            if let Some((address, management, processes)) = attempt(setup, &pki, &dir) {
                return Self { pki, dir, address, management, processes: processes.into() };
            }
        }
        panic!("pebble does not start; it says {:?}", std::fs::read_to_string(dir.path().join("log")));
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// The file of who issued its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.pki.ca()
    }

    /// A client that believes what it issues.
    pub fn client(&self) -> Caller {
        let root = self.pki.client().connect(self.management, "127.0.0.1").unwrap().get("/roots/0");
        let mut client = self.pki.client();
        client.roots = vec![CertificateDer::from_pem_slice(&root.body).unwrap()];
        client
    }

    /// Ends it; its files stay.
    pub fn stop(&mut self) {
        self.processes.clear();
    }

    /// What it says.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

/// A directory before that of a [`Pebble`], with pages of its own. Ends when it is dropped.
pub struct Front {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
}

impl Front {
    /// `change` says other things in the directory, given where this is; `page` answers for all other paths with a
    /// status line, fields and body.
    pub fn start(
        pebble: &Pebble,
        change: impl Fn(&mut Value, &str),
        page: impl Fn(&str) -> String + Send + 'static,
    ) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let usual = pebble
            .pki
            .client()
            .connect(pebble.address, "127.0.0.1")
            .unwrap()
            .ask(format!("GET /dir HTTP/1.1\r\nhost: {}\r\n\r\n", pebble.address));
        let mut directory = serde_json::from_slice(&usual.body).unwrap();
        change(&mut directory, &format!("https://{address}"));
        let directory = directory.to_string();
        let config = Arc::new(pebble.pki.server("pebble"));
        let ending = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ending);
        std::thread::spawn(move || {
            while let Ok((socket, _)) = socket.accept() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                socket.set_read_timeout(Some(SOON)).unwrap();
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(tls, socket));
                let mut line = String::new();
                // Whoever leaves early has no answer.
                let _ = stream.read_line(&mut line);
                let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                while stream.read_line(&mut line).is_ok_and(|read| read > 2) {}
                let answer = match path.as_str() {
                    "/dir" => format!("200 OK\r\ncontent-length: {}\r\n\r\n{directory}", directory.len()),
                    path => page(path),
                };
                let mut stream = stream.into_inner();
                // Each connection has one answer; a client that is not told might ask again on one that is closing.
                let (status, rest) = answer.split_once("\r\n").unwrap();
                let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{rest}");
                let _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Self { address, ending }
    }

    /// The URL of the directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

type Started = (SocketAddr, SocketAddr, [Process; 2]);

fn attempt(setup: &Setup, pki: &Authority, dir: &TempDir) -> Option<Started> {
    let [address, management, dns, control] = free();
    let config = json!({ "pebble": {
        "listenAddress": address.to_string(),
        "managementListenAddress": management.to_string(),
        "certificate": pki.path("pebble.pem"),
        "privateKey": pki.path("pebble.key"),
        "httpPort": setup.http,
        "tlsPort": setup.tls,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": setup.external,
        "externalAccountMACKeys": { KEY_ID: HMAC_KEY },
        "certificateValidityPeriod": setup.seconds,
    }});
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let mut resolver = Command::new("pebble-challtestsrv");
    resolver.args(["-dns01", &dns.to_string(), "-management", &control.to_string(), "-defaultIPv6", ""]);
    resolver.args(["-defaultIPv4", &setup.hosts_at.to_string()]);
    resolver.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
    let mut pebble = Command::new("pebble");
    pebble.arg("-config").arg(dir.path().join("config.json")).args(["-dnsserver", &dns.to_string()]);
    pebble.env("PEBBLE_WFE_NONCEREJECT", setup.nonces.to_string());
    match setup.sleep {
        0 => pebble.env("PEBBLE_VA_NOSLEEP", "1"),
        seconds => pebble.env("PEBBLE_VA_SLEEPTIME", seconds.to_string()),
    };
    let log = File::create(dir.path().join("log")).unwrap();
    let mut processes = [&mut resolver, &mut pebble].map(|command| {
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap());
        let child = command.stderr(log.try_clone().unwrap()).spawn();
        Process(child.expect("Debian has it in the package `pebble`"))
    });
    let by = Instant::now() + SOON;
    loop {
        if processes.iter_mut().any(|process| process.0.try_wait().unwrap().is_some()) {
            return None;
        }
        if [address, management, control].iter().all(|address| TcpStream::connect(address).is_ok()) {
            return Some((address, management, processes));
        }
        assert!(Instant::now() < by, "pebble does not listen");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Ports that nobody had a moment ago.
fn free() -> [SocketAddr; 4] {
    [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()).map(|socket| socket.local_addr().unwrap())
}
