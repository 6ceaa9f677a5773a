//! Every option of `rate_limit`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::consumer::{Consumer, Identity};
use portcullis::{Exchange, Filter, Flow, Phases, Result, Stage};

use crate::ask::{Ask, ask, echo, upstream};
use crate::harness::{Gateway, Http2, Origin, Response, eventually};

/// Believes that a client is the consumer, of the group, that it says: `x-as: mobile partners`.
pub struct Believe;

impl Filter for Believe {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST
    }

    fn request(&self, (): &mut (), exchange: &mut Exchange<'_>) -> Result<Flow> {
        let said = exchange.header(&http::HeaderName::from_static("x-as"));
        if let Some(said) = said.and_then(|said| said.to_str().ok()) {
            let mut words = said.split(' ');
            let name = words.next().unwrap_or_default();
            let consumer = Consumer::new(name, words);
            let username = Some(format!("user-{name}").into());
            exchange.identify(Identity { consumer: Some(Arc::new(consumer)), username, anonymous: false });
        }
        Ok(Flow::Continue)
    }
}

/// A gateway with these filters before an echo, which believes `x-as`.
pub fn limited(origin: &Origin, filters: &str) -> Gateway {
    Gateway::start_with(&yaml(origin, filters), |gateway| {
        gateway.filter("believe", Stage::Authenticate, Believe)
    })
}

fn yaml(origin: &Origin, filters: &str) -> String {
    format!(
        "{}server: {{ threads: 1, trusted_proxies: [127.0.0.9/32] }}\n\
         routes: [{{ name: all, path: /*, filters: [{filters}], upstream: echo }}]",
        upstream(origin)
    )
}

fn rule(origin: &Origin, words: &str) -> Gateway {
    limited(origin, &format!("{{ rate_limit: {{ {words} }} }}"))
}

fn refused(answer: &Response) -> bool {
    match answer.status {
        200 => false,
        429 => true,
        status => panic!("{status}: {}", answer.text()),
    }
}

/// How many of so many requests pass.
fn passing(gateway: &Gateway, ask: &Ask, of: usize) -> usize {
    (0..of).filter(|_| !refused(&ask.send(gateway.address()))).count()
}

#[test]
fn what_is_too_much_is_refused_and_told() {
    let origin = echo();
    let gateway = rule(&origin, "rate: 3/h");
    for left in [2, 1, 0] {
        let answer = gateway.get("/");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"default\";q=3;w=3600"));
        let told = answer.header("ratelimit").unwrap().to_owned();
        assert!(told.starts_with(&format!("\"default\";r={left};t=")), "{told}");
    }
    let answer = gateway.get("/");
    assert_eq!(answer.problem(), (429, "rate_limited".to_owned()));
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&after), "{after}");
    assert!(answer.header("ratelimit").unwrap().starts_with("\"default\";r=0;t="));
    assert_eq!(answer.header("x-ratelimit-limit"), None);
    assert_eq!(origin.requests().len(), 3);
    assert_eq!(gateway.metric("portcullis_rate_limited_total{route=\"all\",filter=\"rate_limit\"}"), 1.0);
    let verdict =
        "portcullis_filter_verdicts_total{route=\"all\",filter=\"rate_limit\",verdict=\"rate_limited\"}";
    assert_eq!(gateway.metric(verdict), 1.0);
    assert_eq!(gateway.log_line(3)["reason"], "rate_limited");
}

#[test]
fn a_burst_passes_and_then_the_rate_does() {
    let origin = echo();
    for (words, passes) in [
        ("rate: 2/h, burst: 5", 5),
        ("rate: 5/h, burst: 1", 1),
        ("rate: 4/h", 4),
        ("rate: 3/d, algorithm: token_bucket", 3),
        ("rate: 3/d, algorithm: fixed_window", 3),
        ("rate: 3/d, algorithm: sliding_window", 3),
        ("rate: 3/d, algorithm: sliding_log", 3),
        ("rate: 6/d, cost: 2", 3),
        ("rate: 6/d, cost: 2, algorithm: sliding_log", 3),
        ("rate: 6/d, cost: 'request.method == \"GET\" ? 2 : 1'", 3),
        ("rate: 6/d, cost: 'size(request.path) + 1', algorithm: sliding_log", 3),
        ("rate: 6/d, cost: 'request.size / 1024 + 2', algorithm: fixed_window", 3),
        (
            "rules: [{ rate: 6/d, cost: size(request.path) }, { rate: 6/d, cost: size(request.path) * 3, name: b }]",
            2,
        ),
    ] {
        let gateway = rule(&origin, words);
        assert_eq!(passing(&gateway, &Ask::new("GET /"), 8), passes, "{words}");
    }
    let gateway = rule(&origin, "rate: 20/s, burst: 1");
    let began = Instant::now();
    eventually("ten more pass", || {
        passing(&gateway, &Ask::new("GET /"), 1) == 1
            && gateway.log().iter().filter(|line| line["status"] == 200).count() >= 11
    });
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
}

#[test]
fn a_leaky_bucket_lets_requests_wait() {
    let origin = echo();
    let gateway = rule(&origin, "rate: 10/s, algorithm: leaky_bucket, max_wait: 10s");
    let began = Instant::now();
    assert_eq!(passing(&gateway, &Ask::new("GET /"), 6), 6);
    assert!(began.elapsed() >= Duration::from_millis(490), "{:?}", began.elapsed());

    let gateway = rule(&origin, "rate: 1/h, algorithm: leaky_bucket, max_wait: 5s");
    assert_eq!(passing(&gateway, &Ask::new("GET /"), 3), 1);
    let after: u64 = gateway.get("/").header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3595).contains(&after), "{after}");

    // A second at most unless something else is said: of two an hour apart, the second does not wait.
    let gateway = rule(&origin, "rate: 1/h, algorithm: leaky_bucket");
    let answer = gateway.get("/");
    assert_eq!(answer.header("ratelimit-policy"), Some("\"default\";q=1;w=1"));
    assert!(refused(&gateway.get("/")));
}

#[test]
fn whoever_the_key_says_is_counted() {
    let origin = echo();
    let from = |ip: &str, fields: &str| Ask::new("GET /a?u=1&v=2").from(ip).header(fields);
    let proxied = |of: &str| from("127.0.0.9", &format!("x-forwarded-for: {of}"));
    let plain = |fields: &str| from("127.0.0.1", fields);
    let at = |line: &str| Ask::new(line);
    // The key, a request, one of the same client, one of another.
    let rows: Vec<(&str, Ask, Ask, Ask)> = vec![
        ("key: ip", plain("x-a: 1"), plain("x-a: 2"), from("127.0.0.2", "")),
        (
            "key: ip",
            plain(""),
            plain("x-forwarded-for: 10.0.0.7"),
            from("127.0.0.2", "x-forwarded-for: 127.0.0.1"),
        ),
        ("key: ip", plain(""), plain("forwarded: for=10.0.0.7\nx-real-ip: 10.0.0.7"), proxied("10.0.0.7")),
        ("key: ip", proxied("10.0.0.7"), proxied("::ffff:10.0.0.7"), proxied("10.0.0.8")),
        ("key: ip", proxied("10.0.0.7"), proxied("1.2.3.4, 10.0.0.7"), proxied("10.0.0.7, 1.2.3.4")),
        ("key: ip", proxied("2001:db8:0:1::1"), proxied("2001:db8:0:1:ffff::2"), proxied("2001:db8:0:2::1")),
        (
            "key: ip, ipv6_prefix: 48",
            proxied("2001:db8:0:1::1"),
            proxied("2001:db8:0:2::1"),
            proxied("2001:db8:1::1"),
        ),
        ("key: ip, ipv6_prefix: 128", proxied("2001:db8::1"), proxied("2001:db8::1"), proxied("2001:db8::2")),
        ("key: 'header:x-user'", plain("x-user: a"), from("127.0.0.2", "X-User: a"), plain("x-user: b")),
        ("key: 'query:u'", at("GET /a?u=1"), at("GET /b?x=2&u=1"), at("GET /a?u=2")),
        ("key: 'cookie:sid'", plain("cookie: a=1; sid=x"), plain("cookie: sid=x"), plain("cookie: sid=y")),
        ("key: host", plain("host: a.test"), plain("host: A.test:80"), plain("host: b.test")),
        ("key: path", at("GET /a?u=1"), at("GET /a?u=2"), at("GET /b")),
        ("key: path", at("GET /a/b"), at("GET /a/./%62"), at("GET /a/B")),
        ("key: consumer", plain("x-as: mobile"), from("127.0.0.2", "x-as: mobile g"), plain("x-as: desktop")),
        ("key: 'basic:username'", plain("x-as: a"), from("127.0.0.2", "x-as: a"), plain("x-as: b")),
        (
            "key: consumer + path",
            plain("x-as: a"),
            from("127.0.0.2", "x-as: a"),
            at("GET /b").header("x-as: a"),
        ),
        ("key: ['header:x-user', ip]", plain("x-user: a"), from("127.0.0.2", "x-user: a"), plain("")),
        ("key: ['header:x-user', ip]", plain(""), plain("x-other: a"), from("127.0.0.2", "")),
        (
            "key: ['header:x-user + header:x-app', ip]",
            plain("x-user: a"),
            plain("x-app: b"),
            plain("x-user: a\nx-app: b"),
        ),
    ];
    for (words, one, same, other) in rows {
        let gateway = rule(&origin, &format!("rate: 1/h, {words}"));
        let refusals = [&one, &same, &other, &other].map(|ask| refused(&ask.send(gateway.address())));
        assert_eq!(refusals, [false, true, false, true], "{words}: {one:?} {same:?} {other:?}");
    }
}

#[test]
fn routes_are_counted_apart_or_together() {
    let gateway = Gateway::start(
        r#"
filters: [{ rate_limit: { rate: 3/h, key: route, headers: off } }]
routes:
  - { name: a, path: /a, respond: {} }
  - { name: b, path: /b/*, filters: [{ rate_limit: { rate: 1/h, key: path } }], respond: {} }
"#,
    );
    let passes = |path: &str| ask(gateway.address(), &format!("GET {path}"), "").status != 429;
    assert_eq!([1, 2, 3, 4].map(|_| passes("/a")), [true, true, true, false]);
    assert_eq!(["/b/1", "/b/1", "/b/2", "/b/3"].map(passes), [true, false, true, false]);
    // What matches no route is counted, too.
    assert_eq!([1, 2, 3, 4].map(|_| passes("/none")), [true, true, true, false]);
    assert_eq!(gateway.metric("portcullis_rate_limited_total{route=\"-\",filter=\"rate_limit\"}"), 1.0);
}

#[test]
fn a_missing_key_is_shared_skipped_or_refused() {
    let origin = echo();
    let without = Ask::new("GET /");
    let with = Ask::new("GET /").header("x-user: a");
    for (words, passes) in [("", 1), ("missing_key: share,", 1), ("missing_key: skip,", 3)] {
        let gateway = rule(&origin, &format!("{words} rate: 1/h, key: 'header:x-user'"));
        assert_eq!(passing(&gateway, &with, 3), 1, "{words}");
        assert_eq!(passing(&gateway, &without, 3), passes, "{words}");
        let empty = Ask::new("GET /").from("127.0.0.2").header("x-user:");
        assert_eq!(passing(&gateway, &empty, 1), passes / 3, "{words}");
    }
    let gateway = rule(&origin, "missing_key: refuse, rate: 1/h, key: 'header:x-user'");
    assert_eq!(without.send(gateway.address()).problem(), (400, "limit_key_missing".to_owned()));
    assert_eq!(passing(&gateway, &with, 2), 1);
}

#[test]
fn every_rule_has_to_let_a_request_pass_and_none_charges_what_another_refuses() {
    let origin = echo();
    for algorithm in ["token_bucket", "fixed_window", "sliding_window", "sliding_log"] {
        let gateway = rule(
            &origin,
            &format!(
                "rules: [{{ rate: 3/d, key: ip, algorithm: {algorithm} }}, {{ rate: 1/d, key: 'header:x-user', name: users }}]"
            ),
        );
        let of = |user: &str| Ask::new("GET /").header(&format!("x-user: {user}")).send(gateway.address());
        let first = of("a");
        let policies = first.fields.all("ratelimit-policy");
        assert_eq!(policies, ["\"rule-1\";q=3;w=86400", "\"users\";q=1;w=86400"]);
        let told = first.header("ratelimit").unwrap();
        assert!(told.starts_with("\"rule-1\";r=2;t=") && told.contains(", \"users\";r=0;t="), "{told}");
        // The second rule refuses these: the first is as if they had not come.
        assert_eq!([of("a"), of("a"), of("a"), of("a")].map(|answer| answer.status), [429; 4], "{algorithm}");
        assert_eq!(["b", "c", "d"].map(|user| of(user).status), [200, 200, 429], "{algorithm}");
    }
}

/// How much is left of the one rule.
fn left(told: &str) -> u64 {
    let rest = told.split_once(";r=").unwrap_or_else(|| panic!("{told}")).1;
    rest.split(';').next().unwrap().parse().unwrap()
}

#[test]
fn an_expression_says_what_a_request_costs() {
    let origin = echo();
    let unknown =
        "portcullis_filter_verdicts_total{route=\"all\",filter=\"rate_limit\",verdict=\"cost_unknown\"}";
    let gateway = rule(&origin, "rate: 100/d, key: 'header:x-user', cost: 'request.size / 1024 + 1'");
    let of = |user: &str, length: usize| {
        let ask = Ask::new("POST /").header(&format!("x-user: {user}")).body("x".repeat(length));
        let answer = ask.send(gateway.address());
        (answer.status, left(answer.header("ratelimit").unwrap()))
    };
    assert_eq!([of("a", 0), of("a", 1023), of("a", 1024)], [(200, 99), (200, 98), (200, 96)]);
    assert_eq!(of("a", 97 * 1024).0, 429, "there is not enough left");
    assert_eq!(of("a", 0), (200, 95), "and none of it was taken");
    assert_eq!(of("b", 200 << 10), (200, 0), "more than there ever is costs all of it");
    assert_eq!(of("b", 0).0, 429);
    assert_eq!(gateway.metric(unknown), 0.0);
    let chunked = |user: &str| {
        let fields = format!("host: a.test\r\nx-user: {user}\r\ntransfer-encoding: chunked");
        gateway.client().ask(format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\n"))
    };
    assert_eq!(left(chunked("c").header("ratelimit").unwrap()), 0, "what cannot be told costs all of it");
    assert_eq!(of("d", 0), (200, 99));
    assert_eq!(chunked("d").status, 429);
    eventually("both are counted", || gateway.metric(unknown) == 2.0);
    let mut client = Http2::connect(gateway.address());
    let e = client.request("GET", "/").header("x-user", "e");
    assert_eq!(left(client.ask(e).field("ratelimit")), 99, "no body has no length over HTTP/2, too");
    let e = client.request("POST", "/").header("x-user", "e");
    assert_eq!(client.send(e, b"x").status, 429);
}

#[test]
fn a_cost_may_say_who_the_consumer_is() {
    let origin = echo();
    let gateway =
        rule(&origin, "rate: 6/d, key: 'header:x-user', cost: '\"partners\" in consumer.groups ? 1 : 3'");
    let of = |fields: &str| passing(&gateway, &Ask::new("GET /").header(fields), 7);
    assert_eq!([of("x-user: a"), of("x-user: b\r\nx-as: mobile partners")], [2, 6]);
    let config = r#"rate: 1/d, cost: 'request.headers["authorization"] == "Basic c2VjcmV0" ? 1 : 1'"#;
    let shown = rule(&origin, config).admin_get("/config").text();
    assert!(shown.contains("rate_limit") && !shown.contains("c2VjcmV0"), "{shown}");
}

#[test]
fn an_answer_says_what_it_cost() {
    let origin = Origin::start(|visit| {
        let cost = visit.request.target.trim_start_matches('/').to_owned();
        let field = if cost.is_empty() { String::new() } else { format!("x-cost: {cost}\r\n") };
        visit.answer(format!("HTTP/1.1 200 OK\r\n{field}content-length: 0\r\n\r\n"))
    });
    let gateway =
        |words: &str| rule(&origin, &format!("rate: 10/d, cost: {{ response_header: x-cost, {words} }}"));
    let left = |answer: &Response| {
        answer
            .header("ratelimit")
            .and_then(|told| told.split(['=', ';']).nth(2)?.parse::<u64>().ok())
            .unwrap()
    };
    // The path is the cost that the answer says, then what is left.
    let told = gateway("max: 100");
    for (path, rest) in [("/", 9), ("/0", 9), ("/1", 8), ("/3", 5), ("/no", 4), ("/-1", 3)] {
        assert_eq!(left(&told.get(path)), rest, "{path}");
    }
    // What is not there is owed.
    assert_eq!(left(&told.get("/20")), 0);
    let refusal = told.get("/");
    assert_eq!(refusal.status, 429);
    let after: u64 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!(after > 18 * 8640 - 60 && after <= 18 * 8640, "{after}");
    // No more is believed than so much.
    let bounded = gateway("max: 4");
    assert_eq!(left(&bounded.get("/1000000")), 6);
    assert_eq!(left(&gateway("max: 4").get("/99999999999999999999")), 6);
    assert_eq!(passing(&bounded, &Ask::new("GET /"), 8), 6);
}

#[test]
fn consumers_and_groups_have_rates_of_their_own() {
    let origin = echo();
    let words = "rate: 1/h, key: [consumer, ip], overrides: { consumers: { mobile: { rate: 3/h } }, \
                 groups: { partners: { rate: 1/h, burst: 2 }, staff: { rate: 4/h } } }";
    let gateway = rule(&origin, words);
    for (who, passes) in [
        ("mobile", 3),
        ("mobile2 partners", 2),
        ("other partners staff", 2),
        ("third staff partners", 4),
        ("fourth nobody staff", 4),
        ("plain", 1),
    ] {
        let ask = Ask::new("GET /").header(&format!("x-as: {who}"));
        assert_eq!(passing(&gateway, &ask, 6), passes, "{who}");
    }
    assert_eq!(passing(&gateway, &Ask::new("GET /"), 3), 1);
    let told = Ask::new("GET /").header("x-as: mobile").send(gateway.address());
    assert_eq!(told.header("ratelimit-policy"), Some("\"default\";q=3;w=3600"));
}

#[test]
fn a_dry_run_lets_everything_pass_and_counts() {
    let origin = echo();
    for words in ["rate: 1/h", "rate: 1/h, algorithm: leaky_bucket, max_wait: 0s"] {
        let gateway = rule(&origin, &format!("{words}, dry_run: true"));
        assert_eq!(passing(&gateway, &Ask::new("GET /"), 4), 4);
        assert_eq!(gateway.get("/").header("ratelimit"), None);
        let verdict =
            "portcullis_filter_verdicts_total{route=\"all\",filter=\"rate_limit\",verdict=\"dry_run\"}";
        eventually("what would be refused is counted", || gateway.metric(verdict) == 4.0);
        assert_eq!(gateway.metric("portcullis_rate_limited_total{route=\"all\",filter=\"rate_limit\"}"), 0.0);
    }
}

#[test]
fn what_a_dry_run_would_refuse_costs_nothing() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nx-cost: 5\r\ncontent-length: 0\r\n\r\n");
    let words = "rules: [{ rate: 10/d, cost: { response_header: x-cost, max: 9 } }, \
                 { rate: 1/d, key: 'header:x-user' }], dry_run: true";
    let gateway = rule(&origin, words);
    let verdict = "portcullis_filter_verdicts_total{route=\"all\",filter=\"rate_limit\",verdict=\"dry_run\"}";
    for (user, refused) in [("a", 0.0), ("a", 1.0), ("a", 2.0), ("b", 2.0), ("c", 3.0)] {
        Ask::new("GET /").header(&format!("x-user: {user}")).send(gateway.address());
        eventually(user, || gateway.log().len() as f64 >= 1.0 && gateway.metric(verdict) >= refused);
        assert_eq!(gateway.metric(verdict), refused, "{user}");
    }
}

#[test]
fn clients_are_told_in_the_fields_that_were_chosen() {
    let origin = echo();
    for (words, ietf, legacy) in [
        ("", true, false),
        ("headers: ietf", true, false),
        ("headers: legacy", false, true),
        ("headers: both", true, true),
        ("headers: off", false, false),
    ] {
        let gateway = rule(&origin, &format!("rate: 1/h, burst: 2, {words}"));
        for remaining in ["1", "0", "0"] {
            let answer = gateway.get("/");
            assert_eq!(answer.header("ratelimit").is_some(), ietf, "{words}");
            assert_eq!(
                answer.header("ratelimit-policy"),
                ietf.then_some("\"default\";q=2;w=7200"),
                "{words}"
            );
            assert_eq!(answer.header("x-ratelimit-limit"), legacy.then_some("2"), "{words}");
            assert_eq!(answer.header("x-ratelimit-remaining"), legacy.then_some(remaining), "{words}");
            assert_eq!(answer.header("x-ratelimit-reset").is_some(), legacy, "{words}");
            assert_eq!(answer.header("retry-after").is_some(), answer.status == 429, "{words}");
        }
    }
}

#[test]
fn no_more_clients_are_known_than_may_be() {
    let origin = echo();
    let of = |gateway: &Gateway, user: &str| {
        refused(&Ask::new("GET /").header(&format!("x-user: {user}")).send(gateway.address()))
    };
    let gateway = rule(&origin, "rate: 1/h, key: 'header:x-user', max_keys: 1");
    assert_eq!(["a", "a", "b", "a"].map(|user| of(&gateway, user)), [false, true, false, false]);
    let gateway = rule(&origin, "rate: 1/h, key: 'header:x-user', max_keys: 2");
    assert_eq!(["a", "a", "b", "a"].map(|user| of(&gateway, user)), [false, true, false, true]);
    let gateway = rule(&origin, "rate: 1/h, key: 'header:x-user', algorithm: sliding_log, max_keys: 1");
    assert_eq!(["a", "a", "b", "a"].map(|user| of(&gateway, user)), [false, true, false, false]);
    // A long key is told from another by its last byte.
    let (long, longer) = ("k".repeat(10 << 10), format!("{}l", "k".repeat(10 << 10)));
    let gateway = rule(&origin, "rate: 1/h, key: 'header:x-user'");
    assert_eq!([&long, &longer, &long].map(|user| of(&gateway, user)), [false, false, true]);
}

#[test]
fn limits_that_need_no_identity_come_before_those_that_ask_for_it() {
    let origin = echo();
    for (words, stage) in [
        ("rate: 1/h", "admit"),
        ("rate: 1/h, key: 'header:x-user'", "admit"),
        ("rate: 1/h, key: consumer", "limit"),
        ("rate: 1/h, key: 'basic:username'", "limit"),
        ("rate: 1/h, key: [consumer, ip]", "limit"),
        ("rate: 1/h, overrides: { groups: { a: { rate: 2/h } } }", "limit"),
        ("rules: [{ rate: 1/h }, { rate: 1/h, key: consumer + ip }]", "limit"),
    ] {
        let gateway = rule(&origin, words);
        let explained = gateway.admin_ask("POST", "/explain", r#"{ "url": "http://a.test/" }"#).json();
        let chain = explained["chain"].as_array().unwrap();
        let found = chain.iter().find(|step| step["filter"] == "rate_limit").unwrap();
        assert_eq!(found["stage"], stage, "{words}");
        assert_eq!(chain[0]["filter"] == "rate_limit", stage == "admit", "{words}");
    }
}

#[test]
fn counts_outlive_a_reload_that_leaves_the_rule() {
    let origin = echo();
    let write = |words: &str| yaml(&origin, &format!("{{ rate_limit: {{ {words} }} }}"));
    let gateway = Gateway::start_file(&write("rate: 2/h"));
    assert_eq!(passing(&gateway, &Ask::new("GET /"), 3), 2);
    for (words, passes) in [
        ("rate: 2/h, headers: both", 0),
        ("rate: 2/h, key: ip", 0),
        ("rate: 2/h, overrides: { consumers: { a: { rate: 9/h } } }", 0),
        ("rate: 3/h", 3),
        ("rate: 3/h, name: other", 3),
    ] {
        gateway.rewrite(&write(words));
        gateway.reload().unwrap();
        assert_eq!(passing(&gateway, &Ask::new("GET /"), 4), passes, "{words}");
    }
}

#[test]
fn a_call_of_grpc_is_refused_in_its_own_words() {
    let gateway = Gateway::start(
        "routes: [{ name: calls, path: /*, filters: [{ rate_limit: { rate: 1/h } }], respond: { body: no } }]",
    );
    let mut client = Http2::connect(gateway.address());
    let call = |client: &Http2| {
        client.request("POST", "/s/M").header("content-type", "application/grpc").header("te", "trailers")
    };
    let first = call(&client);
    client.send(first, b"");
    let second = call(&client);
    let answer = client.send(second, b"");
    let ended = answer.trailers.as_ref().unwrap();
    assert_eq!(ended["grpc-status"], "8");
    assert!(ended["grpc-message"].to_str().unwrap().starts_with("rate_limited"));
    assert_eq!(answer.field("retry-after"), "3600");
}

#[test]
fn the_same_words_under_other_conditions_count_apart_over_reloads() {
    let origin = echo();
    let is = |part: &str| format!("request.headers[\"x-part\"] == \"{part}\"");
    // Two places of a chain, two filters of one, and a condition in a chain and around it.
    let chains = format!(
        "chains: {{ plain: [{{ rate_limit: {{ rate: 2/h }} }}], asks: [{{ rate_limit: {{ rate: 2/h }}, when: '{}' }}] }}\n",
        is("d")
    );
    let mut filters: Vec<String> =
        ["a", "b"].map(|part| format!("{{ use: plain, when: '{}' }}", is(part))).into();
    filters.push(format!("{{ rate_limit: {{ rate: 2/h }}, when: '{}' }}", is("c")));
    filters.push(format!("{{ use: asks, when: '{} || {}' }}", is("c"), is("d")));
    let gateway = Gateway::start_file(&format!("{chains}{}", yaml(&origin, &filters.join(", "))));
    let of = |part: &str| passing(&gateway, &Ask::new("GET /").header(&format!("x-part: {part}")), 3);
    assert_eq!(["a", "b", "c", "d", "e"].map(of), [2, 2, 2, 2, 3]);
    // Who else is limited does not matter.
    filters.rotate_left(1);
    filters.push(format!("{{ use: plain, when: '{}' }}", is("e")));
    gateway.rewrite(&format!("{chains}{}", yaml(&origin, &filters.join(", "))));
    gateway.reload().unwrap();
    assert_eq!(["a", "b", "c", "d", "e"].map(of), [0, 0, 0, 0, 2]);
}

#[test]
fn a_sliding_log_is_refused_that_could_take_too_much_memory() {
    let start = |words: &str| {
        let rule = format!("{{ rate_limit: {{ algorithm: sliding_log, {words} }} }}");
        let yaml = yaml(&echo(), &rule);
        let yaml = format!("listeners: [{{ name: web, address: \"127.0.0.1:0\" }}]\n{yaml}");
        portcullis::Gateway::from_yaml(&yaml).start().map(drop).map_err(|error| error.to_string())
    };
    for words in [
        "rate: 100/s, max_keys: 505000",
        "rate: 1/s, overrides: { groups: { a: { rate: 64/s } } }, max_keys: 505000",
    ] {
        let told = start(words).unwrap_err();
        assert!(told.contains("rate_limit.max_keys") && told.contains("2128 bytes of each"), "{told}");
    }
    // A few requests of many clients are as much.
    for words in ["rate: 100/s, max_keys: 504000", "rate: 5/m, max_keys: 3000000", "rate: 100/s"] {
        assert_eq!(start(words), Ok(()), "{words}");
    }
}

#[test]
fn how_many_keys_limits_know_is_told_by_whose_they_are() {
    let origin = echo();
    let filters = "{ rate_limit: { rules: [{ rate: 5/h, key: 'header:x-user' }, { rate: 5/h, key: route }] } }, \
                   { concurrency: { limit: 5, key: 'header:x-user' } }";
    let of_all = "filters: [{ rate_limit: { rate: 100/h, key: 'header:x-user', max_keys: 2 } }]\n";
    let gateway = Gateway::start_file(&format!("{of_all}{}", yaml(&origin, filters)));
    for user in ["a", "b", "c"] {
        assert!(!refused(&Ask::new("GET /").header(&format!("x-user: {user}")).send(gateway.address())));
    }
    let series =
        |owner: &str, filter: &str| format!("portcullis_limit_keys{{owner=\"{owner}\",filter=\"{filter}\"}}");
    let keys = |owner: &str, filter: &str| gateway.metric(&series(owner, filter));
    assert_eq!([keys("route all", "rate_limit"), keys("global", "rate_limit")], [4.0, 2.0]);
    eventually("nobody is there", || keys("route all", "concurrency") == 0.0);
    gateway.reload().unwrap();
    assert_eq!(keys("route all", "rate_limit"), 4.0);
    gateway.rewrite(&yaml(&origin, filters));
    gateway.reload().unwrap();
    eventually("those of all routes are gone", || {
        !gateway.admin_get("/metrics").text().contains(&series("global", "rate_limit"))
    });
    assert_eq!(keys("route all", "rate_limit"), 4.0);
}
