//! The gateway's own answers: `respond`, `redirect`, and the problem documents of what it refuses.

use crate::ask::{Ask, ask};
use crate::harness::{Gateway, Nobody, process_log};

#[test]
fn respond_says_status_headers_and_body() {
    let gateway = Gateway::start(
        r#"
routes:
  - { name: plain, path: /plain, respond: { body: pong } }
  - { name: empty, path: /empty, respond: { status: 204 } }
  - { name: silent, path: /silent, respond: {} }
  - name: full
    path: /full
    respond: { status: 418, headers: { content-type: application/json, X-Pot: short, set-cookie: a=b }, body: '{"tea": true}' }
"#,
    );
    let plain = ask(gateway.address(), "GET /plain", "");
    assert_eq!((plain.status, plain.text().as_str()), (200, "pong"));
    assert_eq!(plain.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(plain.header("date").is_some());

    let full = ask(gateway.address(), "POST /full", "content-length: 0");
    assert_eq!((full.status, full.text().as_str()), (418, r#"{"tea": true}"#));
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-pot", "short"),
        ("set-cookie", "a=b"),
        ("content-length", "13"),
    ] {
        assert_eq!(full.header(name), Some(value), "{name}");
    }

    let empty = ask(gateway.address(), "GET /empty", "");
    assert_eq!((empty.status, empty.header("content-length"), empty.body.len()), (204, None, 0));
    let silent = ask(gateway.address(), "GET /silent", "");
    assert_eq!((silent.status, silent.header("content-length")), (200, Some("0")));
}

#[test]
fn a_connection_stays_in_step_over_answers_of_every_shape() {
    let gateway = Gateway::start(
        r#"
routes:
  - { name: body, path: /body, respond: { body: pong } }
  - { name: empty, path: /empty, respond: { status: 204, body: ignored } }
  - { name: unchanged, path: /unchanged, respond: { status: 304, body: ignored } }
"#,
    );
    let mut client = gateway.client();
    for (line, status, body) in [
        ("GET /body", 200, "pong"),
        ("HEAD /body", 200, ""),
        ("GET /empty", 204, ""),
        ("GET /unchanged", 304, ""),
        ("HEAD /none", 404, ""),
        ("GET /body", 200, "pong"),
        ("HEAD /empty", 204, ""),
        ("GET /body", 200, "pong"),
    ] {
        client.send(format!("{line} HTTP/1.1\r\nhost: a.test\r\n\r\n"));
        let answer = client.response_to(line.split(' ').next().unwrap());
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{line}");
    }
    // A body nobody wanted is read past.
    for body in ["hello", "content that looks like\r\n\r\nGET /x HTTP/1.1\r\n\r\n"] {
        let length = body.len();
        client.send(format!("POST /body HTTP/1.1\r\nhost: a.test\r\ncontent-length: {length}\r\n\r\n{body}"));
        assert_eq!(client.response().text(), "pong");
    }
    client.send(
        "POST /none HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    assert_eq!(client.response().status, 404);
    assert_eq!(client.get("/body").text(), "pong");
}

#[test]
fn redirect_says_where_with_captures_and_the_query() {
    let gateway = Gateway::start(
        r#"
routes:
  - { name: plain, path: /plain, redirect: { to: "https://new.example/" } }
  - { name: tail, path: "/old/{rest*}", redirect: { to: "https://new.example/{rest}", status: 301 } }
  - { name: user, path: "/u/{a}/{b}", redirect: { to: "/users/{b}/of/{a}", status: 302 } }
  - { name: query, path: /query, redirect: { to: "/q?fixed=1", status: 303 } }
  - { name: fragment, path: /fragment, redirect: { to: "/page#top", status: 307 } }
  - { name: braces, path: /braces, redirect: { to: "/a{{b}}" } }
  - { name: regex, path: { regex: "^/v(?P<major>[0-9]+)/(?P<rest>.*)$" }, redirect: { to: "/api/{major}?path={rest}" } }
"#,
    );
    for (line, status, location) in [
        ("GET /plain", 308, "https://new.example/"),
        ("POST /plain", 308, "https://new.example/"),
        ("GET /plain?a=b&c", 308, "https://new.example/?a=b&c"),
        ("GET /old/a/b", 301, "https://new.example/a/b"),
        ("GET /old/a/b/?q", 301, "https://new.example/a/b/?q"),
        ("GET /old/%c3%a9%20", 301, "https://new.example/%C3%A9%20"),
        ("GET /old", 301, "https://new.example/"),
        // The canonical path holds nothing that could lead to another host.
        ("GET /old//evil.example", 301, "https://new.example/evil.example"),
        ("GET /u/1/2", 302, "/users/2/of/1"),
        ("GET /query?more=2", 303, "/q?fixed=1"),
        ("GET /fragment", 307, "/page#top"),
        ("GET /fragment?a=b", 307, "/page?a=b#top"),
        ("GET /braces", 308, "/a{b}"),
        ("GET /v2/x/y", 308, "/api/2?path=x/y"),
    ] {
        let answer = ask(gateway.address(), line, "content-length: 0");
        assert_eq!((answer.status, answer.header("location")), (status, Some(location)), "{line}");
        assert!(answer.body.is_empty(), "{line}");
    }
}

#[test]
fn a_refusal_is_a_problem_document() {
    let nobody = Nobody::new();
    let gateway = Gateway::start(&format!(
        r#"
upstreams: {{ down: {{ endpoints: ["{}"] }} }}
routes:
  - {{ name: get, path: /get, methods: [GET], respond: {{ body: a }} }}
  - {{ name: small, path: /small, limits: {{ request_body: 1B }}, respond: {{ body: a }} }}
  - {{ name: denied, path: /denied, filters: [ip_restriction: {{ deny: [127.0.0.0/8] }}], respond: {{ body: a }} }}
  - {{ name: down, path: /down, upstream: down }}
"#,
        nobody.address()
    ));
    for (ask, status, code, error) in [
        (Ask::new("GET /none"), 404, "route_not_found", "destination_not_found"),
        (Ask::new("PUT /get"), 405, "method_not_allowed", "http_request_denied"),
        (Ask::new("GET /a%2Fb"), 400, "bad_path", "http_request_error"),
        (Ask::new("POST /small").body("ab"), 413, "body_too_large", "http_request_denied"),
        (Ask::new("GET /denied"), 403, "ip_denied", "http_request_denied"),
        (Ask::new("GET /down"), 502, "upstream_connect_failed", "connection_refused"),
    ] {
        let answer = ask.send(gateway.address());
        assert_eq!(answer.problem(), (status, code.to_owned()));
        let problem = answer.json();
        assert_eq!(problem["type"], "about:blank", "{code}");
        assert!(!problem["title"].as_str().unwrap().is_empty(), "{code}");
        let id = problem["request_id"].as_str().unwrap();
        assert_eq!(Some(id), answer.header("x-request-id"), "{code}");
        let proxy_status = format!("portcullis; error={error}; details={code}");
        assert_eq!(answer.header("proxy-status"), Some(proxy_status.as_str()));
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{code}");
        assert_eq!(answer.header("retry-after"), None, "{code}");
        assert_eq!(gateway.logged(|line| line["request_id"] == id)["reason"], code);
    }
}

#[test]
fn a_browser_gets_a_page_and_programs_get_json() {
    let gateway = Gateway::start("routes: []");
    for (accept, kind) in [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("text/html;q=0.5", "text/html; charset=utf-8"),
        ("TEXT/HTML; level=1", "text/html; charset=utf-8"),
        ("application/json, text/html;q=0", "application/problem+json"),
        ("text/html; Q=0.000", "application/problem+json"),
        ("*/*", "application/problem+json"),
        ("application/json", "application/problem+json"),
        ("text/*", "application/problem+json"),
    ] {
        let answer = ask(gateway.address(), "GET /none", &format!("accept: {accept}"));
        assert_eq!((answer.status, answer.header("content-type")), (404, Some(kind)), "{accept}");
        let id = answer.header("x-request-id").unwrap();
        assert!(answer.text().contains(id) && answer.text().contains("route_not_found"), "{}", answer.text());
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert_eq!(
            policy.starts_with("default-src 'none'"),
            kind.starts_with("text/html"),
            "{accept}: {policy}"
        );
    }
    let none = ask(gateway.address(), "GET /none", "");
    assert_eq!(none.header("content-type"), Some("application/problem+json"));
}

#[test]
fn head_gets_the_head_of_the_refusal() {
    let gateway = Gateway::start("routes: []");
    let get = ask(gateway.address(), "GET /none", "x-request-id: a");
    let head = ask(gateway.address(), "HEAD /none", "x-request-id: a");
    assert_eq!((head.status, head.body.len()), (404, 0));
    for name in ["content-type", "content-length", "proxy-status", "cache-control"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[test]
fn when_no_endpoint_can_be_reached_the_answer_says_why_the_last_one_could_not() {
    let nobodies = [Nobody::new(), Nobody::new()];
    let gateway = Gateway::start(&format!(
        "upstreams: {{ down: {{ endpoints: [\"{}\", \"{}\"] }} }}\nroutes: [{{ name: a, path: /*, upstream: down }}]",
        nobodies[0].address(),
        nobodies[1].address()
    ));
    let answer = ask(gateway.address(), "GET /", "");
    assert_eq!(answer.problem(), (502, "upstream_connect_failed".to_owned()));
    assert_eq!(gateway.log_line(0)["tries"], 3, "each, and one again");
}

#[test]
fn what_would_break_the_framing_of_an_answer_is_refused_in_the_configuration() {
    for header in [
        "content-length: '5'",
        "transfer-encoding: chunked",
        "connection: upgrade",
        "trailer: x",
        "upgrade: h2c",
    ] {
        let yaml = format!(
            "listeners: [{{ name: web, address: \"127.0.0.1:0\" }}]\n\
             routes: [{{ name: a, path: /, respond: {{ headers: {{ {header} }}, body: ok }} }}]"
        );
        process_log::listen();
        let refused = portcullis::Gateway::from_yaml(&yaml).start();
        let message = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains("routes[0].respond.headers"), "{header}: {message:?}");
    }
}
