//! `listeners.limits` and `limits.request_body`: a row an option.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::harness::{Client, Gateway, Origin, eventually, to};

fn gateway(origin: &Origin, limits: &str) -> Gateway {
    let listener = format!("listeners: [{{ name: web, address: \"127.0.0.1:0\", limits: {{ {limits} }} }}]");
    Gateway::start(&format!("{}{listener}", to(&[origin], "")))
}

#[test]
fn heads_beyond_a_limit_are_refused_and_heads_at_it_are_served() {
    let with = |field: &str| format!("GET /12345 HTTP/1.1\r\nhost: a\r\n{field}\r\n");
    let head_of_300 = with(&format!("x-a: {}\r\n", "a".repeat(300 - with("x-a: \r\n").len())));
    let rows = [
        (
            "header_bytes: 300B, uri_bytes: 99B",
            "header_bytes: 299B, uri_bytes: 99B",
            head_of_300,
            431,
            "headers_too_large",
        ),
        ("headers: 3", "headers: 2", with("a: 1\r\nb: 2\r\n"), 431, "too_many_headers"),
        ("uri_bytes: 6B", "uri_bytes: 5B", with(""), 414, "uri_too_long"),
    ];
    for (enough, too_little, request, status, code) in rows {
        let origin = Origin::ok();
        assert_eq!(gateway(&origin, enough).ask(&request).status, 200, "{enough}");
        let strict = gateway(&origin, too_little);
        let mut client = strict.client();
        assert_eq!(client.ask(&request).problem(), (status, code.to_owned()), "{too_little}");
        assert!(client.ends());
        let line = strict.log_line(0);
        assert_eq!((&line["status"], &line["reason"]), (&status.into(), &code.into()), "{too_little}");
        let series = format!("portcullis_gateway_replies_total{{route=\"-\",reason=\"{code}\"}}");
        assert_eq!(strict.metric(&series), 1.0, "{series}");
        assert_eq!(origin.requests().len(), 1);
    }
}

/// Bare Pingora has a timeout for each read only: a byte now and then keeps it waiting.
#[test]
fn a_head_that_drips_is_ended_by_one_deadline_where_bare_pingora_waits_on() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "header_timeout: 200ms");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-drip: ");
    let dripped = (0..200).position(|_| {
        let _ = client.stream.send(b"a");
        !client.is_silent(Duration::from_millis(20))
    });
    assert!(dripped.is_some_and(|drips| drips < 100), "{dripped:?}");
    assert_eq!(gateway.log_line(0)["reason"], "header_timeout");
    assert_eq!(gateway.log_line(0)["status"], 408);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_head_in_two_halves_is_served_in_time_and_refused_after() {
    let origin = Origin::ok();
    let leisurely = gateway(&origin, "header_timeout: 10s");
    let mut patient = leisurely.client();
    patient.send("GET / HTTP/1.1\r\nho");
    assert!(patient.is_silent(Duration::from_millis(300)));
    assert_eq!(patient.ask("st: a\r\n\r\n").status, 200);

    let gateway = gateway(&origin, "header_timeout: 100ms");
    let mut client = gateway.client();
    let response = client.ask("GET / HTTP/1.1\r\nho");
    assert_eq!(response.problem(), (408, "header_timeout".into()));
    assert!(client.ends());
    // The second request of a connection has the same deadline.
    let mut client = gateway.client();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nho").problem().1, "header_timeout");
}

/// Bare Pingora waits for ever for the next request of an HTTP/1.1 connection.
#[test]
fn an_idle_connection_is_closed_where_bare_pingora_keeps_it() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "idle_timeout: 100ms");
    let mut unused = gateway.client();
    let mut used = gateway.client();
    assert_eq!(used.get("/").status, 200);
    assert!(used.ends());
    assert!(unused.ends());
    assert_eq!(gateway.log().len(), 1, "an idle connection is no request");
}

#[test]
fn an_idle_connection_stays_for_as_long_as_it_may() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    assert_eq!(client.get("/").status, 200);
    assert!(client.is_silent(Duration::from_millis(300)));
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_connection_serves_so_many_requests() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "requests_per_connection: 3");
    let mut client = gateway.client();
    let closes = [1, 2, 3].map(|_| client.get("/").fields.lists("connection", "close"));
    assert_eq!(closes, [false, false, true]);
    assert!(client.ends());
}

#[test]
fn a_request_pipelined_beyond_the_last_one_is_not_served() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "requests_per_connection: 1");
    let mut client = gateway.client();
    client.send_get("/1").send_get("/2");
    assert!(client.response().fields.lists("connection", "close"));
    assert!(client.ends());
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn connections_beyond_the_limit_are_closed_unread() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "connections: 2");
    let mut first = gateway.client();
    let mut second = gateway.client();
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    assert!(gateway.client().ends());
    let turned_away = "portcullis_gateway_replies_total{route=\"-\",reason=\"too_many_connections\"}";
    assert_eq!(gateway.metric(turned_away), 1.0);
    drop(first);
    eventually("the place is free again", || {
        let mut client = gateway.client();
        let _ = client.stream.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.try_response("GET").is_ok_and(|response| response.status == 200)
    });
    assert_eq!(second.get("/").status, 200);
}

#[test]
fn connections_of_one_address_beyond_the_limit_are_closed_unread() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "connections_per_ip: 1");
    let from = |last| Client::connect_from(Ipv4Addr::new(127, 0, 0, last), gateway.address());
    let mut first = from(2);
    assert_eq!(first.get("/").status, 200);
    assert!(from(2).ends());
    assert_eq!(from(3).get("/").status, 200);
    assert_eq!(first.get("/").status, 200);
    let code = "too_many_connections_from_address";
    assert_eq!(
        gateway.metric(&format!("portcullis_gateway_replies_total{{route=\"-\",reason=\"{code}\"}}")),
        1.0
    );
}

#[test]
fn bodies_beyond_the_limit_are_refused_and_bodies_at_it_are_served() {
    let length = |size: usize| {
        format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n{}", "b".repeat(size))
    };
    let chunked = |size: usize| {
        let chunks = "1\r\nb\r\n".repeat(size);
        format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    };
    let route = |limit: &str, default: &str| {
        let limits = |words: &str| match words {
            "" => String::new(),
            size => format!("limits: {{ request_body: {size} }}"),
        };
        (limits(limit), format!("defaults: {{ {} }}", limits(default)))
    };
    // The route's word, the default, and the route's before the default.
    for (own, default) in [("100B", ""), ("", "100B"), ("100B", "1B")] {
        let origin = Origin::ok();
        let (own, defaults) = route(own, default);
        let gateway = Gateway::start(&format!("{}{defaults}", to(&[&origin], &own)));
        for body in [&length as &dyn Fn(usize) -> String, &chunked] {
            assert_eq!(gateway.ask(body(100)).status, 200, "{own} {defaults}");
            let mut client = gateway.client();
            let response = client.ask(body(101));
            assert_eq!(response.problem(), (413, "body_too_large".into()), "{own} {defaults}");
            if response.fields.lists("connection", "close") {
                assert!(client.ends());
            } else {
                assert_eq!(client.ask(body(1)).status, 200);
            }
        }
        assert!(origin.requests().iter().all(|request| request.content().len() <= 100));
        assert_eq!(gateway.logged(|line| line["status"] == 413)["reason"], "body_too_large");
    }
}

#[test]
fn a_body_that_grows_beyond_the_limit_is_refused_while_it_is_sent() {
    let origin = Origin::ok();
    let gateway = Gateway::before_with(&origin, "limits: { request_body: 1KiB }");
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("100\r\n{}\r\n", "b".repeat(0x100));
    client.send(chunk.repeat(4));
    assert!(client.is_silent(Duration::from_millis(50)));
    client.send(chunk);
    assert_eq!(client.response().problem(), (413, "body_too_large".into()));
    assert!(client.ends());
    assert!(origin.requests().is_empty());
    eventually("the connection to the origin ends", || origin.open() == 0);
}
