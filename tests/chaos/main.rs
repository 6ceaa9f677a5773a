//! What clients notice when upstreams fail under load. Each test prints the figures that docs/guides/resilience.md shows:
//! `make chaos`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

#[path = "../harness/mod.rs"]
mod harness;
mod load;
mod server;
mod silence;
mod turnover;
mod wire;

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::{FullBacklog, Gateway};
use crate::load::{Load, Told};
use crate::server::{Mode, Server};

const SECOND: Duration = Duration::from_secs(1);
const MILLIS: fn(u64) -> Duration = Duration::from_millis;

/// Everything that keeps an upstream from going dark, with times that fit into a test.
const ALL: &str = "breaker: { consecutive_failures: 5, open_for: 500ms, close_after: 2 }, \
                   health: { passive: { consecutive_errors: 3, eject_for: 500ms, window: 2s } }, \
                   timeouts: { connect: 300ms }";

fn config(servers: &[&Server], upstream: &str, route: &str) -> String {
    let addresses: Vec<_> = servers.iter().map(|server| server.address()).collect();
    config_at(&addresses, upstream, route)
}

fn config_at(addresses: &[SocketAddr], upstream: &str, route: &str) -> String {
    let endpoints: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "server: {{ threads: 1 }}\n\
         upstreams: {{ origin: {{ endpoints: [{}], {upstream} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, {route} }}]",
        endpoints.join(", ")
    )
}

fn three() -> [Server; 3] {
    [(); 3].map(|()| Server::start())
}

fn start(servers: &[Server; 3], upstream: &str, route: &str) -> Gateway {
    Gateway::start_file(&config(&servers.each_ref(), upstream, route))
}

/// The load is that of eight clients, who rest a millisecond after each answer.
fn load(gateway: &Gateway) -> Load {
    Load::start(gateway.address(), 8, MILLIS(1))
}

fn say(fault: &str, told: &Told) {
    println!(
        "| {fault} | {} | {} | {:.1} | {:.1} |",
        told.answers(),
        told.failed(),
        told.percentile(0.5).as_secs_f64() * 1e3,
        told.percentile(0.99).as_secs_f64() * 1e3
    );
}

#[test]
fn one_of_three_is_killed() {
    for (route, name, most) in
        [("", "killed, retries on", 0), ("retry: { max_retries: 0 }", "killed, retries off", 60)]
    {
        let servers = three();
        let gateway = start(&servers, ALL, route);
        let load = load(&gateway);
        sleep(SECOND);
        servers[0].kill();
        sleep(2 * SECOND);
        let told = load.end();
        say(name, &told);
        assert!(told.failed() <= most, "{name}: {:?}", told.failures());
        assert!(told.since(SECOND * 2).failed() <= most / 3, "{name}: it goes on failing");
    }
}

#[test]
fn one_of_three_is_a_black_hole() {
    let (hole, servers) = (FullBacklog::new(), three());
    let addresses = [hole.address(), servers[1].address(), servers[2].address()];
    let gateway = Gateway::start(&config_at(&addresses, ALL, ""));
    let load = load(&gateway);
    sleep(3 * SECOND);
    let told = load.end();
    say("connects to nothing", &told);
    assert_eq!(told.failed(), 0, "{:?}", told.failures());
    // Once in a while somebody has to try it, and waits for `connect`.
    assert!(told.percentile(0.9) < MILLIS(150), "{:?}", told.percentile(0.9));
}

#[test]
fn one_of_three_accepts_and_never_answers() {
    let servers = three();
    let gateway = start(&servers, ALL, "retry: { on: [timeout] }, timeouts: { per_try: 200ms }");
    let load = load(&gateway);
    sleep(SECOND);
    servers[0].set(Mode::Silent);
    sleep(3 * SECOND);
    let told = load.end();
    say("accepts and never answers", &told);
    assert_eq!(told.failed(), 0, "{:?}", told.failures());
    assert!(told.since(2 * SECOND).percentile(0.9) < MILLIS(150));
}

#[test]
fn one_of_three_becomes_ten_times_slower() {
    let servers = three();
    servers.iter().for_each(|server| server.set(Mode::Takes(MILLIS(10))));
    let breaker = "breaker: { slow_call_duration: 50ms, slow_call_rate: 50%, min_requests: 5, window: 1s, \
                   consecutive_failures: 1000, open_for: 10s }";
    let gateway = start(&servers, breaker, "");
    let load = load(&gateway);
    sleep(SECOND);
    servers[0].set(Mode::Takes(MILLIS(100)));
    sleep(4 * SECOND);
    let told = load.end();
    say("ten times slower", &told);
    assert_eq!(told.failed(), 0, "{:?}", told.failures());
    let settled = told.since(3 * SECOND).percentile(0.99);
    assert!(settled < MILLIS(80), "two windows later p99 is {settled:?}");
}

#[test]
fn one_of_three_stays_slow_and_requests_are_hedged() {
    for (route, name) in [
        ("", "ten times slower to the end"),
        ("retry: { hedge: { after: 30ms } }", "the same, `hedge: { after: 30ms }`"),
        ("retry: { hedge: { after: p60 } }", "the same, `hedge: { after: p60 }`"),
    ] {
        let servers = three();
        servers.iter().for_each(|server| server.set(Mode::Takes(MILLIS(10))));
        servers[0].set(Mode::Takes(MILLIS(100)));
        let budget = "retry_budget: { ratio: 50%, min_per_second: 3 }";
        let gateway = start(&servers, budget, route);
        let load = load(&gateway);
        sleep(4 * SECOND);
        let told = load.end().since(SECOND);
        say(name, &told);
        assert_eq!(told.failed(), 0, "{:?}", told.failures());
        let slow = format!(
            "portcullis_upstream_requests_total{{upstream=\"origin\",endpoint=\"{}\",outcome=\"success\"}}",
            servers[0].address()
        );
        // On a busy machine nothing is fast: what counts is who answered. Some of what it loses is waited for aside, and counts.
        let slow = gateway.metric(&slow) / servers.iter().map(Server::served).sum::<usize>() as f64;
        assert_eq!(slow < 0.2, !route.is_empty(), "{name}: {slow} of the answers are the slow one's");
    }
}

#[test]
fn one_of_three_answers_some_with_500() {
    let servers = three();
    let gateway = start(&servers, ALL, "retry: { on: [5xx], max_retries: 2 }");
    let load = load(&gateway);
    sleep(SECOND);
    servers[0].set(Mode::Fails { of_ten: 3 });
    sleep(3 * SECOND);
    let told = load.end();
    say("answers 500 to 30%", &told);
    assert_eq!(told.failed(), 0, "{:?}", told.failures());
}

#[test]
fn one_of_three_comes_and_goes() {
    let servers = three();
    let gateway = start(&servers, ALL, "retry: { max_retries: 2 }");
    let load = load(&gateway);
    for _ in 0..3 {
        sleep(SECOND);
        servers[0].kill();
        sleep(SECOND);
        servers[0].revive();
    }
    let told = load.end();
    say("comes and goes each second", &told);
    assert_eq!(told.failed(), 0, "{:?}", told.failures());
}

#[test]
fn all_are_restarted_in_turn() {
    let servers = three();
    let gateway = start(&servers, ALL, "retry: { max_retries: 2 }");
    let load = load(&gateway);
    for server in &servers {
        sleep(SECOND);
        server.kill();
        sleep(MILLIS(500));
        server.revive();
    }
    sleep(SECOND);
    let told = load.end();
    say("all restarted in turn", &told);
    assert_eq!(told.failed(), 0, "{:?}", told.failures());
}

#[test]
fn connections_are_closed_as_they_are_used_again() {
    let servers = three();
    servers.iter().for_each(|server| server.set(Mode::Closes));
    let gateway = start(&servers, ALL, "");
    let load = load(&gateway);
    sleep(2 * SECOND);
    let told = load.end();
    say("keep-alive closed at reuse", &told);
    assert_eq!(told.failed(), 0, "{:?}", told.failures());
}

#[test]
fn endpoints_come_and_go_by_reload_while_one_fails() {
    let servers = [(); 5].map(|()| Server::start());
    let all = servers.each_ref();
    let gateway = Gateway::start_file(&config(&all, ALL, "retry: { max_retries: 2 }"));
    let load = load(&gateway);
    let started = Instant::now();
    for round in 0.. {
        if started.elapsed() > 6 * SECOND {
            break;
        }
        match round % 10 {
            3 => servers[4].kill(),
            8 => servers[4].revive(),
            _ => {}
        }
        let without = round % 4;
        let set: Vec<&Server> = (0..5).filter(|at| *at != without).map(|at| all[at]).collect();
        gateway.rewrite(&config(&set, ALL, "retry: { max_retries: 2 }"));
        gateway.reload().unwrap();
        sleep(MILLIS(100));
    }
    let told = load.end();
    say("endpoints change each 100 ms, one flaps", &told);
    assert_eq!(told.failed(), 0, "{:?}", told.failures());
}

#[test]
fn a_total_outage_is_not_made_worse_and_ends_soon() {
    let servers = three();
    let outage = "breaker: { consecutive_failures: 5, open_for: 500ms, close_after: 2 }, \
                  retry_budget: { ratio: 20%, min_per_second: 3 }";
    // Without a breaker: what retries alone add.
    let gateway = start(
        &servers,
        "retry_budget: { ratio: 20%, min_per_second: 3 }",
        "retry: { max_retries: 3, backoff: { fixed: 1ms } }",
    );
    servers.iter().for_each(|server| server.set(Mode::Fails503));
    let before: usize = servers.iter().map(Server::served).sum();
    let load_without = load(&gateway);
    sleep(3 * SECOND);
    let told = load_without.end();
    let attempts = servers.iter().map(Server::served).sum::<usize>() - before;
    let (requests, allowed) = (told.all(), told.all() as f64 * 1.2 + 30.0 + 9.0);
    println!("| total outage, no breaker | {requests} requests, {attempts} attempts |");
    assert!(attempts as f64 <= allowed, "{attempts} attempts of {requests} requests");
    drop(gateway);

    servers.iter().for_each(|server| server.set(Mode::Answers));
    let gateway = start(&servers, outage, "retry: { max_retries: 3, backoff: { fixed: 1ms } }");
    let load = load(&gateway);
    sleep(SECOND);
    servers.iter().for_each(|server| server.set(Mode::Fails503));
    sleep(MILLIS(500));
    let before: usize = servers.iter().map(Server::served).sum();
    sleep(2 * SECOND);
    let probes = servers.iter().map(Server::served).sum::<usize>() - before;
    servers.iter().for_each(|server| server.set(Mode::Answers));
    let healed = Instant::now();
    sleep(2 * SECOND);
    let told = load.end();
    let recovered = told.first_success_after(healed).expect("it recovers");
    println!(
        "| total outage, breakers | {} attempts a second while open, recovered in {recovered:?} |",
        probes / 2
    );
    // Three endpoints, each tried at most half_open_requests at a time, each half second.
    assert!(probes <= 3 * 3 * 6, "{probes}");
    assert!(recovered < MILLIS(500 + 250), "{recovered:?}");
    assert_eq!(told.since_instant(healed + SECOND).failed(), 0);
}
