//! The operator's API: every endpoint, who may use it, and what it never tells.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use http::StatusCode;
use portcullis::{Reply, Route};
use serde_json::{Value, json};

use crate::ask::{Ask, ask, echo, upstream};
use crate::harness::{Client, Gateway, Response, eventually, process_log};

const TOKEN: &str = "correct-horse-battery";

fn with_token() -> Gateway {
    Gateway::start(&format!(
        "admin: {{ address: \"127.0.0.1:0\", token: {TOKEN} }}\nroutes: [{{ name: a, path: /a, respond: {{}} }}]"
    ))
}

/// Asks the API as its own host.
fn own(gateway: &Gateway, line: &str, headers: &str) -> Response {
    ask(gateway.admin(), line, &format!("host: {}\n{headers}", gateway.admin()))
}

/// Every endpoint with its method.
const ENDPOINTS: [(&str, &str); 11] = [
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/status"),
    ("GET", "/config"),
    ("GET", "/routes"),
    ("GET", "/upstreams"),
    ("POST", "/config/check"),
    ("POST", "/reload"),
    ("POST", "/explain"),
    ("PUT", "/log/level"),
];

#[test]
fn every_endpoint_answers_its_method_and_names_it_to_others() {
    let gateway = Gateway::start("routes: [{ name: a, path: /a, respond: {} }]");
    for (method, path) in ENDPOINTS {
        let body = match path {
            "/explain" => r#"{ "url": "/a" }"#,
            // The level is the whole process's, and this one runs other tests: it stays what it is.
            "/log/level" => r#"{ "level": "warn" }"#,
            "/config/check" => "version: 1\nlisteners: [{ name: web, address: 127.0.0.1:0 }]",
            _ => "",
        };
        let answer = gateway.admin_ask(method, path, body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let allow = if method == "GET" { "GET, HEAD" } else { method };
        for other in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            if other == method {
                continue;
            }
            let refused = gateway.admin_ask(other, path, "");
            assert_eq!((refused.status, refused.header("allow")), (405, Some(allow)), "{other} {path}");
            assert_eq!(refused.code(), "method_not_allowed");
        }
        if method == "GET" {
            let get = own(&gateway, &format!("GET {path}"), "");
            let head = own(&gateway, &format!("HEAD {path}"), "");
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
            assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        } else {
            assert_eq!(own(&gateway, &format!("HEAD {path}"), "").status, 405, "{path}");
        }
    }
    for path in ["/", "/metrics/", "/config/", "/none", "//status"] {
        assert_eq!(gateway.admin_get(path).code(), "not_found", "{path}");
    }
}

#[test]
fn the_api_keeps_a_connection_in_step() {
    let gateway = Gateway::start("routes: []");
    let host = gateway.admin();
    let mut client = Client::connect(host);
    for (method, path, status) in
        [("GET", "/status", 200), ("HEAD", "/status", 200), ("GET", "/none", 404), ("GET", "/healthz", 200)]
    {
        client.send(format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(client.response_to(method).status, status, "{method} {path}");
    }
}

#[test]
fn nobody_keeps_a_place_without_a_request() {
    let gateway = with_token();
    let connect = |words: &str| {
        let mut client = Client::connect(gateway.admin());
        client.send(words);
        client
    };
    let mut silent = connect("");
    let mut idle = connect("GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.response().status, 200);
    let slow_head = connect("GET /healthz HTTP/1.1\r\nhost: a\r\nx: ");
    let mut slow_body = connect("POST /reload HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n");
    assert_eq!(slow_body.response().status, 401);

    let mut slow = [slow_head, slow_body];
    let mut is_given_up = [false, false];
    eventually("the slow ones to be given up", || {
        for (client, is_given_up) in slow.iter_mut().zip(&mut is_given_up) {
            // A byte now and then: no single wait is long.
            *is_given_up = *is_given_up
                || !client.is_silent(Duration::from_millis(100))
                || client.stream.send(b"x").is_err();
        }
        is_given_up == [true, true]
    });
    assert!(silent.ends() && idle.ends());
}

#[test]
fn without_a_token_the_api_answers_loopback_names_only() {
    let gateway = Gateway::start("routes: []");
    let port = gateway.admin().port();
    for (host, status) in [
        (format!("127.0.0.1:{port}"), 200),
        ("localhost".to_owned(), 200),
        ("LOCALHOST:1".to_owned(), 200),
        ("[::1]:80".to_owned(), 200),
        ("127.1.2.3".to_owned(), 200),
        ("evil.test".to_owned(), 403),
        (format!("evil.test:{port}"), 403),
        ("localhost.evil.test".to_owned(), 403),
        ("127.0.0.1.evil.test".to_owned(), 403),
        ("10.0.0.1".to_owned(), 403),
    ] {
        for (_, path) in ENDPOINTS {
            let answer = ask(gateway.admin(), &format!("GET {path}"), &format!("host: {host}"));
            let open = ["/healthz", "/readyz"].contains(&path);
            assert_eq!(answer.status == 403, status == 403 && !open, "{host} {path}: {}", answer.status);
        }
    }
    let none = Client::connect(gateway.admin()).ask("GET /status HTTP/1.0\r\n\r\n");
    assert_eq!((none.status, none.code().as_str()), (403, "foreign_host"));
}

#[test]
fn other_pages_scripts_are_refused() {
    for gateway in [Gateway::start("routes: []"), with_token()] {
        let own_host = gateway.admin();
        for (origin, foreign) in [
            (format!("http://{own_host}"), false),
            ("http://evil.test".to_owned(), true),
            ("null".to_owned(), true),
            (format!("http://{own_host}.evil.test"), true),
            ("http://127.0.0.1:1".to_owned(), true),
        ] {
            let headers = format!("origin: {origin}\nauthorization: Bearer {TOKEN}");
            for (method, path) in ENDPOINTS.into_iter().filter(|(_, path)| *path != "/log/level") {
                let answer =
                    own(&gateway, &format!("{method} {path}"), &format!("{headers}\ncontent-length: 0"));
                assert_eq!(answer.status == 403, foreign, "{origin} {method} {path}: {}", answer.text());
            }
        }
    }
}

#[test]
fn with_a_token_only_its_bearer_is_answered() {
    let gateway = with_token();
    for (_, path) in ENDPOINTS {
        let open = ["/healthz", "/readyz"].contains(&path);
        for wrong in [
            "",
            "authorization: Bearer",
            "authorization: Bearer correct-horse-batterx",
            "authorization: Bearer correct-horse-battery2",
            "authorization: Basic correct-horse-battery",
            "authorization: correct-horse-battery",
            "x-token: correct-horse-battery",
        ] {
            let answer = own(&gateway, &format!("GET {path}"), wrong);
            assert_eq!(answer.status == 401, !open, "{path} {wrong}: {}", answer.status);
            if !open {
                assert_eq!(answer.code(), "unauthorized");
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            }
        }
    }
    for right in [TOKEN.to_owned(), format!("  {TOKEN}")] {
        for scheme in ["Bearer", "bearer"] {
            // With a token any name will do: it is the token that is believed.
            let headers = format!("host: gateway.internal\nauthorization: {scheme} {right}");
            assert_eq!(ask(gateway.admin(), "GET /status", &headers).status, 200, "{scheme}");
        }
    }
}

#[test]
fn a_token_comes_from_a_file_too() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{TOKEN}\n")).unwrap();
    let gateway = Gateway::start(&format!(
        "admin: {{ address: \"127.0.0.1:0\", token: {{ file: '{}' }} }}\nroutes: []",
        file.path().display()
    ));
    assert_eq!(own(&gateway, "GET /status", "").status, 401);
    assert_eq!(own(&gateway, "GET /status", &format!("authorization: Bearer {TOKEN}")).status, 200);
}

#[test]
fn an_api_that_others_could_reach_is_refused_without_a_token() {
    process_log::listen();
    for (words, place) in [
        ("address: \"0.0.0.0:0\"", "admin.address"),
        ("address: \"[::]:0\"", "admin.address"),
        ("address: \"127.0.0.1:0\", token: short", "admin.token"),
        ("address: \"127.0.0.1:0\", token: { env: PORTCULLIS_TEST_NO_SUCH_VARIABLE }", "admin.token"),
        ("address: \"127.0.0.1:0\", token: { file: /no/such/file }", "admin.token"),
    ] {
        let yaml = format!("listeners: [{{ name: web, address: \"127.0.0.1:0\" }}]\nadmin: {{ {words} }}");
        let refused = portcullis::Gateway::from_yaml(&yaml).start();
        let message = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains(place), "{words}: {message}");
    }
}

#[test]
fn secrets_are_never_told() {
    let gateway = with_token();
    let bearer = format!("authorization: Bearer {TOKEN}");
    for path in ["/config", "/status", "/routes", "/upstreams", "/metrics"] {
        let answer = own(&gateway, &format!("GET {path}"), &bearer);
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.text().contains(TOKEN), "{path} tells the token");
    }
    let config = own(&gateway, "GET /config", &bearer).json();
    assert_eq!(config["admin"]["token"], "***");
    let check = Ask::new("POST /config/check")
        .header(&format!("host: a\n{bearer}"))
        .body("listeners: []\nadmin: { address: \"127.0.0.1:0\", token: hunter2hunter2hunter2, tokn: a }")
        .send(gateway.admin());
    assert_eq!(check.status, 422);
    assert!(!check.text().contains("hunter2"), "{}", check.text());
}

#[test]
fn header_fields_that_carry_credentials_are_shown_without_their_values() {
    let gateway = Gateway::start(
        r#"
telemetry: { access_log: { output: "off", redact: [X-Tenant-Key] } }
listeners: [{ name: web, address: "127.0.0.1:0", filters: [{ headers: { request: { set: { cookie: hunter1 } } } }] }]
filters: [{ headers: { response: { add: { set-cookie: hunter2, x-a: open } } } }]
chains: { c: [{ headers: { request: { add: { proxy-authorization: "hunter3 {id}" } } } }] }
routes:
  - name: a
    path: /{id}
    headers: { x-api-key: hunter4, authorization: { regex: hunter5 } }
    filters: [{ use: c }, { headers: { request: { set: { AUTHORIZATION: hunter6, x-tenant-key: hunter7 } } } }]
    respond: { headers: { x-api-key: hunter8, x-b: open } }
"#,
    );
    for path in ["/config", "/routes", "/status"] {
        let told = gateway.admin_get(path);
        assert!(!told.text().contains("hunter"), "{path}: {}", told.text());
    }
    let config = gateway.admin_get("/config").json();
    let route = &config["routes"][0];
    for (at, shown) in [
        (&config["filters"][0]["headers"]["response"]["add"], json!({ "set-cookie": "***", "x-a": "open" })),
        (
            &route["filters"][1]["headers"]["request"]["set"],
            json!({ "AUTHORIZATION": "***", "x-tenant-key": "***" }),
        ),
        (&route["respond"]["headers"], json!({ "x-api-key": "***", "x-b": "open" })),
        (&route["headers"], json!({ "x-api-key": "***", "authorization": { "regex": "***" } })),
    ] {
        assert_eq!(*at, shown);
    }
    let answer = ask(gateway.address(), "GET /1", "x-api-key: hunter4\nauthorization: hunter5");
    assert_eq!((answer.header("x-api-key"), answer.header("set-cookie")), (Some("hunter8"), Some("hunter2")));

    let check = gateway.admin_ask(
        "POST",
        "/config/check",
        "filters: [{ headers: { request: { set: { authorization: \"hunter9\\n\" } } } }]",
    );
    assert_eq!(check.status, 422);
    assert!(!check.text().contains("hunter"), "{}", check.text());
}

#[test]
fn query_parameters_that_carry_keys_are_shown_without_their_values() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        r#"
{}routes:
  - name: a
    path: /a
    query: {{ apikey: hunter1, token: {{ regex: hunter2 }}, page: open }}
    filters: [{{ api_key: {{ from: ["query:apikey", "query:token"] }} }}]
    split: {{ to: [{{ upstream: echo }}], rules: [{{ query: {{ apikey: hunter3, lang: de }}, to: echo }}] }}
"#,
        upstream(&origin)
    ));
    for path in ["/config", "/routes", "/status"] {
        let told = gateway.admin_get(path);
        assert!(!told.text().contains("hunter"), "{path}: {}", told.text());
    }
    let explained = gateway.admin_ask(
        "POST",
        "/explain",
        r#"{ "url": "http://a/a?apikey=hunter1&token=hunter2&page=open" }"#,
    );
    assert_eq!(explained.json()["route"], "a");
    let route = &gateway.admin_get("/config").json()["routes"][0];
    assert_eq!(route["query"], json!({ "apikey": "***", "token": { "regex": "***" }, "page": "open" }));
    assert_eq!(route["split"]["rules"][0]["query"], json!({ "apikey": "***", "lang": "de" }));
    assert_eq!(
        gateway.admin_get("/routes").json()[0]["matches"],
        "* /a query apikey=*** query page=open query token~***"
    );
}

#[test]
fn status_config_routes_and_upstreams_say_what_is_in_force() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}routes:\n\
         - {{ name: orders, path: '/orders/*', hosts: [a.test], methods: [GET, POST], filters: [request_id, rewrite: {{ strip_prefix: /orders }}], upstream: echo }}\n\
         - {{ name: ping, path: /ping, respond: {{ status: 204 }} }}\n\
         - {{ name: old, path: {{ regex: '^/old' }}, redirect: {{ to: /new, status: 301 }} }}",
        upstream(&origin)
    ));
    ask(gateway.address(), "GET /orders/1", "host: a.test");

    let status = gateway.admin_get("/status").json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["pid"], &status["ready"]), (&std::process::id().into(), &true.into()));
    assert_eq!(
        (&status["config"]["generation"], &status["config"]["last_reload"]),
        (&1.into(), &Value::Null)
    );
    assert_eq!(status["config"]["hash"].as_str().unwrap().len(), 16);
    assert!(status["uptime_seconds"].is_u64() && status["connections"].is_u64());

    let config = gateway.admin_get("/config").json();
    assert_eq!(config["routes"][0]["name"], "orders");
    assert_eq!(config["upstreams"]["echo"]["endpoints"][0], origin.address().to_string());
    assert_eq!(config["defaults"]["limits"], json!({}));

    let routes = gateway.admin_get("/routes").json();
    assert_eq!(
        routes,
        json!([
            { "name": "orders", "matches": "GET,POST a.test/orders/*", "filters": ["request_id", "rewrite"], "target": { "upstream": "echo" } },
            { "name": "ping", "matches": "* /ping", "filters": [], "target": { "respond": 204 } },
            { "name": "old", "matches": "* ~^/old", "filters": [], "target": { "redirect": 301 } },
        ])
    );
    eventually("the attempt is over", || {
        let mut upstreams = gateway.admin_get("/upstreams").json();
        let latency = upstreams[0]["endpoints"][0]["latency_seconds"].take();
        latency.as_f64().is_some_and(|seconds| seconds < 20.0)
            && upstreams
                == json!([{ "name": "echo", "balance": "round_robin", "discover": null, "circuit": null, "panicking": false, "endpoints": [{
                "address": origin.address().to_string(), "weight": 1, "active": 0, "requests": 1, "failures": 0, "waiting": 0, "limit": null,
                "zone": null, "priority": 0, "origin": "file", "state": "active", "latency_seconds": null,
                "healthy": true, "ejected_for_seconds": null, "circuit": null, "health": { "active": null },
            }] }])
    });
    let metrics = gateway.admin_get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
}

#[test]
fn config_check_puts_nothing_in_force() {
    let gateway = Gateway::start("routes: [{ name: a, path: /a, respond: { body: old } }]");
    let check = |text: &str| gateway.admin_ask("POST", "/config/check", text);
    let good = check(
        "listeners: [{ name: other, address: \"127.0.0.1:1\" }]\nroutes: [{ name: a, path: /a, respond: { body: new } }]",
    );
    assert_eq!((good.status, good.json()), (200, json!({ "ok": true, "errors": [] })));
    assert_eq!(gateway.get("/a").text(), "old");

    let bad = check(
        "listeners: [{ name: web, address: \"127.0.0.1:0\" }]\nserver: { thread: 1 }\nroutes: [{ name: a, path: a, upstream: none }]",
    );
    assert_eq!(bad.status, 422);
    let errors = bad.json();
    assert_eq!(errors["ok"], false);
    let errors = errors["errors"].as_array().unwrap().clone();
    let at = |path: &str| {
        errors
            .iter()
            .find(|error| error["path"] == path)
            .unwrap_or_else(|| panic!("nothing at {path}: {errors:?}"))
    };
    assert_eq!(at("server.thread")["line"], 2);
    assert!(at("server.thread")["hint"].as_str().unwrap().contains("`threads`"), "{errors:?}");
    assert_eq!(at("routes[0].path")["line"], 3);
    assert!(at("routes[0].upstream")["message"].as_str().unwrap().contains("`none`"));

    for broken in ["routes: [", "", "\u{0}", "a: b: c"] {
        assert_eq!(check(broken).status, 422, "{broken:?}");
    }
    let mut client = Client::connect(gateway.admin());
    client.send(format!(
        "POST /config/check HTTP/1.1\r\nhost: {}\r\ncontent-length: 2\r\n\r\n",
        gateway.admin()
    ));
    client.send([0xff, 0xfe]);
    assert_eq!(client.response().code(), "not_utf8");
    let status = gateway.admin_get("/status").json();
    assert_eq!(status["config"]["generation"], 1);
    assert_eq!(gateway.metric("portcullis_config_reloads_total{result=\"failure\"}"), 0.0);
}

#[test]
fn reload_puts_the_file_in_force_or_says_why_not() {
    let words = |body: &str| format!("routes: [{{ name: a, path: /a, respond: {{ body: {body} }} }}]");
    let gateway = Gateway::start_file(&words("one"));
    gateway.rewrite(&words("two"));
    let reloaded = gateway.admin_ask("POST", "/reload", "");
    assert_eq!((reloaded.status, &reloaded.json()["ok"]), (200, &true.into()));
    assert!(reloaded.json()["generation"].as_u64().unwrap() >= 2);
    assert_eq!(gateway.get("/a").text(), "two");
    assert_eq!(gateway.admin_get("/status").json()["config"]["last_reload"].get("error"), None);

    gateway.rewrite("routes: [{ name: a, path: /a }]");
    let refused = gateway.admin_ask("POST", "/reload", "");
    assert_eq!((refused.status, refused.code().as_str()), (422, "config_refused"));
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("routes[0]") && detail.contains("portcullis.yaml:1"), "{detail}");
    assert_eq!(gateway.get("/a").text(), "two");
    let status = gateway.admin_get("/status").json();
    assert!(status["config"]["last_reload"]["error"].as_str().unwrap().contains("routes[0]"), "{status}");
}

#[test]
fn explain_says_route_chain_and_upstream() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        r#"{}
listeners: [{{ name: web, address: "127.0.0.1:0" }}, {{ name: inside, address: "127.0.0.1:0", filters: [{{ ip_restriction: {{ allow: [10.0.0.0/8] }} }}] }}]
filters: [request_id]
routes:
  - {{ name: user, path: "/users/{{id}}", hosts: [api.test], methods: [GET], headers: {{ x-env: canary }}, filters: [{{ rewrite: {{ path: "/u/{{id}}" }} }}], upstream: echo }}
  - {{ name: ping, path: /ping, respond: {{ status: 418 }} }}
"#,
        upstream(&origin)
    ));
    let explain = |question: Value| gateway.admin_ask("POST", "/explain", &question.to_string());
    let user =
        explain(json!({ "url": "http://API.test:8080/x/../users/%37", "headers": { "X-Env": "canary" } }));
    assert_eq!(user.status, 200, "{}", user.text());
    let step = |filter: &str, stage: &str, hooks: &[&str]| json!({ "filter": filter, "stage": stage, "hooks": hooks });
    assert_eq!(
        user.json(),
        json!({
            "host": "api.test", "path": "/users/7", "listener": "web", "route": "user", "captures": { "id": "7" },
            "chain": [step("request_id", "observe", &["request", "response"]), step("rewrite", "route", &["request"])],
            "upstream": { "name": "echo", "balance": "round_robin", "endpoints": [origin.address().to_string()] },
        })
    );
    let ping =
        explain(json!({ "url": "/ping", "listener": "inside", "headers": { "host": "a.test" } })).json();
    assert_eq!(
        (&ping["status"], &ping["host"], &ping["listener"]),
        (&418.into(), &"a.test".into(), &"inside".into())
    );
    assert_eq!(ping["chain"][1]["filter"], "ip_restriction");
    for (method, status) in [("POST", 405), ("OPTIONS", 204)] {
        let other = explain(
            json!({ "method": method, "url": "http://api.test/users/7", "headers": { "x-env": "canary" } }),
        );
        let other = other.json();
        assert_eq!(
            (&other["status"], &other["allow"]),
            (&status.into(), &"GET, HEAD, OPTIONS".into()),
            "{method}"
        );
        let asked = ask(gateway.address(), &format!("{method} /users/7"), "host: api.test\nx-env: canary");
        assert_eq!(asked.status, status, "{method}: what is explained is what happens");
    }
    let none = explain(json!({ "url": "/none" })).json();
    assert_eq!(
        (&none["status"], none.get("route"), none["chain"].as_array().unwrap().len()),
        (&404.into(), None, 1)
    );
    for (question, code) in [
        (json!({ "url": "/a", "methd": "GET" }), "bad_json"),
        (json!({ "method": "GET" }), "bad_json"),
        (json!({ "url": "/a%2Fb" }), "bad_question"),
        (json!({ "url": "/a", "listener": "none" }), "bad_question"),
        (json!({ "url": "/a", "method": "G T" }), "bad_question"),
        (json!({ "url": "http://a b/" }), "bad_question"),
        (json!({ "url": "/a", "headers": { "a b": "c" } }), "bad_question"),
    ] {
        let refused = explain(question.clone());
        assert_eq!((refused.status, refused.code().as_str()), (400, code), "{question}");
    }
}

#[test]
fn a_gateway_that_drains_is_alive_and_unready() {
    let (release, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let gateway = portcullis::Gateway::from_yaml(
        "listeners: [{ name: web, address: \"127.0.0.1:0\" }]\nadmin: { address: \"127.0.0.1:0\" }\n\
         server: { threads: 1 }\ntelemetry: { log: { level: warn }, access_log: { output: off } }",
    );
    process_log::listen();
    let held = Route::new("held", "/*").respond_with(move |_, _| {
        let _ = wait.lock().unwrap().recv();
        Reply::content(StatusCode::OK, "at last")
    });
    let gateway = gateway.route(held).start().unwrap();
    let (address, admin): (SocketAddr, SocketAddr) = (gateway.address("").unwrap(), gateway.admin().unwrap());
    let state = |path: &str| ask(admin, &format!("GET {path}"), "host: localhost");
    assert_eq!((state("/readyz").status, state("/healthz").status), (200, 200));

    let mut client = Client::connect(address);
    client.send_get("/");
    eventually("the request is under way", || state("/status").json()["connections"] == 1);
    let ending = std::thread::spawn(move || gateway.shutdown());
    eventually("it is unready", || state("/readyz").status == 503);
    assert_eq!(state("/readyz").text(), "draining\n");
    assert_eq!(state("/healthz").status, 200);
    assert_eq!(state("/status").json()["ready"], false);
    release.send(()).unwrap();
    let answer = client.response();
    assert_eq!((answer.text().as_str(), answer.status), ("at last", 200));
    ending.join().unwrap();
}

#[test]
fn an_answer_to_http_1_0_ends_the_connection() {
    let gateway = with_token();
    let mut client = Client::connect(gateway.admin());
    let answer = client.ask("GET /readyz HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(client.ends());
}
