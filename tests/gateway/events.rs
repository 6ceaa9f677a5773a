//! Events told to webhooks: each kind with its fields, who wants which, tries, what flaps, what changes over a reload.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::tls::{Authority, Order};
use crate::harness::{Gateway, Nobody, Origin, Then, eventually, eventually_some, to};

const TAKEN: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const SUCCESS: &str = "portcullis_events_sent_total{result=\"success\"}";
const FAILURE: &str = "portcullis_events_sent_total{result=\"failure\"}";
const DROPPED: &str = "portcullis_events_dropped_total";

/// The section with these webhooks.
pub fn telemetry(webhooks: &[String]) -> String {
    let events: Vec<_> = webhooks.iter().map(|words| format!("{{ webhook: {{ {words} }} }}")).collect();
    let log = "log: { level: warn }, access_log: { output: {access_log} }";
    format!("telemetry: {{ {log}, events: [{}] }}\n", events.join(", "))
}

/// A webhook, with these words besides.
pub fn at(hook: &Origin, words: &str) -> String {
    format!("url: \"http://{}/hook?key=hunter1\"{words}", hook.address())
}

/// A webhook that takes what it is told.
pub fn taker() -> Origin {
    Origin::answering(TAKEN)
}

/// A webhook that answers nobody.
fn hanging() -> Origin {
    Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    })
}

/// What a webhook was told so far.
pub fn told(hook: &Origin) -> Vec<Value> {
    let requests = hook.requests();
    requests.iter().map(|request| serde_json::from_slice(request.content()).unwrap()).collect()
}

/// Waits for an event of this kind at this upstream.
fn tells(hook: &Origin, kind: &str, upstream: &str) -> Value {
    eventually_some(&format!("{kind} of {upstream}"), || {
        told(hook).into_iter().find(|event| event["event"] == kind && event["upstream"] == upstream)
    })
}

/// An origin that answers 500 while it is ill, and 200 else.
fn sickly() -> (Origin, Arc<AtomicBool>) {
    let ill = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&ill);
    let origin = Origin::start(move |visit| {
        let status = if state.load(Ordering::SeqCst) { "500 Error" } else { "200 OK" };
        visit.answer(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok"))
    });
    (origin, ill)
}

/// A route without retries to an upstream of the same name.
fn upstream(name: &str, origin: &Origin, words: &str) -> (String, String) {
    (
        format!("{name}: {{ endpoints: [\"{}\"], {words} }}", origin.address()),
        format!("{{ name: {name}, path: /{name}, upstream: {name}, retry: {{ max_retries: 0 }} }}"),
    )
}

fn config(upstreams: &[(String, String)], rest: &str) -> String {
    let (upstreams, routes): (Vec<_>, Vec<_>) = upstreams.iter().cloned().unzip();
    format!("upstreams: {{ {} }}\nroutes: [{}]\n{rest}", upstreams.join(", "), routes.join(", "))
}

/// A circuit that the first failure opens, for long.
const FUSE: &str = "breaker: { consecutive_failures: 1, open_for: 1h }";
/// A circuit that opens again and again: two events a failure.
const FLAPS: &str = "breaker: { consecutive_failures: 1, open_for: 1ms }";

/// A gateway before a server that fails, with a circuit of these words.
fn failing(ill: &Origin, breaker: &str, webhooks: &[String]) -> Gateway {
    Gateway::start_file(&config(&[upstream("ill", ill, breaker)], &telemetry(webhooks)))
}

#[test]
fn each_kind_arrives_with_its_fields() {
    let hook = taker();
    let (origin, ill) = sickly();
    let breaker = "breaker: { scope: endpoint, consecutive_failures: 1, open_for: 50ms, close_after: 1 }";
    let words = config(
        &[
            upstream(
                "passive",
                &origin,
                "health: { passive: { consecutive_errors: 1, eject_for: 100ms, max_ejected: 100% } }",
            ),
            upstream(
                "active",
                &origin,
                "health: { active: { http: {}, interval: 100ms, healthy_after: 1, unhealthy_after: 1 } }",
            ),
            upstream("one", &origin, breaker),
            upstream("all", &origin, &breaker.replace("endpoint", "upstream")),
        ],
        &telemetry(&[at(&hook, "")]),
    );
    let gateway = Gateway::start_file(&words);
    for name in ["passive", "one", "all"] {
        assert_eq!(gateway.get(&format!("/{name}")).status, 500);
    }
    let address = origin.address().to_string();
    let down = tells(&hook, "endpoint_down", "passive");
    assert_eq!(down["endpoint"], address);
    assert_eq!(down["why"], "too many errors in a row");
    let message = down["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("upstream passive: endpoint {address} is out of the choice")));
    let at = down["at"].as_str().unwrap();
    assert!(at.len() == 24 && at.as_bytes()[10] == b'T' && at.ends_with('Z'), "{at}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(down["gateway"], host.trim());
    let down = tells(&hook, "endpoint_down", "active");
    assert_eq!((&down["endpoint"], &down["why"]), (&json!(address), &json!("status 500 is not expected")));
    let open = tells(&hook, "circuit_open", "one");
    assert_eq!(open["endpoint"], address);
    assert_eq!(open["why"], "too many failures in a row");
    assert_eq!(tells(&hook, "circuit_open", "all")["endpoint"], Value::Null);

    ill.store(false, Ordering::SeqCst);
    assert_eq!(tells(&hook, "endpoint_up", "active")["why"], "probes pass again");
    for name in ["passive", "one", "all"] {
        eventually("it to be asked again", || gateway.get(&format!("/{name}")).status == 200);
    }
    assert_eq!(tells(&hook, "endpoint_up", "passive")["endpoint"], address);
    for name in ["one", "all"] {
        assert_eq!(tells(&hook, "circuit_half_open", name)["why"], "it was open for long enough");
        assert_eq!(tells(&hook, "circuit_closed", name)["why"], "calls succeed again");
    }

    gateway.rewrite(&words.replace("path: /one", "pth: /one"));
    assert!(gateway.reload().is_err());
    let refused = eventually_some("the refusal", || {
        told(&hook).into_iter().find(|event| event["event"] == "reload_refused")
    });
    assert!(refused["why"].as_str().unwrap().contains("did you mean `path`?"), "{refused}");
    let first = hook.request(0);
    assert_eq!((first.method.as_str(), first.target.as_str()), ("POST", "/hook?key=hunter1"));
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.header("authorization"), None);
}

#[test]
fn certificates_that_end_soon_are_told_at_the_start_and_at_each_reload() {
    let (hook, late) = (taker(), taker());
    let pki = Authority::new();
    let hosts: &[&str] = &["a.test", "b.test"];
    let files = pki.issue_as("soon", &Order { hosts, days: 5, ..Order::default() });
    let words = |webhooks: &[String]| {
        format!(
            "listeners: [{{ name: web, address: \"127.0.0.1:0\", tls: {{ certificates: [{}] }} }}]\n{}",
            files.words(),
            telemetry(webhooks)
        )
    };
    let gateway = Gateway::start_file(&words(&[at(&hook, "")]));
    let event: Value = serde_json::from_slice(hook.request(0).content()).unwrap();
    assert_eq!(event["event"], "certificate_expiring");
    assert_eq!(event["listener"], "web");
    assert_eq!(event["hosts"], json!(["a.test", "b.test"]));
    assert_eq!(event["why"], "expires in 4 days");
    gateway.rewrite(&words(&[at(&hook, ""), at(&late, "")]));
    gateway.reload().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(late.request(0).content()).unwrap()["listener"], "web");
}

#[test]
fn each_is_told_what_it_wants() {
    let (all, some, none) = (taker(), taker(), taker());
    let (origin, ill) = sickly();
    let breaker = "breaker: { consecutive_failures: 1, open_for: 50ms, close_after: 1 }";
    let webhooks = [
        at(&all, ", on: []"),
        at(&some, ", on: [circuit_open, circuit_closed]"),
        at(&none, ", on: [certificate_expiring]"),
    ];
    let gateway = failing(&origin, breaker, &webhooks);
    assert_eq!(gateway.get("/ill").status, 500);
    tells(&some, "circuit_open", "ill");
    ill.store(false, Ordering::SeqCst);
    eventually("it to be asked again", || gateway.get("/ill").status == 200);
    tells(&some, "circuit_closed", "ill");
    tells(&all, "circuit_half_open", "ill");
    tells(&all, "circuit_closed", "ill");
    assert!(told(&some).iter().all(|event| event["event"] != "circuit_half_open"));
    assert!(none.requests().is_empty());
    eventually("all to be counted", || gateway.metric(SUCCESS) == 5.0);
}

#[test]
fn tokens_and_headers_are_sent_and_not_shown() {
    let (hook, other) = (taker(), taker());
    let (origin, _) = sickly();
    let gateway = failing(
        &origin,
        FUSE,
        &[
            at(&hook, ", token: hunter2, headers: { X-Team: shop, Cookie: hunter3 }"),
            at(&other, ", headers: { Authorization: Basic hunter4, User-Agent: gate }"),
        ],
    );
    assert_eq!(gateway.get("/ill").status, 500);
    let told = hook.request(0);
    assert_eq!(told.header("authorization"), Some("Bearer hunter2"));
    assert_eq!((told.header("x-team"), told.header("cookie")), (Some("shop"), Some("hunter3")));
    assert_eq!(told.header("user-agent"), Some(concat!("portcullis/", env!("CARGO_PKG_VERSION"))));
    let told = other.request(0);
    assert_eq!(told.header("authorization"), Some("Basic hunter4"));
    assert_eq!(told.header("user-agent"), Some("gate"));
    let shown = gateway.admin_get("/config").text();
    assert!(!shown.contains("hunter"), "{shown}");
    let sinks = &serde_json::from_str::<Value>(&shown).unwrap()["telemetry"]["events"];
    assert_eq!(sinks[0]["webhook"]["token"], "***");
    assert_eq!(sinks[0]["webhook"]["url"], "***");
    assert_eq!(sinks[0]["webhook"]["headers"], json!({ "X-Team": "shop", "Cookie": "***" }));
}

#[test]
fn what_may_come_to_something_is_tried_again() {
    for (statuses, tries, sent) in [
        (["503", "429", "200"], 3, SUCCESS),
        (["500", "408", "502"], 3, FAILURE),
        (["404", "204", "204"], 1, FAILURE),
        (["302", "204", "204"], 1, FAILURE),
        (["", "204", "204"], 2, SUCCESS),
    ] {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let hook = Origin::start(move |visit| match statuses[asked.fetch_add(1, Ordering::SeqCst).min(2)] {
            "" => Then::Close,
            "204" => visit.answer(TAKEN),
            status => visit.answer(format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n")),
        });
        let (origin, _) = sickly();
        let gateway = failing(&origin, FUSE, &[at(&hook, "")]);
        assert_eq!(gateway.get("/ill").status, 500);
        eventually("it to be counted", || gateway.metric(SUCCESS) + gateway.metric(FAILURE) == 1.0);
        assert_eq!(gateway.metric(sent), 1.0, "{statuses:?}");
        let bodies: Vec<_> = hook.requests().iter().map(|request| request.content().to_vec()).collect();
        assert_eq!(bodies.len(), tries, "{statuses:?}");
        assert!(bodies.iter().all(|body| *body == bodies[0]));
    }
}

#[test]
fn one_that_is_away_or_slow_holds_up_nobody() {
    let (slow, well, away) = (hanging(), taker(), Nobody::new());
    let (origin, ill) = sickly();
    let away = format!("url: \"http://{}/\"", away.address());
    let gateway = failing(&origin, FLAPS, &[at(&slow, ""), away, at(&well, "")]);
    assert_eq!(gateway.get("/ill").status, 500);
    tells(&well, "circuit_open", "ill");
    ill.store(false, Ordering::SeqCst);
    eventually("requests to be answered", || gateway.get("/ill").status == 200);
    tells(&well, "circuit_half_open", "ill");
    // The first try is still waited for.
    assert_eq!(slow.requests().len(), 1);
    eventually("the one that is away to be given up", || gateway.metric(FAILURE) >= 1.0);
}

#[test]
fn a_try_takes_no_longer_than_its_timeout() {
    let hook = hanging();
    let (origin, _) = sickly();
    let gateway = failing(&origin, FUSE, &[at(&hook, ", timeout: 50ms")]);
    assert_eq!(gateway.get("/ill").status, 500);
    eventually("it to be given up", || gateway.metric(FAILURE) == 1.0);
    assert_eq!(hook.requests().len(), 3);
}

#[test]
fn what_finds_no_room_is_counted() {
    let hook = hanging();
    let (origin, _) = sickly();
    let gateway = failing(&origin, FLAPS, &[at(&hook, ", timeout: 1m")]);
    assert_eq!(gateway.metric(DROPPED), 0.0);
    eventually("an event to find no room", || {
        (0..50).for_each(|_| drop(gateway.get("/ill")));
        gateway.metric(DROPPED) > 0.0
    });
    assert_eq!(hook.requests().len(), 1);
}

#[test]
fn what_flaps_is_told_once_a_second() {
    let hook = taker();
    let (origin, _) = sickly();
    let gateway = failing(&origin, FLAPS, &[at(&hook, ", on: [circuit_open]")]);
    let failures = (0..100).filter(|_| gateway.get("/ill").status == 500).count() as u64;
    assert!(failures > 1);
    let times = |event: &Value| event["times"].as_u64().unwrap_or(1);
    eventually("all to be told", || told(&hook).iter().map(times).sum::<u64>() == failures);
    let told = told(&hook);
    assert!((told.len() as u64) < failures, "{} of {failures}", told.len());
    assert_eq!(told[0].get("times"), None);
    let seconds: Vec<_> = told.iter().map(|event| event["at"].as_str().unwrap().to_owned()).collect();
    assert!(seconds.is_sorted(), "{seconds:?}");
}

#[test]
fn one_that_is_taken_out_is_told_nothing_more() {
    let closed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&closed);
    let out = Origin::start(move |visit| {
        visit.wait_for_close();
        seen.store(true, Ordering::SeqCst);
        Then::Close
    });
    let (stays, release) = (Arc::new(AtomicBool::new(false)), taker());
    let gate = Arc::clone(&stays);
    let kept = Origin::start(move |visit| {
        eventually("it to be released", || gate.load(Ordering::SeqCst));
        visit.answer(TAKEN)
    });
    let (origin, _) = sickly();
    let slow = ", timeout: 1m";
    let gateway = failing(&origin, FLAPS, &[at(&out, slow), at(&kept, slow)]);
    assert_eq!(gateway.get("/ill").status, 500);
    out.request(0);
    kept.request(0);

    let with = |webhooks: &[String]| config(&[upstream("ill", &origin, FLAPS)], &telemetry(webhooks));
    gateway.rewrite(&with(&[at(&release, ""), at(&kept, slow)]));
    gateway.reload().unwrap();
    eventually("the one that is out to be left alone", || closed.load(Ordering::SeqCst));
    // What it was being told goes on for the one that stays.
    stays.store(true, Ordering::SeqCst);
    eventually("the one that stays to be told", || gateway.metric(SUCCESS) >= 1.0);
    eventually("another event", || {
        drop(gateway.get("/ill"));
        !release.requests().is_empty()
    });
    assert_eq!(out.requests().len(), 1);
    assert_eq!(kept.requests().iter().filter(|told| told.content() == kept.request(0).content()).count(), 1);

    let witness = taker();
    gateway.rewrite(&with(&[at(&witness, "")]));
    gateway.reload().unwrap();
    let fails_until_told = |times| {
        eventually("the witness to be told", || {
            drop(gateway.get("/ill"));
            witness.requests().len() >= times
        });
    };
    fails_until_told(1);
    let known = release.requests().len();
    fails_until_told(5);
    // One may have been on its way.
    assert!(release.requests().len() <= known + 1);
    gateway.rewrite(&with(&[]));
    gateway.reload().unwrap();
    assert_eq!(gateway.metric(DROPPED), 0.0);
}

#[test]
fn a_webhook_must_prove_who_it_is() {
    let (pki, other) = (Authority::new(), Authority::new());
    let taker = taker();
    let secure = Gateway::start(&format!(
        "{}listeners: [{{ name: web, address: \"127.0.0.1:0\", tls: {{ certificates: [{}] }} }}]\n",
        to(&[&taker], ""),
        pki.issue("hook", &["localhost"]).words()
    ));
    let port = secure.address().port();
    let (origin, _) = sickly();
    for (host, ca, sent) in [
        ("localhost", Some(&pki), SUCCESS),
        ("127.0.0.1", Some(&pki), FAILURE),
        ("localhost", Some(&other), FAILURE),
        ("localhost", None, FAILURE),
    ] {
        let ca = ca.map(|ca| format!(", ca: {}", ca.ca().display())).unwrap_or_default();
        let gateway = failing(&origin, FUSE, &[format!("url: \"https://{host}:{port}/hook\"{ca}")]);
        assert_eq!(gateway.get("/ill").status, 500);
        eventually("it to be counted", || gateway.metric(SUCCESS) + gateway.metric(FAILURE) == 1.0);
        assert_eq!(gateway.metric(sent), 1.0, "{host}{ca}");
    }
    assert_eq!(taker.requests().len(), 1);
}

#[test]
fn secrets_come_from_files_and_new_ones_are_used() {
    let hook = taker();
    let (origin, _) = sickly();
    let dir = tempfile::tempdir().unwrap();
    let (url, token) = (dir.path().join("url"), dir.path().join("token"));
    std::fs::write(&url, format!("http://{}/from-a-file\n", hook.address())).unwrap();
    std::fs::write(&token, "first\n").unwrap();
    let words = format!("url: {{ file: {} }}, token: {{ file: {} }}", url.display(), token.display());
    let gateway = failing(&origin, FLAPS, &[words]);
    assert_eq!(gateway.get("/ill").status, 500);
    let told = hook.request(0);
    assert_eq!((told.target.as_str(), told.header("authorization")), ("/from-a-file", Some("Bearer first")));
    std::fs::write(&token, "second\n").unwrap();
    gateway.reload().unwrap();
    eventually("the new token", || {
        drop(gateway.get("/ill"));
        hook.requests().iter().any(|told| told.header("authorization") == Some("Bearer second"))
    });
}
