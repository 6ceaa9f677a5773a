//! An upstream that can be made to fail in many ways, and be killed and started again on its port.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

/// How a server treats requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// At once.
    Answers,
    /// After so long.
    Takes(Duration),
    /// So many of ten with 500.
    Fails { of_ten: usize },
    /// All with 503.
    Fails503,
    /// Not at all.
    Silent,
    /// At once, and closes the connection behind the answer without saying so.
    Closes,
}

/// An upstream on a port of its own.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    mode: Mutex<Mode>,
    served: AtomicUsize,
    stopped: AtomicBool,
    open: Mutex<HashMap<usize, TcpStream>>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// At every address of this machine.
    pub fn start_everywhere() -> Self {
        Self::start_with(TcpListener::bind("0.0.0.0:0").unwrap())
    }

    /// Behind a port that is open already.
    pub fn start_with(listener: TcpListener) -> Self {
        let server = Self::new(listener.local_addr().unwrap());
        server.accept(listener);
        server
    }

    fn new(address: SocketAddr) -> Self {
        let shared = Shared {
            mode: Mutex::new(Mode::Answers),
            served: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            open: Mutex::default(),
        };
        Self { address, shared: Arc::new(shared), accepting: Mutex::default() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Requests so far.
    pub fn served(&self) -> usize {
        self.shared.served.load(Ordering::SeqCst)
    }

    /// Connections at the moment.
    pub fn connections(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }

    /// Closes its port and all its connections, as the kernel does for a process that was killed.
    pub fn kill(&self) {
        let Some(accepting) = self.accepting.lock().unwrap().take() else { return };
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        accepting.join().unwrap();
        self.shared.open.lock().unwrap().drain().for_each(|(_, stream)| {
            let _ = stream.shutdown(Shutdown::Both);
        });
    }

    /// Starts again on its port.
    pub fn revive(&self) {
        self.shared.stopped.store(false, Ordering::SeqCst);
        self.accept(TcpListener::bind(self.address).unwrap());
    }

    fn accept(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let accepting = spawn(move || {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept() else { return };
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                let number = number + shared.served.load(Ordering::SeqCst) * 1000;
                shared.open.lock().unwrap().insert(number, stream.try_clone().unwrap());
                spawn(move || {
                    shared.serve(stream);
                    shared.open.lock().unwrap().remove(&number);
                });
            }
        });
        *self.accepting.lock().unwrap() = Some(accepting);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut out = stream.try_clone().unwrap();
        let mut lines = BufReader::new(stream).lines();
        loop {
            loop {
                match lines.next() {
                    Some(Ok(line)) if line.is_empty() => break,
                    Some(Ok(_)) => {}
                    _ => return,
                }
            }
            let count = self.served.fetch_add(1, Ordering::SeqCst);
            let mode = *self.mode.lock().unwrap();
            let status = match mode {
                Mode::Fails { of_ten } if count % 10 < of_ten => "500 Internal Server Error",
                Mode::Fails503 => "503 Service Unavailable",
                Mode::Takes(time) => {
                    sleep(time);
                    "200 OK"
                }
                Mode::Silent => {
                    let _ = lines.next();
                    return;
                }
                _ => "200 OK",
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
            if out.write_all(answer.as_bytes()).is_err() {
                return;
            }
            if mode == Mode::Closes {
                let _ = out.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}
