//! Bodies pass as they come, and what breaks on one side is felt on the other.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::harness::{Gateway, Origin, SOON, Then, eventually};

const FRAMINGS: [(&str, &str, &str); 2] = [
    ("content-length: 10", "first", "last!"),
    ("transfer-encoding: chunked", "5\r\nfirst\r\n", "5\r\nlast!\r\n0\r\n\r\n"),
];

#[test]
fn an_upload_reaches_the_origin_before_it_is_complete() {
    for (framing, first, last) in FRAMINGS {
        let (seen, first_seen) = channel();
        let seen = Mutex::new(seen);
        let origin = Origin::on_head(move |visit| {
            let some = visit.stream.some().unwrap();
            let seen = seen.lock().unwrap();
            seen.send(String::from_utf8(some).unwrap()).unwrap();
            let _ = visit.stream.some();
            visit.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
            Then::Close
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n{first}"));
        let some = first_seen.recv_timeout(SOON).unwrap();
        assert!(some.contains("first"), "{framing}: {some:?}");
        assert_eq!(client.ask(last).status, 200);
    }
}

#[test]
fn an_upload_reaches_the_origin_even_when_its_head_comes_alone() {
    let origin = Origin::on_head(|visit| {
        visit.read_body().unwrap();
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    });
    let gateway = Gateway::before(&[&origin]);
    for (framing, first, last) in FRAMINGS {
        let mut client = gateway.client();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n"));
        eventually("the head is at the origin", || !origin.heads().is_empty());
        client.send(first);
        assert_eq!(client.ask(last).status, 200);
        assert_eq!(origin.last().content(), b"firstlast!");
    }
}

#[test]
fn a_download_reaches_the_client_before_it_is_complete() {
    let close = ("connection: close", "first", "last!");
    for (framing, first, last) in FRAMINGS.into_iter().chain([close]) {
        let (go, gone): (Sender<()>, Receiver<()>) = channel();
        let gone = Mutex::new(gone);
        let origin = Origin::start(move |visit| {
            visit.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{first}"));
            gone.lock().unwrap().recv_timeout(SOON).unwrap();
            visit.send(last);
            if framing.starts_with("connection") { Then::Close } else { Then::Keep }
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        let head = client.send_get("/").head();
        let chunked = head.fields.lists("transfer-encoding", "chunked");
        let mut next = || if chunked { client.stream.chunk().unwrap() } else { client.read(5) };
        assert_eq!(next(), b"first", "{framing}");
        go.send(()).unwrap();
        assert_eq!(next(), b"last!", "{framing}");
    }
}

#[test]
fn both_ways_stream_at_once() {
    let origin = Origin::on_head(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        loop {
            let chunk = visit.stream.chunk().unwrap();
            if chunk.is_empty() {
                visit.stream.fields().unwrap();
                visit.send("0\r\n\r\n");
                return Then::Close;
            }
            visit.send(format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8(chunk).unwrap()));
        }
    });
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send("4\r\nping\r\n");
    assert!(client.head().fields.lists("transfer-encoding", "chunked"));
    assert_eq!(client.stream.chunk().unwrap(), b"ping");
    for word in ["pong", "pang"] {
        client.send(format!("4\r\n{word}\r\n"));
        assert_eq!(client.stream.chunk().unwrap(), word.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.stream.chunk().unwrap(), b"");
}

#[test]
fn large_bodies_pass_whole_both_ways() {
    const SIZE: usize = 32 << 20;
    let origin = Origin::start(|visit| {
        let body = visit.request.body.take().unwrap();
        visit.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
        visit.answer(body)
    });
    let gateway = Gateway::before_with(&origin, "limits: { request_body: 64MiB }");
    let body: Vec<u8> = (0..SIZE).map(|at| (at * 31 % 251) as u8).collect();
    let mut client = gateway.client();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {SIZE}\r\n\r\n")).send(&body);
    assert!(client.response().body == body);
    let line = gateway.log_of("/");
    assert_eq!(
        (line["bytes_in"].as_u64(), line["bytes_out"].as_u64()),
        (Some(SIZE as u64), Some(SIZE as u64))
    );
}

#[test]
fn half_a_head_is_nothing() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-half").finish();
    assert!(client.ends());
    assert_eq!(gateway.get("/whole").status, 200);
    assert_eq!((origin.heads().len(), gateway.log_line(0)["path"].as_str()), (1, Some("/whole")));
}

#[test]
fn half_a_body_is_no_request() {
    for part in [
        "content-length: 10\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        let origin = Origin::ok();
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{part}")).finish();
        client.rest();
        let line = gateway.log_of("/");
        assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_closed".into()), "{part:?}");
        eventually("the connection to the origin ends", || origin.open() == 0);
        assert!(origin.requests().is_empty(), "{part:?}");
    }
}

#[test]
fn a_client_that_leaves_is_felt_by_the_origin() {
    for by_reset in [false, true] {
        let origin = Origin::start(|visit| {
            visit.wait_for_close();
            Then::Close
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        client.send_get("/");
        origin.request(0);
        if by_reset {
            client.reset();
        } else {
            drop(client);
        }
        let line = gateway.log_of("/");
        assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_closed".into()));
        eventually("the connection to the origin ends", || origin.open() == 0);
    }
}

#[test]
fn a_client_that_leaves_in_a_download_is_felt_by_the_origin() {
    for by_reset in [false, true] {
        let origin = Origin::start(|visit| {
            visit.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
            let piece = vec![b'x'; 64 << 10];
            while visit.send(&piece) {}
            Then::Close
        });
        let gateway = Gateway::before(&[&origin]);
        let mut client = gateway.client();
        client.send_get("/").head();
        client.read(1 << 20);
        if by_reset {
            client.reset();
        } else {
            drop(client);
        }
        let line = gateway.log_of("/");
        assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"client_closed".into()), "{by_reset}");
        eventually("the connection to the origin ends", || origin.open() == 0);
    }
}

#[test]
fn a_reset_in_an_upload_is_felt_by_the_origin() {
    let origin = Origin::ok();
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc");
    eventually("the head is at the origin", || !origin.heads().is_empty());
    client.reset();
    assert_eq!(gateway.log_of("/")["reason"], "client_closed");
    eventually("the connection to the origin ends", || origin.open() == 0);
    assert!(origin.requests().is_empty());
}
