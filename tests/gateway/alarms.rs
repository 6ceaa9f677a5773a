//! Events of what is not an endpoint's: certificates that are not had, load that is shed, names that are not found.

use serde_json::{Value, json};

use super::acme::{ordering, setup};
use super::events::{at, taker, telemetry, told};
use crate::harness::dns::NameServer;
use crate::harness::pebble::{Pebble, Setup};
use crate::harness::tls::Authority;
use crate::harness::{Gateway, Origin, eventually, eventually_some, to};

/// Waits for an event of this kind.
fn event(hook: &Origin, kind: &str) -> Value {
    eventually_some(kind, || told(hook).into_iter().find(|event| event["event"] == kind))
}

#[test]
fn a_certificate_that_is_not_had_is_told() {
    let (hook, pki, store) = (taker(), Authority::new(), tempfile::tempdir().unwrap());
    let gateway = Gateway::start_file(&super::acme::listeners(&pki.issue("own", &["own.test"]).words()));
    // The authority looks for proofs where nobody is.
    let pebble = Pebble::start(&Setup { http: 1, tls: 1, ..setup(&gateway) });
    let words =
        ordering("b.test, a.test", &pebble.directory(), &pebble.ca(), store.path(), "challenge: http");
    gateway.rewrite(&format!("{words}{}", telemetry(&[at(&hook, ", on: [certificate_failed]")])));
    gateway.reload().unwrap();
    let failed = event(&hook, "certificate_failed");
    assert_eq!((&failed["directory"], &failed["hosts"]), (&json!("ca"), &json!(["a.test", "b.test"])));
    let (why, message) = (failed["why"].as_str().unwrap(), failed["message"].as_str().unwrap());
    assert!(message.starts_with("acme ca: no certificate for a.test, b.test: "), "{message}");
    assert!(message.contains(why) && message.contains("; trying again in "), "{message}");
    assert_eq!(gateway.metric("portcullis_acme_orders_total{directory=\"ca\",result=\"failure\"}"), 1.0);
}

#[test]
fn that_load_is_shed_is_told_and_that_it_is_over() {
    let (hook, origin) = (taker(), Origin::ok());
    let gateway = Gateway::start(&format!(
        "{}server: {{ threads: 1, shed: {{ connections: 2 }} }}\n{}",
        to(&[&origin], ""),
        telemetry(&[at(&hook, "")])
    ));
    let crowd = [(); 3].map(|()| gateway.client());
    let started = event(&hook, "shedding_started");
    assert_eq!(started["why"], "3 connections are open, above 2");
    assert_eq!(started["message"], "new requests are refused: 3 connections are open, above 2");
    drop(crowd);
    assert_eq!(event(&hook, "shedding_ended")["message"], "new requests are taken again");
    let kinds: Vec<_> = told(&hook).into_iter().map(|event| event["event"].clone()).collect();
    assert_eq!(kinds, ["shedding_started", "shedding_ended"]);
}

#[test]
fn names_that_are_not_found_are_told_once_and_that_they_are_again() {
    let hook = taker();
    let origins = Origin::named_on_one_port(&["a", "b"]);
    let mut server = NameServer::start(&["127.0.0.1"]);
    let (port, resolver) = (origins[0].address().port(), server.address());
    let dns = format!("{{ dns: {{ name: app.internal, port: {port}, resolver: [\"{resolver}\"] }} }}");
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ discover: {dns} }} }}\nroutes: [{{ name: all, path: /*, upstream: app }}]\n{}",
        telemetry(&[at(&hook, "")])
    ));
    assert_eq!(gateway.get("/").status, 200);
    server.stop();
    let failed = event(&hook, "discovery_failed");
    assert_eq!(failed["upstream"], "app");
    assert!(failed["why"].as_str().unwrap().starts_with("`app.internal` cannot be looked up"), "{failed}");
    let message = failed["message"].as_str().unwrap();
    assert!(message.ends_with("; what was found stays (1 endpoints)"), "{message}");
    server.arrive(&["127.0.0.1", "127.0.0.2"]);
    let found = event(&hook, "discovery_recovered");
    assert_eq!((&found["upstream"], &found["why"]), (&json!("app"), &json!("2 endpoints are found")));
    assert_eq!(found["message"], "upstream app: endpoints are found again");
    eventually("both are asked", || gateway.get("/").text() == "b");
    assert_eq!(told(&hook).len(), 2, "however often it was asked in between");
}
