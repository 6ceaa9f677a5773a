//! Which route takes a request, and what answers when none does.

use crate::ask::{Ask, ask};
use crate::harness::Gateway;

/// A gateway whose routes answer with their own names.
fn named(routes: &[(&str, &str)]) -> Gateway {
    let route = |(name, words): &(&str, &str)| {
        format!("  - {{ name: {name}, {words}, respond: {{ body: {name} }} }}\n")
    };
    Gateway::start(&format!("routes:\n{}", routes.iter().map(route).collect::<String>()))
}

/// Asks each row and compares who answers; `404` and the like stand for what the gateway says itself.
#[track_caller]
fn assert_taken(gateway: &Gateway, rows: &[(&str, &str, &str)]) {
    for (line, headers, expected) in rows {
        let answer = ask(gateway.address(), line, headers);
        let found = if answer.status == 200 { answer.text() } else { answer.status.to_string() };
        assert_eq!(found, *expected, "{line} {headers:?}");
    }
}

#[test]
fn hosts_are_exact_wildcard_or_any_and_the_most_specific_wins() {
    let gateway = named(&[
        ("any", "path: /*"),
        ("below-test", "hosts: ['*.test'], path: /*"),
        ("below-shop", "hosts: ['*.shop.test'], path: /*"),
        ("shop", "hosts: [shop.test, other.example], path: /*"),
        ("unicode", "hosts: ['bücher.test'], path: /*"),
        ("address", "hosts: ['[2001:db8::1]', 192.0.2.7], path: /*"),
    ]);
    assert_taken(
        &gateway,
        &[
            ("GET /", "host: shop.test", "shop"),
            ("GET /", "host: other.example", "shop"),
            ("GET /", "host: SHOP.Test", "shop"),
            ("GET /", "host: shop.test.", "shop"),
            ("GET /", "host: shop.test:8443", "shop"),
            ("GET /", "host: a.shop.test", "below-shop"),
            ("GET /", "host: b.a.shop.test", "below-shop"),
            ("GET /", "host: a.test", "below-test"),
            ("GET /", "host: test", "any"),
            ("GET /", "host: shop.testing", "any"),
            ("GET /", "host: example", "any"),
            ("GET /", "host: xn--bcher-kva.test", "unicode"),
            ("GET /", "host: XN--BCHER-KVA.test:80", "unicode"),
            ("GET /", "host: [2001:DB8:0::1]:8080", "address"),
            ("GET /", "host: 192.0.2.7:80", "address"),
            ("GET http://shop.test/", "host: shop.test", "shop"),
        ],
    );
}

#[test]
fn a_host_that_is_none_is_refused() {
    let gateway = named(&[("any", "path: /*")]);
    for host in
        ["a..test", "a test", "user@a.test", "a.test:port", "a.test:99999", "[::1", "a/b", "bücher.test"]
    {
        let answer = ask(gateway.address(), "GET /", &format!("host: {host}"));
        assert_eq!(answer.status, 400, "{host}");
        assert!(answer.code().contains("host"), "{host}: {}", answer.text());
    }
}

#[test]
fn paths_are_exact_then_parameters_then_longest_prefix_then_regex_in_file_order() {
    let gateway = named(&[
        ("regex1", "path: { regex: '^/(a|re)/.*z$' }"),
        ("regex2", "path: { regex: '^/re/' }"),
        ("prefix", "path: /a/*"),
        ("longer", "path: /a/b/*"),
        ("parameter", "path: '/a/{x}/c'"),
        ("colon", "path: '/colon/:x'"),
        ("exact", "path: /a/b/c"),
        ("slash", "path: /slash/"),
        ("tail", "path: '/files/{rest*}'"),
        ("root", "path: /"),
    ]);
    assert_taken(
        &gateway,
        &[
            ("GET /a/b/c", "", "exact"),
            ("GET /a/q/c", "", "parameter"),
            ("GET /a/b/d", "", "longer"),
            ("GET /a/b", "", "longer"),
            ("GET /a/b/", "", "longer"),
            ("GET /a", "", "prefix"),
            ("GET /a/", "", "prefix"),
            ("GET /a/x/z", "", "prefix"),
            ("GET /ab", "", "404"),
            ("GET /re/z", "", "regex1"),
            ("GET /re/y", "", "regex2"),
            ("GET /slash/", "", "slash"),
            ("GET /slash", "", "404"),
            ("GET /files", "", "tail"),
            ("GET /files/a/b", "", "tail"),
            ("GET /colon/7", "", "colon"),
            ("GET /colon/", "", "404"),
            ("GET /colon/7/8", "", "404"),
            ("GET /", "", "root"),
            ("GET /?a/b/c", "", "root"),
            // What is matched is the canonical path.
            ("GET /a/./b/../b/%63", "", "exact"),
            ("GET //a///b/c", "", "exact"),
        ],
    );
}

#[test]
fn conditions_make_a_route_more_specific_and_the_rest_is_file_order() {
    let gateway = named(&[
        ("plain", "path: /a"),
        ("later", "path: /a"),
        ("method", "path: /a, methods: [GET]"),
        ("header", "path: /a, headers: { x-env: canary }"),
        ("both", "path: /a, methods: [GET], headers: { x-env: canary }"),
        ("three", "path: /a, methods: [GET], headers: { x-env: canary }, query: { beta: '1' }"),
    ]);
    assert_taken(
        &gateway,
        &[
            ("POST /a", "", "plain"),
            ("GET /a", "", "method"),
            ("POST /a", "x-env: canary", "header"),
            ("GET /a", "x-env: canary", "both"),
            ("GET /a?beta=1", "x-env: canary", "three"),
            ("GET /a?beta=2", "x-env: canary", "both"),
        ],
    );
}

#[test]
fn headers_and_query_are_matched_in_three_forms() {
    let gateway = named(&[
        ("header-value", "path: /a, headers: { x-env: canary }"),
        ("header-present", "path: /b, headers: { x-debug: { present: true } }"),
        ("header-absent", "path: /c, headers: { x-debug: { present: false } }"),
        ("header-regex", "path: /d, headers: { x-tenant: { regex: '^t-[0-9]+$' } }"),
        ("query-value", "path: /e, query: { beta: '1' }"),
        ("query-present", "path: /f, query: { debug: { present: true } }"),
        ("query-absent", "path: /g, query: { debug: { present: false } }"),
        ("query-regex", "path: /h, query: { tenant: { regex: '^t-[0-9]+$' } }"),
        ("query-decoded", "path: /i, query: { 'a b': 'c&d' }"),
    ]);
    assert_taken(
        &gateway,
        &[
            ("GET /a", "x-env: canary", "header-value"),
            ("GET /a", "X-Env:   canary  ", "header-value"),
            ("GET /a", "x-env: stable\nx-env: canary", "header-value"),
            ("GET /a", "x-env: Canary", "404"),
            ("GET /a", "x-env: canary, stable", "404"),
            ("GET /a", "", "404"),
            ("GET /b", "x-debug:", "header-present"),
            ("GET /b", "", "404"),
            ("GET /c", "", "header-absent"),
            ("GET /c", "x-debug: 1", "404"),
            ("GET /d", "x-tenant: t-42", "header-regex"),
            ("GET /d", "x-tenant: t-", "404"),
            ("GET /e?beta=1", "", "query-value"),
            ("GET /e?a=b&beta=1", "", "query-value"),
            ("GET /e?beta=%31", "", "query-value"),
            ("GET /e?beta=2", "", "404"),
            ("GET /e?betas=1", "", "404"),
            ("GET /e", "", "404"),
            ("GET /f?debug", "", "query-present"),
            ("GET /f?debug=", "", "query-present"),
            ("GET /f?nodebug", "", "404"),
            ("GET /g?x=1", "", "query-absent"),
            ("GET /g?debug=1", "", "404"),
            ("GET /h?tenant=t-7", "", "query-regex"),
            ("GET /h?tenant=x", "", "404"),
            ("GET /i?a+b=c%26d", "", "query-decoded"),
            ("GET /i?a%20b=c%26d", "", "query-decoded"),
        ],
    );
}

#[test]
fn methods_are_matched_and_get_serves_head() {
    let gateway = named(&[
        ("read", "path: /a, methods: [GET]"),
        ("write", "path: /a, methods: [POST, PUT]"),
        ("brew", "path: /tea, methods: [BREW]"),
        ("any", "path: /any"),
        ("regex", "path: { regex: '^/r[0-9]$' }, methods: [DELETE]"),
        ("options", "path: /own, methods: [OPTIONS]"),
    ]);
    assert_taken(
        &gateway,
        &[
            ("GET /a", "", "read"),
            ("POST /a", "content-length: 0", "write"),
            ("PUT /a", "content-length: 0", "write"),
            ("BREW /tea", "", "brew"),
            ("PURGE /any", "", "any"),
            ("OPTIONS /own", "", "options"),
        ],
    );
    let head = ask(gateway.address(), "HEAD /a", "");
    assert_eq!((head.status, head.header("content-length")), (200, Some("4")));

    for (line, allow) in [
        ("DELETE /a", "GET, HEAD, POST, PUT, OPTIONS"),
        ("get /a", "GET, HEAD, POST, PUT, OPTIONS"),
        ("GET /tea", "OPTIONS, BREW"),
        ("GET /r7", "DELETE, OPTIONS"),
        ("HEAD /r7", "DELETE, OPTIONS"),
    ] {
        let refused = ask(gateway.address(), line, "");
        assert_eq!((refused.status, refused.header("allow")), (405, Some(allow)), "{line}");
        if !line.starts_with("HEAD") {
            assert_eq!(refused.code(), "method_not_allowed", "{line}");
        }
    }
    // Asking what may be asked is no mistake.
    let options = ask(gateway.address(), "OPTIONS /a", "");
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, POST, PUT, OPTIONS")));
    assert_eq!(ask(gateway.address(), "OPTIONS /nowhere", "").status, 404);
    assert_eq!(ask(gateway.address(), "OPTIONS *", "").status, 204);
}

#[test]
fn a_route_may_serve_some_listeners_only() {
    let gateway = Gateway::start(
        r#"
listeners:
  - { name: web, address: "127.0.0.1:0" }
  - { name: inside, address: "127.0.0.1:0" }
routes:
  - { name: everywhere, path: /a, respond: { body: everywhere } }
  - { name: inside, path: /b, listeners: [inside], respond: { body: inside } }
  - { name: web, path: /b, methods: [GET], listeners: [web], respond: { body: web } }
"#,
    );
    for (listener, line, status, body) in [
        ("web", "GET /a", 200, "everywhere"),
        ("inside", "GET /a", 200, "everywhere"),
        ("inside", "GET /b", 200, "inside"),
        ("web", "GET /b", 200, "web"),
        ("inside", "DELETE /b", 200, "inside"),
        ("web", "DELETE /b", 405, ""),
    ] {
        let answer = ask(gateway.listener(listener), line, "");
        assert_eq!(answer.status, status, "{listener} {line}");
        assert!(body.is_empty() || answer.text() == body, "{listener} {line}: {}", answer.text());
    }
}

#[test]
fn global_and_listener_filters_run_where_no_route_matches() {
    let gateway = Gateway::start(
        r#"
listeners:
  - name: web
    address: "127.0.0.1:0"
    filters: [{ headers: { response: { set: { x-listener: web } } } }]
filters:
  - ip_restriction: { deny: [127.0.0.66] }
  - headers: { response: { set: { x-global: "yes" } } }
routes:
  - { name: a, path: /a, methods: [GET], respond: { body: a }, filters: [{ headers: { response: { set: { x-route: a } } } }] }
"#,
    );
    for (line, status, route) in [
        ("GET /a", 200, Some("a")),
        ("GET /none", 404, None),
        ("DELETE /a", 405, None),
        ("OPTIONS /a", 204, None),
    ] {
        let answer = ask(gateway.address(), line, "");
        assert_eq!(answer.status, status, "{line}");
        assert_eq!(answer.header("x-global"), Some("yes"), "{line}");
        assert_eq!(answer.header("x-listener"), Some("web"), "{line}");
        assert_eq!(answer.header("x-route"), route, "{line}");
        let denied = Ask::new(line).from("127.0.0.66").send(gateway.address());
        assert_eq!(denied.status, 403, "{line}");
    }
}
