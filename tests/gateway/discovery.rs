//! Endpoints that are found: by DNS, before a real name server, and by code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::unfold;
use portcullis::upstream::BoxStream;
use portcullis::{Discovery, DiscoveryError, EndpointSpec};
use serde_json::{Value, json};

use crate::harness::dns::{NameServer, Service};
use crate::harness::{Gateway, Origin, eventually, process_log};

/// A gateway's words: one upstream with these.
fn words(upstream: &str) -> String {
    format!(
        "upstreams: {{ origin: {{ {upstream} }} }}\nroutes: [{{ name: all, path: /*, upstream: origin }}]\n"
    )
}

fn by_name(name: &str, port: u16, server: &NameServer) -> String {
    format!("discover: {{ dns: {{ name: {name}, port: {port}, resolver: [\"{}\"] }} }}", server.address())
}

fn by_service(server: &NameServer) -> String {
    format!("discover: {{ dns: {{ name: _http._tcp.app.internal, resolver: [\"{}\"] }} }}", server.address())
}

fn port(origins: &[Origin]) -> u16 {
    origins[0].address().port()
}

fn view(gateway: &Gateway) -> Value {
    gateway.admin_get("/upstreams").json()[0].take()
}

/// The last parts of the endpoints' addresses.
fn known(gateway: &Gateway) -> Vec<String> {
    let view = view(gateway);
    let addresses = view["endpoints"].as_array().unwrap().iter();
    addresses.map(|it| it["address"].as_str().unwrap().trim_start_matches("127.0.0.").into()).collect()
}

fn answers(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let mut client = gateway.client();
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        *seen.entry(client.get("/").text()).or_insert(0) += 1;
    }
    seen
}

fn who(gateway: &Gateway) -> BTreeSet<String> {
    answers(gateway, 8).into_keys().collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn endpoints_appear_and_vanish_without_a_lost_request() {
    let origins = Origin::named_on_one_port(&["a", "b", "c"]);
    let server = NameServer::start(&["127.0.0.1"]);
    let gateway = Gateway::start(&words(&by_name("app.internal", port(&origins), &server)));
    assert_eq!(who(&gateway), names(["a"]), "they are there when the gateway is ready");
    assert_eq!(view(&gateway)["endpoints"][0]["origin"], "dns");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").status, 200);
                }
            });
        }
        for now in [vec!["1", "2"], vec!["2", "3"], vec!["3"]] {
            let address = |last: &&str| format!("127.0.0.{last}");
            let addresses: Vec<String> = now.iter().map(address).collect();
            server.tell(&addresses.iter().map(String::as_str).collect::<Vec<_>>());
            let wanted: Vec<String> = now.iter().map(|last| format!("{last}:{}", port(&origins))).collect();
            eventually("others are found", || known(&gateway) == wanted);
            let before: Vec<usize> = origins.iter().map(|origin| origin.requests().len()).collect();
            eventually("they are asked", || {
                let asked =
                    origins.iter().zip(&before).map(|(origin, before)| origin.requests().len() > *before);
                let listed = ["1", "2", "3"].map(|last| now.contains(&last));
                asked.zip(listed).all(|(asked, listed)| asked || !listed)
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(who(&gateway), names(["c"]));
    assert_eq!(gateway.metric("portcullis_upstream_endpoints{upstream=\"origin\"}"), 1.0);
}

#[test]
fn services_bring_ports_weights_and_priorities() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let service = |origin: &Origin, priority, weight| Service { address: origin.address(), priority, weight };
    let mut server = NameServer::away();
    server.serve(&[service(&a, 10, 3), service(&b, 10, 1), service(&c, 20, 1)]);
    let gateway = Gateway::start(&words(&by_service(&server)));
    assert_eq!(answers(&gateway, 8), BTreeMap::from([("a".into(), 6), ("b".into(), 2)]));
    let shown = view(&gateway);
    let of = |origin: &Origin| {
        let address = origin.address().to_string();
        let endpoints = shown["endpoints"].as_array().unwrap();
        let endpoint = endpoints.iter().find(|endpoint| endpoint["address"] == address).unwrap();
        [endpoint["priority"].clone(), endpoint["weight"].clone()]
    };
    assert_eq!([of(&a), of(&b), of(&c)], [[json!(0), json!(3)], [json!(0), json!(1)], [json!(1), json!(1)]]);
    server.serve(&[service(&b, 1, 0), service(&c, 0, 0)]);
    eventually("the ranks are others", || who(&gateway) == names(["c"]));
}

#[test]
fn what_is_known_stays_while_the_name_server_is_away() {
    let origins = Origin::named_on_one_port(&["a", "b"]);
    let mut server = NameServer::start(&["127.0.0.1"]);
    let upstream = by_name("app.internal", port(&origins), &server);
    let gateway = Gateway::start_file(&words(&upstream));
    assert_eq!(view(&gateway)["discover"]["error"], Value::Null);
    server.stop();
    eventually("the failure is shown", || view(&gateway)["discover"]["error"].is_string());
    let said = ["upstream origin: `app.internal` cannot be looked up", "what was found stays (1 endpoints)"];
    process_log::heard(&said);
    assert_eq!(who(&gateway), names(["a"]));
    // The same words, among others.
    gateway.rewrite(&words(&format!("{upstream}, balance: random")));
    gateway.reload().unwrap();
    assert_eq!(who(&gateway), names(["a"]), "what was found outlives a reload");
    assert!(view(&gateway)["discover"]["error"].is_string());

    server.arrive(&["127.0.0.2"]);
    eventually("it answers again", || who(&gateway) == names(["b"]));
    assert_eq!(view(&gateway)["discover"]["error"], Value::Null);
}

#[test]
fn before_the_first_answer_nobody_can_be_asked() {
    let origins = Origin::named_on_one_port(&["a"]);
    let mut server = NameServer::away();
    let gateway = Gateway::start(&words(&by_name("app.internal", port(&origins), &server)));
    assert_eq!(gateway.get("/").problem(), (503, "no_healthy_upstream".into()));
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    server.arrive(&["127.0.0.1"]);
    eventually("it is found", || gateway.get("/").status == 200);
}

#[test]
fn the_files_endpoints_stand_beside_those_that_are_found() {
    let origins = Origin::named_on_one_port(&["a", "b"]);
    let (own, server) = (Origin::named("own"), NameServer::start(&["127.0.0.1"]));
    let endpoints = format!("endpoints: [\"{}\"]", own.address());
    let with = |name| words(&format!("{endpoints}, {}", by_name(name, port(&origins), &server)));
    let gateway = Gateway::start_file(&with("app.internal"));
    assert_eq!(who(&gateway), names(["a", "own"]));
    // Other words ask anew, and know nothing before.
    gateway.rewrite(&with("none.internal"));
    gateway.reload().unwrap();
    assert_eq!(who(&gateway), names(["own"]));
    eventually("nothing is found", || {
        view(&gateway)["discover"]["error"] == "`none.internal` has no endpoints"
    });
    gateway.rewrite(&with("app.internal"));
    gateway.reload().unwrap();
    eventually("they are found again", || who(&gateway) == names(["a", "own"]));
    gateway.rewrite(&words(&endpoints));
    gateway.reload().unwrap();
    assert_eq!(who(&gateway), names(["own"]));
    assert_eq!(view(&gateway)["discover"], Value::Null);
}

#[test]
fn an_operator_changes_what_was_found() {
    let origins = Origin::named_on_one_port(&["a", "b"]);
    let server = NameServer::start(&["127.0.0.1", "127.0.0.2"]);
    let gateway = Gateway::start_file(&words(&by_name("app.internal", port(&origins), &server)));
    let change = |method, origin: &Origin, body| {
        let place = format!("/upstreams/origin/endpoints/{}", origin.address());
        assert_eq!(gateway.admin_ask(method, &place, body).status, 200);
    };
    change("PUT", &origins[0], "{ \"state\": \"draining\" }");
    assert_eq!(who(&gateway), names(["b"]));
    gateway.reload().unwrap();
    assert_eq!(who(&gateway), names(["b"]));
    // Once it is not found any more the change is over.
    server.tell(&["127.0.0.2"]);
    eventually("it is gone", || known(&gateway).len() == 1);
    server.tell(&["127.0.0.1", "127.0.0.2"]);
    eventually("it is back", || who(&gateway) == names(["a", "b"]));
}

/// Tells what a test tells it.
struct Told(tokio::sync::watch::Sender<Result<Vec<EndpointSpec>, DiscoveryError>>);

impl Discovery for Told {
    fn watch(&self) -> BoxStream<'static, Result<Vec<EndpointSpec>, DiscoveryError>> {
        Box::pin(unfold((self.0.subscribe(), true), |(mut news, first)| async move {
            if !first {
                news.changed().await.ok()?;
            }
            let told = news.borrow_and_update().clone();
            Some((told, (news, false)))
        }))
    }
}

#[test]
fn a_discovery_in_code_finds_endpoints() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let spec = |origin: &Origin, weight| EndpointSpec::new(origin.address(), weight);
    let teller = tokio::sync::watch::Sender::new(Ok(vec![spec(&a, 1), spec(&a, 7)]));
    let discovery = Told(teller.clone());
    let words = words("discover: { custom: teller }");
    let gateway = Gateway::start_with(&words, |gateway| gateway.discovery("teller", discovery));
    assert_eq!(who(&gateway), names(["a"]));
    let shown = view(&gateway);
    assert_eq!(shown["discover"], json!({ "from": "custom teller", "error": null }));
    assert_eq!(shown["endpoints"].as_array().unwrap().len(), 1, "each address once");
    assert_eq!(shown["endpoints"][0]["origin"], "custom");
    teller.send(Ok(vec![spec(&a, 1), spec(&b, 3)])).unwrap();
    eventually("b is found", || known(&gateway).len() == 2);
    assert_eq!(answers(&gateway, 8), BTreeMap::from([("a".into(), 2), ("b".into(), 6)]));
    teller.send(Err(DiscoveryError::Unanswered { name: "them".into(), cause: "no".into() })).unwrap();
    eventually("the failure is shown", || {
        view(&gateway)["discover"]["error"] == "`them` cannot be looked up: no"
    });
    teller.send(Ok(Vec::new())).unwrap();
    eventually("nobody is no answer", || {
        view(&gateway)["discover"]["error"] == "`custom teller` has no endpoints"
    });
    assert_eq!(who(&gateway), names(["a", "b"]));
    teller.send(Ok(vec![spec(&b, 1)])).unwrap();
    eventually("b is left", || who(&gateway) == names(["b"]));
}
