//! What the upstream hears of the client: whom the gateway believes, and what it says itself.

use crate::ask::{Ask, Asked, ask, echo, upstream};
use crate::harness::{Gateway, Origin};

/// Requests from 127.0.0.9 come from a trusted proxy, all others from strangers.
fn gateway(origin: &Origin) -> Gateway {
    Gateway::start(&format!(
        "{}server: {{ threads: 1, trusted_proxies: [127.0.0.9/32, 10.0.0.0/8, \"2001:db8::/32\"] }}\n\
         routes: [{{ name: all, path: /*, upstream: echo }}]",
        upstream(origin)
    ))
}

/// Asks and compares what the upstream heard, header by header; `-` is none.
#[track_caller]
fn assert_heard(answer: &crate::harness::Response, expected: &[(&str, &str)]) {
    let asked = Asked::of(answer);
    for (name, value) in expected {
        assert_eq!(asked.header(name), *value, "{name} in {asked:?}");
    }
}

#[test]
fn a_stranger_is_not_believed() {
    let origin = echo();
    let gateway = gateway(&origin);
    let port = gateway.address().port().to_string();
    let heard = [
        ("host", "gw.test"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "gw.test"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-port", port.as_str()),
        ("x-real-ip", "-"),
        ("forwarded", "-"),
    ];
    assert_heard(&ask(gateway.address(), "GET /", ""), &heard);
    let lies = "x-forwarded-for: 1.2.3.4\nx-forwarded-for: 5.6.7.8\nx-forwarded-host: evil.test\n\
                x-forwarded-proto: https\nx-forwarded-port: 443\nx-real-ip: 1.2.3.4\n\
                forwarded: for=1.2.3.4;proto=https;host=evil.test\nForwarded: for=5.6.7.8";
    assert_heard(&ask(gateway.address(), "GET /", lies), &heard);
    gateway.logged(|line| line["client_ip"] == "127.0.0.1");
    let other = Ask::new("GET /").header(lies).from("127.0.0.2").send(gateway.address());
    assert_heard(&other, &[("x-forwarded-for", "127.0.0.2"), ("x-forwarded-host", "gw.test")]);
}

#[test]
fn other_spellings_of_our_headers_never_pass() {
    let origin = echo();
    let gateway = gateway(&origin);
    for from in ["127.0.0.1", "127.0.0.9"] {
        for name in [
            "x_forwarded_for",
            "X_Forwarded_For",
            "x-forwarded_for",
            "x_forwarded-host",
            "x_forwarded_proto",
            "x_forwarded_port",
            "x_real_ip",
            "x-real_ip",
            "x_request_id",
        ] {
            let answer = Ask::new("GET /").header(&format!("{name}: lie")).from(from).send(gateway.address());
            assert_eq!(Asked::of(&answer).header(name), "-", "{name} from {from}");
        }
        // Nobody else's underscores are touched.
        let answer = Ask::new("GET /").header("x_other_name: kept").from(from).send(gateway.address());
        assert_eq!(Asked::of(&answer).header("x_other_name"), "kept");
    }
}

#[test]
fn a_trusted_proxy_is_believed() {
    let origin = echo();
    let gateway = gateway(&origin);
    let port = gateway.address().port().to_string();
    for (sent, heard, client) in [
        ("", vec![("x-forwarded-for", "127.0.0.9"), ("x-forwarded-proto", "http")], "127.0.0.9"),
        ("x-forwarded-for: 1.2.3.4", vec![("x-forwarded-for", "1.2.3.4, 127.0.0.9")], "1.2.3.4"),
        (
            "x-forwarded-for: 6.6.6.6, 1.2.3.4\nx-forwarded-for: 10.1.1.1",
            vec![("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.1.1.1, 127.0.0.9")],
            "1.2.3.4",
        ),
        ("x-forwarded-for: 1.2.3.4, unknown, 10.1.1.1", vec![], "10.1.1.1"),
        ("x-forwarded-for: [2001:4860::1]:4711", vec![], "2001:4860::1"),
        ("x-forwarded-for: ::ffff:1.2.3.4", vec![], "1.2.3.4"),
        (
            "x-forwarded-proto: https",
            vec![("x-forwarded-proto", "https"), ("x-forwarded-port", "443")],
            "127.0.0.9",
        ),
        (
            "x-forwarded-proto: http, https\nx-forwarded-port: 8443",
            vec![("x-forwarded-proto", "https"), ("x-forwarded-port", "8443")],
            "127.0.0.9",
        ),
        (
            "x-forwarded-host: public.test",
            vec![
                ("x-forwarded-host", "public.test"),
                ("host", "gw.test"),
                ("x-forwarded-port", port.as_str()),
            ],
            "127.0.0.9",
        ),
        ("x-real-ip: 1.2.3.4", vec![("x-real-ip", "1.2.3.4")], "127.0.0.9"),
        (
            "forwarded: for=6.6.6.6, for=\"[2001:4860::1]:4711\";proto=https, for=\"[2001:db8::7]\"",
            vec![
                (
                    "forwarded",
                    "for=6.6.6.6, for=\"[2001:4860::1]:4711\";proto=https, for=\"[2001:db8::7]\", for=127.0.0.9;proto=https",
                ),
                ("x-forwarded-proto", "https"),
            ],
            "2001:4860::1",
        ),
        ("forwarded: for=1.2.3.4\nx-forwarded-for: 9.9.9.9", vec![("forwarded", "-")], "9.9.9.9"),
        ("forwarded: for=_hidden", vec![], "127.0.0.9"),
    ] {
        let mark = format!("/{:x}", sent.len() * 31 + sent.bytes().map(usize::from).sum::<usize>());
        let answer = Ask::new(&format!("GET {mark}")).header(sent).from("127.0.0.9").send(gateway.address());
        assert_heard(&answer, &heard);
        assert_eq!(gateway.log_of(&mark)["client_ip"], client, "{sent}");
    }
}

#[test]
fn who_is_trusted_changes_with_a_reload() {
    let origin = echo();
    let words = |trusted: &str| {
        format!(
            "{}server: {{ threads: 1, trusted_proxies: [{trusted}] }}\nroutes: [{{ name: all, path: /*, upstream: echo }}]",
            upstream(&origin)
        )
    };
    let gateway = Gateway::start_file(&words(""));
    let heard =
        || Asked::of(&ask(gateway.address(), "GET /", "x-forwarded-for: 1.2.3.4")).header("x-forwarded-for");
    assert_eq!(heard(), "127.0.0.1");
    gateway.rewrite(&words("127.0.0.0/8"));
    gateway.reload().unwrap();
    assert_eq!(heard(), "1.2.3.4, 127.0.0.1");
}

#[test]
fn an_ipv4_client_of_an_ipv6_listener_goes_by_its_ipv4_address() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}listeners: [{{ name: web, address: \"[::]:0\" }}]\n\
         server: {{ threads: 1, trusted_proxies: [127.0.0.9/32] }}\nroutes: [{{ name: all, path: /*, upstream: echo }}]",
        upstream(&origin)
    ));
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], gateway.address().port()));
    assert_heard(&ask(to, "GET /a", "x-forwarded-for: 1.2.3.4"), &[("x-forwarded-for", "127.0.0.1")]);
    assert_eq!(gateway.log_of("/a")["client_ip"], "127.0.0.1");
    let proxied = Ask::new("GET /b").header("x-forwarded-for: 1.2.3.4").from("127.0.0.9").send(to);
    assert_heard(&proxied, &[("x-forwarded-for", "1.2.3.4, 127.0.0.9")]);
}

#[test]
fn the_upstream_hears_the_clients_host() {
    let origin = echo();
    let gateway = gateway(&origin);
    for (line, sent, host) in [
        ("GET /", "host: Api.Test:8443", "Api.Test:8443"),
        ("GET /", "host: [2001:db8::1]:80", "[2001:db8::1]:80"),
        ("GET http://api.test/", "host: api.test", "api.test"),
    ] {
        assert_heard(&ask(gateway.address(), line, sent), &[("host", host), ("x-forwarded-host", host)]);
    }
}

#[test]
fn an_http10_client_need_not_name_a_host() {
    let origin = echo();
    let gateway = gateway(&origin);
    for (head, host) in [
        ("GET /a HTTP/1.0\r\nhost: gw.test\r\n\r\n", "gw.test"),
        ("GET http://gw.test/b HTTP/1.0\r\n\r\n", "gw.test"),
        // HTTP/1.1 wants the field even where there is nothing to say (RFC 9112, section 3.2).
        ("GET /c HTTP/1.0\r\n\r\n", ""),
    ] {
        let answer = gateway.ask(head);
        assert_eq!(answer.status, 200, "{head:?}: {}", answer.text());
        assert_eq!(Asked::of(&answer).header("host"), host, "{head:?}");
    }
}

#[test]
fn every_request_has_an_id() {
    let origin = echo();
    let gateway = gateway(&origin);
    let heard = |answer| Asked::of(&answer).header("x-request-id");
    let own = ask(gateway.address(), "GET /own", "");
    let id = heard(own.clone());
    assert_eq!(id.len(), 32);
    assert_eq!(gateway.log_of("/own")["request_id"], id);
    assert_eq!(own.header("x-request-id"), None, "shown only where the filter `request_id` runs");

    let stranger = heard(ask(gateway.address(), "GET /", "x-request-id: mine"));
    assert_eq!(stranger.len(), 32, "{stranger}");
    let proxied =
        |value: &str| heard(Ask::new("GET /").header(value).from("127.0.0.9").send(gateway.address()));
    assert_eq!(proxied("x-request-id: theirs-1"), "theirs-1");
    for unfit in [
        "x-request-id: a b".to_owned(),
        "x-request-id: a\"b".to_owned(),
        format!("x-request-id: {}", "x".repeat(129)),
    ] {
        assert_eq!(proxied(&unfit).len(), 32, "{unfit}");
    }
}
