//! TLS with clients: every option, and what becomes of those who get it wrong.

use std::fs;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::harness::tls::{
    Authority, Caller, Files, HandshakeKind, Order, TLS12, TLS13, kind, replace, shown,
};
use crate::harness::{Client, Gateway, Origin, Then, eventually, process_log, settled};

const ROUTES: &str = "routes: [{ name: all, path: /*, respond: { body: hello } }]";

/// A listener `web` with these words in its `tls`.
fn listener(certificates: &[&Files], tls: &str) -> String {
    let certificates: Vec<_> = certificates.iter().map(|files| files.words()).collect();
    let comma = if tls.is_empty() { "" } else { ", " };
    let certificates = certificates.join(", ");
    format!(
        "listeners: [{{ name: web, address: \"127.0.0.1:0\", tls: {{ certificates: [{certificates}]{comma}{tls} }} }}]\n"
    )
}

fn start(certificates: &[&Files], tls: &str) -> Gateway {
    Gateway::start(&(listener(certificates, tls) + ROUTES))
}

fn get(client: &mut Client, host: &str) -> crate::harness::Response {
    client.ask(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"))
}

fn handshakes(gateway: &Gateway, version: &str, result: &str) -> f64 {
    gateway.metric(&format!(
        "portcullis_tls_handshakes_total{{listener=\"web\",result=\"{result}\",version=\"{version}\"}}"
    ))
}

#[test]
fn a_request_comes_through_and_is_told_as_it_came() {
    let pki = Authority::new();
    let origin = Origin::ok();
    let files = pki.issue("a", &["a.test"]);
    let gateway = Gateway::start(&(listener(&[&files], "") + &crate::harness::to(&[&origin], "")));
    for (version, name, suite) in [
        (&TLS13, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        (&TLS12, "TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ] {
        let caller = pki.client().speaking(version).offering(&["http/1.1"]);
        let mut client = caller.connect(gateway.address(), "a.test").unwrap();
        for path in ["one", "two"] {
            let path = format!("/{name}/{path}");
            assert_eq!(client.get(&path).status, 200);
            let line = gateway.log_of(&path);
            assert_eq!(line["tls_version"], name);
            assert_eq!(line["tls_cipher"], suite);
            assert_eq!(line["tls_sni"], "a.test");
            assert_eq!(line["tls_client_subject"], serde_json::Value::Null);
        }
        assert_eq!(client.stream.tls.as_ref().unwrap().alpn_protocol(), Some(&b"http/1.1"[..]));
        let visit = origin.last();
        assert_eq!(visit.header("x-forwarded-proto"), Some("https"));
        assert_eq!(visit.header("x-forwarded-port"), Some(gateway.address().port().to_string().as_str()));
    }
    assert_eq!(handshakes(&gateway, "1.3", "full"), 1.0);
    assert_eq!(handshakes(&gateway, "1.2", "full"), 1.0);
}

#[test]
fn the_certificate_is_that_of_the_host_and_of_what_the_client_can_verify() {
    let pki = Authority::new();
    let rsa = |hosts: &[&str], file| pki.issue_as(file, &Order { hosts, rsa: true, ..Order::default() });
    let first = pki.issue("first", &["first.test"]);
    let first_rsa = rsa(&["first.test"], "first-rsa");
    let exact = pki.issue("exact", &["a.shop.test", "Upper.Test"]);
    let wildcard = pki.issue("wildcard", &["*.shop.test"]);
    let wildcard_rsa = rsa(&["*.shop.test"], "wildcard-rsa");
    let gateway = start(&[&first, &first_rsa, &exact, &wildcard, &wildcard_rsa], "");
    let usual = pki.client();
    for (caller, host, expected) in [
        (&usual, "first.test", &first),
        (&usual, "a.shop.test", &exact),
        (&usual, "A.Shop.Test", &exact),
        (&usual, "upper.test", &exact),
        (&usual, "b.shop.test", &wildcard),
        (&usual.clone().speaking(&TLS12), "b.shop.test", &wildcard),
        (&usual.clone().speaking(&TLS12).suites("_RSA_"), "b.shop.test", &wildcard_rsa),
        (&usual.clone().rsa_alone(), "b.shop.test", &wildcard_rsa),
        (&usual.clone().without_sni(), "first.test", &first),
        (&usual.clone().without_sni().rsa_alone(), "first.test", &first_rsa),
    ] {
        let client = caller.connect(gateway.address(), host).unwrap();
        assert_eq!(shown(&client), expected.der(), "{host}");
    }
    for host in ["shop.test", "b.a.shop.test", "other.test"] {
        let refused = usual.failure(gateway.address(), host);
        assert!(
            refused.contains("not valid for name"),
            "{host} gets the first, which is not its own: {refused}"
        );
    }
    eventually("the refusals", || handshakes(&gateway, "-", "refused_by_client") == 3.0);
    assert_eq!(
        get(&mut usual.connect(gateway.address(), "b.shop.test").unwrap(), "b.shop.test").text(),
        "hello"
    );
}

#[test]
fn versions_and_suites_are_as_configured() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test", "strict.test", "x.low.test"]);
    let (new, old) = (pki.client().speaking(&TLS13), pki.client().speaking(&TLS12));
    let chacha = old.clone().suites("CHACHA20");
    let one = "ciphers: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]";
    let hosts = "hosts: { strict.test: { min_version: \"1.3\" }, '*.low.test': { ciphers: modern } }";
    for (words, caller, host, expected) in [
        ("", &new, "a.test", Ok("TLS_AES_256_GCM_SHA384")),
        ("", &old, "a.test", Ok("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")),
        ("min_version: \"1.2\"", &old, "a.test", Ok("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")),
        ("min_version: 1.3", &new, "a.test", Ok("TLS_AES_256_GCM_SHA384")),
        ("min_version: 1.3", &old, "a.test", Err("ProtocolVersion")),
        ("ciphers: intermediate", &chacha, "a.test", Ok("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")),
        ("ciphers: modern", &old, "a.test", Err("ProtocolVersion")),
        ("ciphers: modern", &new, "a.test", Ok("TLS_AES_256_GCM_SHA384")),
        (one, &new, "a.test", Ok("TLS_AES_128_GCM_SHA256")),
        (one, &chacha, "a.test", Ok("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")),
        (one, &old.clone().suites("AES"), "a.test", Err("HandshakeFailure")),
        (hosts, &old, "a.test", Ok("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")),
        (hosts, &old, "strict.test", Err("ProtocolVersion")),
        (hosts, &new, "strict.test", Ok("TLS_AES_256_GCM_SHA384")),
        (hosts, &old, "x.low.test", Err("ProtocolVersion")),
        (hosts, &new, "x.low.test", Ok("TLS_AES_256_GCM_SHA384")),
    ] {
        let gateway = start(&[&files], words);
        match expected {
            Ok(suite) => {
                let mut client = caller.connect(gateway.address(), host).unwrap();
                assert_eq!(get(&mut client, host).text(), "hello");
                assert_eq!(gateway.log_line(0)["tls_cipher"], suite, "{words} for {host}");
            }
            Err(alert) => {
                let failure = caller.failure(gateway.address(), host);
                assert!(failure.contains(alert), "{words} for {host}: {failure}");
                let result =
                    if alert == "ProtocolVersion" { "no_shared_version" } else { "no_shared_cipher" };
                eventually(result, || handshakes(&gateway, "-", result) == 1.0);
            }
        }
    }
}

#[test]
fn the_first_choice_is_a_key_exchange_that_outlives_quantum_computers() {
    let pki = Authority::new();
    let gateway = start(&[&pki.issue("a", &["a.test"])], "");
    let client = pki.client().connect(gateway.address(), "a.test").unwrap();
    let group = client.stream.tls.as_ref().unwrap().negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}

#[test]
fn what_is_spoken_inside_is_agreed_in_the_handshake() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let gateway = start(&[&files], "");
    let both: &[&str] = &["http/1.1", "h2"];
    // What the listener speaks, what the client offers, what comes of it.
    let rows: [(&str, &[&str], Option<&str>); 8] = [
        ("[http1, http2]", both, Some("h2")),
        ("[http2, http1]", both, Some("h2")),
        ("[http1, http2]", &["http/1.1"], Some("http/1.1")),
        ("[http1]", both, Some("http/1.1")),
        ("[http2]", both, Some("h2")),
        ("[http1]", &["h2"], None),
        ("[http2]", &["http/1.1"], None),
        ("[http1, http2]", &["smtp"], None),
    ];
    for (spoken, offered, agreed) in rows {
        let words = listener(&[&files], "").replace("tls:", &format!("protocols: {spoken}, tls:"));
        let gateway = Gateway::start(&(words + ROUTES));
        let caller = pki.client().offering(offered);
        match agreed {
            Some(agreed) => {
                let client = caller.connect(gateway.address(), "a.test").unwrap();
                let name = client.stream.tls.as_ref().unwrap().alpn_protocol();
                assert_eq!(name, Some(agreed.as_bytes()), "{spoken} {offered:?}");
            }
            None => {
                let failure = caller.failure(gateway.address(), "a.test");
                assert!(failure.contains("NoApplicationProtocol"), "{failure}");
                eventually("it is counted", || handshakes(&gateway, "-", "no_shared_protocol") == 1.0);
            }
        }
    }
    // A client that offers nothing speaks HTTP/1.1.
    assert_eq!(
        get(&mut pki.client().connect(gateway.address(), "a.test").unwrap(), "a.test").text(),
        "hello"
    );
}

#[test]
fn http_2_comes_through_and_is_told_as_it_came() {
    let pki = Authority::new();
    let origin = Origin::ok();
    let client = pki.issue_as("client", &Order { name: "mobile", ..Order::default() });
    let words =
        format!("client_auth: {{ ca: {}, mode: optional }}, hsts: {{ max_age: 1h }}", pki.ca().display());
    let gateway = Gateway::start(
        &(listener(&[&pki.issue("a", &["a.test"])], &words) + &crate::harness::to(&[&origin], "")),
    );
    let mut client = pki.client().with(&client).http2(gateway.address(), "a.test");
    let answer = client.get("/x");
    assert_eq!((answer.status.as_u16(), answer.field("strict-transport-security")), (200, "max-age=3600"));
    assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));
    let line = gateway.log_of("/x");
    assert_eq!((&line["protocol"], &line["tls_version"]), (&"HTTP/2.0".into(), &"TLSv1.3".into()));
    assert!(line["tls_client_subject"].as_str().unwrap().contains("mobile"), "{line}");
    let refused = client.request("GET", "/").header("expect", "more");
    let refused = client.ask(refused);
    assert_eq!((refused.status.as_u16(), refused.field("strict-transport-security")), (417, "max-age=3600"));
    assert!(!refused.field("date").is_empty());
    let large = vec![b'x'; 1_000_000];
    let request = client.request("POST", "/y");
    assert_eq!(client.send(request, &large).status.as_u16(), 200);
    assert_eq!(origin.last().content().len(), large.len());
}

/// Browsers send requests for all hosts of a certificate over one connection.
#[test]
fn http_2_requests_for_a_host_with_another_policy_are_misdirected_one_by_one() {
    let pki = Authority::new();
    let words = format!("hosts: {{ api.test: {{ client_auth: {{ ca: {} }} }} }}", pki.ca().display());
    let gateway = start(&[&pki.issue("a", &["a.test", "b.test", "api.test"])], &words);
    let mut client = pki.client().http2(gateway.address(), "a.test");
    let ask = |client: &mut crate::harness::Http2, host: &str| {
        client.ask(http::Request::builder().uri(format!("https://{host}/"))).status.as_u16()
    };
    assert_eq!(
        ["a.test", "b.test", "api.test", "a.test"].map(|host| ask(&mut client, host)),
        [200, 200, 421, 200]
    );
}

/// Makes a session and gives its tickets time to come; then another: how it went.
fn second_visit(
    caller: &Caller,
    first: (&Gateway, &str, &str),
    second: (&Gateway, &str, &str),
) -> HandshakeKind {
    visit(caller, first);
    visit(caller, second)
}

fn visit(caller: &Caller, (gateway, listener, host): (&Gateway, &str, &str)) -> HandshakeKind {
    let mut client = caller.connect(gateway.listener(listener), host).unwrap();
    // Tickets of TLS 1.3 come before the answer.
    assert_eq!(get(&mut client, host).status, 200);
    kind(&client)
}

#[test]
fn sessions_are_resumed_also_over_a_reload() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let yaml = listener(&[&files], "") + ROUTES;
    for version in [&TLS13, &TLS12] {
        let gateway = Gateway::start_file(&yaml);
        let caller = pki.client().speaking(version);
        let here = (&gateway, "web", "a.test");
        assert_eq!(second_visit(&caller, here, here), HandshakeKind::Resumed);
        let number = if *version == TLS13 { "1.3" } else { "1.2" };
        assert_eq!(handshakes(&gateway, number, "resumed"), 1.0);
        pki.issue("a", &["a.test"]);
        gateway.reload().unwrap();
        assert_eq!(visit(&caller, here), HandshakeKind::Resumed, "with a new certificate");
    }
}

#[test]
fn a_session_is_not_resumed_under_another_policy() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let client = pki.issue("client", &[]);
    let auth = |mode: &str| format!("client_auth: {{ ca: {}, mode: {mode} }}", pki.ca().display());
    let free = listener(&[&files], "") + ROUTES;
    let bound = listener(&[&files], &auth("optional")) + ROUTES;
    for version in [&TLS13, &TLS12] {
        let gateway = Gateway::start_file(&free);
        let caller = pki.client().speaking(version).with(&client);
        let here = (&gateway, "web", "a.test");
        assert_eq!(second_visit(&caller, here, here), HandshakeKind::Resumed);
        gateway.rewrite(&bound);
        gateway.reload().unwrap();
        let mut again = caller.connect(gateway.address(), "a.test").unwrap();
        assert_eq!(get(&mut again, "a.test").status, 200);
        assert_ne!(kind(&again), HandshakeKind::Resumed, "the client shows who it is");
        gateway.logged(|line| line["tls_client_subject"] == "CN=test,O=Example\\, Inc");
        assert_eq!(visit(&caller, here), HandshakeKind::Resumed);
        let resumed = |line: &&serde_json::Value| line["tls_client_subject"] == "CN=test,O=Example\\, Inc";
        eventually("the resumed session to know its client", || {
            gateway.log().iter().filter(resumed).count() == 2
        });
        gateway.rewrite(&(listener(&[&files], &auth("require")) + ROUTES));
        gateway.reload().unwrap();
        assert_ne!(visit(&caller, here), HandshakeKind::Resumed, "optional is not required");
    }
}

#[test]
fn clients_are_asked_for_a_certificate_as_configured() {
    let pki = Authority::new();
    let other = Authority::new();
    let files = pki.issue("a", &["a.test", "api.test", "open.test"]);
    let good = pki.issue("good", &[]);
    let expired = pki.issue_as("expired", &Order { days: -1, ..Order::default() });
    let foreign = other.issue("foreign", &[]);
    let auth = |mode: &str| format!("client_auth: {{ ca: {}{mode} }}", pki.ca().display());
    let per_host = format!("hosts: {{ api.test: {{ {} }} }}", auth(""));
    let (none, good, expired, foreign) =
        (pki.client(), pki.client().with(&good), pki.client().with(&expired), pki.client().with(&foreign));
    for (words, host, caller, expected) in [
        (auth(""), "a.test", &good, Ok(())),
        (auth(""), "a.test", &none, Err("no_client_certificate")),
        (auth(""), "a.test", &expired, Err("bad_client_certificate")),
        (auth(""), "a.test", &foreign, Err("bad_client_certificate")),
        (auth(", mode: optional"), "a.test", &good, Ok(())),
        (auth(", mode: optional"), "a.test", &none, Ok(())),
        (auth(", mode: optional"), "a.test", &expired, Err("bad_client_certificate")),
        (auth(", mode: optional"), "a.test", &foreign, Err("bad_client_certificate")),
        (per_host.clone(), "a.test", &none, Ok(())),
        (per_host.clone(), "api.test", &none, Err("no_client_certificate")),
        (per_host.clone(), "api.test", &good, Ok(())),
    ] {
        for version in [&TLS13, &TLS12] {
            let gateway = start(&[&files], &words);
            let caller = caller.clone().speaking(version);
            match expected {
                Ok(()) => {
                    let mut client = caller.connect(gateway.address(), host).unwrap();
                    assert_eq!(get(&mut client, host).text(), "hello", "{words}");
                }
                Err(result) => {
                    caller.failure(gateway.address(), host);
                    eventually("the failure to be counted", || handshakes(&gateway, "-", result) == 1.0);
                }
            }
        }
    }
}

#[test]
fn who_the_client_is_goes_to_filters_upstream_and_log() {
    let pki = Authority::new();
    let origin = Origin::ok();
    let files = pki.issue("a", &["a.test"]);
    let name = "Zoë <a\"b>\r\nx: y";
    let client = pki.issue_as(
        "client",
        &Order { hosts: &["c.test"], name, uris: &["spiffe://test/billing"], ..Order::default() },
    );
    let words = format!("client_auth: {{ ca: {}, mode: optional }}", pki.ca().display());
    let set = "filters: [{ headers: { request: { set: { x-subject: '{tls.client.subject}', x-sans: '{tls.client.sans}', \
               x-print: '{tls.client.fingerprint}', x-tls: '{tls.version} {tls.cipher} {tls.sni}' } }, \
               response: { set: { x-seen: '{tls.client.subject}' } } } }, look]";
    struct Look;
    impl portcullis::Filter for Look {
        type State = ();
        fn phases(&self) -> portcullis::Phases {
            portcullis::Phases::RESPONSE
        }
        fn response(
            &self,
            (): &mut (),
            exchange: &mut portcullis::Exchange<'_>,
            head: &mut portcullis::ResponseHeader,
        ) -> portcullis::Result<()> {
            let client = exchange.tls().and_then(|tls| tls.client.as_ref());
            head.insert_header("x-look", client.map_or("nobody", |client| &client.sans).to_owned())?;
            Ok(())
        }
    }
    let yaml = listener(&[&files], &words) + &crate::harness::to(&[&origin], set);
    let gateway =
        Gateway::start_with(&yaml, |gateway| gateway.named_filter("look", portcullis::Stage::Observe, Look));
    let subject = r#"CN=Zo\c3\ab \<a\"b\>\0d\0ax: y,O=Example\, Inc"#;
    let sans = "DNS:c.test,URI:spiffe://test/billing";
    let lies = "GET /known HTTP/1.1\r\nhost: a.test\r\nx-subject: root\r\nx-sans: DNS:evil\r\n\r\n";

    let mut known = pki.client().with(&client).connect(gateway.address(), "a.test").unwrap();
    let response = known.ask(lies);
    assert_eq!(response.header("x-look"), Some(sans));
    assert_eq!(response.header("x-seen"), Some(subject));
    let heard = origin.last();
    assert_eq!(heard.header("x-subject"), Some(subject));
    assert_eq!(heard.header("x-sans"), Some(sans));
    assert_eq!(heard.header("x-tls"), Some("TLSv1.3 TLS_AES_256_GCM_SHA384 a.test"));
    let print = heard.header("x-print").unwrap().to_owned();
    assert!(print.len() == 64 && print.bytes().all(|byte| byte.is_ascii_hexdigit()), "{print}");
    let line = gateway.log_of("/known");
    assert_eq!(line["tls_client_subject"], subject);
    assert_eq!(line["tls_client_sans"], sans);
    assert_eq!(line["tls_client_fingerprint"], print);

    let mut unknown = pki.client().connect(gateway.address(), "a.test").unwrap();
    assert_eq!(unknown.ask(lies).header("x-look"), Some("nobody"));
    let heard = origin.last();
    assert_eq!([heard.header("x-subject"), heard.header("x-sans"), heard.header("x-print")], [Some(""); 3]);
}

#[test]
fn a_request_for_a_host_with_another_policy_is_misdirected() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test", "b.test", "api.test", "x.api.test"]);
    let words = format!(
        "hosts: {{ api.test: {{ client_auth: {{ ca: {ca} }} }}, '*.api.test': {{ min_version: \"1.3\" }}, b.test: {{ min_version: \"1.2\" }} }}",
        ca = pki.ca().display()
    );
    let gateway = start(&[&files], &words);
    let client = pki.issue("client", &[]);
    let caller = pki.client().with(&client);
    for (sni, host, expected) in [
        ("a.test", "a.test", 200),
        ("a.test", "unknown.test", 200),
        ("a.test", "127.0.0.1", 200),
        ("a.test", "b.test", 200),
        ("a.test", "api.test", 421),
        ("a.test", "API.test:443", 421),
        ("a.test", "x.api.test", 421),
        ("api.test", "api.test", 200),
        ("api.test", "a.test", 421),
        ("x.api.test", "y.x.api.test", 200),
        ("x.api.test", "api.test", 421),
    ] {
        let mut client = caller.connect(gateway.address(), sni).unwrap();
        let response = get(&mut client, host);
        assert_eq!(response.status, expected, "{host} over {sni}");
        if expected == 421 {
            assert_eq!(response.code(), "misdirected_request");
            gateway.logged(|line| line["reason"] == "misdirected_request" && line["tls_sni"] == sni);
            assert_eq!(get(&mut client, sni).status, 200, "the connection is still good for its own host");
        }
    }
    let mut nobody = caller.connect(gateway.address(), "a.test").unwrap();
    assert_eq!(nobody.ask("GET / HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn a_connection_without_a_certificate_is_of_no_use_once_one_is_required() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let gateway = Gateway::start_file(&(listener(&[&files], "") + ROUTES));
    let mut client = pki.client().connect(gateway.address(), "a.test").unwrap();
    assert_eq!(get(&mut client, "a.test").status, 200);
    let auth = format!("client_auth: {{ ca: {} }}", pki.ca().display());
    gateway.rewrite(&(listener(&[&files], &auth) + ROUTES));
    gateway.reload().unwrap();
    assert_eq!(get(&mut client, "a.test").problem(), (421, "misdirected_request".into()));
}

#[test]
fn browsers_are_told_to_come_by_tls_only() {
    let pki = Authority::new();
    let origin = Origin::on_head(|visit| {
        visit.answer("HTTP/1.1 200 OK\r\nstrict-transport-security: max-age=1\r\ncontent-length: 0\r\n\r\n")
    });
    let files = pki.issue("a", &["a.test"]);
    let routes = |words: &str| {
        listener(&[&files], words)
            + &format!("upstreams: {{ o: {{ endpoints: [\"{}\"] }} }}\n", origin.address())
            + "routes: [{ name: o, path: /o, upstream: o }, { name: own, path: /own, respond: { body: hello } }, \
               { name: dead, path: /dead, upstream: dead }]\n"
    };
    let routes = |words: &str| {
        routes(words).replace("} }\nroutes", "}, dead: { endpoints: [\"127.0.0.1:1\"] } }\nroutes")
    };
    let requests = [
        ("GET /o HTTP/1.1\r\nhost: a.test\r\n\r\n", 200),
        ("GET /own HTTP/1.1\r\nhost: a.test\r\n\r\n", 200),
        ("GET /dead HTTP/1.1\r\nhost: a.test\r\n\r\n", 502),
        ("GET /none HTTP/1.1\r\nhost: a.test\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
        ("GET / HTTP/9.9\r\n\r\n", 505),
    ];
    for (words, expected) in [
        ("hsts: { max_age: 365d }", Some("max-age=31536000")),
        ("hsts: { max_age: 0s }", Some("max-age=0")),
        ("hsts: { max_age: 2h, include_subdomains: true }", Some("max-age=7200; includeSubDomains")),
        (
            "hsts: { max_age: 730d, include_subdomains: true, preload: true }",
            Some("max-age=63072000; includeSubDomains; preload"),
        ),
        ("", None),
    ] {
        let gateway = Gateway::start(&routes(words));
        for (request, status) in requests {
            let response = pki.client().connect(gateway.address(), "a.test").unwrap().ask(request);
            assert_eq!(response.status, status, "{request}");
            let own = if request.contains("/o ") { Some("max-age=1") } else { None };
            assert_eq!(response.header("strict-transport-security"), expected.or(own), "{request}");
        }
    }
}

#[test]
fn plaintext_is_sent_to_https() {
    let listener = |words: &str| {
        format!(
            "server: {{ threads: 1, trusted_proxies: [127.0.0.9/32] }}\nlisteners: [{{ name: web, address: \"127.0.0.1:0\", \
             redirect_to_https: {words} }}]\n{ROUTES}"
        )
    };
    let get = "GET /a%20b/./c?q=1&q=%20 HTTP/1.1\r\nhost: Shop.Test:8080\r\n\r\n";
    for (words, request, status, location) in [
        ("{}", get, 308, "https://shop.test/a%20b/c?q=1&q=%20"),
        ("{ port: 8443 }", get, 308, "https://shop.test:8443/a%20b/c?q=1&q=%20"),
        ("{ status: 301 }", get, 301, "https://shop.test/a%20b/c?q=1&q=%20"),
        ("{ status: 302 }", get, 302, "https://shop.test/a%20b/c?q=1&q=%20"),
        (
            "{ status: 307 }",
            "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 2\r\n\r\nab",
            307,
            "https://a.test/",
        ),
        ("{}", "GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", 308, "https://[::1]/"),
    ] {
        let gateway = Gateway::start(&listener(words));
        let response = gateway.ask(request);
        assert_eq!((response.status, response.header("location")), (status, Some(location)), "{words}");
    }
    let gateway = Gateway::start(&listener("{}"));
    assert_eq!(gateway.ask("GET / HTTP/1.0\r\n\r\n").problem(), (400, "bad_host".into()));
    let mut proxy = Client::connect_from("127.0.0.9".parse().unwrap(), gateway.address());
    let by = |proto: &str| format!("GET / HTTP/1.1\r\nhost: a.test\r\nx-forwarded-proto: {proto}\r\n\r\n");
    assert_eq!(proxy.ask(by("https")).text(), "hello", "it came by https");
    assert_eq!(proxy.ask(by("http")).status, 308);
    assert_eq!(gateway.ask(by("https")).status, 308, "a stranger is not believed");
}

#[test]
fn what_is_no_handshake_has_a_clear_end() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let timeout = "limits: { header_timeout: 300ms }";
    let yaml = (listener(&[&files], "") + ROUTES).replace(" }]\nroutes", &format!(", {timeout} }}]\nroutes"));
    let gateway = Gateway::start(&yaml);
    let hello = {
        // A greeting as a client sends it.
        let mut bytes = Vec::new();
        let config = pki.client().client_hello("a.test");
        bytes.extend(config);
        bytes
    };
    let half = &hello[..hello.len() / 2];
    let mut oversized = vec![22, 3, 1, 0xff, 0xff];
    oversized.extend([0; 70_000]);
    let mut too_long = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    too_long.extend([0; 0x4000 - 4]);
    let mut junk = hello.clone();
    let name = junk.windows(6).position(|window| window == b"a.test").unwrap();
    junk[name..name + 6].copy_from_slice(b"a\0\xff/ t");
    let cases: [(&[u8], &str); 8] = [
        (b"", "timeout"),
        (half, "timeout"),
        (&hello, "timeout"),
        (b"\0\x01\x02garbage", "not_tls"),
        (b"\x16garbage and more of it", "bad_handshake"),
        (&oversized, "bad_handshake"),
        (&too_long, "bad_handshake"),
        (&junk, "bad_handshake"),
    ];
    for (at, (bytes, result)) in cases.into_iter().enumerate() {
        let before = handshakes(&gateway, "-", result);
        let mut client = Client::connect(gateway.address());
        // The gateway may have closed before all of it is sent.
        let _ = client.stream.send(bytes);
        client.rest();
        eventually(&format!("case {at} to be {result}"), || {
            handshakes(&gateway, "-", result) == before + 1.0
        });
    }
    let mut gone = Client::connect(gateway.address());
    gone.send(half);
    drop(gone);
    eventually("one that left", || handshakes(&gateway, "-", "client_gone") == 1.0);
    eventually("all to be gone", || gateway.metric("portcullis_connections_active{listener=\"web\"}") == 0.0);
    assert_eq!(
        get(&mut pki.client().connect(gateway.address(), "a.test").unwrap(), "a.test").text(),
        "hello"
    );
}

#[test]
fn http_in_the_clear_is_answered_in_the_clear() {
    let pki = Authority::new();
    let gateway = start(&[&pki.issue("a", &["a.test"])], "hsts: { max_age: 1d }");
    for (request, problem) in [
        ("GET /clear HTTP/1.1\r\nhost: a.test\r\n\r\n", (400, "tls_required")),
        ("POST /clear HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello", (400, "tls_required")),
        ("GET /clear\r\n\r\n", (400, "bad_http_version")),
    ] {
        let mut client = gateway.client();
        let response = client.ask(request);
        assert_eq!(response.problem(), (problem.0, problem.1.to_owned()), "{response:?}");
        assert_eq!(
            response.header("strict-transport-security"),
            None,
            "browsers must not believe it in the clear"
        );
        assert_eq!(response.header("connection"), Some("close"));
        assert!(client.ends());
    }
    let line = gateway.logged(|line| line["reason"] == "tls_required");
    assert_eq!((&line["path"], &line["status"]), (&"/clear".into(), &400.into()));
    assert_eq!(line["tls_version"], serde_json::Value::Null);
    assert_eq!(handshakes(&gateway, "-", "plain_http"), 3.0);
}

#[test]
fn handshakes_count_against_the_caps() {
    let pki = Authority::new();
    let yaml = (listener(&[&pki.issue("a", &["a.test"])], "") + ROUTES)
        .replace(" }]\nroutes", ", limits: { connections: 2 } }]\nroutes");
    let gateway = Gateway::start(&yaml);
    let active = || gateway.metric("portcullis_connections_active{listener=\"web\"}");
    let mut silent = [gateway.client(), gateway.client()];
    silent[0].send([22]);
    eventually("two handshakes", || active() == 2.0);
    assert!(gateway.client().ends(), "there is no place for a third");
    drop(silent);
    eventually("both to be gone", || active() == 0.0);
    assert_eq!(
        get(&mut pki.client().connect(gateway.address(), "a.test").unwrap(), "a.test").text(),
        "hello"
    );
}

#[test]
fn the_end_is_told_inside_the_encryption() {
    let pki = Authority::new();
    let yaml = (listener(&[&pki.issue("a", &["a.test"])], "") + ROUTES)
        .replace(" }]\nroutes", ", limits: { idle_timeout: 200ms } }]\nroutes");
    let gateway = Gateway::start(&yaml);
    for version in [&TLS13, &TLS12] {
        for request in
            ["", "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"]
        {
            let mut client = pki.client().speaking(version).connect(gateway.address(), "a.test").unwrap();
            if !request.is_empty() {
                client.ask(request);
            }
            // Without close_notify this is an error.
            assert!(client.ends(), "{request:?}");
        }
    }
}

#[test]
fn large_bodies_pass_both_ways() {
    let pki = Authority::new();
    let origin = Origin::start(|visit| {
        let body = visit.request.content().to_vec();
        visit.answer(
            [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes(), body]
                .concat(),
        )
    });
    let files = pki.issue("a", &["a.test"]);
    let gateway = Gateway::start(&(listener(&[&files], "") + &crate::harness::to(&[&origin], "")));
    let body: Vec<u8> = (0..3_000_000u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for version in [&TLS13, &TLS12] {
        let mut client = pki.client().speaking(version).connect(gateway.address(), "a.test").unwrap();
        for _ in 0..2 {
            client.send(format!("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: {}\r\n\r\n", body.len()));
            client.send(&body);
            assert!(client.response_to("POST").body == body);
        }
        client.send("GET /1 HTTP/1.1\r\nhost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nhost: a.test\r\n\r\n");
        assert_eq!((client.response().status, client.response().status), (200, 200), "pipelined");
    }
}

#[test]
fn a_new_certificate_is_served_without_dropping_a_connection_and_a_bad_one_is_not() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let gateway = Gateway::start_file(&(listener(&[&files], "") + ROUTES));
    let mut client = pki.client().connect(gateway.address(), "a.test").unwrap();
    assert_eq!(get(&mut client, "a.test").text(), "hello");
    let shown_now = || shown(&pki.client().connect(gateway.address(), "a.test").unwrap());

    pki.issue("a", &["a.test"]);
    let renewed = files.der();
    eventually("the new certificate to be shown", || shown_now() == renewed);
    assert_eq!(get(&mut client, "a.test").text(), "hello", "on the old connection");

    replace(&files.cert, "no certificate\n");
    eventually("the bad file to be noticed", || {
        gateway.metric("portcullis_config_reloads_total{result=\"failure\"}") > 0.0
    });
    assert_eq!(shown_now(), renewed);
    process_log::heard(&["there is no certificate in", &files.cert.display().to_string()]);

    fs::remove_file(&files.cert).unwrap();
    pki.issue("a", &["a.test"]);
    let mended = files.der();
    eventually("the mended certificate to be shown", || shown_now() == mended);
    assert_eq!(get(&mut client, "a.test").text(), "hello", "on the old connection");
}

#[test]
fn a_new_client_authority_is_taken_without_dropping_a_connection() {
    let pki = Authority::new();
    let (old, new) = (Authority::new(), Authority::new());
    let files = pki.issue("a", &["a.test"]);
    let ca = pki.path("clients.pem");
    fs::copy(old.ca(), &ca).unwrap();
    let words = format!("client_auth: {{ ca: {} }}", ca.display());
    let gateway = Gateway::start_file(&(listener(&[&files], &words) + ROUTES));
    let (of_old, of_new) = (old.issue("client", &[]), new.issue("client", &[]));
    let (of_old, of_new) = (pki.client().with(&of_old), pki.client().with(&of_new));
    let mut client = of_old.connect(gateway.address(), "a.test").unwrap();
    assert_eq!(get(&mut client, "a.test").text(), "hello");
    of_new.failure(gateway.address(), "a.test");

    replace(&ca, &fs::read_to_string(new.ca()).unwrap());
    let comes_in = || {
        of_new.connect(gateway.address(), "a.test").and_then(|mut client| {
            client.stream.send(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")?;
            client.try_response("GET")
        })
    };
    eventually("the new authority to be believed", || comes_in().is_ok());
    assert_eq!(get(&mut client, "a.test").text(), "hello", "on the old connection");
    of_old.failure(gateway.address(), "a.test");
}

#[test]
fn certificates_are_shown_to_the_operator_who_is_warned_in_time() {
    let pki = Authority::new();
    let long = pki.issue_as("long", &Order { hosts: &["long.test", "*.long.test"], ..Order::default() });
    let soon =
        pki.issue_as("soon", &Order { hosts: &["soon.test"], days: 20, rsa: true, ..Order::default() });
    let over = pki.issue_as("over", &Order { hosts: &["over.test"], days: -3, ..Order::default() });
    let gateway = start(&[&long, &soon, &over], "");
    process_log::heard(&["the certificate for soon.test", "expires in 19 days"]);
    process_log::heard(&["the certificate for over.test", "has expired"]);
    let shown = gateway.admin_get("/certificates").json();
    let shown = shown.as_array().unwrap();
    assert_eq!(shown.len(), 3);
    assert_eq!(shown[0]["listener"], "web");
    assert_eq!(shown[0]["hosts"], serde_json::json!(["long.test", "*.long.test"]));
    assert_eq!(shown[0]["key"], "ecdsa");
    assert_eq!(shown[0]["days_left"], 89);
    assert_eq!(shown[0]["subject"], "CN=test,O=Example\\, Inc");
    assert_eq!(shown[0]["issuer"], "CN=test authority,O=Example\\, Inc");
    assert_eq!(shown[1]["key"], "rsa");
    assert_eq!(shown[1]["file"], soon.cert.display().to_string());
    assert_eq!(shown[2]["days_left"], 0);
    assert!(!shown[0].to_string().contains("PRIVATE"));
    let expiry =
        |host| gateway.metric(&format!("portcullis_certificate_expiry_timestamp_seconds{{host=\"{host}\"}}"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(((expiry("*.long.test") - now) / 86_400.0 - 90.0).abs() < 0.1);
    assert!(((expiry("soon.test") - now) / 86_400.0 - 20.0).abs() < 0.1);
    assert!(expiry("over.test") < now);
}

#[test]
fn code_speaks_tls_as_well() {
    let pki = Authority::new();
    let (a, b) = (pki.issue("a", &["a.test"]), pki.issue("b", &["b.test"]));
    let mut gateway = portcullis::Gateway::new();
    gateway.config_mut().telemetry.access_log.output = "off".into();
    let gateway = gateway
        .listen("127.0.0.1:0")
        .tls(&a.cert, &a.key)
        .tls(&b.cert, &b.key)
        .route(
            portcullis::Route::new("all", "/*")
                .respond_with(|_, _| portcullis::Reply::content(http::StatusCode::OK, "from code")),
        )
        .start()
        .unwrap();
    let address = gateway.address("").unwrap();
    for (host, files) in [("a.test", &a), ("b.test", &b)] {
        let mut client = pki.client().connect(address, host).unwrap();
        assert_eq!(shown(&client), files.der());
        assert_eq!(get(&mut client, host).text(), "from code");
    }
    pki.issue("b", &["b.test"]);
    let renewed = b.der();
    eventually("the new certificate to be shown", || {
        shown(&pki.client().connect(address, "b.test").unwrap()) == renewed
    });
    let refused = portcullis::Gateway::new().tls(&a.cert, &a.key).listen("127.0.0.1:0").start();
    assert!(refused.err().unwrap().to_string().contains("call `listen` first"));
}

#[test]
fn a_check_over_the_api_does_not_tell_what_files_there_are() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let gateway = Gateway::start(ROUTES);
    let missing = Files { cert: "/nowhere/at/all".into(), key: files.key.clone() };
    let answers = [&files, &missing].map(|files| {
        let words = listener(&[files], "client_auth: { ca: /nowhere }") + ROUTES;
        let response = gateway.admin_ask("POST", "/config/check", &words);
        (response.status, response.text())
    });
    assert_eq!(answers[0].0, 200, "{}", answers[0].1);
    assert_eq!(answers[0], answers[1]);
    let wrong = listener(&[&files], "ciphers: [RC4]") + ROUTES;
    assert!(gateway.admin_ask("POST", "/config/check", &wrong).text().contains("RC4"), "words are checked");
}

#[test]
fn other_implementations_agree() {
    use std::process::{Command, Stdio};
    let pki = Authority::new();
    let files = pki.issue_as("a", &Order { hosts: &["a.test"], rsa: true, ..Order::default() });
    let gateway = start(&[&files], "");
    let address = gateway.address().to_string();
    let session = pki.path("session");
    for (version, cipher) in
        [("-tls1_3", "TLS_AES_256_GCM_SHA384"), ("-tls1_2", "ECDHE-RSA-AES256-GCM-SHA384")]
    {
        for (how, expected) in [("-sess_out", "New, TLSv1."), ("-sess_in", "Reused, TLSv1.")] {
            let mut child = Command::new("openssl")
                .args([
                    "s_client",
                    "-connect",
                    &address,
                    "-servername",
                    "a.test",
                    "-verify_return_error",
                    version,
                    how,
                ])
                .arg(&session)
                .arg("-CAfile")
                .arg(pki.ca())
                .args(["-alpn", "http/1.1", "-ign_eof"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let request = b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
            child.stdin.as_mut().unwrap().write_all(request).unwrap();
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            for part in [expected, cipher, "ALPN protocol: http/1.1", "hello"] {
                assert!(said.contains(part), "no {part:?} with {version} {how} in {said}");
            }
        }
    }
    let output = Command::new("sslscan").args(["--no-colour", "--sni-name=a.test", &address]).output();
    let output = output.expect("sslscan: `make setup-test` installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    for version in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"] {
        assert!(said.contains(&format!("{version:<10}disabled")), "{version} in {said}");
    }
    for part in ["TLSv1.2   enabled", "TLSv1.3   enabled", "Session renegotiation not supported"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    for weak in ["CBC", "RC4", "3DES", "NULL", "EXP", "anon", "DHE-RSA-DES", " MD5"] {
        let accepted =
            said.lines().filter(|line| line.starts_with("Accepted") || line.starts_with("Preferred"));
        assert!(!accepted.clone().any(|line| line.contains(weak)), "{weak} in {said}");
        assert!(accepted.count() > 3, "{said}");
    }
    let mut bleeding = said.lines().filter(|line| line.contains("vulnerable to heartbleed"));
    assert!(bleeding.all(|line| line.contains("not vulnerable")), "{said}");
}

#[test]
fn tls_is_turned_on_and_off_by_a_reload() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let encrypted = listener(&[&files], "") + ROUTES;
    let plain = format!("listeners: [{{ name: web, address: \"127.0.0.1:0\" }}]\n{ROUTES}");
    let gateway = Gateway::start_file(&plain);
    let mut before = gateway.client();
    assert_eq!(before.get("/").header("connection"), Some("keep-alive"));
    gateway.rewrite(&encrypted);
    gateway.reload().unwrap();
    assert_eq!(gateway.get("/").problem(), (400, "tls_required".into()));
    assert_eq!(before.get("/").header("connection"), Some("close"), "what began in the clear ends");
    let mut client = pki.client().connect(gateway.address(), "a.test").unwrap();
    assert_eq!(get(&mut client, "a.test").header("connection"), Some("keep-alive"));
    gateway.rewrite(&plain);
    gateway.reload().unwrap();
    assert_eq!(get(&mut client, "a.test").header("connection"), Some("close"));
    assert_eq!(gateway.get("/").text(), "hello");
}

#[test]
fn odd_certificates_of_clients_have_a_clear_end() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let words = format!("client_auth: {{ ca: {} }}", pki.ca().display());
    let gateway = start(&[&files], &words);
    let good = pki.issue("good", &[]);
    let long = Files { cert: pki.path("long.pem"), ..good.clone() };
    let chain = fs::read_to_string(&good.cert).unwrap() + &fs::read_to_string(pki.ca()).unwrap().repeat(300);
    fs::write(&long.cert, chain).unwrap();
    let other = Authority::new();
    let (own, named) = (other.self_signed("own"), other.issue("named", &["a.test"]));
    for (certificate, result) in
        [(&long, "bad_handshake"), (&own, "bad_client_certificate"), (&named, "bad_client_certificate")]
    {
        for version in [&TLS13, &TLS12] {
            let before = handshakes(&gateway, "-", result);
            pki.client().speaking(version).with(certificate).failure(gateway.address(), "a.test");
            eventually(result, || handshakes(&gateway, "-", result) == before + 1.0);
        }
    }
    let mut client = pki.client().with(&good).connect(gateway.address(), "a.test").unwrap();
    assert_eq!(get(&mut client, "a.test").text(), "hello");
}

/// An encrypting gateway before an origin, and a client of it.
fn before(origin: &Origin) -> (Authority, Gateway, Client) {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let gateway = Gateway::start(&(listener(&[&files], "") + &crate::harness::to(&[origin], "")));
    let client = pki.client().connect(gateway.address(), "a.test").unwrap();
    (pki, gateway, client)
}

#[test]
fn a_download_nobody_reads_stays_with_the_origin() {
    let (origin, sent) = Origin::endless();
    let (_pki, _gateway, mut client) = before(&origin);
    client.send_get("/");
    let taken = settled("it stops", Duration::from_millis(300), || sent.load(Ordering::Relaxed));
    assert!(taken < 32 << 20, "{taken} bytes were taken from the origin");
}

#[test]
fn a_tunnel_passes_bytes_both_ways_as_they_come() {
    let origin = Origin::on_head(|visit| {
        visit.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        while let Ok(bytes) = visit.stream.some()
            && !bytes.is_empty()
        {
            visit.send(bytes);
        }
        Then::Close
    });
    let (_pki, _gateway, mut client) = before(&origin);
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_eq!(client.head().status, 101);
    for size in [1, 100, 40_000] {
        let bytes: Vec<u8> = (0..size).map(|at: u32| at.to_be_bytes()[3]).collect();
        client.send(&bytes);
        assert!(client.read(bytes.len()) == bytes, "{size} bytes");
    }
}

#[test]
fn a_graceful_end_waits_for_the_request_under_way_and_for_nobody_else() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let origin = Origin::start(move |visit| {
        gone.lock().unwrap().recv().unwrap();
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let (pki, gateway, mut busy) = before(&origin);
    let mut idle = pki.client().connect(gateway.address(), "a.test").unwrap();
    let mut silent = gateway.client();
    busy.send_get("/");
    origin.request(0);
    let ending = std::thread::spawn(move || gateway.shutdown());
    assert!(idle.ends() && silent.ends());
    go.send(()).unwrap();
    let response = busy.response();
    assert_eq!(response.status, 200);
    assert!(busy.ends());
    ending.join().unwrap();
}

#[test]
fn a_session_ends_with_the_certificate_of_its_client() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let gateway = start(&[&files], &format!("client_auth: {{ ca: {} }}", pki.ca().display()));
    for version in [&TLS13, &TLS12] {
        let before = handshakes(&gateway, "-", "bad_client_certificate");
        let short = pki.issue_as("short", &Order { seconds: Some(5), ..Order::default() });
        let caller = pki.client().speaking(version).with(&short);
        let here = (&gateway, "web", "a.test");
        assert_eq!(second_visit(&caller, here, here), HandshakeKind::Resumed);
        let comes_in = || {
            let mut client = caller.connect(gateway.address(), "a.test")?;
            client.stream.send(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")?;
            client.try_response("GET")
        };
        eventually("the certificate to end", || comes_in().is_err());
        eventually("that to be told", || handshakes(&gateway, "-", "bad_client_certificate") > before);
    }
}

#[test]
fn streams_in_the_clear_end_when_clients_must_show_a_certificate() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let clear = "listeners: [{ name: web, address: \"127.0.0.1:0\" }]\n".to_owned() + ROUTES;
    let gateway = Gateway::start_file(&clear);
    let mut client = crate::harness::Http2::connect(gateway.address());
    assert_eq!(client.get("/").status.as_u16(), 200);
    let auth = format!("client_auth: {{ ca: {}, mode: require }}", pki.ca().display());
    gateway.rewrite(&(listener(&[&files], &auth) + ROUTES));
    gateway.reload().unwrap();
    assert_eq!(client.get("/").problem(), (421, "misdirected_request".into()));
    eventually("the connection is parted with", || !client.is_open());
}
