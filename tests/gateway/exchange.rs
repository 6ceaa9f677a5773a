//! One exchange after the other: framing, keep-alive, and what passes.

use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use http::StatusCode;
use portcullis::{Reply, Route};

use crate::harness::{Gateway, Http2, Origin, Response, Then, eventually, to};

/// An origin that answers with the target it was asked for.
fn echo() -> Origin {
    Origin::start(|visit| {
        let target = visit.request.target.clone();
        visit.answer(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{target}", target.len()))
    })
}

#[test]
fn a_request_reaches_the_origin_and_its_answer_the_client() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let response = gateway.get("/a?b=c");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    let request = origin.last();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/a?b=c"));
    let line = gateway.log_of("/a");
    assert_eq!((&line["status"], &line["route"]), (&200.into(), &"all".into()));
    assert_eq!(gateway.admin_get("/healthz").status, 200);
}

#[test]
fn connections_are_kept_alive_on_both_sides() {
    let origin = echo();
    let gateway = Gateway::before(&[&origin]);
    for _ in 0..2 {
        let mut client = gateway.client();
        for target in ["/1", "/2", "/3"] {
            let response = client.get(target);
            assert_eq!(response.text(), target);
            assert!(!response.fields.lists("connection", "close"));
        }
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_client_that_asks_for_it_is_closed() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    let response = client.ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(response.status, 200);
    assert!(response.fields.lists("connection", "close"));
    assert!(client.ends());
    // The client's wish is not the origin's: that connection is pooled.
    assert_eq!((gateway.get("/").status, origin.connections()), (200, 1));
}

#[test]
fn an_origin_that_closes_is_not_the_clients_concern() {
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        Then::Close
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(response.status, 200);
        assert!(!response.fields.lists("connection", "close"));
    }
    assert_eq!(origin.connections(), 3);
}

/// Bare Pingora fails the request under way when the next one comes early.
#[test]
fn pipelined_requests_are_answered_in_order_where_bare_pingora_fails_them() {
    let origin = echo();
    let gateway = Gateway::before(&[&origin]);
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
    let length = "POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc".to_owned();
    let chunked =
        "POST /1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_owned();
    for first in [get("/1"), length, chunked] {
        let mut client = gateway.client();
        client.send([first, get("/2"), get("/3")].concat());
        let answers = [client.response(), client.response(), client.response()];
        assert_eq!(answers.map(|answer| answer.text()), ["/1", "/2", "/3"]);
    }
}

#[test]
fn a_pipeline_longer_than_any_buffer_is_served() {
    let origin = echo();
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    let mut reader = crate::harness::Client::over(client.stream.socket.try_clone().unwrap());
    let sender = std::thread::spawn(move || {
        for number in 0..500 {
            client.send(format!(
                "POST /{number} HTTP/1.1\r\nhost: a\r\nx-pad: {}\r\ncontent-length: 400\r\n\r\n{}",
                "p".repeat(200),
                "b".repeat(400)
            ));
        }
    });
    for number in 0..500 {
        assert_eq!(reader.response().text(), format!("/{number}"));
    }
    sender.join().unwrap();
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let origin = Origin::start(|visit| match visit.request.method.as_str() {
        "HEAD" => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"),
        _ => visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
    let response = client.response_to("HEAD");
    assert_eq!((response.status, response.header("content-length")), (200, Some("1000")));
    assert_eq!(client.get("/").text(), "ok");
}

#[test]
fn answers_without_a_body_leave_the_connection_in_step() {
    for status in ["204 No Content", "304 Not Modified"] {
        let origin = Origin::answering(format!("HTTP/1.1 {status}\r\netag: \"a\"\r\n\r\n"));
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        for _ in 0..3 {
            let response = client.get("/");
            assert_eq!(response.status.to_string(), status[..3]);
            assert_eq!(response.header("etag"), Some("\"a\""));
        }
    }
}

#[test]
fn the_origins_100_continue_passes_and_then_the_body() {
    let origin = Origin::on_head(|visit| {
        assert_eq!(visit.request.header("expect"), Some("100-continue"));
        visit.send("HTTP/1.1 100 Continue\r\n\r\n");
        visit.read_body().unwrap();
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    for round in 0..3 {
        let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(client.ask(head).status, 100);
        assert_eq!(origin.requests().len(), round, "before its body a request is not whole");
        let response = client.ask("abc");
        assert_eq!(response.status, 200);
        assert!(!response.fields.lists("connection", "close"));
        assert_eq!(origin.last().content(), b"abc");
    }
}

#[test]
fn an_origin_that_refuses_an_expectation_is_heard_without_the_body() {
    for sends_it_anyway in [true, false] {
        let origin = Origin::on_head(|visit| {
            visit.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
            visit.wait_for_close();
            Then::Close
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        let response =
            client.ask("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n");
        assert_eq!((response.status, response.text().as_str()), (403, "no"));
        if sends_it_anyway {
            // The body belongs to the refused request, whatever it says.
            client.send("GET");
            let closes = response.fields.lists("connection", "close");
            assert!(if closes { client.ends() } else { client.get("/").status == 403 });
        }
        drop(client);
        assert_eq!(gateway.log_of("/")["status"], 403);
        eventually("the connection to the origin ends", || origin.open() == 0);
    }
}

#[test]
fn a_body_too_large_by_its_length_is_refused_before_100_continue() {
    let origin = Origin::ok();
    let gateway = Gateway::before_with(&origin, "limits: { request_body: 10B }");
    let mut client = gateway.client();
    let response =
        client.ask("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n");
    assert_eq!(response.problem(), (413, "body_too_large".into()));
    assert!(client.ends());
    assert_eq!(origin.connections(), 0);
    assert_eq!(gateway.log_of("/")["reason"], "body_too_large");
}

#[test]
fn interim_answers_pass() {
    let origin = Origin::answering(
        *b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    );
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    for _ in 0..2 {
        let hints = client.get("/");
        assert_eq!((hints.status, hints.header("link")), (103, Some("</a.css>")));
        assert_eq!(client.response().text(), "ok");
    }
    // HTTP/1.0 knows no interim answers (RFC 9110, section 15.2).
    let response = gateway.ask("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
}

#[test]
fn http10_gets_what_it_understands() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let length = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for answer in [chunked, length] {
        let origin = Origin::answering(answer);
        let gateway = Gateway::before(&[&origin]);
        for wish in ["", "connection: keep-alive\r\n"] {
            let mut client = gateway.client();
            let response = client.ask(format!("GET / HTTP/1.0\r\nhost: a\r\n{wish}\r\n"));
            assert_eq!((response.status, response.text().as_str()), (200, "ok"), "{answer:?} {wish:?}");
            assert_eq!(response.header("transfer-encoding"), None);
            let kept = response.fields.lists("connection", "keep-alive");
            assert!(!kept || (!wish.is_empty() && response.header("content-length").is_some()));
            if kept {
                let response = client.ask("GET /2 HTTP/1.0\r\nhost: a\r\n\r\n");
                assert_eq!(response.status, 200);
            }
            assert!(client.ends(), "{answer:?} {wish:?}");
        }
        assert!(origin.requests().iter().all(|request| request.version == "HTTP/1.1"));
    }
}

#[test]
fn http10_without_host_is_served() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    assert_eq!(gateway.ask("GET / HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn fields_between_client_and_gateway_stay_there() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let rows = [
        ("connection: x-a", "x-a: 1", "x-a"),
        ("connection: X-A , close", "x-a: 1", "x-a"),
        ("connection: close\r\nconnection: x-a", "x-a: 1", "x-a"),
        ("connection: keep-alive", "keep-alive: timeout=5", "keep-alive"),
        ("x-b: 1", "keep-alive: timeout=5", "keep-alive"),
        ("x-b: 1", "proxy-connection: keep-alive", "proxy-connection"),
        ("x-b: 1", "te: trailers", "te"),
        ("connection: te", "te: gzip", "te"),
        ("x-b: 1", "upgrade: h2c", "upgrade"),
        ("connection: upgrade, http2-settings", "upgrade: h2c\r\nhttp2-settings: AA", "upgrade"),
        ("connection: upgrade, http2-settings", "upgrade: h2c\r\nhttp2-settings: AA", "http2-settings"),
    ];
    for (connection, field, name) in rows {
        let response = gateway.ask(format!("GET / HTTP/1.1\r\nhost: a\r\n{connection}\r\n{field}\r\n\r\n"));
        assert_eq!(response.status, 200, "{connection:?} {field:?}");
        let got = origin.last();
        assert_eq!(got.fields.all(name), Vec::<&str>::new(), "{connection:?} {field:?}");
        assert_eq!(got.fields.all("connection"), Vec::<&str>::new(), "{connection:?}");
    }
}

#[test]
fn fields_between_origin_and_gateway_stay_there() {
    let rows = [
        ("connection: x-a", "x-a: 1", "x-a"),
        ("connection: close, X-A", "x-a: 1", "x-a"),
        ("connection: keep-alive\r\nconnection: x-a", "x-a: 1", "x-a"),
        ("connection: keep-alive", "keep-alive: timeout=5", "keep-alive"),
        ("x-b: 1", "proxy-connection: keep-alive", "proxy-connection"),
        ("connection: upgrade", "upgrade: h2c", "upgrade"),
    ];
    for (connection, field, name) in rows {
        let answer = format!("HTTP/1.1 200 OK\r\n{connection}\r\n{field}\r\ncontent-length: 2\r\n\r\nok");
        let origin = Origin::answering(answer);
        let gateway = Gateway::before(&[&origin]);
        let response = gateway.get("/");
        assert_eq!(response.fields.all(name), Vec::<&str>::new(), "{connection:?} {field:?}");
        let options = response.fields.all("connection").join(",");
        assert!(matches!(options.as_str(), "" | "keep-alive"), "{connection:?}: {options}");
    }
}

#[test]
fn bodies_with_trailers_stay_in_step() {
    let origin = Origin::answering(
        *b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2;e=1\r\nok\r\n0\r\nx-sum: 1\r\n\r\n",
    );
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    for _ in 0..3 {
        let response = client.ask(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
             3;e=\"1\"\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
        );
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        assert_eq!(origin.last().content(), b"abc");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn every_framing_of_an_answer_is_understood() {
    let rows: [(&str, Then); 4] = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Then::Keep),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", Then::Keep),
        ("HTTP/1.1 200 OK\r\n\r\nhello", Then::Close),
        ("HTTP/1.0 200 OK\r\n\r\nhello", Then::Close),
    ];
    for (answer, then) in rows {
        let origin = Origin::start(move |visit| {
            visit.send(answer);
            then
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        for _ in 0..2 {
            let Response { status, body, .. } = client.get("/");
            assert_eq!((status, body.as_slice()), (200, &b"hello"[..]), "{answer:?}");
        }
    }
}

#[test]
fn a_request_that_asks_for_its_way_is_forwarded_as_often_as_it_says() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    for (method, sent, status, forwarded) in [
        ("OPTIONS", "0", 204, None),
        ("TRACE", "0", 405, None),
        ("OPTIONS", "1", 200, Some("0")),
        ("TRACE", "70", 200, Some("69")),
        ("OPTIONS", "+3", 200, Some("+3")),
        ("OPTIONS", "x", 200, Some("x")),
        ("GET", "0", 200, Some("0")),
    ] {
        let before = origin.requests().len();
        let ask = format!("{method} / HTTP/1.1\r\nhost: a\r\nmax-forwards: {sent}\r\n\r\n");
        assert_eq!(gateway.client().ask(&ask).status, status, "{method} {sent}");
        let seen = origin.requests().split_off(before);
        let seen = seen.first().map(|request| request.header("max-forwards").map(str::to_owned));
        assert_eq!(seen.flatten().as_deref(), forwarded, "{method} {sent}");
        assert_eq!(origin.requests().len() - before, usize::from(forwarded.is_some()), "{method} {sent}");
    }
}

#[test]
fn options_asterisk_is_answered_by_the_gateway() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    let response = client.ask("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((response.status, response.body.len()), (204, 0));
    assert_eq!(client.get("/").status, 200);
    assert_eq!(origin.requests().len(), 1);
}

/// A client that is not told would send its next request into a connection that ends.
#[test]
fn an_answer_that_is_made_in_a_drain_says_that_its_connection_closes() {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let origin = Origin::start(move |visit| {
        let _ = held.lock().unwrap().recv();
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nat last")
    });
    let gateway = Gateway::start_with(&to(&[&origin], ""), |gateway| {
        gateway.route(Route::new("own", "/own").respond_with(|_, _| Reply::content(StatusCode::OK, "own")))
    });
    let address = gateway.address();
    let (mut passed, mut own) = (gateway.client(), gateway.client());
    passed.send_get("/");
    own.send("POST /own HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab");
    origin.request(0);
    eventually("it is under way", || gateway.metric("portcullis_requests_active{route=\"own\"}") == 1.0);
    let ending = std::thread::spawn(move || gateway.shutdown());
    eventually("the listener closes", || TcpStream::connect(address).is_err());
    own.send("c");
    drop(release);
    for (client, text) in [(&mut passed, "at last"), (&mut own, "own")] {
        let answer = client.response();
        assert_eq!(answer.text(), text);
        assert!(answer.fields.lists("connection", "close"), "{text}");
        assert!(client.ends());
    }
    ending.join().unwrap();
}

/// Longer than the time that a body may be waited for.
#[test]
fn an_origin_may_take_its_time_before_100_continue() {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let origin = Origin::on_head(move |visit| {
        let _ = held.lock().unwrap().recv();
        visit.send("HTTP/1.1 100 Continue\r\n\r\n");
        visit.read_body().unwrap();
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let gateway = Gateway::before(&[&origin]);
    let (mut one, mut two) = (gateway.client(), Http2::connect(gateway.address()));
    one.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n");
    let request = two.request("POST", "/").header("expect", "100-continue");
    let mut asked = two.begin(request, false);
    assert!(one.is_silent(Duration::from_secs(12)));
    drop(release);
    assert_eq!(one.response().status, 100);
    assert_eq!(one.ask("abc").status, 200);
    let word = two.within(std::future::poll_fn(|cx| asked.answer.poll_informational(cx))).unwrap().unwrap();
    assert_eq!(word.status().as_u16(), 100);
    two.write(&mut asked.body, b"abc", true);
    assert_eq!(two.answer(asked.answer).unwrap().status.as_u16(), 200);
    assert!(origin.requests().iter().all(|request| request.content() == b"abc"));
}

/// Who has not said 100 is the one who is late.
#[test]
fn an_origin_that_never_says_100_continue_is_given_up() {
    let origin = Origin::on_head(|visit| {
        visit.wait_for_close();
        Then::Close
    });
    let gateway = Gateway::before_with(&origin, "timeouts: { request: 200ms }");
    let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    assert_eq!(gateway.ask(head).problem(), (504, "request_timeout".into()));
    eventually("the origin is let go", || origin.open() == 0);
}
