//! Places where two readers of HTTP, or this gateway and its engine, could disagree.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis::{Chunk, Exchange, Filter, Flow, Phases, Stage};

use crate::harness::{Gateway, Origin, Then, eventually, to};

/// Pingora compares an absolute target with Host byte by byte; they may differ in case and by the default port.
#[test]
fn an_absolute_target_and_its_host_may_be_spelt_differently() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    for (target, host) in [
        ("http://a.test/x", "a.test"),
        ("http://A.test/x", "a.test"),
        ("http://a.test/x", "A.TEST"),
        ("http://a.test:80/x", "a.test"),
        ("http://a.test/x", "a.test:80"),
        ("HTTP://a.test/x", "a.test"),
        ("http://a.test:8080/x", "a.test:8080"),
    ] {
        let mut client = gateway.client();
        let response = client.ask(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(response.status, 200, "{target} {host}: {}", response.text());
        let got = origin.last();
        assert_eq!(got.target, "/x", "{target} {host}");
        assert!(
            got.header("host").unwrap().eq_ignore_ascii_case(host),
            "{target} {host}: {:?}",
            got.header("host")
        );
        assert_eq!(client.get("/y").status, 200);
    }
}

/// Bare Pingora drops the connection of a request with ten options without a word.
#[test]
fn ten_connection_options_are_told_where_bare_pingora_hangs_up() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    for count in [1, 9, 10] {
        let refused = count == 10;
        let options: Vec<String> = (0..count).map(|number| format!("x-{number}")).collect();
        let fields: String = options.iter().map(|name| format!("{name}: 1\r\n")).collect();
        let request =
            format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: {}\r\n{fields}\r\n", options.join(", "));
        let response = gateway.ask(request);
        if refused {
            assert_eq!(response.problem(), (400, "too_many_connection_options".into()));
            continue;
        }
        assert_eq!(response.status, 200, "{count} options");
        assert!(origin.last().fields.0.iter().all(|(name, _)| !options.contains(name)), "{count}");
    }
}

/// HTTP/1.0 has no expectations (RFC 9110, section 10.1.1): an origin that answered one would leave a client waiting
/// or out of step.
#[test]
fn an_expectation_on_http10_is_not_forwarded() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let response =
        gateway.ask("POST / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc");
    assert_eq!(response.status, 200);
    assert_eq!(origin.last().fields.all("expect"), Vec::<&str>::new());
}

#[test]
fn an_upgrade_that_is_none_is_not_forwarded() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    for head in [
        "GET / HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\nupgrade: websocket\r\n",
        // A tunnel of HTTP/2 would carry requests that nobody here sees.
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket, h2c\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\nupgrade: websocket\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: HTTP/2.0\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: H2C\r\ncontent-length: 0\r\n",
    ] {
        assert_eq!(gateway.ask(format!("{head}\r\n")).status, 200, "{head}");
        let got = origin.last();
        assert_eq!(got.fields.all("upgrade"), Vec::<&str>::new(), "{head}");
        assert_eq!(got.fields.all("connection"), Vec::<&str>::new(), "{head}");
        assert_eq!(got.fields.all("http2-settings"), Vec::<&str>::new(), "{head}");
    }
}

#[test]
fn one_empty_line_before_a_request_is_not_passed_on() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.ask("\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
        assert_eq!(client.ask("\r\nPOST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").status, 200);
        assert_eq!(origin.last().content(), b"abc");
    }
    assert!(origin.bytes().iter().all(|bytes| !bytes.starts_with(b"\r\n")));
}

/// Bare Pingora tears a tunnel down when the 101 comes before the request was seen to end.
#[test]
fn a_fast_101_opens_a_tunnel_where_bare_pingora_tears_it_down() {
    for round in 0..20 {
        let origin = Origin::on_head(|visit| {
            visit.send(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst",
            );
            while let Ok(bytes) = visit.stream.some()
                && !bytes.is_empty()
            {
                visit.send(bytes);
            }
            Then::Close
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        client.send(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        );
        let head = client.head();
        assert_eq!(head.status, 101);
        assert!(head.fields.lists("upgrade", "websocket") && head.fields.lists("connection", "upgrade"));
        assert_eq!(client.read(5), b"first");
        // What would break the rules of HTTP is nobody's concern in a tunnel.
        for word in ["ping\n", "\0\r\n\r\n", "GET /"] {
            client.send(word);
            assert_eq!(client.read(word.len()), word.as_bytes(), "round {round}");
        }
        drop(client);
        assert_eq!(gateway.log_of("/")["status"], 101);
    }
}

#[test]
fn an_upgrade_that_the_origin_ignores_is_an_ordinary_request() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(client.ask(upgrade).text(), "ok");
    assert_eq!(client.get("/after").status, 200);
    assert_eq!(origin.requests().len(), 2);
}

/// A request that comes right after an upgrade must not pass the guard unseen before the origin has agreed.
#[test]
fn a_101_that_nobody_asked_for_opens_no_tunnel() {
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        visit.wait_for_close();
        Then::Close
    });
    let gateway = Gateway::before_with(&origin, "timeouts: { request: 2s }");
    let mut client = gateway.client();
    client.send_get("/");
    let response = client.response();
    assert_eq!(response.status, 502, "{response:?}");
}

/// Takes away every other piece of a body, and counts the pieces.
struct Thinning(Arc<AtomicUsize>);

impl Filter for Thinning {
    type State = ();

    fn phases(&self) -> Phases {
        Phases::REQUEST_BODY
    }

    fn request_body(
        &self,
        (): &mut (),
        _: &mut Exchange<'_>,
        chunk: &mut Chunk<'_>,
    ) -> portcullis::Result<Flow> {
        let is_piece = chunk.data.as_ref().is_some_and(|data| !data.is_empty());
        if is_piece && self.0.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            *chunk.data = None;
        }
        Ok(Flow::Continue)
    }
}

/// Bare Pingora takes a body piece that a filter emptied for the end of the body.
#[test]
fn an_emptied_piece_is_not_the_end_of_the_body_where_bare_pingora_takes_it_for_one() {
    let origin = Origin::ok();
    let seen = Arc::new(AtomicUsize::new(0));
    let gateway = Gateway::start_with(&to(&[&origin], ""), |gateway| {
        gateway.filter("thinning", Stage::Transform, Thinning(Arc::clone(&seen)))
    });
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    for (count, piece) in ["a", "b", "c", "d"].into_iter().enumerate() {
        client.send(format!("1\r\n{piece}\r\n"));
        eventually("the filter sees the piece", || seen.load(Ordering::SeqCst) > count);
    }
    assert_eq!(client.ask("0\r\n\r\n").status, 200);
    assert_eq!(origin.last().content(), b"bd");
    assert_eq!(client.get("/after").status, 200, "in step");
}

/// Bare Pingora resolves names while it serves, blocking, and panics when it cannot.
#[test]
fn a_name_is_no_endpoint_where_bare_pingora_resolves_it_blocking() {
    let gateway = portcullis::Gateway::from_yaml(
        "listeners: [{ name: web, address: \"127.0.0.1:0\" }]\n\
         upstreams: { origin: { endpoints: [\"localhost:80\"] } }\n\
         routes: [{ name: all, path: /*, upstream: origin }]",
    );
    let error = gateway.start().err().expect("a refusal").to_string();
    assert!(error.contains("endpoints"), "{error}");
}
