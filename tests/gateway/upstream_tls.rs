//! TLS with upstreams: who is believed, who we are, what is spoken inside.

use super::websocket::{SWITCH, UPGRADE};
use crate::harness::tls::{Authority, Files, Order, replace};
use crate::harness::{Gateway, Origin, Then, eventually, to};

/// An upstream that speaks TLS: a gateway before an origin.
fn secure(origin: &Origin, files: &Files, words: &str) -> Gateway {
    Gateway::start(&format!(
        "{}listeners: [{{ name: web, address: \"127.0.0.1:0\", tls: {{ certificates: [{}] }}{words} }}]\n",
        to(&[origin], ""),
        files.words()
    ))
}

/// What sends everything to it.
fn before(upstream: &Gateway, words: &str) -> String {
    format!(
        "upstreams: {{ next: {{ endpoints: [\"{}\"], {words} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: next }}]\n",
        upstream.address()
    )
}

#[test]
fn a_server_must_prove_who_it_is() {
    let (pki, other) = (Authority::new(), Authority::new());
    let origin = Origin::ok();
    let named = secure(&origin, &pki.issue("a", &["a.test"]), "");
    let by_address = secure(&origin, &pki.issue("b", &["b.test", "127.0.0.1"]), "");
    let (ca, wrong) = (pki.ca().display().to_string(), other.ca().display().to_string());
    for (upstream, words, status) in [
        (&named, format!("sni: a.test, ca: {ca}"), 200),
        (&named, format!("sni: b.test, ca: {ca}"), 502),
        (&named, format!("sni: a.test, ca: {wrong}"), 502),
        (&named, "sni: a.test".to_owned(), 502),
        (&named, format!("ca: {ca}"), 502),
        (&by_address, format!("ca: {ca}"), 200),
        (&by_address, format!("ca: {wrong}"), 502),
        (&named, "verify: false".to_owned(), 200),
        (&named, "sni: b.test, verify: false".to_owned(), 200),
    ] {
        let gateway = Gateway::start(&before(upstream, &format!("tls: {{ {words} }}")));
        let answer = gateway.get("/");
        assert_eq!(answer.status, status, "{words}");
        if status == 502 {
            assert_eq!(answer.code(), "upstream_tls_failed", "{words}");
            assert_eq!(gateway.log_of("/")["reason"], "upstream_tls_failed");
        }
    }
    let line = named.logged(|line| line["tls_sni"] == "a.test");
    assert_eq!(line["tls_version"], "TLSv1.3");
    assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));
}

#[test]
fn a_server_that_speaks_no_tls_is_no_server() {
    let origin = Origin::ok();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ next: {{ endpoints: [\"{}\"], tls: {{ verify: false }} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: next }}]\n",
        origin.address()
    ));
    let answer = gateway.get("/");
    assert_eq!(answer.status, 502);
    // A greeting of TLS is no request.
    origin.take_breaches();
    assert!(origin.requests().is_empty());
}

#[test]
fn a_server_may_ask_who_we_are() {
    let pki = Authority::new();
    let origin = Origin::ok();
    let ca = pki.ca().display().to_string();
    let words = format!(", client_auth: {{ ca: {ca}, mode: require }}");
    let files = pki.issue("a", &["a.test"]);
    let upstream = Gateway::start(&format!(
        "{}listeners: [{{ name: web, address: \"127.0.0.1:0\", tls: {{ certificates: [{}]{words} }} }}]\n",
        to(&[&origin], ""),
        files.words()
    ));
    let nobody = Gateway::start(&before(&upstream, &format!("tls: {{ sni: a.test, ca: {ca} }}")));
    assert_eq!(nobody.get("/").status, 502);
    assert!(origin.requests().is_empty());
    let own = pki.issue_as("own", &Order { name: "edge one", ..Order::default() });
    let words = format!("tls: {{ sni: a.test, ca: {ca}, client_cert: {} }}", own.words());
    let known = Gateway::start(&before(&upstream, &words));
    assert_eq!(known.get("/").status, 200);
    let line = upstream.logged(|line| line["status"] == 200);
    assert!(line["tls_client_subject"].as_str().unwrap().contains("edge one"), "{line}");
}

#[test]
fn what_is_spoken_inside_is_as_configured() {
    let pki = Authority::new();
    let origin = Origin::ok();
    let files = pki.issue("a", &["a.test"]);
    let both = secure(&origin, &files, "");
    let old = secure(&origin, &files, ", protocols: [http1]");
    for (upstream, protocol, spoken) in [
        (&both, "http1", "HTTP/1.1"),
        (&both, "http2", "HTTP/2.0"),
        (&both, "auto", "HTTP/2.0"),
        (&old, "auto", "HTTP/1.1"),
    ] {
        let words = format!("protocol: {protocol}, tls: {{ sni: a.test, ca: {} }}", pki.ca().display());
        let gateway = Gateway::start(&before(upstream, &words));
        let path = format!("/{protocol}");
        for _ in 0..3 {
            assert_eq!(gateway.get(&path).status, 200, "{protocol}");
        }
        assert_eq!(upstream.log_of(&path)["protocol"], spoken, "{protocol}");
        let connections = upstream.metric("portcullis_connections_active{listener=\"web\"}");
        assert!(connections >= 1.0, "connections are kept");
        drop(gateway);
        eventually("they are let go", || {
            upstream.metric("portcullis_connections_active{listener=\"web\"}") == 0.0
        });
    }
    // A WebSocket begins in HTTP/1.1, whatever else is spoken.
    let words = format!("protocol: http2, tls: {{ sni: a.test, ca: {} }}", pki.ca().display());
    let gateway = Gateway::start(&before(&both, &words));
    let upgrade = "GET /socket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(gateway.ask(upgrade).status, 200);
    assert_eq!(both.log_of("/socket")["protocol"], "HTTP/1.1");
}

#[test]
fn connections_of_one_policy_are_not_used_under_another() {
    let (pki, other) = (Authority::new(), Authority::new());
    let origin = Origin::ok();
    let upstream = secure(&origin, &pki.issue("a", &["a.test"]), "");
    let address = upstream.address();
    let gateway = Gateway::start(&format!(
        "upstreams:\n  good: {{ endpoints: [\"{address}\"], tls: {{ sni: a.test, ca: {} }} }}\n\
         \x20 bad: {{ endpoints: [\"{address}\"], tls: {{ sni: a.test, ca: {} }} }}\n\
         routes:\n  - {{ name: good, path: /good, upstream: good }}\n  - {{ name: bad, path: /bad, upstream: bad }}\n",
        pki.ca().display(),
        other.ca().display()
    ));
    for _ in 0..3 {
        assert_eq!(gateway.get("/good").status, 200);
        assert_eq!(gateway.get("/bad").code(), "upstream_tls_failed");
    }
}

#[test]
fn authorities_are_watched() {
    let (pki, other) = (Authority::new(), Authority::new());
    let origin = Origin::ok();
    let upstream = secure(&origin, &pki.issue("a", &["a.test"]), "");
    let ca = other.path("watched.pem");
    replace(&ca, &std::fs::read_to_string(other.ca()).unwrap());
    let gateway =
        Gateway::start_file(&before(&upstream, &format!("tls: {{ sni: a.test, ca: {} }}", ca.display())));
    assert_eq!(gateway.get("/").code(), "upstream_tls_failed");
    replace(&ca, &std::fs::read_to_string(pki.ca()).unwrap());
    eventually("the other authority is believed", || gateway.get("/").status == 200);
    // A file that cannot be used changes nothing.
    replace(&ca, "none\n");
    assert!(gateway.reload().unwrap_err().contains("upstreams.next.tls.ca"));
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_websocket_goes_over_tls() {
    let pki = Authority::new();
    let origin = Origin::raw(|_, stream| {
        let _ = stream.request_head();
        let _ = stream.send(SWITCH);
        if let Ok(frame) = stream.exactly(6) {
            let _ = stream.send(&frame);
        }
        Then::Close
    });
    let upstream = secure(&origin, &pki.issue("a", &["a.test"]), "");
    for protocol in ["http1", "http2", "auto"] {
        let ca = pki.ca().display().to_string();
        let words = format!("protocol: {protocol}, tls: {{ sni: a.test, ca: {ca} }}");
        let gateway = Gateway::start(&before(&upstream, &words));
        let mut client = gateway.client();
        client.send(UPGRADE);
        assert_eq!(client.head().status, 101, "{protocol}");
        client.send(b"\x89\x80\x01\x02\x03\x04");
        assert_eq!(client.read(6), b"\x89\x80\x01\x02\x03\x04", "{protocol}");
    }
}
