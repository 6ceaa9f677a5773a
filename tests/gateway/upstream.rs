//! Upstreams that misbehave: the right status and reason, nothing kept, nothing passed on that is not HTTP.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Gateway, Nobody, Origin, Then, eventually};

#[test]
fn an_upstream_that_is_down_is_a_502() {
    let nobody = Nobody::new();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ name: all, path: /*, upstream: origin }}]",
        nobody.address()
    ));
    let mut client = gateway.client();
    let response = client.get("/");
    assert_eq!(response.problem(), (502, "upstream_connect_failed".into()));
    assert_eq!(
        response.header("proxy-status"),
        Some("portcullis; error=connection_refused; details=upstream_connect_failed")
    );
    let line = gateway.log_of("/");
    assert_eq!((&line["status"], &line["reason"]), (&502.into(), &"upstream_connect_failed".into()));
}

/// What an origin sends, how it ends, and what becomes of it before a response head has passed.
#[test]
fn an_answer_that_is_none_is_a_502() {
    let reset = "upstream_reset";
    let invalid = "upstream_invalid_response";
    let rows: &[(&str, &[u8], Then, &str)] = &[
        ("close at once", b"", Then::Close, reset),
        ("reset at once", b"", Then::Reset, reset),
        ("half a status line", b"HTTP/1.1 20", Then::Close, reset),
        ("half a head", b"HTTP/1.1 200 OK\r\ncontent-le", Then::Close, reset),
        ("reset in the head", b"HTTP/1.1 200 OK\r\ncontent-le", Then::Reset, reset),
        ("interim and close", b"HTTP/1.1 103 Early Hints\r\n\r\n", Then::Close, reset),
        ("garbage", b"\x00\x01\x02\x03 what is this?\r\n\r\n", Then::Close, invalid),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Then::Close, invalid),
        ("HTTP/2", b"HTTP/2.0 200 OK\r\n\r\n", Then::Close, invalid),
        ("no status", b"HTTP/1.1 OK\r\n\r\n", Then::Close, invalid),
        ("a status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n", Then::Close, invalid),
        ("a status below 100", b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n", Then::Close, invalid),
        (
            "a field without colon",
            b"HTTP/1.1 200 OK\r\nwhat\r\ncontent-length: 0\r\n\r\n",
            Then::Close,
            invalid,
        ),
        (
            "a field with NUL",
            b"HTTP/1.1 200 OK\r\na: b\x00c\r\ncontent-length: 0\r\n\r\n",
            Then::Close,
            invalid,
        ),
        ("a bad length", b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", Then::Close, invalid),
        ("a negative length", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", Then::Close, invalid),
        (
            "two lengths",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
            Then::Close,
            invalid,
        ),
    ];
    for (name, bytes, then, code) in rows {
        let (bytes, then) = (bytes.to_vec(), *then);
        let origin = Origin::start(move |visit| {
            visit.send(&bytes);
            then
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        client.send_get("/");
        let mut response = client.response();
        while response.status == 103 {
            response = client.response();
        }
        assert_eq!(response.problem(), (502, (*code).to_owned()), "{name}");
        let line = gateway.log_of("/");
        assert_eq!((&line["status"], &line["reason"]), (&502.into(), &(*code).into()), "{name}");
        eventually("the connection to the origin ends", || origin.open() == 0);
    }
}

/// A body that breaks after its head has passed: the client can tell, and the log says why.
#[test]
fn an_answer_that_breaks_in_its_body_is_seen_to_break() {
    let rows: &[(&str, &str, Then, &str)] = &[
        ("content-length: 10", "hello", Then::Close, "upstream_reset"),
        ("content-length: 10", "hello", Then::Reset, "upstream_reset"),
        ("transfer-encoding: chunked", "5\r\nhello\r\n", Then::Close, "upstream_reset"),
        ("transfer-encoding: chunked", "5\r\nhello\r\n", Then::Reset, "upstream_reset"),
        ("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n", Then::Close, "upstream_reset"),
        (
            "transfer-encoding: chunked",
            "5\r\nhello\r\nxyz\r\nabc\r\n",
            Then::Close,
            "upstream_invalid_response",
        ),
        (
            "transfer-encoding: chunked",
            "5\r\nhelloGARBAGE\r\n0\r\n\r\n",
            Then::Close,
            "upstream_invalid_response",
        ),
        (
            "transfer-encoding: chunked",
            "5\r\nhello\r\nffffffffffffffffff\r\nabc",
            Then::Close,
            "upstream_invalid_response",
        ),
    ];
    for (framing, body, then, code) in rows {
        let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}");
        let then = *then;
        let origin = Origin::start(move |visit| {
            visit.send(&answer);
            then
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        client.send_get("/");
        match client.try_response("GET") {
            // A reset can overtake what was sent before it.
            Ok(response) if then == Then::Reset || response.status == 502 => assert_eq!(response.status, 502),
            Ok(response) => panic!("{body:?} passed as whole: {response:?}"),
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
                    "{error}"
                );
            }
        }
        let line = gateway.log_of("/");
        assert_eq!(line["reason"], *code, "{framing} {body:?} {then:?}");
        eventually("the connection to the origin ends", || origin.open() == 0);
    }
}

/// Two lengths that an intermediary behind us could read differently never pass.
#[test]
fn an_answer_with_two_framings_passes_in_one_reading() {
    let rows = [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    ];
    for answer in rows {
        let origin = Origin::answering(answer);
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        // The client's reader is strict: two framings are a breach.
        let response = client.get("/");
        match response.status {
            200 => assert_eq!(response.body, b"hello", "{answer:?}"),
            status => assert_eq!((status, response.code().as_str()), (502, "upstream_invalid_response")),
        }
    }
}

/// Transfer codings that readers take in several ways; bare Pingora passes them on as they are.
#[test]
fn an_answer_whose_end_is_uncertain_is_a_502() {
    let rows = [
        ("1.1", "transfer-encoding: gzip", "ok"),
        ("1.1", "transfer-encoding: identity", "ok"),
        ("1.1", "transfer-encoding: identity\r\ncontent-length: 2", "ok"),
        ("1.1", "transfer-encoding: xchunked\r\ncontent-length: 2", "ok"),
        ("1.1", "transfer-encoding:\r\ncontent-length: 2", "ok"),
        ("1.1", "transfer-encoding: ,chunked", "2\r\nok\r\n0\r\n\r\n"),
        ("1.1", "transfer-encoding: chunked, chunked", "2\r\nok\r\n0\r\n\r\n"),
        ("1.1", "transfer-encoding: gzip, chunked", "2\r\nok\r\n0\r\n\r\n"),
        ("1.1", "transfer-encoding: chunked, identity", "2\r\nok\r\n0\r\n\r\n"),
        ("1.1", "transfer-encoding: chunked;q=1", "2\r\nok\r\n0\r\n\r\n"),
        ("1.1", "transfer-encoding: chunked\r\ntransfer-encoding: chunked", "2\r\nok\r\n0\r\n\r\n"),
        ("1.0", "transfer-encoding: chunked", "2\r\nok\r\n0\r\n\r\n"),
    ];
    for (version, framing, body) in rows {
        let answer = format!("HTTP/{version} 200 OK\r\n{framing}\r\n\r\n{body}");
        let origin = Origin::answering(answer.as_str());
        let gateway = Gateway::before(&[&origin]);
        assert_eq!(gateway.get("/").problem(), (502, "upstream_invalid_response".into()), "{answer:?}");
        eventually("the connection to the origin ends", || origin.open() == 0);
    }
}

#[test]
fn what_never_has_a_body_frames_none() {
    for answer in [
        "HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\ncontent-length: 2\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let origin = Origin::answering(answer);
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        for _ in 0..2 {
            client.send_get("/");
            let mut status = 103;
            while status == 103 {
                let response = client.response();
                assert_eq!(response.fields.all("content-length"), Vec::<&str>::new(), "{answer:?}");
                assert_eq!(response.fields.all("transfer-encoding"), Vec::<&str>::new(), "{answer:?}");
                status = response.status;
            }
            assert_eq!(status, 204, "{answer:?}");
        }
    }
}

/// How the upstream speaks to us is none of the client's business (RFC 9110, section 6.2).
#[test]
fn the_version_of_an_answer_is_the_gateways() {
    for answer in [
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let origin = Origin::start(move |visit| {
            visit.send(answer);
            Then::Close
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        for _ in 0..2 {
            let response = client.get("/");
            assert_eq!(
                (response.version.as_str(), response.text().as_str()),
                ("HTTP/1.1", "ok"),
                "{answer:?}"
            );
        }
        let old = gateway.ask("GET / HTTP/1.0\r\n\r\n");
        assert_eq!((old.version.as_str(), old.text().as_str()), ("HTTP/1.1", "ok"), "{answer:?}");
        assert_eq!(old.fields.all("transfer-encoding"), Vec::<&str>::new(), "{answer:?}");
    }
}

/// What an answer may be forgiven (RFC 9112, sections 2.2, 5.1 and 5.2) is forgiven before others see it.
#[test]
fn what_is_mended_in_an_answer_has_one_reading() {
    for answer in [
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a b\r\ncontent-length:\r\n 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a b\r\ntransfer-encoding:\r\n chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nx: a b\ncontent-length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nx : a b\r\ncontent-length : 2\r\n\r\nok",
        "HTTP/1.1 200\r\nx: a b\r\ncontent-length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a b\r\ncontent-length: 002\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a b\r\ntransfer-encoding: Chunked\r\n\r\n2;y=z\r\nok\r\n0\r\ncontent-length: 9\r\nset-cookie: a=b\r\n\r\n",
    ] {
        let origin = Origin::answering(answer);
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        for _ in 0..2 {
            let response = client.get("/");
            assert_eq!((response.status, response.text().as_str()), (200, "ok"), "{answer:?}");
            assert_eq!(response.header("x"), Some("a b"), "{answer:?}");
            assert!(matches!(response.header("content-length"), None | Some("2")), "{answer:?}");
            assert_eq!(response.trailers.0, [], "{answer:?}");
        }
    }
}

#[test]
fn bytes_beyond_an_answer_never_reach_another_client() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen",
        "HTTP/1.1 204 No Content\r\ncontent-length: 44\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 44\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen",
        "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let origin = Origin::answering(answer);
        let gateway = Gateway::before(&[&origin]);
        for _ in 0..5 {
            let response = gateway.get("/");
            assert!(matches!(response.text().as_str(), "ok" | ""), "{answer:?}: {response:?}");
        }
    }
}

#[test]
fn a_body_after_the_answer_to_head_reaches_nobody() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\ncontent-length: 44\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen",
    );
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    for _ in 0..5 {
        client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.response_to("HEAD").header("content-length"), Some("44"));
        let body = client.get("/").text();
        assert!(body.starts_with("HTTP/1.1 200 OK") && body.ends_with("stolen"), "{body}");
    }
}

/// How much an origin could send before it was cut off.
fn sent_before_cut_off(head: &'static str, drip: &'static str) -> (usize, (u16, String)) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let origin = Origin::start(move |visit| {
        visit.send(head);
        let piece = drip.repeat((16 << 10) / drip.len());
        while counted.load(Ordering::Relaxed) < 1 << 30 && visit.send(&piece) {
            counted.fetch_add(piece.len(), Ordering::Relaxed);
        }
        Then::Close
    });
    let gateway = Gateway::before(&[&origin]);
    let problem = gateway.get("/").problem();
    assert_eq!(gateway.log_of("/")["reason"].as_str(), Some(problem.1.as_str()));
    eventually("the origin is cut off", || origin.open() == 0);
    (sent.load(Ordering::Relaxed), problem)
}

#[test]
fn an_endless_head_is_cut_off_early() {
    let rows = [
        ("endless fields", "HTTP/1.1 200 OK\r\n", "x-field: and more of it\r\n"),
        ("an endless field", "HTTP/1.1 200 OK\r\nx-field: ", "and more of it "),
        ("an endless reason", "HTTP/1.1 200 ", "fine "),
        ("an endless status line", "HTTP/1.1 2", "0"),
        ("endless empty lines", "", "\r\n"),
    ];
    for (name, head, drip) in rows {
        let (sent, problem) = sent_before_cut_off(head, drip);
        assert_eq!(problem, (502, "upstream_invalid_response".into()), "{name}");
        // What the sockets hold is in it.
        assert!(sent < 32 << 20, "{name}: {sent} bytes were taken");
    }
}

#[test]
fn endless_interim_answers_end_with_the_request_timeout() {
    let origin = Origin::start(|visit| {
        while visit.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n") {}
        Then::Close
    });
    let gateway = Gateway::before_with(&origin, "timeouts: { request: 300ms }");
    let mut client = gateway.client();
    client.send_get("/");
    let last = std::iter::repeat_with(|| client.response()).find(|response| response.status != 103).unwrap();
    assert_eq!(last.problem(), (504, "request_timeout".into()));
    eventually("the origin is cut off", || origin.open() == 0);
}

#[test]
fn an_early_answer_to_an_upload_passes() {
    let origin = Origin::on_head(|visit| {
        visit.send("HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
        // Takes the rest, as a polite server does.
        visit.wait_for_close();
        Then::Close
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nstart");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (409, "no"));
}

#[test]
fn a_reply_of_the_gateway_leaves_the_connection_in_step() {
    let gateway = Gateway::start("routes: [{ name: hi, path: /hi, respond: { body: hi } }]");
    let mut client = gateway.client();
    for _ in 0..2 {
        assert_eq!(client.get("/none").problem(), (404, "route_not_found".into()));
        assert_eq!(client.get("/hi").text(), "hi");
        // Their bodies are nobody's: they must not be read as the next request.
        let post =
            "POST /hi HTTP/1.1\r\nhost: a\r\ncontent-length: 31\r\n\r\nGET /stolen HTTP/1.1\r\nhost: b\r\n";
        assert_eq!(client.ask(post).status, 200);
    }
    assert!(gateway.log().iter().all(|line| line["path"] != "/stolen"));
}
