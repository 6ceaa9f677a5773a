//! Every option of `cors`, by sockets. What a browser makes of the answers is in `browser.rs`.

use crate::ask::{Ask, Asked, ask, echo, upstream};
use crate::harness::{Gateway, Nobody, Origin, Response};

const APP: &str = "origin: https://app.test";

/// A gateway with this `cors` on a route that takes PUT alone, before an echo.
fn putting(origin: &Origin, cors: &str) -> Gateway {
    Gateway::start(&format!(
        "{}routes: [{{ name: put, path: /a/*, methods: [PUT], filters: [{{ cors: {{ {cors} }} }}], upstream: echo }}]",
        upstream(origin)
    ))
}

/// Asks whether a page may PUT.
fn preflight(gateway: &Gateway, fields: &str) -> Response {
    ask(gateway.address(), "OPTIONS /a/1", &format!("access-control-request-method: PUT\n{fields}"))
}

fn said<'r>(answer: &'r Response, what: &str) -> Option<&'r str> {
    let values = answer.fields.all(&format!("access-control-{what}"));
    assert!(values.len() < 2, "{what} is doubled: {values:?}");
    values.first().copied()
}

#[test]
fn a_preflight_is_answered_on_the_route_of_the_method_it_asks_about() {
    let origin = echo();
    let gateway = putting(
        &origin,
        "origins: ['https://app.test', 'https://*.shop.test'], methods: [GET, PUT], headers: [X-A, x-b], max_age: 10m",
    );
    for from in ["https://app.test", "https://a.b.shop.test"] {
        let answer = preflight(&gateway, &format!("origin: {from}\naccess-control-request-headers: x-a"));
        assert_eq!(answer.status, 204);
        assert_eq!(said(&answer, "allow-origin"), Some(from));
        assert_eq!(said(&answer, "allow-methods"), Some("GET, PUT"));
        assert_eq!(said(&answer, "allow-headers"), Some("x-a, x-b"));
        assert_eq!(said(&answer, "max-age"), Some("600"));
        assert_eq!(said(&answer, "allow-credentials"), None);
        assert_eq!(said(&answer, "allow-private-network"), None);
        assert_eq!(
            answer.fields.all("vary"),
            ["Origin, Access-Control-Request-Method, Access-Control-Request-Headers"]
        );
        assert!(answer.body.is_empty(), "{answer:?}");
    }
    assert_eq!(origin.requests().len(), 0);
    assert_eq!(
        gateway
            .metric("portcullis_filter_verdicts_total{route=\"put\",filter=\"cors\",verdict=\"answered\"}"),
        2.0
    );
    let line = gateway.log_line(0);
    assert_eq!((&line["route"], &line["status"]), (&"put".into(), &204.into()), "{line}");
}

#[test]
fn a_refused_origin_gets_no_word_and_its_requests_pass() {
    let origin = echo();
    let gateway =
        putting(&origin, "origins: ['https://app.test'], methods: [PUT], credentials: true, expose: [x-b]");
    let answer = preflight(&gateway, "origin: https://evil.test");
    assert_eq!(answer.status, 204);
    assert!(answer.fields.0.iter().all(|(name, _)| !name.starts_with("access-control")), "{answer:?}");
    assert!(answer.header("vary").unwrap().starts_with("Origin, "), "{answer:?}");
    assert_eq!(origin.requests().len(), 0);
    for fields in ["origin: https://evil.test", "origin: null", ""] {
        let answer = Ask::new("PUT /a/1").header(fields).send(gateway.address());
        assert_eq!((answer.status, answer.header("vary")), (200, Some("Origin")), "{fields}");
        assert!(answer.fields.0.iter().all(|(name, _)| !name.starts_with("access-control")), "{answer:?}");
        assert_eq!(Asked::of(&answer).header("origin"), fields.strip_prefix("origin: ").unwrap_or("-"));
    }
    let answer = Ask::new("PUT /a/1").header(APP).send(gateway.address());
    assert_eq!(said(&answer, "allow-origin"), Some("https://app.test"));
    assert_eq!(said(&answer, "allow-credentials"), Some("true"));
    assert_eq!(said(&answer, "expose-headers"), Some("x-b"));
    assert_eq!(said(&answer, "allow-methods"), None);
}

#[test]
fn any_origin_is_the_same_answer_for_everyone() {
    let origin = echo();
    let gateway = putting(&origin, "origins: ['*'], methods: ['*'], headers: ['*'], expose: ['*']");
    for fields in ["origin: https://evil.test", "origin: null", ""] {
        let answer = Ask::new("PUT /a/1").header(fields).send(gateway.address());
        assert_eq!((said(&answer, "allow-origin"), said(&answer, "expose-headers")), (Some("*"), Some("*")));
        assert_eq!(answer.header("vary"), None);
    }
    let answer = preflight(&gateway, "origin: null\naccess-control-request-headers: authorization,x-any");
    assert_eq!(said(&answer, "allow-origin"), Some("*"));
    assert_eq!(said(&answer, "allow-methods"), Some("PUT"));
    assert_eq!(said(&answer, "allow-headers"), Some("authorization,x-any"));
    assert_eq!(answer.header("vary"), Some("Access-Control-Request-Method, Access-Control-Request-Headers"));
    // What nobody asks for is not permitted.
    assert_eq!(said(&preflight(&gateway, APP), "allow-headers"), None);
}

#[test]
fn patterns_and_null_are_origins_when_they_are_named() {
    let origin = echo();
    let gateway = putting(&origin, r#"origins: [{ regex: "https://pr-[0-9]+\\.test" }, "null"]"#);
    for (from, may) in [
        ("https://pr-12.test", true),
        ("https://pr-12.test.evil.test", false),
        ("https://evil.test?https://pr-1.test", false),
        ("null", true),
    ] {
        let answer = preflight(&gateway, &format!("origin: {from}"));
        assert_eq!(said(&answer, "allow-origin"), may.then_some(from), "{from}");
        // The methods that need no permission, where none are named.
        assert_eq!(said(&answer, "allow-methods"), may.then_some("GET, HEAD, POST"), "{from}");
    }
}

#[test]
fn private_networks_are_opened_only_to_those_who_ask() {
    let origin = echo();
    let asks = format!("{APP}\naccess-control-request-private-network: true");
    let open = putting(&origin, "origins: ['https://app.test'], private_network: true");
    let answer = preflight(&open, &asks);
    assert_eq!(said(&answer, "allow-private-network"), Some("true"));
    assert!(
        answer.header("vary").unwrap().ends_with(", Access-Control-Request-Private-Network"),
        "{answer:?}"
    );
    assert_eq!(said(&preflight(&open, APP), "allow-private-network"), None);
    let closed = putting(&origin, "origins: ['https://app.test']");
    assert_eq!(said(&preflight(&closed, &asks), "allow-private-network"), None);
}

/// An upstream with words of its own on other origins.
fn outspoken() -> Origin {
    Origin::answering(
        "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\naccess-control-allow-origin: https://own.test\r\n\
         access-control-allow-credentials: true\r\naccess-control-allow-methods: DELETE\r\n\
         access-control-expose-headers: x-own\r\naccess-control-max-age: 1\r\nvary: accept, origin\r\n\
         content-length: 0\r\n\r\n",
    )
}

#[test]
fn the_upstreams_own_words_are_replaced() {
    let origin = outspoken();
    let gateway = putting(&origin, "origins: ['https://app.test'], expose: [x-b]");
    let answer = Ask::new("PUT /a/1").header(APP).send(gateway.address());
    assert_eq!(said(&answer, "allow-origin"), Some("https://app.test"));
    assert_eq!(said(&answer, "expose-headers"), Some("x-b"));
    assert_eq!(said(&answer, "allow-credentials"), None);
    assert_eq!(said(&answer, "max-age"), None);
    assert_eq!(answer.fields.all("vary"), ["accept, origin"]);
    let answer = Ask::new("PUT /a/1").header("origin: https://own.test").send(gateway.address());
    assert_eq!((said(&answer, "allow-origin"), said(&answer, "allow-methods")), (None, None));
}

#[test]
fn forward_preflight_leaves_other_origins_to_the_upstream() {
    let origin = outspoken();
    let gateway = putting(&origin, "origins: ['https://app.test'], forward_preflight: true");
    assert_eq!(said(&preflight(&gateway, APP), "allow-methods"), Some("GET, HEAD, POST"));
    assert_eq!(origin.requests().len(), 0);
    let answer = preflight(&gateway, "origin: https://own.test");
    assert_eq!(said(&answer, "allow-methods"), Some("DELETE"));
    assert_eq!(answer.fields.all("access-control-allow-origin"), ["*", "https://own.test"]);
    assert_eq!(origin.requests().len(), 1);
    let answer = Ask::new("PUT /a/1").header("origin: https://own.test").send(gateway.address());
    assert_eq!(said(&answer, "expose-headers"), Some("x-own"));
    let answer = Ask::new("PUT /a/1").header(APP).send(gateway.address());
    assert_eq!(said(&answer, "allow-origin"), Some("https://app.test"));
}

#[test]
fn the_gateways_own_answers_say_who_may_read_them() {
    let nobody = Nobody::new();
    let gateway = Gateway::start(&format!(
        "filters: [{{ cors: {{ origins: ['https://app.test'], methods: [PUT] }} }}]
upstreams: {{ nobody: {{ endpoints: ['{}'] }} }}
routes:
  - {{ name: own, path: /own, respond: {{}} }}
  - {{ name: moved, path: /moved, redirect: {{ to: /own }} }}
  - {{ name: denied, path: /denied, filters: [ip_restriction: {{ deny: [127.0.0.0/8] }}], respond: {{}} }}
  - {{ name: small, path: /small, limits: {{ request_body: 1B }}, respond: {{}} }}
  - {{ name: put, path: /put, methods: [PUT], respond: {{}} }}
  - {{ name: gone, path: /gone, upstream: nobody }}
",
        nobody.address()
    ));
    for (ask, status) in [
        (Ask::new("GET /own"), 200),
        (Ask::new("GET /moved"), 308),
        (Ask::new("GET /denied"), 403),
        (Ask::new("GET /put"), 405),
        (Ask::new("POST /small").body("ab"), 413),
        (Ask::new("GET /none"), 404),
        (Ask::new("GET /gone"), 502),
        (Ask::new("OPTIONS /denied").header("access-control-request-method: GET"), 204),
        (Ask::new("OPTIONS /none").header("access-control-request-method: GET"), 204),
    ] {
        let answer = ask.header(APP).send(gateway.address());
        assert_eq!(answer.status, status);
        assert_eq!(said(&answer, "allow-origin"), Some("https://app.test"), "{status}");
        assert!(answer.header("vary").unwrap().starts_with("Origin"), "{status}");
    }
}

#[test]
fn other_options_requests_are_what_they_were() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}routes:
  - {{ name: put, path: /a, methods: [PUT], filters: [{{ cors: {{ origins: ['https://app.test'] }} }}], upstream: echo }}
  - {{ name: own, path: /own, methods: [PUT], upstream: echo }}
  - {{ name: own-options, path: /own, methods: [OPTIONS], upstream: echo }}
  - {{ name: all, path: /all, filters: [{{ cors: {{ origins: ['https://app.test'] }} }}], upstream: echo }}
",
        upstream(&origin)
    ));
    let asks = |line: &str, fields: &str| ask(gateway.address(), line, fields);
    let both = format!("{APP}\naccess-control-request-method: PUT");
    // Neither half of a preflight is one, nor is one for a method that no route takes.
    for fields in
        [APP, "access-control-request-method: PUT", &both.replace("PUT", "GET"), &both.replace("PUT", "a b")]
    {
        let answer = asks("OPTIONS /a", fields);
        assert_eq!((answer.status, answer.header("allow")), (204, Some("PUT, OPTIONS")), "{fields}");
        assert_eq!(said(&answer, "allow-origin"), None, "{fields}");
    }
    // Without `cors` on the route of the method, an OPTIONS is an OPTIONS.
    let answer = asks("OPTIONS /own", &both);
    assert_eq!((answer.status, gateway.log_of("/own")["route"].as_str()), (200, Some("own-options")));
    // A route that takes OPTIONS gets those that are no preflights, and says who may read them.
    let answer = asks("OPTIONS /all", APP);
    assert_eq!((answer.status, said(&answer, "allow-origin")), (200, Some("https://app.test")));
    assert_eq!(asks("OPTIONS /all", &both).status, 204);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_preflight_that_cors_leaves_alone_comes_to_no_upstream_of_a_route_without_options() {
    let origin = echo();
    let cors = "filters: [{ cors: { origins: ['https://app.test'] }, when: 'request.headers[\"x-page\"] == \"yes\"' }]";
    let gateway = Gateway::start(&format!(
        "{}routes:
  - {{ name: put, path: /a, methods: [PUT, POST], {cors}, upstream: echo }}
  - {{ name: own, path: /own, methods: [PUT], {cors}, upstream: echo }}
  - {{ name: own-options, path: /own, methods: [OPTIONS], upstream: echo }}
  - {{ name: reply, path: /reply, methods: [PUT], {cors}, respond: {{}} }}
  - {{ name: all, path: /all, {cors}, upstream: echo }}
",
        upstream(&origin)
    ));
    let asks = |path: &str, fields: &str| {
        let fields = format!("{APP}\naccess-control-request-method: PUT\n{fields}");
        ask(gateway.address(), &format!("OPTIONS {path}"), &fields)
    };
    for (path, allow) in [("/a", "PUT, POST, OPTIONS"), ("/own", "PUT, OPTIONS"), ("/reply", "PUT, OPTIONS")]
    {
        let answer = asks(path, "x-page: yes");
        assert_eq!((answer.status, said(&answer, "allow-origin")), (204, Some("https://app.test")), "{path}");
        let answer = asks(path, "");
        assert_eq!((answer.status, said(&answer, "allow-origin")), (204, None), "{path}");
        let mut told: Vec<_> = answer.header("allow").unwrap().split(", ").collect();
        let mut expected: Vec<_> = allow.split(", ").collect();
        told.sort_unstable();
        expected.sort_unstable();
        assert_eq!(told, expected, "{path}");
    }
    assert_eq!(origin.requests().len(), 0);
    // A route that takes OPTIONS has it answered, and so has what the route does take.
    assert_eq!(asks("/all", "").status, 200);
    assert_eq!(ask(gateway.address(), "PUT /a", APP).status, 200);
    assert_eq!(origin.requests().len(), 2);
}
