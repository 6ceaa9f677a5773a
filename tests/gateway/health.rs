//! Active health and what follows: who is asked, what clients see, what outlives a reload, when probes end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::process_log::heard;
use crate::harness::{Gateway, Origin, Then, eventually, settled};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const FAST: &str =
    "active: { http: { path: /healthz }, interval: 100ms, healthy_after: 1, unhealthy_after: 1 }";

/// A server that answers with its name, and to `/healthz` with how it is.
struct Server {
    origin: Origin,
    sick: Arc<AtomicBool>,
}

impl Server {
    fn new(name: &'static str, sick: bool) -> Self {
        let sick = Arc::new(AtomicBool::new(sick));
        let told = Arc::clone(&sick);
        let origin = Origin::start(move |visit| match visit.request.target.as_str() {
            "/healthz" if told.load(Ordering::Relaxed) => visit.answer(BAD),
            "/healthz" | "/livez" => visit.answer(OK),
            _ => visit.answer(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len())),
        });
        Self { origin, sick }
    }

    fn is(&self, sick: bool) {
        self.sick.store(sick, Ordering::Relaxed);
    }

    fn probes(&self) -> usize {
        self.origin.requests().iter().filter(|asked| asked.target != "/").count()
    }
}

/// What sends everything to these servers by weight, with these words in `health` and besides.
fn before(servers: &[(&Server, u16)], health: &str, more: &str) -> String {
    let endpoint = |(server, weight): &(&Server, u16)| {
        format!("{{ address: \"{}\", weight: {weight} }}", server.origin.address())
    };
    let endpoints: Vec<_> = servers.iter().map(endpoint).collect();
    format!(
        "upstreams: {{ all: {{ endpoints: [{}], health: {{ {health} }}{more} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: all }}]\n",
        endpoints.join(", ")
    )
}

/// Who answers so many requests, and how often.
fn answers(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let mut client = gateway.client();
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        let answer = client.get("/");
        assert_eq!(answer.status, 200);
        *seen.entry(answer.text()).or_default() += 1;
    }
    seen
}

fn only(name: &str, count: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(name.to_owned(), count)])
}

#[test]
fn nobody_is_sent_to_the_sick_and_they_come_back() {
    let (a, b) = (Server::new("a", false), Server::new("b", false));
    let gateway = Gateway::start(&before(&[(&a, 1), (&b, 1)], FAST, ""));
    eventually("both are probed", || a.probes() > 0 && b.probes() > 0);
    assert_eq!(answers(&gateway, 10), BTreeMap::from([("a".into(), 5), ("b".into(), 5)]));
    a.is(true);
    eventually("nobody asks a", || answers(&gateway, 10) == only("b", 10));
    let address = a.origin.address().to_string();
    heard(&["WARN", &address, "is unhealthy: status 503 is not expected"]);
    a.is(false);
    eventually("a is back", || answers(&gateway, 10).len() == 2);
}

#[test]
fn who_comes_back_may_start_slowly() {
    let (a, b) = (Server::new("a", true), Server::new("b", false));
    let gateway = Gateway::start(&before(&[(&a, 1), (&b, 1)], FAST, ", slow_start: 1h"));
    eventually("nobody asks a", || answers(&gateway, 10) == only("b", 10));
    a.is(false);
    eventually("a is back", || answers(&gateway, 10).len() == 2);
    let share = answers(&gateway, 300)["a"];
    assert!((1..90).contains(&share), "{share} of 300, where half is its whole share");
}

#[test]
fn when_all_are_sick_it_is_as_configured() {
    let (a, b) = (Server::new("a", true), Server::new("b", true));
    let gateway = Gateway::start(&before(&[(&a, 1), (&b, 1)], FAST, ""));
    eventually("nobody is asked", || gateway.get("/").status == 503);
    let refused = gateway.get("/");
    assert_eq!(refused.problem(), (503, "no_healthy_upstream".into()));
    assert!(refused.header("retry-after").is_some());

    let words = format!("{FAST}, when_none_healthy: try_all");
    let gateway = Gateway::start(&before(&[(&a, 1), (&b, 1)], &words, ""));
    let unhealthy = || {
        let all = gateway.admin_get("/upstreams").json();
        let endpoints = all[0]["endpoints"].as_array().unwrap().clone();
        endpoints.iter().all(|endpoint| endpoint["healthy"] == false)
    };
    eventually("both are found unhealthy", unhealthy);
    assert_eq!(answers(&gateway, 10).len(), 2);
}

#[test]
fn when_too_few_are_well_all_are_asked() {
    let servers = [Server::new("a", false), Server::new("b", true), Server::new("c", true)];
    let weighed: Vec<_> = servers.iter().map(|server| (server, 1)).collect();
    let start =
        |threshold| Gateway::start(&before(&weighed, &format!("{FAST}, panic_threshold: {threshold}"), ""));
    let panicking = |gateway: &Gateway| gateway.admin_get("/upstreams").json()[0]["panicking"].clone();
    let calm = start("30%");
    eventually("one bears it all", || answers(&calm, 12) == only("a", 12));
    assert_eq!(panicking(&calm), false);
    let panic = start("50%");
    eventually("too few are left", || panicking(&panic) == true);
    assert_eq!(answers(&panic, 12).len(), 3);
}

#[test]
fn what_is_known_outlives_a_reload_but_not_the_question() {
    let (a, b) = (Server::new("a", true), Server::new("b", false));
    let hourly = FAST.replace("100ms", "1h");
    let gateway = Gateway::start_file(&before(&[(&a, 1), (&b, 1)], &hourly, ""));
    eventually("nobody asks a", || answers(&gateway, 10) == only("b", 10));
    eventually("b is probed", || b.probes() == 1);

    gateway.rewrite(&before(&[(&a, 5), (&b, 1)], &hourly, ""));
    gateway.reload().unwrap();
    assert_eq!(answers(&gateway, 20), only("b", 20));
    assert_eq!((a.probes(), b.probes()), (1, 1), "what is known is good enough");

    let other = hourly.replace("/healthz", "/livez");
    gateway.rewrite(&before(&[(&a, 5), (&b, 1)], &other, ""));
    gateway.reload().unwrap();
    assert_eq!(answers(&gateway, 12).len(), 2, "nobody has asked so yet");
    eventually("it is asked anew, soon", || a.probes() == 2 && b.probes() == 2);
    assert_eq!(answers(&gateway, 12).len(), 2);

    gateway.rewrite(&before(&[(&a, 5), (&b, 1)], "", ""));
    gateway.reload().unwrap();
    let endpoint = gateway.admin_get("/upstreams").json()[0]["endpoints"][0].clone();
    assert_eq!(endpoint["health"]["active"], serde_json::Value::Null);
}

#[test]
fn probes_end_with_the_upstream_and_with_the_gateway() {
    let (a, b) = (Server::new("a", false), Server::new("b", false));
    let stays = before(&[(&b, 1)], FAST, "");
    let both = stays.replace(
        "upstreams: { ",
        &format!("upstreams: {{ gone: {{ endpoints: [\"{}\"], health: {{ {FAST} }} }}, ", a.origin.address()),
    );
    let gateway = Gateway::start_file(&both);
    eventually("both are probed", || a.probes() > 2 && b.probes() > 2);
    gateway.rewrite(&stays);
    gateway.reload().unwrap();
    settled("the probes of a", Duration::from_millis(700), || a.probes());
    let so_far = b.probes();
    eventually("b is probed still", || b.probes() > so_far + 2);
    gateway.shutdown();
    settled("the probes of b", Duration::from_millis(700), || b.probes());
    eventually("no connection is left", || a.origin.open() == 0 && b.origin.open() == 0);
}

#[test]
fn a_probe_under_way_does_not_hold_up_the_end() {
    let hanging = Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{ u: {{ endpoints: [\"{}\"], health: {{ active: {{ http: {{}}, timeout: 1h }} }} }} }}\n",
        hanging.address()
    ));
    eventually("a probe is under way", || !hanging.requests().is_empty());
    gateway.shutdown();
    eventually("it is dropped", || hanging.open() == 0);
}

#[test]
fn what_is_only_checked_is_not_probed() {
    let (a, b) = (Server::new("a", false), Server::new("b", false));
    let gateway = Gateway::start(&before(&[(&a, 1)], FAST, ""));
    let other =
        format!("{}listeners: [{{ name: web, address: \"127.0.0.1:1\" }}]\n", before(&[(&b, 1)], FAST, ""));
    let checked = gateway.admin_ask("POST", "/config/check", &other);
    assert_eq!(checked.status, 200, "{}", checked.text());
    let so_far = a.probes();
    eventually("a is probed many times", || a.probes() > so_far + 12);
    assert_eq!(b.origin.connections(), 0);
}

#[test]
fn healthy_is_both_active_and_passive() {
    let broken = Origin::start(|visit| match visit.request.target.as_str() {
        "/healthz" => visit.answer(OK),
        _ => visit.answer("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"),
    });
    let well = Server::new("well", false);
    let words = format!("{FAST}, passive: {{ consecutive_errors: 2, eject_for: 1h }}");
    let words = before(&[(&well, 1)], &words, "");
    let both = words.replace("endpoints: [", &format!("endpoints: [\"{}\", ", broken.address()));
    let gateway = Gateway::start(&both);
    let mut client = gateway.client();
    eventually("what fails is out, however it answers to probes", || {
        (0..10).all(|_| client.get("/").status == 200)
    });
    let endpoint = gateway.admin_get("/upstreams").json()[0]["endpoints"][0].clone();
    assert_eq!(
        (&endpoint["healthy"], &endpoint["health"]["active"]["healthy"]),
        (&false.into(), &true.into())
    );
}
