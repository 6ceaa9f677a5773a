//! What an upstream is spared: the gateway refuses by itself, and the client keeps its connection.

use crate::harness::{Client, Gateway, Http2, Nobody, Origin, Response, Then};

const QUEUE: &str = "limits: { max_requests: 1, max_queue: 1, queue_timeout: 30s }";

/// An upstream that refuses requests at once or soon, and what it takes to come to that.
struct Refusing {
    gateway: Gateway,
    _origin: Origin,
    _kept: Vec<Client>,
}

/// Waits until a request holds its place.
fn keep(gateway: &Gateway, field: &str) -> Client {
    let mut client = gateway.client();
    client.send_get("/held");
    crate::harness::eventually("it is kept", || {
        gateway.admin_get("/upstreams").json()[0]["endpoints"][0][field] == 1
    });
    client
}

/// An upstream with these words. Its origin never answers on `/held`, and fails on all else.
fn refusing(words: &str) -> Refusing {
    let origin = Origin::start(|visit| {
        if visit.request.target == "/held" {
            visit.wait_for_close();
            return Then::Close;
        }
        visit.answer("HTTP/1.1 500 Error\r\ncontent-length: 0\r\n\r\n")
    });
    let address = origin.address();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{address}\"], {words} }} }}\n\
         routes:\n\
         - {{ name: here, path: /here, respond: {{ status: 200, body: here }} }}\n\
         - {{ name: short, path: /short, upstream: origin, timeouts: {{ request: 100ms }} }}\n\
         - {{ name: all, path: /*, upstream: origin, retry: {{ max_retries: 0 }} }}\n"
    ));
    Refusing { gateway, _origin: origin, _kept: Vec::new() }
}

/// Each reason that an upstream is not asked for, and a path that comes to it.
fn rows() -> Vec<(&'static str, &'static str, Refusing)> {
    let open = refusing("breaker: { consecutive_failures: 1, open_for: 1h }");
    let ill = refusing("health: { passive: { consecutive_errors: 1, max_ejected: 100%, eject_for: 1h } }");
    for upstream in [&open, &ill] {
        assert_eq!(upstream.gateway.get("/x").status, 500);
    }
    let mut full = refusing(QUEUE);
    full._kept = ["active", "waiting"].map(|field| keep(&full.gateway, field)).into();
    let mut late = refusing("limits: { max_requests: 1, queue_timeout: 50ms }");
    late._kept = vec![keep(&late.gateway, "active")];
    let mut short = refusing(QUEUE);
    short._kept = vec![keep(&short.gateway, "active")];
    vec![
        ("circuit_open", "/x", open),
        ("no_healthy_upstream", "/x", ill),
        ("upstream_queue_full", "/x", full),
        ("upstream_queue_timeout", "/x", late),
        ("request_timeout", "/short", short),
    ]
}

fn is_kept(response: &Response) -> bool {
    !response.fields.lists("connection", "close")
}

#[test]
fn a_client_that_is_refused_keeps_its_connection() {
    for (reason, path, Refusing { gateway, .. }) in &rows() {
        let mut client = gateway.client();
        let post = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
        for round in 0..2 {
            let get = client.get(path);
            assert_eq!(get.code(), *reason);
            assert!(is_kept(&get), "{reason}");
            let post = client.ask(&post);
            assert_eq!(post.code(), *reason, "{round}");
            assert!(is_kept(&post), "{reason}: what was sent is read");
            assert_eq!(client.get("/here").text(), "here");
        }
        let line = gateway.log_of(path);
        if path == &"/short" {
            assert_eq!((&line["reason"], &line["tries"]), (&(*reason).into(), &0.into()));
        }
        let count = gateway.metric(&format!(
            "portcullis_gateway_replies_total{{route=\"{}\",reason=\"{reason}\"}}",
            if path == &"/short" { "short" } else { "all" }
        ));
        assert_eq!(count, 4.0, "{reason}");
    }
}

#[test]
fn a_refused_client_that_has_not_sent_its_body_is_closed() {
    for (reason, path, Refusing { gateway, .. }) in &rows() {
        if *reason == "request_timeout" {
            // That clock runs from the end of the body on.
            continue;
        }
        let mut client = gateway.client();
        client.send(format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbo"));
        let refused = client.response();
        assert_eq!(refused.code(), *reason);
        assert!(!is_kept(&refused), "{reason}");
        assert!(client.ends());
    }
}

#[test]
fn over_http_2_and_for_calls_it_is_told_as_ever() {
    for (reason, path, Refusing { gateway, .. }) in &rows() {
        let mut client = Http2::connect(gateway.address());
        assert_eq!(client.get(path).problem().1, *reason);
        let call =
            client.request("POST", path).header("content-type", "application/grpc").header("te", "trailers");
        let answer = client.send(call, b"\0\0\0\0\0");
        let trailers = answer.trailers.as_ref().unwrap_or(&answer.fields);
        let status = if *reason == "request_timeout" { "4" } else { "14" };
        assert_eq!(
            (answer.status.as_u16(), trailers["grpc-status"].to_str().unwrap()),
            (200, status),
            "{reason}"
        );
        assert_eq!(client.get("/here").status.as_u16(), 200);
    }
}

/// Where an endpoint was asked, some of the request may be on its way: the connection ends.
#[test]
fn what_fails_later_ends_the_connection() {
    let nobody = Nobody::new();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"], limits: {{ max_requests: 1, queue_timeout: 30s }} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin, retry: {{ max_retries: 0 }} }}]\n",
        nobody.address()
    ));
    for _ in 0..3 {
        let mut client = gateway.client();
        assert_eq!(client.get("/").code(), "upstream_connect_failed");
        assert!(client.ends());
    }
    assert_eq!(gateway.admin_get("/upstreams").json()[0]["endpoints"][0]["active"], 0);
}
