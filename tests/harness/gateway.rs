//! The gateway under test, in this process, on free ports.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use portcullis::Running;
use serde_json::Value;
use tempfile::TempDir;

use super::message::Response;
use super::{Client, Origin, SOON, eventually_some, process_log};

/// A gateway that runs until it is dropped.
pub struct Gateway {
    running: Option<Running>,
    dir: TempDir,
}

impl Gateway {
    /// Starts a gateway. Sections that a test does not care about are added when they are missing: `server` with one
    /// thread, a listener `web`, the admin listener, and an access log that [`log`](Self::log) reads.
    pub fn start(yaml: &str) -> Self {
        Self::start_with(yaml, |gateway| gateway)
    }

    /// Starts a gateway with filters or handlers written in Rust.
    pub fn start_with(yaml: &str, change: impl FnOnce(portcullis::Gateway) -> portcullis::Gateway) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gateway = portcullis::Gateway::from_yaml(&complete(yaml, &dir));
        Self::run(change(gateway), dir)
    }

    /// Starts a gateway from a file that can be rewritten.
    pub fn start_file(yaml: &str) -> Self {
        Self::start_file_with(yaml, |gateway| gateway)
    }

    /// Starts a gateway from a file, with filters or handlers written in Rust.
    pub fn start_file_with(
        yaml: &str,
        change: impl FnOnce(portcullis::Gateway) -> portcullis::Gateway,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("portcullis.yaml");
        fs::write(&path, complete(yaml, &dir)).unwrap();
        Self::run(change(portcullis::Gateway::from_file(path)), dir)
    }

    /// Starts a gateway that sends everything to these origins, in turn.
    pub fn before(origins: &[&Origin]) -> Self {
        Self::start(&to(origins, ""))
    }

    /// Starts a gateway that sends everything to this origin, with these words in its route.
    pub fn before_with(origin: &Origin, route: &str) -> Self {
        Self::start(&to(&[origin], route))
    }

    fn run(gateway: portcullis::Gateway, dir: TempDir) -> Self {
        process_log::listen();
        let running = gateway.start().unwrap_or_else(|error| panic!("{error}"));
        Self { running: Some(running), dir }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// The address of the first listener.
    pub fn address(&self) -> SocketAddr {
        self.listener("")
    }

    /// The address of a listener.
    pub fn listener(&self, name: &str) -> SocketAddr {
        self.running().address(name).expect("a listener of this name")
    }

    /// The address of the admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.running().admin().expect("an admin listener")
    }

    /// A folder of the test's own, which holds the file of [`start_file`](Self::start_file).
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// A new connection to the first listener.
    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// A GET on a new connection.
    pub fn get(&self, target: &str) -> Response {
        self.client().get(target)
    }

    /// One request on a new connection.
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> Response {
        self.client().ask(bytes)
    }

    /// A GET to the admin listener.
    pub fn admin_get(&self, path: &str) -> Response {
        self.admin_ask("GET", path, "")
    }

    /// A request to the admin listener.
    pub fn admin_ask(&self, method: &str, path: &str, body: &str) -> Response {
        let address = self.admin();
        let mut client = Client::connect(address);
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        client.response_to(method)
    }

    /// The value of a metric: `portcullis_requests_total{route="a"}` as `/metrics` prints it; 0 when it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.admin_get("/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }

    /// Rewrites the file of [`start_file`](Self::start_file), which is watched, too.
    pub fn rewrite(&self, yaml: &str) {
        let path = self.dir.path().join("portcullis.yaml");
        let next = self.dir.path().join("next");
        fs::write(&next, complete(yaml, &self.dir)).unwrap();
        fs::rename(next, path).unwrap();
    }

    /// Reads the configuration again.
    pub fn reload(&self) -> Result<u64, String> {
        self.running().reload()
    }

    /// Every line of the access log so far.
    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for a line of the access log.
    pub fn logged(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually_some("a line in the access log", || self.log().into_iter().find(&wanted))
    }

    /// Waits for the access log line with this number, from 0.
    pub fn log_line(&self, index: usize) -> Value {
        eventually_some("a line in the access log", || self.log().get(index).cloned())
    }

    /// Waits for the access log line of this path.
    pub fn log_of(&self, path: &str) -> Value {
        self.logged(|line| line["path"] == path)
    }

    /// Ends gracefully; panics when that takes too long.
    pub fn shutdown(mut self) {
        let running = self.running.take().unwrap();
        let ending = std::thread::spawn(move || running.shutdown());
        eventually_some("the gateway ends", || ending.is_finished().then_some(()));
        ending.join().unwrap();
    }

    /// Shorthand for the patience of tests.
    pub fn soon() -> Duration {
        SOON
    }
}

/// A configuration that sends everything to these origins in turn, with these words in its route.
pub fn to(origins: &[&Origin], route: &str) -> String {
    let endpoints: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    let comma = if route.is_empty() { "" } else { ", " };
    format!(
        "upstreams: {{ origin: {{ endpoints: [{}] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin{comma}{route} }}]\n",
        endpoints.join(", ")
    )
}

fn complete(yaml: &str, dir: &TempDir) -> String {
    let log = dir.path().join("access.log");
    let sections = [
        ("server", "{ threads: 1 }".to_owned()),
        ("listeners", "[{ name: web, address: \"127.0.0.1:0\" }]".to_owned()),
        ("admin", "{ address: \"127.0.0.1:0\" }".to_owned()),
        ("telemetry", format!("{{ log: {{ level: warn }}, access_log: {{ output: {} }} }}", log.display())),
    ];
    let mut whole = yaml.replace("{access_log}", &log.display().to_string());
    for (name, words) in sections {
        let there =
            yaml.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')));
        if !there {
            whole.push_str(&format!("\n{name}: {words}"));
        }
    }
    whole
}
