//! Every option of every filter, and the order in which filters run.

use crate::ask::{Ask, Asked, ask, echo, upstream};
use crate::harness::{Gateway, Origin, Response};

/// A gateway that runs these filters before an echo, on `/a/{id}/{rest*}`.
fn filtered(origin: &Origin, filters: &str) -> Gateway {
    Gateway::start(&format!(
        "{}server: {{ threads: 1, trusted_proxies: [127.0.0.9/32] }}\n\
         routes: [{{ name: all, path: \"/a/{{id}}/{{rest*}}\", filters: [{filters}], upstream: echo }}]",
        upstream(origin)
    ))
}

#[test]
fn request_id_says_whose_id_is_kept_and_shows_it() {
    let origin = echo();
    // Filter, the id of a stranger kept, that of a trusted proxy kept, shown to the client.
    for (filter, stranger, proxy, shown) in [
        ("request_id", false, true, true),
        ("{ request_id: {} }", false, true, true),
        ("{ request_id: { accept: trusted } }", false, true, true),
        ("{ request_id: { accept: always } }", true, true, true),
        ("{ request_id: { accept: never } }", false, false, true),
        ("{ request_id: { response: false } }", false, true, false),
        ("{ request_id: { accept: always, response: false } }", true, true, false),
    ] {
        let gateway = filtered(&origin, filter);
        for (from, kept) in [("127.0.0.1", stranger), ("127.0.0.9", proxy)] {
            let answer =
                Ask::new("GET /a/1/2").header("x-request-id: theirs").from(from).send(gateway.address());
            let heard = Asked::of(&answer).header("x-request-id");
            assert_eq!(heard == "theirs", kept, "{filter} from {from}: {heard}");
            assert_eq!(
                answer.header("x-request-id"),
                shown.then_some(heard.as_str()),
                "{filter} from {from}"
            );
        }
        let unfit = Ask::new("GET /a/1/2").header("x-request-id: a b").send(gateway.address());
        assert_ne!(Asked::of(&unfit).header("x-request-id"), "a b", "{filter}");
    }
}

#[test]
fn headers_changes_requests_and_responses() {
    let origin = echo();
    let gateway = filtered(
        &origin,
        r#"{ headers: {
             request: { set: { x-set: new, x-user: "{id}:{rest}", x-brace: "{{id}}" }, add: { x-add: more }, remove: [cookie, X-Gone] },
             response: { set: { x-origin: changed, x-back: "{id}" }, add: { server: portcullis }, remove: [x-none] } } }"#,
    );
    let answer = ask(
        gateway.address(),
        "GET /a/7/b/c%20d",
        "x-set: old\nx-set: older\nx-add: first\ncookie: a=b\nx-gone: 1\nx-gone: 2\nx-stays: yes",
    );
    let asked = Asked::of(&answer);
    for (name, value) in [
        ("x-set", "new"),
        ("x-user", "7:b/c%20d"),
        ("x-brace", "{id}"),
        ("x-add", "first|more"),
        ("cookie", "-"),
        ("x-gone", "-"),
        ("x-stays", "yes"),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    assert_eq!(answer.header("x-origin"), Some("changed"));
    assert_eq!(answer.header("x-back"), Some("7"));
    assert_eq!(answer.fields.all("server"), ["echo", "portcullis"]);
}

#[test]
fn headers_removes_what_the_upstream_said() {
    let origin = echo();
    let gateway = filtered(&origin, "{ headers: { response: { remove: [Server, x-origin] } } }");
    let answer = ask(gateway.address(), "GET /a/7/", "");
    assert_eq!((answer.header("server"), answer.header("x-origin")), (None, None));
}

#[test]
fn headers_are_changed_on_the_gateways_own_answers_too() {
    let gateway = Gateway::start(
        r#"
filters: [{ headers: { response: { set: { x-global: "yes", x-frame-options: DENY }, remove: [cache-control] } } }]
routes:
  - { name: own, path: /own, respond: { body: own } }
  - { name: moved, path: /moved, redirect: { to: /own } }
  - { name: denied, path: /denied, filters: [ip_restriction: { deny: [127.0.0.0/8] }], respond: { body: never } }
  - { name: small, path: /small, limits: { request_body: 1B }, respond: { body: never } }
"#,
    );
    for (ask, status) in [
        (Ask::new("GET /own"), 200),
        (Ask::new("GET /moved"), 308),
        (Ask::new("GET /denied"), 403),
        (Ask::new("GET /none"), 404),
        (Ask::new("GET /%2F"), 400),
        (Ask::new("POST /small").body("ab"), 413),
    ] {
        let answer = ask.send(gateway.address());
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("x-global"), Some("yes"), "{status}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{status}");
        assert_eq!(answer.header("cache-control"), None, "{status}");
    }
}

#[test]
fn rewrite_changes_path_and_host() {
    let origin = echo();
    for (filter, sent, target, host) in [
        ("strip_prefix: /a", "/a/7/x?q=1", "/7/x?q=1", "gw.test"),
        ("strip_prefix: /a/7", "/a/7/", "/", "gw.test"),
        ("strip_prefix: /a/7", "/a/7", "/", "gw.test"),
        ("strip_prefix: /a/", "/a/7/x", "/7/x", "gw.test"),
        // By whole segments, and only from the start.
        ("strip_prefix: /a/7", "/a/77/x", "/a/77/x", "gw.test"),
        ("strip_prefix: /7", "/a/7/x", "/a/7/x", "gw.test"),
        ("strip_prefix: /", "/a/7/x", "/a/7/x", "gw.test"),
        ("add_prefix: /api", "/a/7/x?q", "/api/a/7/x?q", "gw.test"),
        ("add_prefix: /api/", "/a/7/x", "/api/a/7/x", "gw.test"),
        ("strip_prefix: /a, add_prefix: /api", "/a/7/x", "/api/7/x", "gw.test"),
        ("strip_prefix: /a/7, add_prefix: /api", "/a/7", "/api", "gw.test"),
        ("path: '/users/{id}'", "/a/7/x?q=1", "/users/7?q=1", "gw.test"),
        ("path: '/{rest}/{id}'", "/a/7/x/%c3%a9", "/x/%C3%A9/7", "gw.test"),
        // What was put together is made canonical again: an empty tail leaves no `//`.
        ("path: '/{rest}/{id}'", "/a/7", "/7", "gw.test"),
        ("path: /fixed", "/a/7/x", "/fixed", "gw.test"),
        ("host: orders.internal", "/a/7/x", "/a/7/x", "orders.internal"),
        ("host: 'orders.internal:8080', path: /b", "/a/7/x", "/b", "orders.internal:8080"),
    ] {
        let gateway = filtered(&origin, &format!("{{ rewrite: {{ {filter} }} }}"));
        let answer = ask(gateway.address(), &format!("GET {sent}"), "");
        assert_eq!(answer.status, 200, "{filter}: {}", answer.text());
        let asked = Asked::of(&answer);
        assert_eq!(
            (asked.target.as_str(), asked.header("host").as_str()),
            (target, host),
            "{filter} on {sent}"
        );
        assert_eq!(asked.header("x-forwarded-host"), "gw.test", "{filter}");
        // The log shows what the client asked for.
        gateway.logged(|line| line["path"] == sent.split('?').next().unwrap().replace("%c3%a9", "%C3%A9"));
    }
}

#[test]
fn rewrites_follow_one_another() {
    let origin = echo();
    let gateway = filtered(
        &origin,
        "{ rewrite: { strip_prefix: /a } }, { rewrite: { add_prefix: /b } }, { rewrite: { strip_prefix: /b/7 } }",
    );
    assert_eq!(Asked::of(&ask(gateway.address(), "GET /a/7/x", "")).target, "/x");
}

#[test]
fn ip_restriction_lets_in_by_address() {
    let origin = echo();
    // Filter, the peer, what it says of itself (believed from 127.0.0.9 alone), let in.
    for (filter, peer, said, passes) in [
        ("allow: [127.0.0.0/8]", "127.0.0.1", "", true),
        ("allow: [127.0.0.2]", "127.0.0.1", "", false),
        ("allow: [127.0.0.2]", "127.0.0.2", "", true),
        ("deny: [127.0.0.2]", "127.0.0.2", "", false),
        ("deny: [127.0.0.2]", "127.0.0.1", "", true),
        ("allow: [127.0.0.0/8], deny: [127.0.0.2/31]", "127.0.0.3", "", false),
        ("allow: [127.0.0.0/8], deny: [127.0.0.2/31]", "127.0.0.4", "", true),
        ("allow: ['::ffff:127.0.0.1']", "127.0.0.1", "", true),
        ("allow: ['::/0']", "127.0.0.1", "", false),
        ("allow: [10.0.0.0/8]", "127.0.0.1", "10.0.0.1", false),
        ("allow: [10.0.0.0/8]", "127.0.0.9", "10.0.0.1", true),
        ("allow: [10.0.0.0/8]", "127.0.0.9", "::ffff:10.0.0.1", true),
        ("deny: [10.0.0.0/8]", "127.0.0.9", "1.2.3.4, 10.0.0.1", false),
        ("allow: ['2001:db8::/32']", "127.0.0.9", "2001:db8::5", true),
        ("allow: [127.0.0.9]", "127.0.0.9", "10.0.0.1", false),
    ] {
        let gateway = filtered(&origin, &format!("{{ ip_restriction: {{ {filter} }} }}"));
        let mut ask = Ask::new("GET /a/1/2").from(peer);
        if !said.is_empty() {
            ask = ask.header(&format!("x-forwarded-for: {said}"));
        }
        let answer = ask.send(gateway.address());
        assert_eq!(answer.status, if passes { 200 } else { 403 }, "{filter} from {peer} saying {said:?}");
        if !passes {
            assert_eq!(answer.code(), "ip_denied");
        }
    }
}

#[test]
fn ip_restriction_knows_an_ipv4_client_of_an_ipv6_listener() {
    let gateway = Gateway::start(
        r#"
listeners: [{ name: web, address: "[::]:0" }]
filters: [{ ip_restriction: { deny: [127.0.0.1] } }]
routes: [{ name: a, path: /, respond: { body: a } }]
"#,
    );
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], gateway.address().port()));
    assert_eq!(ask(to, "GET /", "").status, 403);
    assert_eq!(Ask::new("GET /").from("127.0.0.2").send(to).status, 200);
}

/// The values that filters left, in the order they ran.
fn trace(answer: &Response, name: &str) -> String {
    answer.fields.all(name).join(" ")
}

#[test]
fn filters_run_by_stage_then_as_written_and_responses_in_reverse() {
    let origin = echo();
    let add = |name: &str| {
        format!(
            "{{ headers: {{ request: {{ add: {{ x-in: {name} }} }}, response: {{ add: {{ x-out: {name} }} }} }} }}"
        )
    };
    let gateway = Gateway::start(&format!(
        r#"
{}
listeners:
  - {{ name: web, address: "127.0.0.1:0", filters: [{}] }}
  - {{ name: bare, address: "127.0.0.1:0" }}
filters: [{}]
chains: {{ shared: [{}, {}] }}
routes:
  - {{ name: a, path: /a, filters: [{}, {{ use: shared }}, {}], upstream: echo }}
  - {{ name: denied, path: /denied, upstream: echo,
      filters: [{}, {{ rewrite: {{ path: /never }} }}, {{ ip_restriction: {{ deny: [127.0.0.0/8] }} }}] }}
  - {{ name: bare, path: /bare, upstream: echo }}
"#,
        upstream(&origin),
        add("listener"),
        add("global"),
        add("shared1"),
        add("shared2"),
        add("route1"),
        add("route2"),
        add("denied"),
    ));
    for (listener, line, order, reversed) in [
        (
            "web",
            "GET /a",
            "global|listener|route1|shared1|shared2|route2",
            "route2 shared2 shared1 route1 listener global",
        ),
        ("bare", "GET /a", "global|route1|shared1|shared2|route2", "route2 shared2 shared1 route1 global"),
        ("web", "GET /bare", "global|listener", "listener global"),
        ("bare", "GET /bare", "global", "global"),
    ] {
        let answer = ask(gateway.listener(listener), line, "");
        assert_eq!(Asked::of(&answer).header("x-in"), order, "{line} on {listener}");
        assert_eq!(trace(&answer, "x-out"), reversed, "{line} on {listener}");
    }
    // `ip_restriction` stands last and runs first; every response hook runs on its reply all the same.
    let denied = ask(gateway.address(), "GET /denied", "");
    assert_eq!((denied.status, trace(&denied, "x-out").as_str()), (403, "denied listener global"));
    assert_eq!(origin.requests().iter().filter(|request| request.target == "/never").count(), 0);
}
