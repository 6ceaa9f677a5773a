//! What a proxy takes without load: memory of idle connections, memory at rest, time to be ready.

use std::time::Duration;

use super::Result;
use super::comparisons::{FEW_ROUTES, MANY_ROUTES, STREAMS};
use super::configs::Setting;
use super::load::{Hello, IdleCrowd, Load, Target};
use super::proxies::{Kind, Proxy};
use super::requests::{get, get_over_http2};
use super::results::{Idle, IdleMemory, Memory, Start};
use super::workloads::{Bench, known};

/// With both ends of every connection in this process, and both in the proxy, a descriptor limit of 20,000 takes 8,000
/// WebSockets.
const IDLE_CONNECTIONS: usize = 8_000;
const ROUTES_AT_START: usize = 10_000;
/// Allocators give memory back a while after it was freed.
const REST: Duration = Duration::from_secs(1);

/// Connections of one kind, that were served one request each.
struct Crowd {
    workload: &'static str,
    about: &'static str,
    connections: usize,
    tls: Option<Hello>,
    load: Load,
}

fn crowds() -> [Crowd; 4] {
    let connections = IDLE_CONNECTIONS;
    [
        Crowd {
            workload: "idle_10000",
            about: "what an idle keep-alive connection holds",
            connections: 10_000,
            tls: None,
            load: Load::keep_alive([get("/")]),
        },
        Crowd {
            workload: "idle_tls",
            about: "what an idle keep-alive connection holds over TLS",
            connections,
            tls: Some(Hello::HTTP1),
            load: Load::keep_alive([get("/")]),
        },
        Crowd {
            workload: "idle_h2",
            about: "what an idle HTTP/2 connection holds over TLS",
            connections,
            tls: Some(Hello::HTTP2),
            load: Load::Http2 { call: get_over_http2().into(), streams: STREAMS },
        },
        Crowd {
            workload: "idle_websockets",
            about: "what an idle WebSocket holds, its connection to the origin included",
            connections,
            tls: None,
            load: Load::websocket(),
        },
    ]
}

/// Resident memory with many idle connections over that without, per connection.
pub async fn idle(bench: &Bench<'_>) -> Result<Vec<Idle>> {
    let mut measured = Vec::new();
    for Crowd { workload, about, connections, tls, load } in crowds() {
        if !bench.options.wants(workload) {
            continue;
        }
        let mut proxies = Vec::new();
        for program in &bench.programs {
            eprintln!("{workload}: {}", program.kind.name());
            let setting = Setting { routes: FEW_ROUTES, tls: tls.is_some(), ..Setting::default() };
            let proxy = bench.start(program, setting).await?;
            let target = Target { address: proxy.address, tls, load: load.clone() };
            bench.warm_up(&target).await?;
            let before = resident_at_rest(&proxy).await?;
            let crowd = IdleCrowd::gather(&target, connections).await.map_err(|error| error.to_string())?;
            let after = resident_at_rest(&proxy).await?;
            proxies.push(IdleMemory {
                name: program.kind.name().into(),
                connections,
                bytes_per_connection: (after as f64 - before as f64) / connections as f64,
                closed: crowd.closed(),
            });
        }
        measured.push(Idle { workload, about, proxies });
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
            milliseconds.push(bench.start(program, plain(routes)).await?.ready_in.as_secs_f64() * 1e3);
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
            let proxy = bench.start(program, plain(routes)).await?;
            let load = Load::keep_alive([get("/")]);
            bench.warm_up(&Target { address: proxy.address, tls: None, load }).await?;
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

fn plain(routes: usize) -> Setting {
    Setting { routes, ..Setting::default() }
}
