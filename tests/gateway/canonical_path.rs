//! One path: what routes match is what the upstream gets, and what has no single reading is refused.

use crate::ask::{Asked, ask, echo, upstream};
use crate::harness::Gateway;

#[test]
fn the_upstream_gets_the_canonical_path_and_the_query_as_it_came() {
    let origin = echo();
    let gateway = Gateway::start(&(upstream(&origin) + "routes: [{ name: all, path: /*, upstream: echo }]"));
    for (sent, got) in [
        ("/", "/"),
        ("/a/b/", "/a/b/"),
        ("/%61%7E%2d%5F", "/a~-_"),
        ("/%c3%a9", "/%C3%A9"),
        ("/a%2cb%20c", "/a%2Cb%20c"),
        ("/a/./b", "/a/b"),
        ("/a/b/../c", "/a/c"),
        ("/a/b/..", "/a/"),
        ("/a///b//", "/a/b/"),
        ("//evil.example/x", "/evil.example/x"),
        ("/a;v=1/b,c:d@e!$&'()*+=", "/a;v=1/b,c:d@e!$&'()*+="),
        ("/a%2Eb", "/a.b"),
        ("/a?", "/a?"),
        ("/a?q=/../%2e%2E//&x=%zz", "/a?q=/../%2e%2E//&x=%zz"),
        ("/x/../a?b=c", "/a?b=c"),
        // Browsers send these as they are.
        ("/a|b", "/a%7Cb"),
        ("/a^b?c|d^e", "/a%5Eb?c|d^e"),
        ("/a%7cb", "/a%7Cb"),
        ("/a[0]'", "/a[0]'"),
        ("http://gw.test/a/./b?c", "/a/b?c"),
        ("http://gw.test", "/"),
        ("http://gw.test?q", "/?q"),
    ] {
        let answer = ask(gateway.address(), &format!("GET {sent}"), "");
        assert_eq!(answer.status, 200, "{sent}: {}", answer.text());
        assert_eq!(Asked::of(&answer).target, got, "{sent}");
    }
}

#[test]
fn what_has_no_single_reading_is_refused_before_any_filter_or_upstream() {
    let origin = echo();
    let gateway = Gateway::start(&(upstream(&origin) + "routes: [{ name: all, path: /*, upstream: echo }]"));
    for path in [
        "/%",
        "/%2",
        "/%zz",
        "/%+1",
        "/%%34%31",
        "/%00",
        "/a%0d%0a",
        "/%7F",
        "/%C2%85",
        "/a%5Cb",
        "/a%5c..",
        "/a%2Fb",
        "/a%2f..",
        "/a/%2e%2e/b",
        "/a/.%2E",
        "/%2e.",
        "/a/%2e/b",
        "/a/..;x/b",
        "/a/.;",
        "/a/..%3Bx",
        "/a/%2e%2e;x",
        "/..",
        "/../a",
        "/a/../..",
        "//..",
        "/./..",
        "/%c0%af",
        "/%c0%ae%c0%ae",
        "/%e0%80%af",
        "/%ed%a0%80",
        "/%80",
        "/%C3",
        "/%C3/%A9",
        "/%FF",
        "/a%00/../b",
        "http://gw.test/a/../..",
    ] {
        let answer = ask(gateway.address(), &format!("GET {path}"), "");
        assert_eq!(answer.problem(), (400, "bad_path".to_owned()), "{path}");
    }
    // These bytes belong to no target at all (RFC 3986): the guard of the wire says so first, or the path's own rules.
    for path in [
        "/a\\b", "/a<b", "/a>b", "/a{b", "/a}b", "/a`b", "/a\"b", "/é", "/a b", "/a\u{1}", "/a\u{7f}", "/a#b",
    ] {
        let answer = ask(gateway.address(), &format!("GET {path}"), "");
        assert_eq!(answer.status, 400, "{path}");
        assert!(
            ["bad_path", "bad_target", "fragment_in_target"].contains(&answer.code().as_str()),
            "{path}: {}",
            answer.code()
        );
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn routes_and_filters_see_the_encoded_form_of_what_browsers_send_raw() {
    let origin = echo();
    let routes = r#"
routes:
  - { name: bar, path: "/a|b", respond: { body: bar } }
  - { name: caret, path: /a%5Eb, respond: { body: caret } }
  - { name: moved, path: "/old/{rest*}", redirect: { to: "/new/{rest}" } }
  - { name: stripped, path: "/in|out/*", filters: [rewrite: { strip_prefix: "/in%7Cout" }], upstream: echo }
"#;
    let gateway = Gateway::start(&(upstream(&origin) + routes));
    for (path, body) in
        [("/a|b", "bar"), ("/a%7Cb", "bar"), ("/a%7cb", "bar"), ("/a^b", "caret"), ("/a%5eb", "caret")]
    {
        let answer = ask(gateway.address(), &format!("GET {path}"), "");
        assert_eq!(answer.text(), body, "{path}");
    }
    let moved = ask(gateway.address(), "GET /old/x|y^z", "");
    assert_eq!(moved.header("location"), Some("/new/x%7Cy%5Ez"));
    let stripped = ask(gateway.address(), "GET /in|out/a|b", "");
    assert_eq!(Asked::of(&stripped).target, "/a%7Cb");
    assert_eq!(gateway.logged(|line| line["route"] == "moved")["path"], "/old/x%7Cy%5Ez");
}
