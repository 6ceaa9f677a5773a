//! `when` and `stage` beside a filter.

use std::sync::Arc;

use portcullis::consumer::{Consumer, Identity};
use portcullis::{
    Exchange, Filter, Flow, Phases, Reply, RequestHeader, ResponseHeader, Result, Route, Stage,
};

use crate::ask::{Ask, Asked, ask, echo, upstream};
use crate::harness::tls::{Authority, Order};
use crate::harness::{Gateway, eventually};

const DENY: &str = "ip_restriction: { deny: [127.0.0.0/8] }";

/// Knows clients by what they say in `x-who`.
struct Identify;

impl Filter for Identify {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        let who = exchange.request().headers.get("x-who").and_then(|who| who.to_str().ok());
        let consumer = who.map(|name| Arc::new(Consumer::new(name, ["beta"])));
        exchange.identify(Identity { consumer, ..Identity::default() });
        Ok(Flow::Continue)
    }
}

/// Says on which of its hooks it was called.
struct Mark;

impl Filter for Mark {
    type State = bool;

    fn phases(&self) -> Phases {
        Phases::REQUEST | Phases::UPSTREAM_REQUEST | Phases::RESPONSE
    }

    fn request(&self, seen: &mut bool, _: &mut Exchange<'_>) -> Result<Flow> {
        *seen = true;
        Ok(Flow::Continue)
    }

    fn upstream_request(&self, _: &mut bool, _: &mut Exchange<'_>, head: &mut RequestHeader) -> Result<()> {
        Ok(head.insert_header("x-marked", "yes")?)
    }

    fn response(&self, seen: &mut bool, _: &mut Exchange<'_>, head: &mut ResponseHeader) -> Result<()> {
        Ok(head.insert_header("x-marked", if *seen { "from the start" } else { "late" })?)
    }
}

fn with_filters(gateway: portcullis::Gateway) -> portcullis::Gateway {
    gateway.named_filter("identify", Stage::Authenticate, Identify).named_filter("mark", Stage::Observe, Mark)
}

/// A route for each condition, `/0/{id}` and so on, that refuses where it holds.
fn refusing(conditions: &[&str]) -> Gateway {
    let route = |(at, condition): (usize, &&str)| {
        let condition = serde_json::to_string(condition).unwrap();
        format!(
            "  - {{ name: r{at}, path: \"/{at}/{{id}}\", respond: {{ body: passed }},\n      \
             filters: [identify, {{ {DENY}, stage: limit, when: {condition} }}] }}\n"
        )
    };
    let routes: String = conditions.iter().enumerate().map(route).collect();
    let yaml = format!("server: {{ trusted_proxies: [127.0.0.9/32] }}\nroutes:\n{routes}");
    Gateway::start_with(&yaml, with_filters)
}

#[test]
fn every_variable_decides() {
    let get = || Ask::new("GET /N/1");
    let cases = [
        ("request.method == 'DELETE'", Ask::new("DELETE /N/1"), get()),
        ("request.path.endsWith('/7')", Ask::new("GET /N/7"), get()),
        ("request.host == 'b.test'", get().header("host: B.test:80"), get()),
        ("request.query.q == 'a b'", Ask::new("GET /N/1?q=a+b"), Ask::new("GET /N/1?q=a")),
        ("request.headers['x-chaos'] == '1'", get().header("X-Chaos: 1"), get().header("x-chaos: 2")),
        ("request.cookies.sid == '7'", get().header("cookie: a=b; sid=7"), get().header("cookie: sid=8")),
        ("request.path_params.id == '7'", Ask::new("GET /N/7"), get()),
        ("request.size > 3", Ask::new("POST /N/1").body("four"), Ask::new("POST /N/1").body("two")),
        ("request.size != 0", Ask::new("POST /N/1").body("four"), get()),
        ("request.protocol != 'HTTP/1.1'", Ask::new("GET /N/1"), get()),
        ("request.scheme == 'https'", get().from("127.0.0.9").header("x-forwarded-proto: https"), get()),
        ("client.ip == '127.0.0.3'", get().from("127.0.0.3"), get()),
        ("cidr('127.0.0.0/30').containsIP(client.ip)", get().from("127.0.0.3"), get().from("127.0.0.4")),
        ("client.tls != null", get(), get()),
        ("consumer.name == 'anna'", get().header("x-who: anna"), get().header("x-who: bob")),
        ("'beta' in consumer.groups", get().header("x-who: bob"), get()),
        ("consumer == null", get(), get().header("x-who: bob")),
        ("route.name == 'r17'", get(), get()),
        ("claims.sub != null", get(), get()),
        ("request.headers.exists(h, h.startsWith('x-evil'))", get().header("x-evil-7: 1"), get()),
        ("request.path.matches('/[0-9]+/[1-3]$')", get(), Ask::new("GET /N/4")),
    ];
    // Those that plaintext over HTTP/1.1, or another route, can never make true.
    let never = ["request.protocol != 'HTTP/1.1'", "client.tls != null", "claims.sub != null"];
    let always = ["route.name == 'r17'"];
    let gateway = refusing(&cases.each_ref().map(|(condition, ..)| *condition));
    for (at, (condition, yes, no)) in cases.into_iter().enumerate() {
        let status = |ask: Ask| ask.retarget("/N/", &format!("/{at}/")).send(gateway.address()).status;
        let expected = (!never.contains(&condition), always.contains(&condition));
        let found = (status(yes) == 403, status(no) == 403);
        assert_eq!(found, expected, "{condition}");
    }
}

#[test]
fn certificates_of_clients_decide() {
    let pki = Authority::new();
    let server = pki.issue("server", &["a.test"]);
    let client =
        pki.issue_as("client", &Order { hosts: &["billing.test"], name: "billing", ..Order::default() });
    let yaml = format!(
        "listeners: [{{ name: web, address: 127.0.0.1:0, tls: {{ certificates: [{}], \
         client_auth: {{ ca: {}, mode: optional }} }} }}]\n\
         routes:\n  - {{ name: a, path: /a, respond: {{ body: passed }}, filters: [{{ {DENY}, when: '{}' }}] }}\n",
        server.words(),
        pki.ca().display(),
        r#"client.tls.version != "TLSv1.3" || client.tls.sni != "a.test" || request.scheme != "https" || client.tls.certificate == null || !("DNS:billing.test" in client.tls.certificate.sans) || !client.tls.certificate.subject.contains("billing") || size(client.tls.certificate.fingerprint) != 64"#,
    );
    let gateway = Gateway::start(&yaml);
    let status = |caller: crate::harness::tls::Caller| {
        let mut client = caller.connect(gateway.address(), "a.test").unwrap();
        client.ask("GET /a HTTP/1.1\r\nhost: a.test\r\n\r\n").status
    };
    assert_eq!(status(pki.client()), 403);
    assert_eq!(status(pki.client().with(&client)), 200);
}

#[test]
fn it_is_decided_when_the_first_hook_is_due_and_remembered() {
    let origin = echo();
    let yaml = format!(
        "{}routes:\n  - {{ name: early, path: /early, upstream: echo, filters: [{{ mark: {{}}, when: consumer == null, stage: authorize }}, \
         {{ identify: {{}}, stage: limit }}] }}\n  \
         - {{ name: late, path: /late, upstream: echo, filters: [{{ mark: {{}}, when: consumer != null, stage: limit }}, identify] }}\n",
        upstream(&origin)
    );
    let gateway = Gateway::start_with(&yaml, with_filters);
    // Where `mark` comes first, nobody is known yet: it is there, though the consumer is known at its later hooks.
    for (path, who, marked) in
        [("/early", "x-who: anna", true), ("/late", "x-who: anna", true), ("/late", "", false)]
    {
        let answer = Ask::new(&format!("GET {path}")).header(who).send(gateway.address());
        assert_eq!(answer.header("x-marked"), marked.then_some("from the start"), "{path} {who}");
        assert_eq!(Asked::of(&answer).header("x-marked"), if marked { "yes" } else { "-" }, "{path} {who}");
    }
}

#[test]
fn what_asks_who_it_is_comes_when_that_is_known() {
    let gateway = Gateway::start_with(
        r#"
chains:
  late: [{ ip_restriction: { deny: [127.0.0.0/8] } }]
routes:
  - name: a
    path: /*
    respond: {}
    filters:
      - { rate_limit: { rate: 1/h, burst: 1 }, when: '"beta" in consumer.groups' }
      - { use: late, when: consumer.name == "mallory" }
      - identify
"#,
        with_filters,
    );
    let status = |who: &str| ask(gateway.address(), "GET /", who).status;
    assert_eq!(["x-who: a", "x-who: mallory", "", ""].map(status), [200, 403, 200, 200]);
    assert_eq!(status("x-who: a"), 429);
    let explained = gateway.admin_ask("POST", "/explain", r#"{ "url": "http://a.test/a" }"#).json();
    let steps = explained["chain"].as_array().unwrap().iter();
    let stages: Vec<_> =
        steps.map(|step| (step["filter"].as_str().unwrap(), step["stage"].as_str().unwrap())).collect();
    assert_eq!(
        stages,
        [("identify", "authenticate"), ("ip_restriction", "authorize"), ("rate_limit", "limit")]
    );
}

#[test]
fn a_condition_on_a_chain_holds_for_each_of_its_filters() {
    let gateway = Gateway::start(
        r#"
chains:
  marked:
    - headers: { response: { set: { x-one: "1" } } }
    - { headers: { response: { set: { x-two: "2" } } }, when: 'request.query.two == "1"' }
routes:
  - { name: a, path: /a, respond: {}, filters: [{ use: marked, when: 'request.headers["x-on"] == "1"' }] }
  - { name: b, path: /b, respond: {}, filters: [use: marked] }
"#,
    );
    for (target, on, one, two) in [
        ("/a", "", false, false),
        ("/a?two=1", "", false, false),
        ("/a", "x-on: 1", true, false),
        ("/a?two=1", "x-on: 1", true, true),
        ("/b", "", true, false),
        ("/b?two=1", "", true, true),
    ] {
        let answer = Ask::new(&format!("GET {target}")).header(on).send(gateway.address());
        let has = |name: &str| answer.header(name).is_some();
        assert_eq!((has("x-one"), has("x-two")), (one, two), "{target} {on}");
    }
}

#[test]
fn a_response_decides_for_filters_of_the_response() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}filters:\n  - {{ headers: {{ response: {{ set: {{ x-failed: \"yes\" }} }} }}, when: response.status >= 500 }}\n  \
         - {{ headers: {{ response: {{ set: {{ x-echoed: \"yes\" }} }} }}, when: 'response.headers.server == \"echo\"' }}\n  \
         - {{ compression: {{ min_size: 1B, types: [\"application/*\"] }}, when: response.status == 404 }}\n\
         routes: [{{ name: a, path: /a, upstream: echo }}]\n",
        upstream(&origin)
    ));
    for (target, failed, echoed, packed) in [
        ("/a?status=200", false, true, false),
        ("/a?status=503", true, true, false),
        // The gateway's own answers, too.
        ("/none", false, false, true),
    ] {
        let answer =
            Ask::new(&format!("GET {target}")).header("accept-encoding: gzip").send(gateway.address());
        let has = |name: &str| answer.header(name).is_some();
        let found = (has("x-failed"), has("x-echoed"), has("content-encoding"));
        assert_eq!(found, (failed, echoed, packed), "{target}");
        assert_eq!(answer.body.starts_with(&[0x1f, 0x8b]), packed, "the body follows: {target}");
    }
}

#[test]
fn what_cannot_be_told_applies_and_is_counted() {
    let gateway = refusing(&["int(request.headers['x-age']) < 18"]);
    let series = "portcullis_condition_errors_total{route=\"r0\",filter=\"ip_restriction\"}";
    let status = |age: &str| Ask::new("GET /0/1").header(age).send(gateway.address()).status;
    assert_eq!((status("x-age: 20"), status("x-age: 7")), (200, 403));
    assert_eq!((status("x-age: old"), status("")), (403, 403), "a guard is not got around");
    eventually("both are counted", || gateway.metric(series) == 2.0);
    assert!(!gateway.admin_get("/metrics").text().contains("x-age"));
}

#[test]
fn code_says_it_too() {
    let gateway = Gateway::start_with("", |gateway| {
        let route = Route::new("a", "/a")
            .respond_with(|_, _| Reply::content(http::StatusCode::OK, "passed"))
            .configured("ip_restriction", "{ deny: [127.0.0.0/8] }")
            .unwrap()
            .when("request.query.deny == '1'");
        gateway.filter("mark", Stage::Observe, Mark).when("request.query.mark == '1'").route(route)
    });
    assert_eq!((gateway.get("/a?deny=1").status, gateway.get("/a?deny=2").status), (403, 200));
    assert_eq!(gateway.get("/a?mark=1").header("x-marked"), Some("from the start"));
    assert_eq!(gateway.get("/a?mark=2").header("x-marked"), None);
}

#[test]
fn conditions_that_may_compare_credentials_are_not_shown() {
    let gateway = Gateway::start_with(
        r#"
consumers: [{ name: anna }]
routes:
  - name: a
    path: /a
    respond: {}
    filters:
      - { headers: { response: { set: { x-a: a } } }, when: 'request.query.apikey == "hunter2"' }
      - { headers: { response: { set: { x-b: b } } }, when: 'request.headers.exists(h, request.headers[h] == "hunter2")' }
      - { headers: { response: { set: { x-c: c } } }, when: 'request.query["api" + "key"] == "hunter2"' }
      - { headers: { response: { set: { x-d: d } } }, when: '[request.headers, 1][0]["x-api-key"] == "hunter2"' }
      - { headers: { response: { set: { x-e: e } } }, when: 'request.headers.exists(h, h == "x-shown") && "apikey" in request.query' }
  - { name: b, path: /b, respond: {}, filters: [{ api_key: { from: ["query:apikey"] } }] }
"#,
        with_filters,
    );
    let config = gateway.admin_get("/config").text();
    let explained = gateway.admin_ask("POST", "/explain", r#"{ "url": "http://a.test/a" }"#).text();
    for shown in [config, explained] {
        assert!(!shown.contains("hunter2") && shown.contains("x-shown"), "{shown}");
    }
}

#[test]
fn operators_see_conditions_but_no_secrets() {
    let gateway = Gateway::start_with(
        r#"
routes:
  - name: a
    path: /a
    respond: {}
    filters:
      - { headers: { response: { set: { x-a: a } } }, when: 'request.query.a == "1"', stage: admit }
      - { headers: { response: { set: { x-b: b } } }, when: 'request.headers["x-api-key"] == "hunter2"' }
      - { headers: { response: { set: { x-c: c } } }, when: 'consumer.name == "anna"' }
"#,
        with_filters,
    );
    let config = gateway.admin_get("/config").text();
    assert!(
        config.contains(r#"request.query.a == \"1\""#) && config.contains(r#""stage":"admit""#),
        "{config}"
    );
    let explained = gateway.admin_ask("POST", "/explain", r#"{ "url": "http://a.test/a?a=1" }"#).text();
    assert!(!config.contains("hunter2") && !explained.contains("hunter2"), "{config}{explained}");
    let explained: serde_json::Value = serde_json::from_str(&explained).unwrap();
    let steps: Vec<_> = explained["chain"].as_array().unwrap().iter().collect();
    let shown =
        |at: usize| (steps[at]["stage"].as_str(), steps[at]["when"].as_str(), steps[at]["applies"].as_bool());
    assert_eq!(shown(0), (Some("admit"), Some(r#"request.query.a == "1""#), Some(true)));
    assert_eq!(shown(1), (Some("route"), Some("***"), Some(false)));
    assert_eq!(shown(2), (Some("route"), Some(r#"consumer.name == "anna""#), None));
}
