//! What is measured, and the rounds that measure it.
//!
//! Contenders of a comparison run at the same time but are loaded one at a time, round by round, and each round begins
//! with another of them: drift of the machine falls on all alike.

use std::time::{Duration, Instant};

use super::certificate::Certificate;
use super::comparisons::{self, Entry, Workload};
use super::configs::{Setting, Upstream};
use super::load::{Fleet, Pace, Tally, Target};
use super::measure::{Cores, Machine, ProcessTree, Window};
use super::options::Options;
use super::origin::Origin;
use super::proxies::{Kind, Program, Proxy};
use super::results::{Comparison, Direct, Latency, Results, Row};
use super::stats::{Estimate, estimate, paired_ratios};
use super::{Result, footprint, reloads};

pub const NAMES: [&str; 29] = [
    "small",
    "large",
    "connection_per_request",
    "routes_50000",
    "resilience",
    "hedge",
    "rate_limit",
    "rate_limit_settled",
    "rate_limit_exact",
    "cors",
    "conditions",
    "split",
    "tls_handshake",
    "tls_handshake_pq",
    "tls_resumed",
    "tls_small",
    "h2_to_h1",
    "h2_to_h2c",
    "grpc_unary",
    "websocket_echo",
    "compression",
    "idle_10000",
    "idle_tls",
    "idle_h2",
    "idle_websockets",
    "reload_10",
    "reload_50000",
    "start",
    "rss",
];

/// Those that are measured without a proxy, too.
const DIRECT: [&str; 2] = ["small", "large"];

/// What every workload needs.
pub struct Bench<'a> {
    pub options: &'a Options,
    pub cores: Cores,
    pub origin: Origin,
    pub certificate: Certificate,
    pub programs: Vec<Program>,
}

/// Measures whatever the options want.
pub async fn run(options: &Options, machine: Machine, cores: Cores) -> Result<Results> {
    let (programs, skipped) = find_programs(options);
    for line in &skipped {
        eprintln!("{line}");
    }
    let (origin, certificate) = (Origin::start().await?, Certificate::create()?);
    let bench = Bench { options, cores, origin, certificate, programs };
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

    pub async fn start(&self, program: &Program, setting: Setting) -> Result<Proxy> {
        let origin = match setting.upstream {
            Upstream::Http1 => self.origin.address,
            Upstream::Http2 => self.origin.http2,
        };
        program.start(setting, &self.certificate, origin, self.cores.proxy).await
    }

    /// A stretch of load that nobody counts.
    pub async fn warm_up(&self, target: &Target) -> Result<()> {
        self.load(target, Pace::Closed, Duration::from_secs(1).min(self.options.round)).await.map(drop)
    }

    /// Loads a target and says what came of it and how long it took; that nothing at all succeeds is an error.
    pub async fn load(&self, target: &Target, pace: Pace, duration: Duration) -> Result<(Tally, Duration)> {
        self.run(self.connect(target).await?, pace, duration).await
    }

    async fn connect(&self, target: &Target) -> Result<Fleet> {
        let fleet = Fleet::connect(target, self.options.connections).await;
        fleet.map_err(|error| format!("cannot connect to {}: {error}", target.address).into())
    }

    async fn run(&self, fleet: Fleet, pace: Pace, duration: Duration) -> Result<(Tally, Duration)> {
        let start = Instant::now();
        let tally = fleet.run(pace, duration).await?;
        match tally.completed {
            0 => Err(format!("nothing succeeded: {}", tally.first_failure.unwrap_or_default()).into()),
            _ => Ok((tally, start.elapsed())),
        }
    }

    fn wanted(&self) -> impl Iterator<Item = Workload> {
        comparisons::all().into_iter().filter(|workload| self.options.wants(workload.name))
    }

    async fn direct(&self) -> Result<Vec<Direct>> {
        let mut rows = Vec::new();
        for workload in self.wanted().filter(|workload| DIRECT.contains(&workload.name)) {
            let load = workload.entries[0].load.clone();
            let target = Target { address: self.origin.address, tls: None, load };
            let mut rounds = Rounds::new()?;
            self.warm_up(&target).await?;
            for _ in 0..self.options.rounds {
                rounds.push(self.round(&target, ProcessTree(std::process::id())).await?);
            }
            rows.push(Direct {
                workload: workload.name,
                requests_per_second: known(&rounds.rates)?,
                cpu_per_request: known(&rounds.cpu)?,
            });
        }
        Ok(rows)
    }

    async fn comparisons(&self) -> Result<Vec<Comparison>> {
        let mut comparisons = Vec::new();
        for workload in self.wanted() {
            let mut contenders = Vec::new();
            for entry in &workload.entries {
                if let Some(program) = self.program(entry.kind) {
                    contenders.push(Contender::new(entry, self.start(program, entry.setting).await?));
                }
            }
            if !contenders.is_empty() {
                let compared = self.compare(&workload, contenders).await;
                comparisons.push(compared.map_err(|error| format!("{}: {error}", workload.name))?);
            }
        }
        Ok(comparisons)
    }

    async fn compare(&self, workload: &Workload, contenders: Vec<Contender>) -> Result<Comparison> {
        let mut measured = contenders.iter().map(|_| Rounds::new()).collect::<Result<Vec<_>>>()?;
        for contender in &contenders {
            self.warm_up(&contender.target).await.map_err(|error| contender.blame(error))?;
        }
        for round in 0..self.options.rounds {
            eprintln!("{}: round {} of {}", workload.name, round + 1, self.options.rounds);
            for turn in 0..contenders.len() {
                let index = (round + turn) % contenders.len();
                let contender = &contenders[index];
                let measurement = self.round(&contender.target, contender.proxy.processes()).await;
                measured[index].push(measurement.map_err(|error| contender.blame(error))?);
            }
        }
        let place = |name: &String| contenders.iter().position(|contender| contender.name == *name);
        let bases: Vec<usize> = workload.bases.iter().filter_map(place).collect();
        let base_cpu: Vec<Vec<f64>> = bases.iter().map(|index| measured[*index].cpu.clone()).collect();
        let rows = contenders.iter().zip(measured);
        Ok(Comparison {
            workload: workload.name,
            about: workload.about,
            unit: workload.unit,
            compressed: workload.compressed,
            bases: bases.iter().map(|index| contenders[*index].name.clone()).collect(),
            rows: rows.map(|(contender, rounds)| contender.row(rounds, &base_cpu)).collect::<Result<_>>()?,
        })
    }

    async fn round(&self, target: &Target, processes: ProcessTree) -> Result<Round> {
        let fleet = self.connect(target).await?;
        let window = Window::open(self.cores, processes)?;
        let (tally, elapsed) = self.run(fleet, Pace::Closed, self.options.round).await?;
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
    fn new(entry: &Entry, proxy: Proxy) -> Self {
        let target = Target { address: proxy.address, tls: entry.tls, load: entry.load.clone() };
        Self { name: entry.name.clone(), proxy, target }
    }

    fn blame(&self, error: impl std::fmt::Display) -> String {
        format!("{}: {error}", self.name)
    }

    fn row(&self, rounds: Rounds, base_cpu: &[Vec<f64>]) -> Result<Row> {
        let tally = &rounds.tally;
        let ratio = |base: &Vec<f64>| known(&paired_ratios(&rounds.cpu, base));
        Ok(Row {
            name: self.name.clone(),
            per_second: known(&rounds.rates)?,
            cpu: known(&rounds.cpu)?,
            cpu_ratios: base_cpu.iter().map(ratio).collect::<Result<_>>()?,
            body: tally.received as f64 / tally.completed as f64,
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
    /// Per second.
    rate: f64,
    /// Microseconds for each.
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
