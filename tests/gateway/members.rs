//! Endpoints that an operator registers, re-weights, drains and removes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use serde_json::{Value, json};

use crate::ask::ask;
use crate::harness::{Gateway, Nobody, Origin, Response, Then, eventually, process_log, to};

fn put(gateway: &Gateway, origin: &Origin, words: &Value) -> Value {
    let answer = change(gateway, "PUT", origin, &words.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn remove(gateway: &Gateway, origin: &Origin) -> Value {
    let answer = change(gateway, "DELETE", origin, "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn change(gateway: &Gateway, method: &str, origin: &Origin, body: &str) -> Response {
    gateway.admin_ask(method, &format!("/upstreams/origin/endpoints/{}", origin.address()), body)
}

/// Who answers so many requests.
fn answers(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let mut client = gateway.client();
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        *seen.entry(client.get("/").text()).or_insert(0) += 1;
    }
    seen
}

fn counts<const N: usize>(of: [(&str, usize); N]) -> BTreeMap<String, usize> {
    of.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// What the API shows of an endpoint.
fn view(gateway: &Gateway, origin: &Origin) -> Value {
    let upstreams = gateway.admin_get("/upstreams").json();
    let endpoints = upstreams[0]["endpoints"].as_array().unwrap();
    let mut of = endpoints.iter().filter(|endpoint| endpoint["address"] == origin.address().to_string());
    of.next().cloned().unwrap_or_default()
}

#[test]
fn endpoints_come_change_and_go() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let gateway = Gateway::start(&to(&[&a], ""));
    assert_eq!(view(&gateway, &a)["origin"], "file");
    assert_eq!(answers(&gateway, 4), counts([("a", 4)]));

    let added = put(&gateway, &b, &json!({}));
    assert_eq!(added, view(&gateway, &b), "it is told as it is shown");
    assert_eq!(
        [&added["weight"], &added["zone"], &added["priority"], &added["state"], &added["origin"]],
        [&json!(1), &Value::Null, &json!(0), &json!("active"), &json!("admin")]
    );
    assert_eq!(answers(&gateway, 4), counts([("a", 2), ("b", 2)]));
    assert_eq!(gateway.metric("portcullis_upstream_endpoints{upstream=\"origin\"}"), 2.0);

    assert_eq!(put(&gateway, &b, &json!({ "weight": 3, "zone": "z" }))["zone"], "z");
    assert_eq!(answers(&gateway, 8), counts([("a", 2), ("b", 6)]));
    assert_eq!(view(&gateway, &b)["requests"], 8, "what is known of it stays");
    let named = put(&gateway, &b, &json!({ "priority": 1 }));
    assert_eq!((&named["weight"], &named["zone"]), (&json!(3), &json!("z")), "what is not named stays");
    assert_eq!(answers(&gateway, 4), counts([("a", 4)]));
    assert_eq!(put(&gateway, &b, &json!({ "priority": 0, "zone": null }))["zone"], Value::Null);

    let removed = remove(&gateway, &b);
    assert_eq!((&removed["state"], &removed["weight"]), (&json!("removed"), &json!(3)));
    assert_eq!((view(&gateway, &b), answers(&gateway, 4)), (Value::Null, counts([("a", 4)])));
    assert_eq!(change(&gateway, "DELETE", &b, "").problem(), (404, "no_such_endpoint".into()));
    assert_eq!(gateway.metric("portcullis_upstream_endpoints{upstream=\"origin\"}"), 1.0);

    // The last one goes because somebody says so.
    remove(&gateway, &a);
    assert_eq!(gateway.get("/").problem(), (503, "no_healthy_upstream".into()));
    assert_eq!(put(&gateway, &a, &json!({}))["origin"], "file", "it is as the file says again");
    assert_eq!(answers(&gateway, 4), counts([("a", 4)]));
}

/// An origin that answers when it is told to.
fn patient(name: &'static str) -> (Origin, mpsc::Sender<()>) {
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let origin = Origin::start(move |visit| {
        if visit.request.target == "/slow" {
            gone.lock().unwrap().recv().unwrap();
        }
        visit.answer(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len()).as_bytes());
        Then::Keep
    });
    (origin, go)
}

#[test]
fn what_leaves_ends_what_it_has() {
    let ((a, go), b) = (patient("a"), Origin::named("b"));
    for leave in [|gateway: &Gateway, a: &Origin| put(gateway, a, &json!({ "state": "draining" })), remove] {
        let gateway = Gateway::start(&to(&[&a], ""));
        let mut client = gateway.client();
        client.send_get("/slow");
        eventually("the request is under way", || view(&gateway, &a)["active"] == 1);
        put(&gateway, &b, &json!({}));
        assert_eq!(leave(&gateway, &a)["active"], 1);
        assert_eq!(answers(&gateway, 4), counts([("b", 4)]));
        go.send(()).unwrap();
        assert_eq!(client.response().text(), "a");
    }
}

#[test]
fn one_that_drains_gets_nothing_new_whatever_the_balance() {
    let [a, b] = ["a", "b"].map(Origin::named);
    for balance in
        ["round_robin", "least_requests", "random", "peak_ewma", "ip_hash", "{ sticky: { cookie: lb } }"]
    {
        let words = to(&[&a], "").replace("] } }\n", &format!("], balance: {balance} }} }}\n"));
        let gateway = Gateway::start(&words);
        let first = gateway.get("/");
        let cookie = first.header("set-cookie").map_or("a=b", |field| field.split(';').next().unwrap());
        let ask = || gateway.ask(format!("GET / HTTP/1.1\r\nhost: a.test\r\ncookie: {cookie}\r\n\r\n"));
        assert_eq!((first.text(), ask().text()), ("a".into(), "a".into()));
        put(&gateway, &b, &json!({}));
        assert_eq!(put(&gateway, &a, &json!({ "state": "draining" }))["state"], "draining");
        assert!((0..20).all(|_| ask().text() == "b"), "{balance}");
        put(&gateway, &b, &json!({ "state": "draining" }));
        assert_eq!(ask().problem(), (503, "no_healthy_upstream".into()), "{balance}");
        put(&gateway, &a, &json!({ "state": "active" }));
        assert_eq!(ask().text(), "a", "{balance}");
    }
}

#[test]
fn changes_are_kept_until_the_file_has_another_word() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let words = |weight| {
        let address = a.address();
        to(&[&b], "").replace("[\"", &format!("[{{ address: \"{address}\", weight: {weight} }}, \""))
    };
    let gateway = Gateway::start_file(&words(1));
    put(&gateway, &a, &json!({ "weight": 2 }));
    put(&gateway, &c, &json!({ "weight": 3 }));
    remove(&gateway, &b);
    let changed = counts([("a", 4), ("c", 6)]);
    assert_eq!(answers(&gateway, 10), changed);
    gateway.reload().unwrap();
    assert_eq!(answers(&gateway, 10), changed);
    gateway.rewrite(&format!("{}# Another file with the same words on them.\n", words(1)));
    gateway.reload().unwrap();
    assert_eq!(answers(&gateway, 10), changed);
    // What is only checked changes nothing.
    let candidate = format!("listeners: [{{ name: web, address: \"127.0.0.1:0\" }}]\n{}", words(5));
    assert_eq!(gateway.admin_ask("POST", "/config/check", &candidate).status, 200);
    assert_eq!(answers(&gateway, 10), changed);

    gateway.rewrite(&words(5));
    gateway.reload().unwrap();
    assert_eq!(answers(&gateway, 8), counts([("a", 5), ("c", 3)]), "its word on one is its word on that one");
    process_log::heard(&[&format!("the change to endpoint {} holds no more", a.address())]);
    assert_eq!(
        (&view(&gateway, &a)["origin"], &view(&gateway, &c)["origin"]),
        (&json!("file"), &json!("admin"))
    );

    // An endpoint that was added is named by the file, too.
    gateway.rewrite(&to(&[&a, &b, &c], ""));
    gateway.reload().unwrap();
    assert_eq!(answers(&gateway, 4), counts([("a", 2), ("c", 2)]), "b is removed still");
    gateway.rewrite(&to(&[&a], ""));
    gateway.reload().unwrap();
    gateway.rewrite(&to(&[&a, &b], ""));
    gateway.reload().unwrap();
    assert_eq!(answers(&gateway, 4), counts([("a", 2), ("b", 2)]));
}

#[test]
fn no_request_is_lost_while_endpoints_change() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let gateway = Gateway::start_file(&to(&[&a], ""));
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").status, 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let busy = || asked.load(Ordering::Relaxed) < 300;
        for round in (0..2000).take_while(|round| *round < 40 || busy()) {
            put(&gateway, &b, &json!({ "weight": round % 100 + 1 }));
            put(&gateway, &a, &json!({ "state": "draining" }));
            put(&gateway, &c, &json!({}));
            remove(&gateway, &b);
            put(&gateway, &a, &json!({ "state": "active" }));
            if round % 10 == 0 {
                gateway.reload().unwrap();
            }
            remove(&gateway, &c);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(asked.into_inner() >= 300);
    assert_eq!(answers(&gateway, 4), counts([("a", 4)]));
}

#[test]
fn an_endpoint_that_joins_starts_slowly() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let words = to(&[&a], "").replace("] } }\n", "], balance: random, slow_start: 1h } }\n");
    let gateway = Gateway::start(&words);
    put(&gateway, &b, &json!({}));
    let of_b = answers(&gateway, 400).get("b").copied().unwrap_or_default();
    assert!((2..80).contains(&of_b), "a tenth of its share: {of_b}");
}

#[test]
fn mistakes_are_told() {
    let a = Origin::named("a");
    let gateway = Gateway::start(&to(&[&a], ""));
    let ask = |method, place: &str, body| gateway.admin_ask(method, &format!("/upstreams/{place}"), body);
    for method in ["PUT", "DELETE"] {
        let unknown = ask(method, "none/endpoints/127.0.0.1:1", "");
        assert_eq!(unknown.problem(), (404, "no_such_upstream".into()));
        for address in ["127.0.0.1", "localhost:80", "127.0.0.1:0", "127.0.0.1:x"] {
            let refused = ask(method, &format!("origin/endpoints/{address}"), "");
            assert_eq!(refused.problem(), (400, "bad_endpoint".into()), "{address}");
        }
    }
    for (body, code) in [
        ("{ \"weight\": 1001 }", "bad_endpoint"),
        ("{ \"priority\": 128 }", "bad_endpoint"),
        ("{ \"zone\": \"\" }", "bad_endpoint"),
        ("{ \"weight\": -1 }", "bad_json"),
        ("{ \"state\": \"gone\" }", "bad_json"),
        ("{ \"wieght\": 1 }", "bad_json"),
        ("7", "bad_json"),
        ("{", "bad_json"),
    ] {
        assert_eq!(change(&gateway, "PUT", &a, body).problem(), (400, code.into()), "{body}");
    }
    for method in ["GET", "POST", "PATCH"] {
        let refused = change(&gateway, method, &a, "");
        assert_eq!((refused.status, refused.header("allow")), (405, Some("PUT, DELETE")), "{method}");
    }
    for path in
        ["origin", "origin/endpoints", "origin/endpoints/", "origin/endpoints/a/b", "/endpoints/127.0.0.1:1"]
    {
        assert_eq!(ask("PUT", path, "").code(), "not_found", "{path}");
    }
    // IPv6 as it is written, and as browsers send it.
    for (place, address) in
        [("origin/endpoints/[::1]:8080", "[::1]:8080"), ("origin/endpoints/%5B::2%5D:80", "[::2]:80")]
    {
        assert_eq!(ask("PUT", place, "{ \"weight\": 0 }").json()["address"], address);
    }
}

#[test]
fn only_who_may_use_the_api_changes_endpoints() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let admin = "admin: { address: \"127.0.0.1:0\", token: correct-horse-battery }\n";
    let gateway = Gateway::start(&format!("{admin}{}", to(&[&a], "")));
    let line = |method: &str| format!("{method} /upstreams/origin/endpoints/{}", b.address());
    let own = format!("host: {}\nauthorization: Bearer correct-horse-battery\n", gateway.admin());
    for method in ["PUT", "DELETE"] {
        let wrong = format!("host: {}\nauthorization: Bearer correct-horse-batteri\n", gateway.admin());
        assert_eq!(ask(gateway.admin(), &line(method), &wrong).status, 401);
        let foreign = format!("{own}origin: http://evil.test\n");
        assert_eq!(ask(gateway.admin(), &line(method), &foreign).code(), "foreign_origin");
    }
    assert_eq!(answers(&gateway, 2), counts([("a", 2)]));
    assert_eq!(ask(gateway.admin(), &line("PUT"), &own).status, 200);
    assert_eq!(answers(&gateway, 2), counts([("a", 1), ("b", 1)]));
}

#[test]
fn who_waits_for_one_that_drains_goes_elsewhere() {
    let ((a, go), b) = (patient("a"), Origin::named("b"));
    let words = to(&[&a], "").replace("] } }\n", "], limits: { max_requests: 1 } } }\n");
    let gateway = Gateway::start(&words);
    let [mut first, mut second] = [gateway.client(), gateway.client()];
    first.send_get("/slow");
    eventually("the first is under way", || view(&gateway, &a)["active"] == 1);
    second.send_get("/");
    eventually("the second waits", || view(&gateway, &a)["waiting"] == 1);
    put(&gateway, &b, &json!({}));
    put(&gateway, &a, &json!({ "state": "draining" }));
    go.send(()).unwrap();
    assert_eq!((first.response().text(), second.response().text()), ("a".into(), "b".into()));
}

#[test]
fn an_endpoint_that_joins_is_probed() {
    let (a, gone) = (Origin::named("a"), Nobody::new());
    let health = "health: { active: { tcp: {}, interval: 100ms, timeout: 100ms }, panic_threshold: 0% }";
    let gateway = Gateway::start(&to(&[&a], "").replace("] } }\n", &format!("], {health} }} }}\n")));
    let place = format!("/upstreams/origin/endpoints/{}", gone.address());
    assert_eq!(gateway.admin_ask("PUT", &place, "").status, 200);
    eventually("nobody is found to be there", || {
        let endpoints = gateway.admin_get("/upstreams").json()[0]["endpoints"].take();
        endpoints[1]["health"]["active"]["healthy"] == false
    });
    assert_eq!(answers(&gateway, 8), counts([("a", 8)]));
}
