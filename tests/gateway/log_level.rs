//! The level of the process log, which belongs to a whole process: this test starts one of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::ask::{Ask, ask};
use crate::harness::{eventually, eventually_some};

/// The real program, with what it says on standard error.
struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn start(yaml: &str) -> Self {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .arg("run")
            .arg("-c")
            .arg(file.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, heard) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&said));
        // The file stays until the program is gone: it is watched.
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| heard.lock().unwrap().push(line));
            drop(file);
        });
        Self { child, said }
    }

    /// Lines that hold these words.
    fn lines(&self, words: &str) -> Vec<String> {
        let said = self.said.lock().unwrap();
        said.iter().filter(|line| line.contains(words)).cloned().collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_level_changes_while_the_process_runs() {
    // Port 0 is any free port; the log says which. The admin listener's is told nowhere, so it takes one that was free.
    let admin: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let process = Process::start(&format!(
        "listeners: [{{ name: web, address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"{admin}\" }}\n\
         server: {{ threads: 1 }}\ntelemetry: {{ access_log: {{ output: off }} }}\n\
         upstreams: {{ down: {{ endpoints: [\"127.0.0.1:1\"] }} }}\nroutes: [{{ name: down, path: /*, upstream: down, retry: {{ max_retries: 0 }} }}]"
    ));
    let web: SocketAddr = eventually_some("the listener is named", || {
        let line = process.lines("listener web on ").pop()?;
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        json["msg"].as_str()?.rsplit(' ').next()?.parse().ok()
    });
    eventually("the API answers", || std::net::TcpStream::connect(admin).is_ok());
    let level = |body: &str| Ask::new("PUT /log/level").header("host: localhost").body(body).send(admin);
    // A failed connection is told at debug level.
    let told = "upstream endpoint 127.0.0.1:1";
    assert_eq!(ask(web, "GET /", "").status, 502);
    assert_eq!(level(r#"{ "level": "debug" }"#).json()["level"], "debug");
    assert_eq!(ask(web, "GET /", "").status, 502);
    eventually("the second failure is told", || process.lines(told).len() == 1);
    let line: serde_json::Value = serde_json::from_str(&process.lines(told)[0]).unwrap();
    assert_eq!(
        (&line["level"], line["ts"].is_string(), line["target"].is_string()),
        (&"debug".into(), true, true)
    );

    for bad in ["", "{}", r#"{ "level": "loud" }"#, r#"{ "level": "info", "more": 1 }"#, "level: info"] {
        assert_eq!(level(bad).status, 400, "{bad}");
    }
    assert_eq!(level(r#"{ "level": "error" }"#).status, 200);
    let before = process.lines(told).len();
    assert_eq!(ask(web, "GET /", "").status, 502);
    assert_eq!(level(r#"{ "level": "debug" }"#).status, 200);
    assert_eq!(ask(web, "GET /", "").status, 502);
    eventually("only the last failure is told", || process.lines(told).len() > before);
    assert_eq!(process.lines(told).len(), before + 1);
}
