//! Everything that was measured, before anyone has formatted it.

use std::time::Duration;

use super::measure::Machine;
use super::stats::Estimate;

pub struct Results {
    pub machine: Machine,
    pub rounds: usize,
    pub round: Duration,
    pub connections: usize,
    /// Name and version of each program that took part.
    pub programs: Vec<String>,
    /// A line for each program that did not, and why.
    pub skipped: Vec<String>,
    pub direct: Vec<Direct>,
    pub comparisons: Vec<Comparison>,
    pub idle: Vec<Idle>,
    pub reloads: Vec<Reloads>,
    pub starts: Vec<Start>,
    pub memory: Vec<Memory>,
}

/// The load generator straight at the origin, both on the load core: the ceiling of any figure.
pub struct Direct {
    pub workload: &'static str,
    pub requests_per_second: Estimate,
    /// Load generator and origin together, in microseconds.
    pub cpu_per_request: Estimate,
}

/// Contenders under the same load, in interleaved rounds.
pub struct Comparison {
    pub workload: &'static str,
    pub about: &'static str,
    /// What is counted.
    pub unit: Unit,
    /// Bytes of each answer before it was compressed, where that is the work.
    pub compressed: Option<usize>,
    /// The contenders that the ratios refer to, of those that took part.
    pub bases: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Request,
    /// With its connection before, and a request and the close after it.
    Handshake,
    /// A WebSocket's, there and back.
    Message,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Handshake => "handshake",
            Self::Message => "message",
        }
    }
}

pub struct Row {
    pub name: String,
    /// Of the unit.
    pub per_second: Estimate,
    /// The proxy's own, in microseconds per unit.
    pub cpu: Estimate,
    /// CPU over that of each base, paired by round, in the order of the bases.
    pub cpu_ratios: Vec<Estimate>,
    /// Mean bytes of an answer's body, as it came.
    pub body: f64,
    pub latency: Latency,
    /// Bytes.
    pub peak_resident: u64,
    pub completed: u64,
    pub failed: u64,
    pub first_failure: Option<String>,
    /// Median share of a round in which the load core was idle; near nothing, it was the limit and not the proxy.
    pub load_idle: f64,
    /// Median share of a core that other programs took: what it disturbs, it disturbs in every figure but CPU time.
    pub foreign: f64,
}

#[derive(Clone, Copy)]
pub struct Latency {
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
}

/// Idle connections of one kind.
pub struct Idle {
    pub workload: &'static str,
    pub about: &'static str,
    pub proxies: Vec<IdleMemory>,
}

/// What an idle connection holds on to.
pub struct IdleMemory {
    pub name: String,
    pub connections: usize,
    pub bytes_per_connection: f64,
    /// Connections that the proxy closed meanwhile: they are not in the figure.
    pub closed: usize,
}

/// A fixed rate of requests with configuration reloads against the same without.
pub struct Reloads {
    pub workload: &'static str,
    pub routes: usize,
    pub every: Duration,
    pub requests_per_second: f64,
    /// Milliseconds.
    pub p99_still: Estimate,
    /// Milliseconds.
    pub p99_reloading: Estimate,
    /// Of the two, paired by round.
    pub p99_ratio: Estimate,
    pub reloads: u64,
    pub failed_reloads: u64,
    pub failed_requests: u64,
    pub first_failure: Option<String>,
    /// As in [`Row`].
    pub foreign: f64,
}

pub struct Start {
    pub name: String,
    pub routes: usize,
    pub milliseconds: Estimate,
}

pub struct Memory {
    pub name: String,
    pub routes: usize,
    /// Bytes, idle, after one second of warm-up and one of rest.
    pub resident: u64,
}

impl Comparison {
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// Median CPU of a row over that of a base.
    pub fn cpu_ratio(&self, row: &str, base: &str) -> Option<f64> {
        let place = self.bases.iter().position(|name| name == base)?;
        Some(self.row(row)?.cpu_ratios.get(place)?.median)
    }
}

/// Made-up results for the tests of those who read results.
#[cfg(test)]
pub mod samples {
    use super::*;

    pub fn full() -> Results {
        let few = "Portcullis, 10 routes";
        Results {
            machine: Machine { cores: 2, memory_gib: 24, kernel: "6.1.0".into() },
            rounds: 7,
            round: Duration::from_secs(3),
            connections: 32,
            programs: vec!["bare Pingora 0.9.1".into(), "Portcullis 0.1.0".into()],
            skipped: vec!["nginx is skipped: not found; install it".into()],
            direct: vec![Direct {
                workload: "small",
                requests_per_second: exactly(200_000.0),
                cpu_per_request: exactly(5.0),
            }],
            comparisons: vec![
                comparison(
                    "small",
                    Unit::Request,
                    "bare Pingora",
                    [("bare Pingora", 1.0), ("Portcullis", 1.08)],
                ),
                comparison(
                    "routes_50000",
                    Unit::Request,
                    few,
                    [(few, 1.0), ("Portcullis, 50000 routes", 1.01)],
                ),
                comparison("tls_handshake", Unit::Handshake, "nginx", [("nginx", 1.0), ("Portcullis", 0.9)]),
                Comparison {
                    compressed: Some(64 * 1024),
                    ..comparison("compression", Unit::Request, "nginx", [("nginx", 1.0), ("Portcullis", 0.8)])
                },
            ],
            idle: ["idle_10000", "idle_websockets"].map(idle).into(),
            reloads: vec![reloads("reload_10", 10), reloads("reload_50000", 50_000)],
            starts: vec![Start { name: "Portcullis".into(), routes: 10_000, milliseconds: exactly(120.0) }],
            memory: [(10, 20_000_000), (50_000, 100_000_000)]
                .map(|(routes, resident)| Memory { name: "Portcullis".into(), routes, resident })
                .into(),
        }
    }

    pub fn exactly(value: f64) -> Estimate {
        Estimate { median: value, low: value, high: value }
    }

    fn idle(workload: &'static str) -> Idle {
        let proxy = IdleMemory {
            name: "Portcullis".into(),
            connections: 10_000,
            bytes_per_connection: 16384.0,
            closed: 0,
        };
        Idle { workload, about: "what one holds", proxies: vec![proxy] }
    }

    fn comparison(workload: &'static str, unit: Unit, base: &str, rows: [(&str, f64); 2]) -> Comparison {
        let rows = rows.map(|(name, ratio)| Row {
            name: name.into(),
            per_second: exactly(20_000.0),
            cpu: exactly(40.0 * ratio),
            cpu_ratios: vec![Estimate { median: ratio, low: ratio - 0.01, high: ratio + 0.01 }],
            body: 16_384.0,
            latency: Latency {
                p50: Duration::from_micros(1_500),
                p99: Duration::from_micros(2_500),
                p999: Duration::from_micros(3_500),
            },
            peak_resident: 20 << 20,
            completed: 400_000,
            failed: 0,
            first_failure: None,
            load_idle: 0.6,
            foreign: 0.01,
        });
        let about = "100 B answers";
        Comparison { workload, about, unit, compressed: None, bases: vec![base.into()], rows: rows.into() }
    }

    fn reloads(workload: &'static str, routes: usize) -> Reloads {
        Reloads {
            workload,
            routes,
            every: Duration::from_secs(1),
            requests_per_second: 10_000.0,
            p99_still: exactly(0.5),
            p99_reloading: exactly(0.55),
            p99_ratio: exactly(1.1),
            reloads: 21,
            failed_reloads: 0,
            failed_requests: 0,
            first_failure: None,
            foreign: 0.01,
        }
    }
}
