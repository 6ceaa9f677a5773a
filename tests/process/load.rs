//! Clients that never stop asking, and keep account.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Client, get};
use crate::gateway::eventually;

/// A connection on which nothing was asked for so long may have been closed as idle.
const IDLE: Duration = Duration::from_millis(400);

/// Clients at work.
pub struct Load {
    account: Arc<Account>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Account {
    stop: AtomicBool,
    rest: Duration,
    served: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Starts four clients: two keep their connections, two make one for each request.
    pub fn start(address: SocketAddr, path: &'static str) -> Self {
        Self::paced(address, path, Duration::ZERO)
    }

    /// The same with clients that rest between their requests.
    pub fn paced(address: SocketAddr, path: &'static str, rest: Duration) -> Self {
        let account = Arc::new(Account { rest, ..Account::default() });
        let clients = (0..4).map(|client| {
            let account = Arc::clone(&account);
            std::thread::spawn(move || match client % 2 {
                0 => keep_alive(address, path, &account),
                _ => connection_each(address, path, &account),
            })
        });
        Self { clients: clients.collect(), account }
    }

    /// Requests answered so far.
    pub fn served(&self) -> usize {
        self.account.served.load(Ordering::Relaxed)
    }

    /// Waits until so many more have been answered.
    pub fn more(&self, count: usize) {
        let before = self.served();
        eventually("answers under load", || {
            self.check();
            (self.served() >= before + count).then_some(())
        });
    }

    fn check(&self) {
        let failures = self.account.failures.lock().unwrap();
        assert!(failures.is_empty(), "after {} answers: {failures:?}", self.served());
    }

    /// Stops the clients. Nothing may have failed. Returns how many requests were answered.
    pub fn end(self) -> usize {
        self.account.stop.store(true, Ordering::Relaxed);
        let Self { clients, account } = self;
        clients.into_iter().for_each(|client| client.join().unwrap());
        let failures = account.failures.lock().unwrap();
        let served = account.served.load(Ordering::Relaxed);
        assert!(failures.is_empty(), "after {served} answers: {failures:?}");
        served
    }
}

impl Account {
    fn goes_on(&self) -> bool {
        std::thread::sleep(self.rest);
        !self.stop.load(Ordering::Relaxed)
    }

    fn note(&self, outcome: Result<u16, String>) {
        match outcome {
            Ok(200) => drop(self.served.fetch_add(1, Ordering::Relaxed)),
            Ok(status) => self.failures.lock().unwrap().push(format!("status {status}")),
            Err(error) => self.failures.lock().unwrap().push(error),
        }
    }
}

fn connection_each(address: SocketAddr, path: &str, account: &Account) {
    while account.goes_on() {
        let response = get(address, path);
        account.note(response.map(|response| response.status).map_err(|error| format!("own: {error}")));
    }
}

fn keep_alive(address: SocketAddr, path: &str, account: &Account) {
    while account.goes_on() {
        let mut client = match Client::connect(address) {
            Ok(client) => client,
            Err(error) => {
                account.note(Err(format!("connect: {error}")));
                continue;
            }
        };
        let mut quiet_since = Instant::now();
        let mut uses = 0;
        while account.goes_on() {
            let idle = quiet_since.elapsed();
            match client.get(path) {
                Ok(response) => {
                    account.note(Ok(response.status));
                    quiet_since = Instant::now();
                    uses += 1;
                    if response.closes() {
                        break;
                    }
                }
                Err(_) if idle >= IDLE => break,
                Err(error) => {
                    account.note(Err(format!("use {uses}, {idle:?} after the last: {error}")));
                    break;
                }
            }
        }
    }
}
