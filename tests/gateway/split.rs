//! Several upstreams behind one route: weights, keys, rules.

use std::collections::BTreeMap;

use portcullis::Stage;

use crate::harness::{Client, Gateway, Nobody, Origin, Response, eventually};
use crate::rate_limit::Believe;

/// A gateway whose one route is split between `old` and `new`, by these words.
fn words(old: &Origin, new: &Origin, split: &str) -> String {
    format!(
        "upstreams:\n  old: {{ endpoints: [\"{}\"] }}\n  new: {{ endpoints: [\"{}\"] }}\n\
         routes: [{{ name: shop, path: /*, split: {{ {split} }} }}]\n",
        old.address(),
        new.address()
    )
}

const TO: &str = "to: [{ upstream: old, weight: 90 }, { upstream: new, weight: 10, name: canary }]";

fn origins() -> (Origin, Origin) {
    (Origin::named("old"), Origin::named("new"))
}

fn get(client: &mut Client, target: &str, fields: &str) -> Response {
    let answer = client.ask(format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n"));
    assert_eq!(answer.status, 200);
    answer
}

/// Where so many users are sent.
fn places(client: &mut Client, users: usize) -> Vec<String> {
    (0..users).map(|user| get(client, "/", &format!("x-user: user-{user}\r\n")).text()).collect()
}

#[test]
fn without_a_key_requests_go_by_weight_and_lot() {
    let (old, new) = origins();
    let gateway = Gateway::start(&words(&old, &new, "to: [{ upstream: old }, { upstream: new, weight: 3 }]"));
    let mut client = gateway.client();
    let mut seen = BTreeMap::new();
    for _ in 0..400 {
        *seen.entry(get(&mut client, "/", "").text()).or_insert(0) += 1;
    }
    // Six sigma around 300.
    assert!((248..=352).contains(&seen["new"]), "{seen:?}");
    assert_eq!(seen["old"] + seen["new"], 400);
}

#[test]
fn a_key_stays_with_its_variant_and_few_move_when_weights_do() {
    let (old, new) = origins();
    let split = |weight: u32| {
        words(
            &old,
            &new,
            &format!(
                "key: \"header:x-user\", to: [{{ upstream: old, weight: 90 }}, {{ upstream: new, weight: {weight} }}]"
            ),
        )
    };
    let gateway = Gateway::start_file(&split(10));
    let mut client = gateway.client();
    let before = places(&mut client, 300);
    assert_eq!(before, places(&mut client, 300), "the same user, the same variant");
    let share = before.iter().filter(|place| *place == "new").count();
    assert!((5..=65).contains(&share), "{share} of 300, not about 30");
    gateway.rewrite(&split(90));
    gateway.reload().unwrap();
    let after = places(&mut client, 300);
    assert!(
        before.iter().zip(&after).all(|(before, after)| before == "old" || after == "new"),
        "nobody goes back"
    );
    let share = after.iter().filter(|place| *place == "new").count();
    assert!((98..=202).contains(&share), "{share} of 300, not about 150");
}

#[test]
fn a_key_that_a_request_does_not_have_leaves_it_to_the_next_and_then_to_the_lot() {
    let (old, new) = origins();
    let gateway = Gateway::start(&words(
        &old,
        &new,
        "key: [\"header:x-user\", ip], to: [{ upstream: old }, { upstream: new }]",
    ));
    let mut client = gateway.client();
    let first = get(&mut client, "/", "").text();
    assert!((0..20).all(|_| get(&mut client, "/", "").text() == first), "by the address");
}

#[test]
fn visitors_are_given_a_cookie_and_stay() {
    let (old, new) = origins();
    let split = "key: \"cookie:visitor\", sticky: true, to: [{ upstream: old }, { upstream: new }]";
    let gateway = Gateway::start(&words(&old, &new, split));
    let mut client = gateway.client();
    let mut seen = BTreeMap::new();
    for _ in 0..40 {
        let answer = get(&mut client, "/", "");
        let cookie = answer.header("set-cookie").expect("a visitor gets a cookie").to_owned();
        let (value, attributes) = cookie.split_once("; ").unwrap();
        assert!(value.strip_prefix("visitor=").is_some_and(|id| id.len() == 32), "{cookie}");
        assert_eq!(attributes, "Max-Age=2592000; Path=/; HttpOnly; SameSite=Lax");
        for _ in 0..3 {
            let again = get(&mut client, "/", &format!("cookie: a=b; {value}\r\n"));
            assert_eq!((again.text(), again.header("set-cookie")), (answer.text(), None));
        }
        *seen.entry(answer.text()).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[test]
fn without_sticky_nobody_is_given_a_cookie() {
    let (old, new) = origins();
    let gateway = Gateway::start(&words(&old, &new, &format!("key: \"cookie:visitor\", {TO}")));
    assert_eq!(get(&mut gateway.client(), "/", "").header("set-cookie"), None);
}

#[test]
fn rules_decide_before_weights() {
    let (old, new) = origins();
    let split = "rules: [
        { headers: { x-canary: \"1\" }, to: canary },
        { cookies: { beta: { regex: \"^y\" } }, query: { v: { present: true } }, to: canary },
        { query: { v: { present: true } }, to: old }],
        to: [{ upstream: old }, { upstream: new, weight: 0, name: canary }]";
    let gateway = Gateway::start(&words(&old, &new, split));
    let mut client = gateway.client();
    for (target, fields, place) in [
        ("/", "", "old"),
        ("/", "x-canary: 1\r\n", "new"),
        ("/", "x-canary: 2\r\n", "old"),
        ("/?v=1", "cookie: a=1; beta=yes\r\n", "new"),
        ("/?v=1", "cookie: beta=no\r\n", "old"),
        ("/", "cookie: beta=yes\r\n", "old"),
        ("/?v=1", "x-canary: 1\r\n", "new"),
    ] {
        assert_eq!(get(&mut client, target, fields).text(), place, "{target} {fields}");
    }
}

#[test]
fn caches_are_told_what_the_choice_goes_by() {
    let old = Origin::answering("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 0\r\n\r\n");
    let new = Origin::named("new");
    let split = "key: [\"cookie:visitor\", \"header:x-user\"], sticky: true, rules: [{ headers: { X-Canary: \"1\" }, to: new }], to: [{ upstream: old }, { upstream: new, weight: 0 }]";
    let gateway = Gateway::start(&words(&old, &new, split));
    let mut client = gateway.client();
    let first = get(&mut client, "/", "");
    assert_eq!(first.fields.all("vary"), ["cookie", "x-canary", "x-user"]);
    assert_eq!(first.fields.all("cache-control"), ["max-age=60", "private"], "the cookie is for one alone");
    let again = get(&mut client, "/", "cookie: visitor=a\r\n");
    assert_eq!(again.fields.all("cache-control"), ["max-age=60"]);
}

#[test]
fn rules_may_say_who_the_consumer_is_and_anything_else_of_the_request() {
    let (old, new) = origins();
    let split = "rules: [
        { when: 'consumer.name == \"beta\"', to: canary },
        { when: 'request.path_params.rest.startsWith(\"next/\")', query: { v: { present: true } }, to: canary },
        { when: 'int(request.headers[\"x-age\"]) > 17', to: canary }],
        to: [{ upstream: old }, { upstream: new, weight: 0, name: canary }]";
    let yaml = words(&old, &new, split).replace("path: /*", "path: '/{rest*}'");
    let gateway =
        Gateway::start_with(&yaml, |gateway| gateway.filter("believe", Stage::Authenticate, Believe));
    let mut client = gateway.client();
    for (target, fields, place) in [
        ("/", "", "old"),
        ("/", "x-as: beta\r\n", "new"),
        ("/", "x-as: gamma beta\r\n", "old"),
        ("/next/a?v=1", "", "new"),
        ("/next/a", "", "old"),
        ("/", "x-age: 18\r\n", "new"),
        ("/", "x-age: 17\r\n", "old"),
        ("/", "x-age: old\r\n", "old"),
    ] {
        assert_eq!(get(&mut client, target, fields).text(), place, "{target} {fields}");
    }
    let explain = |target: &str, fields: &str| {
        let question = format!(r#"{{ "url": "{target}", "headers": {{ "host": "a.test"{fields} }} }}"#);
        gateway.admin_ask("POST", "/explain", &question).json()
    };
    let told = explain("/", r#", "x-age": "20""#);
    let rules = told["rules"].as_array().unwrap();
    let holds: Vec<_> = rules.iter().map(|rule| rule["holds"].as_bool()).collect();
    assert_eq!(holds, [None, Some(false), Some(true)], "{told}");
    assert_eq!(rules[0]["when"], "consumer.name == \"beta\"");
    assert_eq!(told["variants"][0]["percent"], 100.0, "{told}");
    let told = explain("/", r#", "x-age": "1""#);
    assert_eq!(told["variants"].as_array().map(Vec::len), Some(2), "who the client is decides: {told}");
}

#[test]
fn log_metric_and_header_tell_the_variant() {
    let (old, new) = origins();
    let split = format!("header: x-variant, rules: [{{ headers: {{ x-canary: \"1\" }}, to: canary }}], {TO}")
        .replace("90", "1")
        .replace("10", "0");
    let gateway = Gateway::start(&words(&old, &new, &split));
    let mut client = gateway.client();
    let answer = get(&mut client, "/canary", "x-canary: 1\r\nx-variant: forged\r\n");
    assert_eq!(answer.fields.all("x-variant"), ["canary"]);
    assert_eq!(new.last().fields.all("x-variant"), ["canary"], "what the client says of it is gone");
    assert_eq!(get(&mut client, "/old", "").header("x-variant"), Some("old"));
    let line = gateway.log_of("/canary");
    assert_eq!((line["variant"].as_str(), line["upstream"].as_str()), (Some("canary"), Some("new")));
    assert_eq!(gateway.log_of("/old")["variant"], "old");
    for variant in ["canary", "old"] {
        let series = format!(
            "portcullis_variant_requests_total{{route=\"shop\",variant=\"{variant}\",status=\"200\"}}"
        );
        eventually("each variant is counted", || gateway.metric(&series) == 1.0);
    }
}

#[test]
fn an_answer_of_the_gateways_own_tells_its_variant_too() {
    let (old, nobody) = (Origin::named("old"), Nobody::new());
    let yaml = format!(
        "upstreams:\n  old: {{ endpoints: [\"{}\"] }}\n  new: {{ endpoints: [\"{}\"] }}\n\
         routes: [{{ name: shop, path: /*, split: {{ header: x-variant, to: [{{ upstream: old, weight: 0 }}, {{ upstream: new }}] }} }}]\n",
        old.address(),
        nobody.address()
    );
    let gateway = Gateway::start(&yaml);
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.header("x-variant")), (502, Some("new")));
    let series = "portcullis_variant_requests_total{route=\"shop\",variant=\"new\",status=\"502\"}";
    eventually("a failure is the variant's", || gateway.metric(series) == 1.0);
}

#[test]
fn each_variant_has_its_upstreams_own_timeouts() {
    let (slow, fast) = (
        Origin::start(|visit| {
            std::thread::sleep(std::time::Duration::from_millis(800));
            visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow")
        }),
        Origin::named("fast"),
    );
    let yaml = format!(
        "upstreams:\n  slow: {{ endpoints: [\"{}\"], timeouts: {{ read: 200ms }} }}\n  fast: {{ endpoints: [\"{}\"] }}\n\
         routes: [{{ name: shop, path: /*, retry: {{ max_retries: 0 }}, split: {{ rules: [{{ query: {{ slow: \"1\" }}, to: slow }}], to: [{{ upstream: slow, weight: 0 }}, {{ upstream: fast }}] }} }}]\n",
        slow.address(),
        fast.address()
    );
    let gateway = Gateway::start(&yaml);
    assert_eq!(gateway.get("/?slow=1").problem(), (504, "upstream_read_timeout".to_owned()));
    assert_eq!(gateway.get("/").text(), "fast");
}

#[test]
fn the_admin_api_shows_what_a_route_is_split_into() {
    let (old, new) = origins();
    let gateway = Gateway::start(&words(
        &old,
        &new,
        &format!("rules: [{{ headers: {{ x-canary: \"1\" }}, to: canary }}], {TO}"),
    ));
    let routes = gateway.admin_get("/routes").json();
    assert_eq!(routes[0]["target"]["split"][1]["variant"], "canary");
    assert_eq!(routes[0]["target"]["split"][1]["percent"], 10.0);
    let question = r#"{ "url": "/", "headers": { "host": "a.test", "x-canary": "1" } }"#;
    let told = gateway.admin_ask("POST", "/explain", question).json();
    assert_eq!(told["variants"][0]["percent"], 100.0, "{told}");
    assert_eq!(told["upstream"]["name"], "new", "{told}");
    let told =
        gateway.admin_ask("POST", "/explain", r#"{ "url": "/", "headers": { "host": "a.test" } }"#).json();
    assert_eq!(told["variants"].as_array().map(Vec::len), Some(2), "{told}");
}
