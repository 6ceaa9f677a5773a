//! The workloads in which proxies are compared, as data: what each is asked, and how.

use std::sync::Arc;

use bytes::Bytes;

use super::configs::{Policy, Setting, Upstream};
use super::load::{Group, Hello, Load};
use super::origin::{LARGE_BODY, LARGE_PATH, PAGE_PATH};
use super::proxies::Kind;
use super::requests::{
    call_grpc, get, get_and_close, get_encoded, get_of_origin, get_over_http2, routed_requests,
};
use super::results::Unit;

pub const FEW_ROUTES: usize = 10;
pub const MANY_ROUTES: usize = 50_000;
/// At once on a connection of HTTP/2.
pub const STREAMS: usize = 100;

pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    pub unit: Unit,
    pub compressed: Option<usize>,
    pub entries: Vec<Entry>,
    /// Names of the entries that the others are held against.
    pub bases: Vec<String>,
}

/// A proxy with its setting, and the load on it.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub kind: Kind,
    pub setting: Setting,
    pub tls: Option<Hello>,
    pub load: Load,
}

/// Everything, in the order of the report.
pub fn all() -> Vec<Workload> {
    let plain = |load| Entry::new(Setting::default(), None, load);
    let tls = |hello, load| Entry::new(Setting { tls: true, ..Setting::default() }, Some(hello), load);
    let to_http2 =
        |entry: Entry| Entry { setting: Setting { upstream: Upstream::Http2, ..entry.setting }, ..entry };
    let resume = Hello { resume: true, ..Hello::HTTP1 };
    let post_quantum = Hello { group: Group::PostQuantum, ..Hello::HTTP1 };
    let streams = |call| Load::Http2 { call: Arc::new(call), streams: STREAMS };
    use Unit::{Handshake, Message, Request};
    vec![
        of_all("small", "100 B answers over keep-alive", Request, plain(Load::keep_alive([get("/")]))),
        of_all(
            "large",
            "64 KiB answers over keep-alive",
            Request,
            plain(Load::keep_alive([get(LARGE_PATH)])),
        ),
        of_all("connection_per_request", "100 B answers, a connection for each", Request, plain(closing())),
        routes(),
        resilience(),
        policy(
            "hedge",
            "100 B answers; hedged after a time that none of them takes",
            Policy::Hedge,
            get("/"),
        ),
        policy(
            "rate_limit",
            "100 B answers; a limit by address, with its header fields",
            Policy::RateLimit,
            get("/"),
        ),
        policy(
            "rate_limit_settled",
            "100 B answers; the limit kept by a Redis server, settled each 100 ms",
            Policy::SharedRateLimit { exact: false },
            get("/"),
        ),
        rate_limit_exact(),
        policy("cors", "100 B answers; to a page of another origin", Policy::Cors, get_of_origin("/")),
        policy(
            "conditions",
            "100 B answers; four filters whose conditions do not hold",
            Policy::Conditions,
            get("/"),
        ),
        policy("split", "100 B answers; one of two variants, by address", Policy::Split, get("/")),
        of_all(
            "tls_handshake",
            "full handshakes of TLS 1.3, X25519",
            Handshake,
            tls(Hello::HTTP1, closing()),
        ),
        of(
            // OpenSSL has the group from 3.5 on.
            &[Kind::BarePingora, Kind::Portcullis],
            "tls_handshake_pq",
            "full handshakes of TLS 1.3, X25519MLKEM768",
            Handshake,
            tls(post_quantum, closing()),
        ),
        of_all("tls_resumed", "resumed handshakes of TLS 1.3, X25519", Handshake, tls(resume, closing())),
        of_all(
            "tls_small",
            "100 B answers over keep-alive and TLS",
            Request,
            tls(Hello::HTTP1, Load::keep_alive([get("/")])),
        ),
        of_all(
            "h2_to_h1",
            "100 B answers over HTTP/2 and TLS, 100 streams a connection, origin in HTTP/1.1",
            Request,
            tls(Hello::HTTP2, streams(get_over_http2())),
        ),
        of_all(
            "h2_to_h2c",
            "100 B answers over HTTP/2 and TLS, 100 streams a connection, origin in HTTP/2",
            Request,
            to_http2(tls(Hello::HTTP2, streams(get_over_http2()))),
        ),
        of_all(
            "grpc_unary",
            "unary calls over HTTP/2 and TLS, 100 streams a connection, 100 B messages",
            Request,
            to_http2(tls(Hello::HTTP2, streams(call_grpc()))),
        ),
        of_all("websocket_echo", "echoes of 100 B over WebSockets", Message, plain(Load::websocket())),
        compression(),
    ]
}

fn of_all(name: &'static str, about: &'static str, unit: Unit, entry: Entry) -> Workload {
    of(&Kind::ALL, name, about, unit, entry)
}

fn of(kinds: &[Kind], name: &'static str, about: &'static str, unit: Unit, entry: Entry) -> Workload {
    let bases = [Kind::BarePingora, Kind::Nginx].map(|kind| kind.name().into()).into();
    let entries = kinds.iter().map(|&kind| Entry { name: kind.name().into(), kind, ..entry.clone() });
    Workload { name, about, unit, compressed: None, entries: entries.collect(), bases }
}

/// Portcullis with few routes and with many.
fn routes() -> Workload {
    let entries = [FEW_ROUTES, MANY_ROUTES].map(|routes| Entry {
        name: format!("{}, {routes} routes", Kind::Portcullis.name()),
        ..Entry::new(
            Setting { routes, ..Setting::default() },
            None,
            Load::keep_alive(routed_requests(routes)),
        )
    });
    Workload {
        name: "routes_50000",
        about: "1,000 hosts and paths in turn, 100 B answers",
        unit: Unit::Request,
        compressed: None,
        bases: vec![entries[0].name.clone()],
        entries: entries.into(),
    }
}

/// What watching over the origin costs a request that goes well.
fn resilience() -> Workload {
    let entries = [(false, "off"), (true, "on")].map(|(resilience, word)| Entry {
        name: format!("{}, {word}", Kind::Portcullis.name()),
        ..Entry::new(Setting { resilience, ..Setting::default() }, None, Load::keep_alive([get("/")]))
    });
    Workload {
        name: "resilience",
        about: "100 B answers; health checks, breaker, limits and adaptive concurrency on",
        unit: Unit::Request,
        compressed: None,
        bases: vec![entries[0].name.clone()],
        entries: entries.into(),
    }
}

/// What a policy costs a request that passes it.
fn policy(name: &'static str, about: &'static str, policy: Policy, request: Bytes) -> Workload {
    let entries = [(Policy::None, "off"), (policy, "on")].map(|(policy, word)| Entry {
        name: format!("{}, {word}", Kind::Portcullis.name()),
        ..Entry::new(Setting { policy, ..Setting::default() }, None, Load::keep_alive([request.clone()]))
    });
    Workload {
        name,
        about,
        unit: Unit::Request,
        compressed: None,
        bases: vec![entries[0].name.clone()],
        entries: entries.into(),
    }
}

/// What a limit costs that is asked for at a Redis server, beside one of nginx's own.
fn rate_limit_exact() -> Workload {
    let about = "100 B answers; the limit asked for at a Redis server for each request, nginx with a limit of its own";
    let mut workload = policy("rate_limit_exact", about, Policy::SharedRateLimit { exact: true }, get("/"));
    workload.entries.push(Entry {
        name: format!("{}, limit_req", Kind::Nginx.name()),
        kind: Kind::Nginx,
        ..Entry::new(
            Setting { policy: Policy::RateLimit, ..Setting::default() },
            None,
            Load::keep_alive([get("/")]),
        )
    });
    workload
}

/// gzip for all, and what else Portcullis has.
fn compression() -> Workload {
    let entry = |coding: &str| {
        let load = Load::Http1 {
            requests: [get_encoded(PAGE_PATH, coding)].into(),
            keep_alive: true,
            encoded: true,
        };
        Entry::new(Setting { compression: true, ..Setting::default() }, None, load)
    };
    let mut workload =
        of_all("compression", "64 KiB of JSON, gzip unless named", Unit::Request, entry("gzip"));
    workload.compressed = Some(LARGE_BODY);
    for coding in ["br", "zstd"] {
        let name = format!("{}, {coding}", Kind::Portcullis.name());
        workload.entries.push(Entry { name, ..entry(coding) });
    }
    workload
}

impl Entry {
    /// Of Portcullis, for a beginning.
    fn new(setting: Setting, tls: Option<Hello>, load: Load) -> Self {
        let (kind, setting) =
            (Kind::Portcullis, Setting { routes: setting.routes.max(FEW_ROUTES), ..setting });
        Self { name: kind.name().into(), kind, setting, tls, load }
    }
}

fn closing() -> Load {
    Load::Http1 { requests: [get_and_close("/")].into(), keep_alive: false, encoded: false }
}

#[cfg(test)]
mod tests {
    use super::super::workloads::NAMES;
    use super::*;

    #[test]
    fn every_workload_can_be_asked_for_by_name_and_its_bases_are_among_its_entries() {
        for workload in all() {
            assert!(NAMES.contains(&workload.name), "{}", workload.name);
            let names: Vec<_> = workload.entries.iter().map(|entry| &entry.name).collect();
            assert!(names.contains(&&workload.bases[0]), "{}", workload.name);
            assert!(workload.entries.iter().all(|entry| entry.setting.tls == entry.tls.is_some()));
        }
    }
}
