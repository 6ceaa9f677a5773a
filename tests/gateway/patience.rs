//! Who is waited for, and who is not to blame for it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use portcullis::{Exchange, Filter, Flow, Phases, Result, Route, Stage};

use crate::ask::{Ask, Asked, ask, echo, upstream};
use crate::harness::{Client, Gateway, Origin, Then, to};

#[test]
fn a_client_that_pauses_in_its_upload_is_not_the_upstreams_fault() {
    let origin = Origin::ok();
    let gateway = Gateway::start(&to(&[&origin], "timeouts: { read: 100ms }"));
    let mut client = gateway.client();
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nhalf");
    assert!(client.is_silent(Duration::from_millis(400)));
    assert_eq!(client.send("half").response().status, 200);
    let failures = gateway.admin_get("/upstreams").json()[0]["endpoints"][0]["failures"].clone();
    assert_eq!(failures, 0);
}

#[test]
fn an_upstream_is_given_up_after_a_whole_request_with_a_body() {
    let origin = Origin::start(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let gateway = Gateway::start(&to(&[&origin], "timeouts: { read: 100ms }"));
    let answer = gateway.ask("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!(answer.problem(), (504, "upstream_read_timeout".into()));
}

#[test]
fn a_tunnel_outlives_the_read_timeout() {
    let origin = Origin::raw(|_, stream| {
        let _ = stream.request_head();
        let _ = stream
            .send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        let Ok(said) = stream.exactly(4) else { return Then::Close };
        let _ = stream.send(&said);
        Then::Close
    });
    let gateway = Gateway::start(&to(&[&origin], "timeouts: { read: 100ms }"));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_eq!(client.head().status, 101);
    assert!(client.is_silent(Duration::from_millis(400)));
    assert_eq!(client.send("ping").read(4), b"ping");
}

#[test]
fn the_whole_exchange_is_bounded_even_while_bytes_flow() {
    let origin = Origin::on_head(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while visit.send("4\r\nmore\r\n") {}
        Then::Close
    });
    let gateway = Gateway::start(&to(&[&origin], "timeouts: { total: 300ms }"));
    let started = Instant::now();
    let mut client = gateway.client();
    client.send_get("/").rest();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(gateway.log_of("/")["reason"], "total_timeout");
}

struct Hung;

impl Filter for Hung {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST_WAIT
    }

    async fn request_wait(&self, (): &mut (), _: &mut Exchange<'_>) -> Result<Flow> {
        std::future::pending().await
    }
}

#[test]
fn a_filter_that_waits_for_ever_ends_with_the_requests_time() {
    let origin = Origin::ok();
    let gateway = Gateway::start_with(&upstream(&origin), |gateway| {
        let mut route = Route::new("all", "/*").upstream("echo").filter("hung", Stage::Authenticate, Hung);
        route.config_mut().timeouts.request = Some(portcullis::types::Duration::from_millis(100));
        gateway.route(route)
    });
    assert_eq!(gateway.get("/").problem(), (504, "request_timeout".into()));
}

#[test]
fn a_body_that_is_sent_twice_is_counted_once() {
    let origin = Origin::raw(|_, stream| {
        let Ok(Some(first)) = stream.request_head() else { return Then::Close };
        let _ = stream.request_body(&first.fields);
        let _ = stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let _ = stream.request_head();
        Then::Reset
    });
    let gateway = Gateway::start(&to(&[&origin], "limits: { request_body: 6B }"));
    let mut client = gateway.client();
    for _ in 0..4 {
        assert_eq!(client.ask("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").status, 200);
    }
}

#[test]
fn a_trusted_proxy_may_have_more_connections_than_a_client() {
    let gateway = Gateway::start(
        "server: { threads: 1, trusted_proxies: [127.0.0.9/32] }\n\
         listeners: [{ name: web, address: \"127.0.0.1:0\", limits: { connections_per_ip: 1 } }]\n\
         routes: [{ name: a, path: /*, respond: { body: a } }]",
    );
    let from = |last| Client::connect_from(Ipv4Addr::new(127, 0, 0, last), gateway.address());
    let mut open = [from(9), from(9), from(9)];
    assert!(open.iter_mut().all(|client| client.get("/").status == 200));
    let mut stranger = from(2);
    assert_eq!(stranger.get("/").status, 200);
    assert!(from(2).ends());
}

#[test]
fn what_proxies_say_is_believed_of_proxies_alone() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}server: {{ threads: 1, trusted_proxies: [127.0.0.9/32] }}\n\
         routes: [{{ name: all, path: /*, upstream: echo }}]",
        upstream(&origin)
    ));
    let words = "x-forwarded-prefix: /admin\nx_forwarded_ssl: on\nx-forwarded-user: root\n\
                 forwarded: for=10.9.9.9\nx-forwarded-for: 1.2.3.4";
    let stranger = Asked::of(&ask(gateway.address(), "GET /", words));
    let proxy = Asked::of(&Ask::new("GET /").header(words).from("127.0.0.9").send(gateway.address()));
    for name in ["x-forwarded-prefix", "x_forwarded_ssl", "x-forwarded-user", "forwarded"] {
        assert_eq!(stranger.header(name), "-", "{name}");
    }
    assert_eq!(proxy.header("x-forwarded-prefix"), "/admin");
    assert_eq!(proxy.header("x-forwarded-for"), "1.2.3.4, 127.0.0.9");
    assert_eq!(proxy.header("forwarded"), "-", "nobody read it");
}

#[test]
fn several_connection_options_close_if_any_says_so() {
    let gateway = Gateway::start("routes: [{ name: a, path: /*, respond: { body: a } }]");
    let mut client = gateway.client();
    let answer = client.ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: x-other\r\nconnection: close\r\n\r\n");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.ends());
}

#[test]
fn a_checked_text_learns_nothing_of_the_machine() {
    let gateway = Gateway::start("routes: [{ name: a, path: /*, respond: { body: a } }]");
    let check = |text: &str| gateway.admin_ask("POST", "/config/check", text);
    let home = std::env::var("HOME").unwrap();
    let shown = check("listeners: [{ name: \"${HOME} \", address: \"127.0.0.1:1\" }]");
    assert_eq!(shown.status, 422);
    assert!(!shown.text().contains(&home), "{}", shown.text());
    let included = check("include: [/etc/passwd]\nlisteners: [{ name: a, address: \"127.0.0.1:1\" }]");
    assert_eq!(included.status, 422);
    assert!(
        included.text().contains("out of reach") && !included.text().contains("root"),
        "{}",
        included.text()
    );
    let token = check(
        "listeners: [{ name: a, address: \"127.0.0.1:1\" }]\n\
         admin: { address: \"127.0.0.1:2\", token: { file: /dev/zero } }",
    );
    assert!(token.text().contains("not a small file"), "{}", token.text());
}
