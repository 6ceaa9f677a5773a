//! Clients that never stop asking, and keep account.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::harness::Client;

/// Clients at work.
pub struct Load {
    started: Instant,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<One>>>,
}

/// One request and what became of it.
#[derive(Debug, Clone, Copy)]
struct One {
    begun: Instant,
    took: Duration,
    status: u16,
}

/// What the clients have to tell.
pub struct Told {
    started: Instant,
    all: Vec<One>,
}

impl Load {
    /// Starts so many clients, each with a connection of its own, who rest after each answer.
    pub fn start(address: SocketAddr, clients: usize, rest: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stop = Arc::clone(&stop);
            spawn(move || {
                let (mut told, mut client) = (Vec::new(), Client::connect(address));
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let answer = client.get("/");
                    told.push(One { begun, took: begun.elapsed(), status: answer.status });
                    if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                        client = Client::connect(address);
                    }
                    sleep(rest);
                }
                told
            })
        };
        Self { started: Instant::now(), clients: (0..clients).map(client).collect(), stop }
    }

    /// Stops the clients.
    pub fn end(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let all = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        Told { started: self.started, all }
    }
}

impl Told {
    /// How many requests there were.
    pub fn all(&self) -> usize {
        self.all.len()
    }

    /// How many were answered well.
    pub fn answers(&self) -> usize {
        self.all() - self.failed()
    }

    /// How many were not.
    pub fn failed(&self) -> usize {
        self.all.iter().filter(|one| one.status != 200).count()
    }

    /// Those, by when and how.
    pub fn failures(&self) -> Vec<(Duration, u16)> {
        let failed = self.all.iter().filter(|one| one.status != 200);
        failed.map(|one| (one.begun.duration_since(self.started), one.status)).take(20).collect()
    }

    /// How long this share of them took at most.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut took: Vec<_> = self.all.iter().map(|one| one.took).collect();
        took.sort_unstable();
        let at = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
        took.get(at).copied().unwrap_or_default()
    }

    /// Of those that began so long after the start.
    pub fn since(&self, time: Duration) -> Self {
        self.since_instant(self.started + time)
    }

    pub fn since_instant(&self, then: Instant) -> Self {
        Self {
            started: self.started,
            all: self.all.iter().filter(|one| one.begun >= then).copied().collect(),
        }
    }

    /// How long until one that began later was answered well.
    pub fn first_success_after(&self, then: Instant) -> Option<Duration> {
        let good = self.all.iter().filter(|one| one.status == 200 && one.begun >= then);
        good.map(|one| one.begun + one.took - then).min()
    }
}
