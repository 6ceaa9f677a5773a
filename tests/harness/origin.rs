//! A scripted upstream on a real socket, which records what it gets byte by byte.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

use super::message::{Request, Stream};
use super::{SOON, eventually_some};

/// An upstream that does what its script says, request by request. A request that could be read in two ways fails the
/// test when the origin is dropped.
pub struct Origin {
    address: SocketAddr,
    seen: Arc<Seen>,
    acceptor: Option<JoinHandle<()>>,
}

/// What becomes of a connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It takes another one.
    Keep,
    /// It is closed.
    Close,
    /// It is reset.
    Reset,
}

/// A request at an origin, and the way back.
pub struct Visit<'a> {
    pub request: Request,
    pub stream: &'a mut Stream,
    seen: &'a Seen,
    whole: bool,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    stopped: AtomicBool,
    open: Mutex<HashMap<usize, TcpStream>>,
    bytes: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    heads: Mutex<Vec<Request>>,
    requests: Mutex<Vec<Request>>,
    breaches: Mutex<Vec<String>>,
}

type Script = dyn Fn(&mut Visit<'_>) -> Then + Send + Sync;
type Raw = dyn Fn(usize, &mut Stream) -> Then + Send + Sync;

impl Origin {
    /// Reads whole requests and does as the script says with each.
    pub fn start(script: impl Fn(&mut Visit<'_>) -> Then + Send + Sync + 'static) -> Self {
        Self::on_head(move |visit| match visit.read_body() {
            Ok(()) => script(visit),
            Err(error) => visit.seen.broken(&error),
        })
    }

    /// Gives every request the same bytes back.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |visit| visit.answer(&bytes))
    }

    /// Answers 200 with the body `ok`.
    pub fn ok() -> Self {
        Self::answering(*b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    }

    /// Answers with a gibibyte, as fast as it is taken; and how much of it has been.
    pub fn endless() -> (Self, Arc<AtomicUsize>) {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&sent);
        let origin = Self::start(move |visit| {
            visit.send("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n");
            let piece = vec![b'x'; 64 << 10];
            while visit.send(&piece) {
                counted.fetch_add(piece.len(), Ordering::Relaxed);
            }
            Then::Close
        });
        (origin, sent)
    }

    /// Answers 200 with a name.
    pub fn named(name: &str) -> Self {
        Self::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len()))
    }

    /// Several of these, with one port and addresses of their own, from 127.0.0.1 on.
    pub fn named_on_one_port(names: &[&str]) -> Vec<Self> {
        loop {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            let bind = |last| TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).ok();
            let others: Option<Vec<_>> = (2..).take(names.len() - 1).map(bind).collect();
            // Somebody else may have one of them.
            let Some(others) = others else { continue };
            let listeners = std::iter::once(free).chain(others);
            let origin = |(name, listener): (&&str, _)| {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                let script: Arc<Script> = Arc::new(move |visit| match visit.read_body() {
                    Ok(()) => visit.answer(answer.as_bytes()),
                    Err(error) => visit.seen.broken(&error),
                });
                let raw = |seen: Arc<Seen>| -> Arc<Raw> {
                    Arc::new(move |index, stream| seen.clone().serve(index, stream, &*script))
                };
                Self::listen_on(listener, raw)
            };
            return names.iter().zip(listeners).map(origin).collect();
        }
    }

    /// Does as the script says as soon as a head is there; the body is the script's to read.
    pub fn on_head(script: impl Fn(&mut Visit<'_>) -> Then + Send + Sync + 'static) -> Self {
        let script: Arc<Script> = Arc::new(script);
        Self::listen(|seen| Arc::new(move |index, stream| seen.clone().serve(index, stream, &*script)))
    }

    /// Does as the script says with each connection, which has a number from 0.
    pub fn raw(script: impl Fn(usize, &mut Stream) -> Then + Send + Sync + 'static) -> Self {
        Self::listen(|_| Arc::new(script))
    }

    /// Answers 200 with the body `ok`, at an address that is free.
    pub fn at(address: SocketAddr) -> Self {
        let script: Arc<Script> = Arc::new(|visit: &mut Visit<'_>| match visit.read_body() {
            Ok(()) => visit.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
            Err(error) => visit.seen.broken(&error),
        });
        let listener = TcpListener::bind(address).unwrap();
        Self::listen_on(listener, |seen| {
            Arc::new(move |index, stream| seen.clone().serve(index, stream, &*script))
        })
    }

    fn listen(script: impl FnOnce(Arc<Seen>) -> Arc<Raw>) -> Self {
        Self::listen_on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    fn listen_on(listener: TcpListener, script: impl FnOnce(Arc<Seen>) -> Arc<Raw>) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let script = script(Arc::clone(&seen));
        let accepting = Arc::clone(&seen);
        let acceptor = std::thread::spawn(move || accepting.accept(&listener, &script));
        Self { address, seen, acceptor: Some(acceptor) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections that are still open.
    pub fn open(&self) -> usize {
        self.seen.open.lock().unwrap().len()
    }

    /// Whole requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Request heads so far.
    pub fn heads(&self) -> Vec<Request> {
        self.seen.heads.lock().unwrap().clone()
    }

    /// The last whole request.
    ///
    /// # Panics
    /// When none came.
    pub fn last(&self) -> Request {
        self.requests().pop().expect("a request reached the origin")
    }

    /// Waits for the whole request with this number, from 0.
    pub fn request(&self, index: usize) -> Request {
        eventually_some("a request reaches the origin", || self.requests().get(index).cloned())
    }

    /// Exactly what came, connection by connection.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        let bytes = self.seen.bytes.lock().unwrap();
        bytes.iter().map(|bytes| bytes.lock().unwrap().clone()).collect()
    }

    /// Requests that broke the rules; they are forgotten, so that they fail nothing.
    pub fn take_breaches(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.breaches.lock().unwrap())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.seen.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for socket in self.seen.open.lock().unwrap().values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        if !std::thread::panicking() {
            assert_eq!(self.take_breaches(), Vec::<String>::new(), "the origin got what breaks the rules");
        }
    }
}

impl Seen {
    fn accept(self: Arc<Self>, listener: &TcpListener, script: &Arc<Raw>) {
        while let Ok((socket, _)) = listener.accept() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let index = self.connections.fetch_add(1, Ordering::SeqCst);
            socket.set_nodelay(true).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            let record = Arc::new(Mutex::new(Vec::new()));
            self.bytes.lock().unwrap().push(Arc::clone(&record));
            self.open.lock().unwrap().insert(index, socket.try_clone().unwrap());
            let (seen, script) = (Arc::clone(&self), Arc::clone(script));
            std::thread::spawn(move || {
                let mut stream = Stream::recorded(socket, record);
                let then = script(index, &mut stream);
                seen.open.lock().unwrap().remove(&index);
                if then == Then::Reset {
                    reset(&stream.socket);
                }
            });
        }
    }

    /// Serves one connection, request by request.
    fn serve(&self, index: usize, stream: &mut Stream, script: &Script) -> Then {
        loop {
            let request = match stream.request_head() {
                Ok(Some(request)) => Request { connection: index, ..request },
                Ok(None) => return Then::Close,
                Err(error) => return self.broken(&error),
            };
            self.heads.lock().unwrap().push(request.clone());
            let mut visit = Visit { request, stream, seen: self, whole: false };
            let then = script(&mut visit);
            if then == Then::Keep
                && !visit.whole
                && let Err(error) = visit.read_body()
            {
                return self.broken(&error);
            }
            if then != Then::Keep {
                return then;
            }
        }
    }

    fn broken(&self, error: &io::Error) -> Then {
        if error.kind() == io::ErrorKind::InvalidData {
            self.breaches.lock().unwrap().push(error.to_string());
        }
        Then::Close
    }
}

impl Visit<'_> {
    /// Reads the body; the request is whole then.
    pub fn read_body(&mut self) -> io::Result<()> {
        (self.request.body, self.request.trailers) = self.stream.request_body(&self.request.fields)?;
        self.whole = true;
        self.seen.requests.lock().unwrap().push(self.request.clone());
        Ok(())
    }

    /// Sends bytes; false when there is nobody left to take them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.send(bytes.as_ref()).is_ok()
    }

    /// Sends bytes and takes another request.
    pub fn answer(&mut self, bytes: impl AsRef<[u8]>) -> Then {
        if self.send(bytes) { Then::Keep } else { Then::Close }
    }

    /// Waits until the other end has closed the connection.
    pub fn wait_for_close(&mut self) {
        wait_for_close(self.stream);
    }
}

/// An address that refuses connections for as long as this lives: bound, so that nobody else gets it, and not listened
/// to.
pub struct Nobody(OwnedFd);

impl Nobody {
    pub fn new() -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self(socket)
    }

    pub fn address(&self) -> SocketAddr {
        rustix::net::getsockname(&self.0).unwrap().try_into().unwrap()
    }
}

/// A listener whose backlog is full: a connect to it hangs.
pub struct FullBacklog {
    listener: OwnedFd,
    _waiting: Vec<TcpStream>,
}

impl FullBacklog {
    pub fn new() -> Self {
        let listener = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let mut full = Self { listener, _waiting: Vec::new() };
        let address = full.address();
        while let Ok(socket) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            full._waiting.push(socket);
            assert!(full._waiting.len() < 100, "the backlog never fills");
        }
        full
    }

    pub fn address(&self) -> SocketAddr {
        rustix::net::getsockname(&self.listener).unwrap().try_into().unwrap()
    }
}

/// Waits until the other end has closed a connection.
pub fn wait_for_close(stream: &mut Stream) {
    while matches!(stream.some(), Ok(bytes) if !bytes.is_empty()) {}
}

/// Makes the close of a socket a reset.
pub fn reset(socket: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
}
