//! The choice among endpoints: each way of it, by what tells it from the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use portcullis::upstream::{Balancer, EndpointId, EndpointSet, Pick};
use serde_json::json;

use crate::harness::{Client, Gateway, Origin, Then, eventually};

const ROUTE: &str =
    "routes: [{ name: all, path: /*, retry: { max_retries: 2, on: [reset] }, upstream: origin }]\n";

/// So many origins, that answer with their numbers.
fn origins(count: usize) -> Vec<Origin> {
    (0..count).map(|at| Origin::named(&at.to_string())).collect()
}

/// An upstream of these endpoints, with these words in it.
fn upstream(endpoints: &[String], words: &str) -> String {
    format!("upstreams: {{ origin: {{ endpoints: [{}], {words} }} }}\n", endpoints.join(", "))
}

fn addresses<'o>(origins: impl IntoIterator<Item = &'o Origin>) -> Vec<String> {
    origins.into_iter().map(|origin| format!("\"{}\"", origin.address())).collect()
}

/// The words of a gateway before these origins.
fn words(origins: &[Origin], balance: &str) -> String {
    upstream(&addresses(origins), &format!("balance: {balance}")) + ROUTE
}

fn before(origins: &[Origin], balance: &str) -> Gateway {
    Gateway::start(&words(origins, balance))
}

/// Who answers a request with these fields.
fn who(client: &mut Client, target: &str, fields: &str) -> String {
    let host = if fields.contains("host:") { "" } else { "host: a.test\r\n" };
    let answer = client.ask(format!("GET {target} HTTP/1.1\r\n{host}{fields}\r\n"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

fn counts(answers: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    answers.into_iter().fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name).or_default() += 1;
        counts
    })
}

/// An origin that answers `/stuck` never, and everything else with a name.
fn sticking(name: &'static str) -> Origin {
    Origin::start(move |visit| {
        if visit.request.target.starts_with("/stuck") {
            visit.wait_for_close();
            return Then::Close;
        }
        visit.answer(format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{name}"))
    })
}

/// Sends a request that is not answered, and waits until an origin has it.
fn stick(gateway: &Gateway, origins: &[Origin], target: &str) -> Client {
    let count = || origins.iter().map(|origin| origin.requests().len()).sum::<usize>();
    let before = count();
    let mut client = gateway.client();
    client.send_get(target);
    eventually("an origin has the request", || count() > before);
    client
}

/// Origins that answer with their numbers; one that is down resets every connection.
fn failing(count: usize) -> (Vec<Origin>, Vec<Arc<AtomicBool>>) {
    let switches: Vec<Arc<AtomicBool>> = (0..count).map(|_| Arc::default()).collect();
    let origin = |(at, down): (usize, &Arc<AtomicBool>)| {
        let down = Arc::clone(down);
        Origin::start(move |visit| match down.load(Ordering::SeqCst) {
            true => Then::Reset,
            false => visit.answer(format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{at}")),
        })
    };
    (switches.iter().enumerate().map(origin).collect(), switches)
}

#[test]
fn least_requests_spares_one_that_is_stuck() {
    let origins = [sticking("a"), sticking("b")];
    let gateway = before(&origins, "least_requests");
    let _stuck = stick(&gateway, &origins, "/stuck");
    let free = if origins[0].requests().is_empty() { "a" } else { "b" };
    let mut client = gateway.client();
    let seen = counts((0..20).map(|_| who(&mut client, "/", "")));
    assert_eq!(seen, BTreeMap::from([(free.to_owned(), 20)]));
}

#[test]
fn peak_ewma_spares_one_that_is_slow() {
    let slow = Origin::start(|visit| {
        // What it does for every request.
        thread::sleep(Duration::from_millis(30));
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nb")
    });
    let origins = [Origin::named("a"), slow];
    let gateway = before(&origins, "peak_ewma");
    let mut client = gateway.client();
    let seen = counts((0..100).map(|_| who(&mut client, "/", "")));
    assert!(seen["a"] >= 85, "{seen:?}");
    let endpoints = &gateway.admin_get("/upstreams").json()[0]["endpoints"];
    let latency = |at: usize| endpoints[at]["latency_seconds"].as_f64().unwrap_or(0.0);
    assert!(latency(1) > latency(0), "{endpoints:#}");
}

#[test]
fn random_goes_by_lot() {
    let origins = origins(2);
    let gateway = before(&origins, "random");
    let mut client = gateway.client();
    let answers: Vec<String> = (0..200).map(|_| who(&mut client, "/", "")).collect();
    assert!(answers.windows(2).any(|pair| pair[0] == pair[1]), "it is not by turns: {answers:?}");
    let seen = counts(answers);
    assert!(seen.len() == 2 && seen.values().all(|count| *count > 50), "{seen:?}");
}

/// Each selector, and what a request of a key looks like: its target, its fields, its source.
type Row = (&'static str, fn(u8) -> (String, String, Ipv4Addr));

#[test]
fn the_same_key_comes_to_the_same_endpoint_by_every_selector() {
    const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
    let rows: &[Row] = &[
        ("ip", |key| ("/".into(), String::new(), Ipv4Addr::new(127, 1, 0, key))),
        ("host", |key| ("/".into(), format!("host: H{key}.test:80\r\n"), HERE)),
        ("path", |key| (format!("/%61/{key}"), String::new(), HERE)),
        ("route", |key| (format!("/r/{key}"), String::new(), HERE)),
        ("header:X-User", |key| ("/".into(), format!("x-user: u{key}\r\n"), HERE)),
        ("query:user id", |key| (format!("/?a&user%20id={key}+x"), String::new(), HERE)),
        ("cookie:sid", |key| ("/".into(), format!("cookie: a=1; sid=s{key}\r\n"), HERE)),
    ];
    let routes: Vec<_> =
        (1..=20).map(|at| format!("{{ name: r{at}, path: /r/{at}, upstream: origin }}")).collect();
    let routes = format!("routes: [{{ name: all, path: /*, upstream: origin }}, {}]", routes.join(", "));
    let origins = origins(3);
    for (selector, request) in rows {
        for ring in ["ketama", "maglev"] {
            let balance = format!("balance: {{ consistent_hash: {{ key: \"{selector}\", ring: {ring} }} }}");
            let gateway = Gateway::start(&(upstream(&addresses(&origins), &balance) + &routes));
            let place = |key: u8| {
                let (target, fields, source) = request(key);
                let mut client = Client::connect_from(source, gateway.address());
                let places: BTreeSet<String> = (0..3).map(|_| who(&mut client, &target, &fields)).collect();
                assert_eq!(places.len(), 1, "{selector} by {ring}: {key} is in {places:?}");
                places.into_iter().next().unwrap()
            };
            let seen = counts((1..=20).map(place));
            assert_eq!(seen.len(), 3, "{selector} by {ring}: {seen:?}");
            let missing = gateway.metric("portcullis_hash_key_missing_total{upstream=\"origin\"}");
            assert!(missing.abs() < f64::EPSILON, "{selector}: {missing} without a key");
        }
    }
}

#[test]
fn ip_hash_goes_by_the_address_that_trusted_proxies_tell() {
    let origins = origins(2);
    let place = |gateway: &Gateway, key: u8| {
        who(&mut gateway.client(), "/", &format!("x-forwarded-for: 203.0.113.{key}\r\n"))
    };
    let strange = before(&origins, "ip_hash");
    assert_eq!(
        counts((0..20).map(|key| place(&strange, key))).len(),
        1,
        "a stranger's word counts for nothing"
    );
    let server = "server: { threads: 1, trusted_proxies: [127.0.0.0/8] }\n";
    let gateway = Gateway::start(&(words(&origins, "ip_hash") + server));
    let places: Vec<String> = (0..20).map(|key| place(&gateway, key)).collect();
    assert_eq!(counts(places.clone()).len(), 2);
    assert_eq!(places, (0..20).map(|key| place(&gateway, key)).collect::<Vec<_>>());
    for (key, at) in (0..20).zip(&places) {
        let mapped = format!("x-forwarded-for: ::ffff:203.0.113.{key}\r\n");
        assert_eq!(&who(&mut gateway.client(), "/", &mapped), at, "an address is the same in IPv6");
    }
}

#[test]
fn the_first_key_that_a_request_has_counts() {
    let origins = origins(3);
    let gateway = before(&origins, "{ consistent_hash: { key: [header:x-user, cookie:user] } }");
    let mut client = gateway.client();
    for key in 0..10 {
        let by_header = who(&mut client, "/", &format!("x-user: u{key}\r\ncookie: user=other\r\n"));
        let by_cookie = who(&mut client, "/", &format!("x-user:\r\ncookie: user=u{key}\r\n"));
        assert_eq!(by_header, by_cookie, "u{key}");
    }
}

#[test]
fn a_request_without_a_key_goes_anywhere_and_is_counted() {
    let origins = origins(2);
    let gateway = before(&origins, "{ consistent_hash: { key: header:x-user } }");
    let mut client = gateway.client();
    let seen = counts((0..60).map(|_| who(&mut client, "/", "")));
    assert_eq!(seen.len(), 2);
    let missing = gateway.metric("portcullis_hash_key_missing_total{upstream=\"origin\"}");
    assert!((missing - 60.0).abs() < f64::EPSILON, "{missing}");
}

#[test]
fn keys_of_an_endpoint_that_is_down_spread_over_the_others_and_come_back() {
    let (origins, down) = failing(3);
    for balance in [
        "{ consistent_hash: { key: path } }",
        "{ consistent_hash: { key: path, ring: maglev } }",
        "{ consistent_hash: { key: path, max_load: 1.25 } }",
    ] {
        let gateway = before(&origins, balance);
        let mut client = gateway.client();
        let mut places = || (0..60).map(|key| who(&mut client, &format!("/{key}"), "")).collect::<Vec<_>>();
        let whole = places();
        down[2].store(true, Ordering::SeqCst);
        let fewer = places();
        down[2].store(false, Ordering::SeqCst);
        let moved = whole.iter().zip(&fewer).filter(|(before, _)| *before == "2");
        assert_eq!(counts(moved.map(|(_, after)| after.clone())).len(), 2, "{balance}: {whole:?} {fewer:?}");
        let stayed = whole.iter().zip(&fewer).filter(|(before, _)| *before != "2");
        assert!(stayed.into_iter().all(|(before, after)| before == after), "{balance}: {whole:?} {fewer:?}");
        assert_eq!(places(), whole, "{balance}");
    }
}

#[test]
fn ring_and_table_lay_keys_out_in_their_own_ways() {
    let origins = origins(2);
    let places = |balance: &str| {
        let gateway = before(&origins, balance);
        let mut client = gateway.client();
        (0..40).map(|key| who(&mut client, &format!("/{key}"), "")).collect::<Vec<_>>()
    };
    let ring = places("{ consistent_hash: { key: path } }");
    assert_eq!(
        ring,
        places("{ consistent_hash: { key: path, ring: ketama } }"),
        "every gateway has the same"
    );
    assert_ne!(ring, places("{ consistent_hash: { key: path, ring: maglev } }"));
}

#[test]
fn max_load_bounds_what_one_endpoint_has_under_way() {
    for ring in ["ketama", "maglev"] {
        for (bound, most) in [("", 4), (", max_load: 1", 2), (", max_load: 1.5", 3)] {
            let origins = [sticking("a"), sticking("b")];
            let balance = format!("{{ consistent_hash: {{ key: path, ring: {ring}{bound} }} }}");
            let gateway = before(&origins, &balance);
            let _stuck: Vec<_> = (0..4).map(|_| stick(&gateway, &origins, "/stuck")).collect();
            let loads = origins.each_ref().map(|origin| origin.requests().len());
            assert_eq!(loads.iter().max(), Some(&most), "{balance}: {loads:?}");
        }
    }
}

#[test]
fn weight_zero_is_nobodys_turn() {
    let origins = origins(2);
    for balance in [
        "round_robin",
        "least_requests",
        "random",
        "peak_ewma",
        "ip_hash",
        "{ consistent_hash: { key: path } }",
    ] {
        let endpoints = [
            format!("{{ address: \"{}\", weight: 0 }}", origins[0].address()),
            format!("\"{}\"", origins[1].address()),
        ];
        let gateway = Gateway::start(&(upstream(&endpoints, &format!("balance: {balance}")) + ROUTE));
        let mut client = gateway.client();
        let seen = counts((0..20).map(|at| who(&mut client, &format!("/{at}"), "")));
        assert_eq!(seen, BTreeMap::from([("1".to_owned(), 20)]), "{balance}");
    }
}

fn ranked(origins: &[Origin], said: &[&str], zone: &str) -> String {
    let endpoint =
        |(origin, said): (&Origin, &&str)| format!("{{ address: \"{}\", {said} }}", origin.address());
    let endpoints: Vec<_> = origins.iter().zip(said).map(endpoint).collect();
    let server = format!("server: {{ threads: 1{zone} }}\n");
    let health = "health: { passive: { consecutive_errors: 1, max_ejected: 100% }, panic_threshold: 0% }";
    upstream(&endpoints, health) + ROUTE + &server
}

#[test]
fn what_is_near_comes_first_and_others_help_when_it_is_down() {
    let (origins, down) = failing(2);
    let zones = ["zone: here", "zone: there"];
    let gateway = Gateway::start_file(&ranked(&origins, &zones, ", zone: here"));
    let mut client = gateway.client();
    let mut seen = || counts((0..20).map(|_| who(&mut client, "/", "")));
    assert_eq!(seen(), BTreeMap::from([("0".to_owned(), 20)]));
    gateway.rewrite(&ranked(&origins, &zones, ", zone: there"));
    gateway.reload().unwrap();
    assert_eq!(seen(), BTreeMap::from([("1".to_owned(), 20)]), "the zone changes without a restart");
    down[1].store(true, Ordering::SeqCst);
    assert_eq!(seen(), BTreeMap::from([("0".to_owned(), 20)]), "the other zone helps out");
    gateway.rewrite(&ranked(&origins, &["zone: here", "zone: here"], ""));
    gateway.reload().unwrap();
    down[1].store(false, Ordering::SeqCst);
    let health = gateway.admin_get("/upstreams").json();
    assert_eq!(health[0]["endpoints"][1]["healthy"], json!(false), "its health outlives the reload");
}

#[test]
fn who_stands_by_is_asked_when_those_before_are_down() {
    let (origins, down) = failing(3);
    let gateway = Gateway::start(&ranked(&origins, &["priority: 1", "priority: 0", "priority: 127"], ""));
    let mut client = gateway.client();
    for expected in ["1", "0", "2"] {
        let seen = counts((0..20).map(|_| who(&mut client, "/", "")));
        assert_eq!(seen, BTreeMap::from([(expected.to_owned(), 20)]));
        down[expected.parse::<usize>().unwrap()].store(true, Ordering::SeqCst);
    }
}

/// Always the last of its endpoints.
struct Last(Option<EndpointId>);

impl Balancer for Last {
    fn pick(&self, _: &EndpointSet, pick: &Pick<'_>) -> Option<EndpointId> {
        self.0.filter(|id| (pick.admits)(*id))
    }
}

#[test]
fn a_balancer_of_ones_own_is_chosen_by_its_name() {
    let origins = origins(3);
    let gateway = Gateway::start_file_with(&words(&origins, "{ custom: last }"), |gateway| {
        gateway.balancer("last", |members| Box::new(Last(members.last().map(|member| member.id))))
    });
    let mut client = gateway.client();
    assert_eq!(counts((0..10).map(|_| who(&mut client, "/", ""))), BTreeMap::from([("2".to_owned(), 10)]));
    gateway.rewrite(&words(&origins, "{ custom: lest }"));
    let refused = gateway.reload().unwrap_err();
    assert!(refused.contains("there is no balancer `lest`") && refused.contains("`last`"), "{refused}");
}

/// By the key alone, and the last of its endpoints without one.
struct ByKey(Vec<EndpointId>);

impl Balancer for ByKey {
    fn pick(&self, _: &EndpointSet, pick: &Pick<'_>) -> Option<EndpointId> {
        let last = self.0.len() - 1;
        let at = pick.key.get().map_or(last, |key| usize::try_from(key % 2).unwrap());
        self.0.get(at).copied().filter(|id| (pick.admits)(*id))
    }
}

#[test]
fn a_balancer_of_ones_own_is_told_of_a_key() {
    let origins = origins(3);
    let start = |balance: &str| {
        Gateway::start_file_with(&words(&origins, balance), |gateway| {
            let ids = |members: &[portcullis::upstream::Member]| members.iter().map(|it| it.id).collect();
            gateway.balancer("by_key", move |members| Box::new(ByKey(ids(members))))
        })
    };
    let users = |gateway: &Gateway| {
        let mut client = gateway.client();
        let user = |user: usize| who(&mut client, "/", &format!("x-user: {user}\r\n"));
        (0..40).map(user).collect::<Vec<_>>()
    };
    let keyed = start("{ custom: { name: by_key, key: [\"cookie:sid\", \"header:x-user\"] } }");
    let first = users(&keyed);
    assert_eq!(users(&keyed), first, "the same come to the same");
    assert_eq!(counts(first).keys().collect::<Vec<_>>(), ["0", "1"]);
    assert_eq!(who(&mut keyed.client(), "/", ""), "2");
    assert_eq!(keyed.metric("portcullis_hash_key_missing_total{upstream=\"origin\"}"), 1.0);
    assert_eq!(
        keyed.admin_get("/upstreams").json()[0]["balance"],
        "custom by_key by cookie:sid, else header:x-user"
    );
    let bare = start("{ custom: { name: by_key } }");
    assert_eq!(counts(users(&bare)), BTreeMap::from([("2".to_owned(), 40)]));
}

#[test]
fn two_balancers_of_one_name_are_a_mistake() {
    let balancer = |_: &[portcullis::upstream::Member]| -> Box<dyn Balancer> { Box::new(Last(None)) };
    let text = "listeners: [{ name: web, address: 127.0.0.1:0 }]";
    let gateway = portcullis::Gateway::from_yaml(text).balancer("a", balancer).balancer("a", balancer);
    assert!(gateway.start().err().unwrap().to_string().contains("another balancer is called `a`"));
}

#[test]
fn the_operator_sees_the_choice() {
    let origins = origins(2);
    let endpoints = [
        format!("{{ address: \"{}\", zone: a, priority: 3 }}", origins[0].address()),
        format!("\"{}\"", origins[1].address()),
    ];
    let balance = "balance: { consistent_hash: { key: [header:x-user, ip], max_load: 1.25 } }";
    let gateway = Gateway::start(&(upstream(&endpoints, balance) + ROUTE));
    let shown = &gateway.admin_get("/upstreams").json()[0];
    let choice = "consistent_hash (ketama, max_load 1.25) by header:x-user, else ip";
    assert_eq!(shown["balance"], choice);
    let of = |at: usize| {
        let endpoint = &shown["endpoints"][at];
        (endpoint["zone"].clone(), endpoint["priority"].clone(), endpoint["latency_seconds"].clone())
    };
    assert_eq!(of(0), (json!("a"), json!(3), json!(null)));
    assert_eq!(of(1), (json!(null), json!(0), json!(null)));
    let explained = gateway.admin_ask("POST", "/explain", r#"{ "url": "/" }"#).json();
    assert_eq!(explained["upstream"]["balance"], choice);
    let config = gateway.admin_get("/config").json();
    assert_eq!(
        config["upstreams"]["origin"]["endpoints"],
        json!([
            { "address": origins[0].address().to_string(), "weight": 1, "zone": "a", "priority": 3 },
            origins[1].address().to_string(),
        ])
    );
}
