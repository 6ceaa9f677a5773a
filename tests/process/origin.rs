//! An upstream whose slow answers end when the test lets them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// An upstream. `/held` is answered when the gate is open; of `/download` the second half comes then; all else is
/// answered at once.
pub struct Origin {
    pub address: SocketAddr,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    waiting: usize,
}

/// The bytes of a download.
pub fn download() -> Vec<u8> {
    (0..4_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

impl Origin {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            let body = Arc::new(download());
            for stream in listener.incoming().flatten() {
                let (gate, body) = (Arc::clone(&shared), Arc::clone(&body));
                std::thread::spawn(move || serve(&stream, &gate, &body));
            }
        });
        Self { address, gate }
    }

    /// Waits until so many requests wait at the gate.
    pub fn holds(&self, count: usize) {
        let state = self.gate.state.lock().unwrap();
        drop(self.gate.changed.wait_while(state, |state| state.waiting < count).unwrap());
    }

    /// Lets all answers go on, those to come too.
    pub fn open(&self) {
        self.gate.state.lock().unwrap().open = true;
        self.gate.changed.notify_all();
    }
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.open).unwrap());
    }
}

fn serve(stream: &TcpStream, gate: &Gate, download: &[u8]) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut lines = BufReader::new(stream).lines();
    let mut writer = stream;
    loop {
        let first = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        match first.split(' ').nth(1)? {
            "/download" => {
                let (one, two) = download.split_at(download.len() / 2);
                writer.write_all(head(download.len()).as_bytes()).ok()?;
                writer.write_all(one).ok()?;
                gate.pass();
                writer.write_all(two).ok()?;
            }
            path => {
                if path == "/held" {
                    gate.pass();
                }
                let body = format!("origin {path}\n");
                writer.write_all(format!("{}{body}", head(body.len())).as_bytes()).ok()?;
            }
        }
    }
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")
}
