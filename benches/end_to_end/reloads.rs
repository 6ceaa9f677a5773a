//! Reloads under a fixed rate of requests: what they do to the slowest hundredth, and whether any request fails.
//!
//! The rate is half of what the gateway can do, so that a pause shows as latency and can still be caught up with.

use std::time::{Duration, Instant};

use super::Result;
use super::comparisons::{FEW_ROUTES, MANY_ROUTES};
use super::configs::Setting;
use super::load::{Load, Pace, Tally, Target};
use super::measure::{Usage, Window};
use super::proxies::{Kind, Program, Proxy};
use super::requests::get;
use super::results::Reloads;
use super::stats::paired_ratios;
use super::workloads::{Bench, known, latency};

const SHARE_OF_CAPACITY: f64 = 0.5;
/// For each round of the other workloads: the slowest hundredth varies more than the mean does.
const ROUNDS: usize = 3;
/// A reload not answered by then has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

pub async fn measure(bench: &Bench<'_>) -> Result<Vec<Reloads>> {
    let mut measured = Vec::new();
    for (workload, routes, every) in [
        ("reload_10", FEW_ROUTES, Duration::from_secs(1)),
        ("reload_50000", MANY_ROUTES, Duration::from_secs(2)),
    ] {
        if bench.options.wants(workload)
            && let Some(portcullis) = bench.program(Kind::Portcullis)
        {
            measured.push(reloads(bench, portcullis, workload, routes, every).await?);
        }
    }
    Ok(measured)
}

async fn reloads(
    bench: &Bench<'_>,
    program: &Program,
    workload: &'static str,
    routes: usize,
    every: Duration,
) -> Result<Reloads> {
    let mut proxy = bench.start(program, Setting { routes, ..Setting::default() }).await?;
    let target = Target { address: proxy.address, tls: None, load: Load::keep_alive([get("/")]) };
    let requests_per_second = capacity(bench, &target).await? * SHARE_OF_CAPACITY;
    let pace = Pace::Open { per_second: requests_per_second };
    // At least two reloads a round, or a round might pass without one that matters.
    let duration = bench.options.round.max(every * 2);

    let mut rounds = Rounds::default();
    let count = bench.options.rounds * ROUNDS;
    for number in 0..count {
        eprintln!("{workload}: round {} of {count}", number + 1);
        for with_reloads in [number % 2 == 0, number % 2 != 0] {
            let window = Window::open(bench.cores, proxy.processes())?;
            let load = bench.load(&target, pace, duration);
            let tally = if with_reloads {
                let (loaded, reloaded) = tokio::join!(load, reload_every(&mut proxy, every, duration));
                rounds.reloads.add(reloaded);
                loaded?.0
            } else {
                load.await?.0
            };
            rounds.push(tally, window.close()?, with_reloads);
        }
    }
    Ok(Reloads {
        workload,
        routes,
        every,
        requests_per_second,
        p99_still: known(&rounds.p99_still)?,
        p99_reloading: known(&rounds.p99_reloading)?,
        p99_ratio: known(&paired_ratios(&rounds.p99_reloading, &rounds.p99_still))?,
        reloads: rounds.reloads.done,
        failed_reloads: rounds.reloads.failed,
        failed_requests: rounds.failed_requests,
        first_failure: rounds.first_failure.or(rounds.reloads.first_failure),
        foreign: known(&rounds.foreign)?.median,
    })
}

/// Requests per second of a closed loop.
async fn capacity(bench: &Bench<'_>, target: &Target) -> Result<f64> {
    bench.warm_up(target).await?;
    let (tally, elapsed) = bench.load(target, Pace::Closed, bench.options.round).await?;
    Ok(tally.completed as f64 / elapsed.as_secs_f64())
}

#[derive(Default)]
struct Rounds {
    /// Milliseconds.
    p99_still: Vec<f64>,
    /// Milliseconds.
    p99_reloading: Vec<f64>,
    foreign: Vec<f64>,
    reloads: ReloadCount,
    failed_requests: u64,
    first_failure: Option<String>,
}

impl Rounds {
    fn push(&mut self, tally: Tally, usage: Usage, with_reloads: bool) {
        let p99 = latency(&tally).p99.as_secs_f64() * 1e3;
        if with_reloads { &mut self.p99_reloading } else { &mut self.p99_still }.push(p99);
        self.foreign.push(usage.foreign);
        self.failed_requests += tally.failed;
        self.first_failure = self.first_failure.take().or(tally.first_failure);
    }
}

#[derive(Default)]
struct ReloadCount {
    done: u64,
    failed: u64,
    first_failure: Option<String>,
}

impl ReloadCount {
    fn add(&mut self, other: Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    fn fail(&mut self, failure: String) {
        self.failed += 1;
        self.first_failure.get_or_insert(failure);
    }
}

/// Reloads in the middle of each interval; one that takes longer than an interval swallows the next.
async fn reload_every(proxy: &mut Proxy, every: Duration, duration: Duration) -> ReloadCount {
    let mut count = ReloadCount::default();
    let start = Instant::now();
    let mut due = start + every / 2;
    while due < start + duration {
        tokio::time::sleep_until(due.into()).await;
        match tokio::time::timeout(ANSWER_WITHIN, proxy.reload()).await {
            Ok(Ok(())) => count.done += 1,
            Ok(Err(error)) => count.fail(error.to_string()),
            Err(_) => count.fail("a reload was not answered in time".into()),
        }
        while due <= Instant::now() {
            due += every;
        }
    }
    count
}
