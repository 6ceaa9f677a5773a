//! Endpoints that come and go for a minute, by the admin API and by reload at once.

use std::fs;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::{Gateway, eventually};
use crate::server::Server;
use crate::{ALL, MILLIS, config_at, load, say};

/// How many seconds it goes on; `make chaos` says a minute.
const SECONDS: &str = "PORTCULLIS_CHAOS_SECONDS";
const FEWER: u64 = 8;
/// What the process may grow by, MiB: the clients' notes in it, and whatever other tests do meanwhile.
const GROWTH: u64 = 48;
const SIZE: &str = "portcullis_upstream_endpoints{upstream=\"origin\"}";
const ROUTE: &str = "retry: { max_retries: 2 }";

/// One server under so many addresses that hardly one comes twice.
fn address(server: &Server, number: u32) -> SocketAddr {
    let [_, _, high, low] = (number % 60_000 + 2).to_be_bytes();
    ([127, 1, high, low], server.address().port()).into()
}

/// How many series and parts of the admin view there are with an endpoint in them.
fn traces(gateway: &Gateway) -> (usize, usize) {
    let metrics = gateway.admin_get("/metrics").text();
    let series = metrics.lines().filter(|line| line.contains("endpoint=\"127.1."));
    let shown = gateway.admin_get("/upstreams").text().matches("\"127.1.").count();
    (series.count(), shown)
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn endpoints_come_and_go_by_the_admin_api_and_by_reload() {
    let seconds = std::env::var(SECONDS).map_or(FEWER, |seconds| seconds.parse().unwrap());
    let files = [(); 3].map(|()| Server::start());
    let (guest, written) = (Server::start_everywhere(), files.each_ref().map(|server| server.address()));
    // Kept connections to those that are gone are closed when they have been idle for so long.
    let all = ALL.replace("timeouts: {", "timeouts: { idle: 1s,");
    let config = |addresses: &[SocketAddr]| config_at(addresses, &all, ROUTE);
    let gateway = Gateway::start_file(&config(&written));
    let admin = |method: &str, address: SocketAddr, body: &str| {
        let answer = gateway.admin_ask(method, &format!("/upstreams/origin/endpoints/{address}"), body);
        assert!(answer.status < 300, "{method} {address}: {} {}", answer.status, answer.text());
    };
    let load = load(&gateway);
    let (started, mut changes, mut before) = (Instant::now(), 0, None);
    for round in 0u32.. {
        if started.elapsed() > Duration::from_secs(seconds) {
            break;
        }
        if before.is_none() && started.elapsed() > Duration::from_secs(seconds / 4) {
            before = Some(resident());
        }
        let own = written[round as usize % 3];
        admin("PUT", address(&guest, round), r#"{"weight": 2}"#);
        match round % 3 {
            0 => admin("PUT", own, r#"{"state": "draining"}"#),
            1 => admin("DELETE", own, ""),
            _ => admin("PUT", own, r#"{"weight": 3}"#),
        }
        // A reload in between, with one that the file alone knows.
        let other = address(&guest, round + 30_000);
        let with: Vec<SocketAddr> = written.into_iter().chain([other]).collect();
        gateway.rewrite(&config(&with));
        gateway.reload().unwrap();
        sleep(MILLIS(50));
        admin("PUT", own, r#"{"weight": 1, "state": "active"}"#);
        admin("PUT", address(&guest, round), r#"{"state": "draining"}"#);
        admin("DELETE", address(&guest, round), "");
        changes += 6;
        sleep(MILLIS(50));
    }
    let after = resident();
    gateway.rewrite(&config(&written));
    gateway.reload().unwrap();
    let told = load.end();
    say(&format!("{changes} changes of endpoints in {seconds} s"), &told);
    let before = before.unwrap();
    println!("| ... resident, then and at the end | {before} MiB, {after} MiB |");
    assert_eq!(told.failed(), 0, "{:?}", told.failures());
    assert!(guest.served() > 10, "the guests are asked, too");
    assert_eq!(gateway.metric(SIZE), 3.0);
    eventually("nothing is known of those that are gone", || traces(&gateway) == (0, 0));
    eventually("their connections are closed", || guest.connections() == 0);
    assert!(after < before + GROWTH, "it grew from {before} MiB to {after} MiB");
}
