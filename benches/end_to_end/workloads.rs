//! What is measured, and the rounds that measure it.
//!
//! Contenders of a comparison run at the same time but are loaded one at a time, round by round, and each round begins
//! with another of them: drift of the machine falls on all alike.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::configs::{HOSTS, route_host, route_path};
use super::load::{Fleet, Pace, Tally, Target};
use super::measure::{Cores, Machine, ProcessTree, Window};
use super::options::Options;
use super::origin::{LARGE_PATH, Origin};
use super::proxies::{Kind, Program, Proxy};
use super::results::{Comparison, Direct, Latency, Results, Row};
use super::stats::{Estimate, estimate, paired_ratios};
use super::{Result, footprint, reloads};

pub const NAMES: [&str; 9] = [
    "small",
    "large",
    "connection_per_request",
    "routes_50000",
    "idle_10000",
    "reload_10",
    "reload_50000",
    "start",
    "rss",
];

pub const FEW_ROUTES: usize = 10;
pub const MANY_ROUTES: usize = 50_000;
/// Distinct requests of the routes workload, spread evenly over the routes.
const ROUTED_REQUESTS: usize = 1_000;

/// What every workload needs.
pub struct Bench<'a> {
    pub options: &'a Options,
    pub cores: Cores,
    pub origin: Origin,
    pub programs: Vec<Program>,
}

/// Measures whatever the options want.
pub async fn run(options: &Options, machine: Machine, cores: Cores) -> Result<Results> {
    let (programs, skipped) = find_programs(options);
    for line in &skipped {
        eprintln!("{line}");
    }
    let bench = Bench { options, cores, origin: Origin::start().await?, programs };
    Ok(Results {
        machine,
        rounds: options.rounds,
        round: options.round,
        connections: options.connections,
        programs: bench.programs.iter().map(Program::describe).collect(),
        skipped,
        direct: bench.direct().await?,
        comparisons: bench.comparisons().await?,
        idle: footprint::idle(&bench).await?,
        reloads: reloads::measure(&bench).await?,
        starts: footprint::starts(&bench).await?,
        memory: footprint::memory(&bench).await?,
    })
}

fn find_programs(options: &Options) -> (Vec<Program>, Vec<String>) {
    let (mut programs, mut skipped) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        match Program::find(kind, options) {
            Ok(program) => programs.push(program),
            Err(line) => skipped.push(line),
        }
    }
    (programs, skipped)
}

impl Bench<'_> {
    pub fn program(&self, kind: Kind) -> Option<&Program> {
        self.programs.iter().find(|program| program.kind == kind)
    }

    pub async fn start(&self, program: &Program, routes: usize) -> Result<Proxy> {
        program.start(self.origin.address, self.cores.proxy, routes).await
    }

    /// A stretch of load that nobody counts.
    pub async fn warm_up(&self, target: &Target) -> Result<()> {
        self.load(target, Pace::Closed, Duration::from_secs(1).min(self.options.round)).await.map(drop)
    }

    /// Loads a target and says what came of it and how long it took; that nothing at all succeeds is an error.
    pub async fn load(&self, target: &Target, pace: Pace, duration: Duration) -> Result<(Tally, Duration)> {
        let fleet = Fleet::connect(target, self.options.connections).await;
        let fleet = fleet.map_err(|error| format!("cannot connect to {}: {error}", target.address))?;
        let start = Instant::now();
        let tally = fleet.run(pace, duration).await?;
        match tally.completed {
            0 => Err(format!("no request succeeded: {}", tally.first_failure.unwrap_or_default()).into()),
            _ => Ok((tally, start.elapsed())),
        }
    }

    async fn direct(&self) -> Result<Vec<Direct>> {
        let mut rows = Vec::new();
        for (workload, request) in [("small", get("/")), ("large", get(LARGE_PATH))] {
            if !self.options.wants(workload) {
                continue;
            }
            let target =
                Target { address: self.origin.address, requests: [request].into(), keep_alive: true };
            let mut rounds = Rounds::new()?;
            self.warm_up(&target).await?;
            for _ in 0..self.options.rounds {
                rounds.push(self.round(&target, ProcessTree(std::process::id())).await?);
            }
            rows.push(Direct {
                workload,
                requests_per_second: known(&rounds.rates)?,
                cpu_per_request: known(&rounds.cpu)?,
            });
        }
        Ok(rows)
    }

    async fn comparisons(&self) -> Result<Vec<Comparison>> {
        let mut comparisons = Vec::new();
        for (workload, about, request, keep_alive) in [
            ("small", "100 B answers over keep-alive", get("/"), true),
            ("large", "64 KiB answers over keep-alive", get(LARGE_PATH), true),
            ("connection_per_request", "100 B answers, a connection for each", get_and_close("/"), false),
        ] {
            if self.options.wants(workload) {
                let contenders = self.all_programs(&request, keep_alive).await?;
                let base = Kind::BarePingora.name();
                comparisons.push(self.compare(workload, about, base, contenders).await?);
            }
        }
        if self.options.wants("routes_50000")
            && let Some(portcullis) = self.program(Kind::Portcullis)
        {
            let contenders = self.few_and_many_routes(portcullis).await?;
            let (base, about) = (contenders[0].name.clone(), "1,000 hosts and paths in turn, 100 B answers");
            comparisons.push(self.compare("routes_50000", about, &base, contenders).await?);
        }
        Ok(comparisons)
    }

    async fn all_programs(&self, request: &Bytes, keep_alive: bool) -> Result<Vec<Contender>> {
        let mut contenders = Vec::new();
        for program in &self.programs {
            let proxy = self.start(program, FEW_ROUTES).await?;
            let requests = [request.clone()].into();
            contenders.push(Contender::new(program.kind.name().into(), proxy, requests, keep_alive));
        }
        Ok(contenders)
    }

    async fn few_and_many_routes(&self, portcullis: &Program) -> Result<Vec<Contender>> {
        let mut contenders = Vec::new();
        for routes in [FEW_ROUTES, MANY_ROUTES] {
            let proxy = self.start(portcullis, routes).await?;
            let name = format!("{}, {routes} routes", portcullis.kind.name());
            contenders.push(Contender::new(name, proxy, routed_requests(routes).into(), true));
        }
        Ok(contenders)
    }

    async fn compare(
        &self,
        workload: &'static str,
        about: &'static str,
        base: &str,
        contenders: Vec<Contender>,
    ) -> Result<Comparison> {
        let mut measured = contenders.iter().map(|_| Rounds::new()).collect::<Result<Vec<_>>>()?;
        for contender in &contenders {
            self.warm_up(&contender.target).await?;
        }
        for round in 0..self.options.rounds {
            eprintln!("{workload}: round {} of {}", round + 1, self.options.rounds);
            for turn in 0..contenders.len() {
                let index = (round + turn) % contenders.len();
                let contender = &contenders[index];
                measured[index].push(self.round(&contender.target, contender.proxy.processes()).await?);
            }
        }
        let base = contenders.iter().position(|contender| contender.name == base);
        let base_cpu = base.map(|index| measured[index].cpu.clone());
        let rows = contenders.iter().zip(measured);
        Ok(Comparison {
            workload,
            about,
            base: base.map(|index| contenders[index].name.clone()),
            rows: rows
                .map(|(contender, rounds)| contender.row(rounds, base_cpu.as_deref()))
                .collect::<Result<_>>()?,
        })
    }

    async fn round(&self, target: &Target, processes: ProcessTree) -> Result<Round> {
        let window = Window::open(self.cores, processes)?;
        let (tally, elapsed) = self.load(target, Pace::Closed, self.options.round).await?;
        let usage = window.close()?;
        Ok(Round {
            rate: tally.completed as f64 / elapsed.as_secs_f64(),
            cpu: usage.proxy_cpu.as_secs_f64() * 1e6 / tally.completed as f64,
            load_idle: usage.load_idle,
            foreign: usage.foreign,
            tally,
        })
    }
}

/// A running proxy and the requests for it.
struct Contender {
    name: String,
    proxy: Proxy,
    target: Target,
}

impl Contender {
    fn new(name: String, proxy: Proxy, requests: std::sync::Arc<[Bytes]>, keep_alive: bool) -> Self {
        let target = Target { address: proxy.address, requests, keep_alive };
        Self { name, proxy, target }
    }

    fn row(&self, rounds: Rounds, base_cpu: Option<&[f64]>) -> Result<Row> {
        let tally = &rounds.tally;
        Ok(Row {
            name: self.name.clone(),
            requests_per_second: known(&rounds.rates)?,
            cpu_per_request: known(&rounds.cpu)?,
            cpu_ratio: base_cpu.and_then(|base| estimate(&paired_ratios(&rounds.cpu, base))),
            latency: latency(tally),
            peak_resident: self.proxy.processes().peak_resident()?,
            completed: tally.completed,
            failed: tally.failed,
            first_failure: tally.first_failure.clone(),
            load_idle: known(&rounds.load_idle)?.median,
            foreign: known(&rounds.foreign)?.median,
        })
    }
}

struct Round {
    /// Requests per second.
    rate: f64,
    /// Microseconds per request.
    cpu: f64,
    load_idle: f64,
    foreign: f64,
    tally: Tally,
}

struct Rounds {
    rates: Vec<f64>,
    cpu: Vec<f64>,
    load_idle: Vec<f64>,
    foreign: Vec<f64>,
    tally: Tally,
}

impl Rounds {
    fn new() -> Result<Self> {
        let none = Vec::new;
        Ok(Self { rates: none(), cpu: none(), load_idle: none(), foreign: none(), tally: Tally::new()? })
    }

    fn push(&mut self, round: Round) {
        self.rates.push(round.rate);
        self.cpu.push(round.cpu);
        self.load_idle.push(round.load_idle);
        self.foreign.push(round.foreign);
        self.tally.add(round.tally);
    }
}

pub fn known(rounds: &[f64]) -> Result<Estimate> {
    estimate(rounds).ok_or_else(|| "no rounds were measured".into())
}

pub fn latency(tally: &Tally) -> Latency {
    let at = |quantile| Duration::from_nanos(tally.latencies.value_at_quantile(quantile));
    Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}

pub fn get(path: &str) -> Bytes {
    request(path, "bench.test", "")
}

fn get_and_close(path: &str) -> Bytes {
    request(path, "bench.test", "Connection: close\r\n")
}

fn request(path: &str, host: &str, last_field: &str) -> Bytes {
    Bytes::from(format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n{last_field}\r\n"
    ))
}

/// As many requests for few routes as for many, so that both cost the load generator the same.
fn routed_requests(routes: usize) -> Vec<Bytes> {
    (0..ROUTED_REQUESTS)
        .map(|index| match routes {
            0..ROUTED_REQUESTS => index % routes,
            // A different host each time, too.
            _ => index * (routes / ROUTED_REQUESTS) + index * routes / ROUTED_REQUESTS / HOSTS,
        })
        .map(|number| request(&format!("{}/item", route_path(number)), &route_host(number), ""))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn routed_requests_spread_over_the_routes_and_weigh_the_same() {
        for (routes, distinct) in [(FEW_ROUTES, FEW_ROUTES), (MANY_ROUTES, ROUTED_REQUESTS)] {
            let requests = routed_requests(routes);
            assert_eq!(requests.len(), ROUTED_REQUESTS);
            assert_eq!(requests.iter().collect::<HashSet<_>>().len(), distinct);
            assert!(requests.iter().all(|request| request.len() == requests[0].len()));
        }
        assert!(
            routed_requests(MANY_ROUTES)[999]
                .starts_with(b"GET /r049999/item HTTP/1.1\r\nHost: h000999.test\r\n")
        );
        let host = |request: &Bytes| request.split(|byte| *byte == b'\n').nth(1).map(<[u8]>::to_vec);
        let hosts: HashSet<_> = routed_requests(MANY_ROUTES).iter().map(host).collect();
        assert_eq!(hosts.len(), HOSTS);
    }

    #[test]
    fn the_closing_field_is_the_last() {
        assert!(get_and_close("/").ends_with(b"Connection: close\r\n\r\n"));
        assert!(get("/").ends_with(b"*/*\r\n\r\n"));
    }
}
