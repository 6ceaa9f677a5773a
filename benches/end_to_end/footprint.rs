//! What a proxy takes without load: memory of idle connections, memory at rest, time to be ready.

use std::time::Duration;

use super::Result;
use super::load::{IdleCrowd, Target};
use super::proxies::{Kind, Proxy};
use super::results::{IdleMemory, Memory, Start};
use super::workloads::{Bench, FEW_ROUTES, MANY_ROUTES, get, known};

const IDLE_CONNECTIONS: usize = 10_000;
const ROUTES_AT_START: usize = 10_000;
/// Allocators give memory back a while after it was freed.
const REST: Duration = Duration::from_secs(1);

/// Resident memory with ten thousand idle connections over that without, per connection.
pub async fn idle(bench: &Bench<'_>) -> Result<Vec<IdleMemory>> {
    let mut measured = Vec::new();
    if !bench.options.wants("idle_10000") {
        return Ok(measured);
    }
    for program in &bench.programs {
        eprintln!("idle_10000: {}", program.kind.name());
        let proxy = bench.start(program, FEW_ROUTES).await?;
        let target = target(&proxy);
        bench.warm_up(&target).await?;
        let before = resident_at_rest(&proxy).await?;
        let crowd = IdleCrowd::gather(&target, IDLE_CONNECTIONS).await.map_err(|error| error.to_string())?;
        let after = resident_at_rest(&proxy).await?;
        measured.push(IdleMemory {
            name: program.kind.name().into(),
            connections: IDLE_CONNECTIONS,
            bytes_per_connection: (after as f64 - before as f64) / IDLE_CONNECTIONS as f64,
            closed: crowd.closed(),
        });
    }
    Ok(measured)
}

/// From the start of the program, its pinning by taskset included, to its first answer; with the routes for the gateway, with the one configuration that
/// they have for the others.
pub async fn starts(bench: &Bench<'_>) -> Result<Vec<Start>> {
    let mut measured = Vec::new();
    if !bench.options.wants("start") {
        return Ok(measured);
    }
    for program in &bench.programs {
        eprintln!("start: {}", program.kind.name());
        let routes = if program.kind == Kind::Portcullis { ROUTES_AT_START } else { 0 };
        let mut milliseconds = Vec::new();
        for _ in 0..bench.options.rounds {
            milliseconds.push(bench.start(program, routes).await?.ready_in.as_secs_f64() * 1e3);
        }
        measured.push(Start {
            name: program.kind.name().into(),
            routes,
            milliseconds: known(&milliseconds)?,
        });
    }
    Ok(measured)
}

/// Resident memory at rest after some load; the gateway's with few and with many routes.
pub async fn memory(bench: &Bench<'_>) -> Result<Vec<Memory>> {
    let mut measured = Vec::new();
    if !bench.options.wants("rss") {
        return Ok(measured);
    }
    for program in &bench.programs {
        eprintln!("rss: {}", program.kind.name());
        let route_counts: &[usize] = match program.kind {
            Kind::Portcullis => &[FEW_ROUTES, MANY_ROUTES],
            _ => &[0],
        };
        for &routes in route_counts {
            let proxy = bench.start(program, routes).await?;
            bench.warm_up(&target(&proxy)).await?;
            let resident = resident_at_rest(&proxy).await?;
            measured.push(Memory { name: program.kind.name().into(), routes, resident });
        }
    }
    Ok(measured)
}

async fn resident_at_rest(proxy: &Proxy) -> Result<u64> {
    tokio::time::sleep(REST).await;
    Ok(proxy.processes().resident()?)
}

fn target(proxy: &Proxy) -> Target {
    Target { address: proxy.address, requests: [get("/")].into(), keep_alive: true }
}
