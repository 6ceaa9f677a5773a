//! Streams share a connection of HTTP/2, and one that is stuck holds up no other; nor does a clock that is not its own end
//! one that moves.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::harness::tls::Authority;
use crate::harness::{Client, Gateway, Http2, Origin, Then, Visit, settled, to};

/// A gateway before another, with HTTP/2 between the two.
struct Pair {
    first: Gateway,
    _second: Gateway,
}

fn pair(origin: &Origin, timeouts: &str) -> Pair {
    let second = Gateway::before(&[origin]);
    let first = Gateway::start(&format!(
        "upstreams: {{ next: {{ protocol: http2, endpoints: [\"{}\"] }} }}\n\
         routes: [{{ name: all, path: /*, upstream: next{timeouts} }}]\n",
        second.address()
    ));
    Pair { first, _second: second }
}

#[test]
fn clients_that_take_nothing_leave_others_their_answers() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let origin = Origin::start(move |visit| {
        if visit.request.target == "/small" {
            return visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nbb");
        }
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 8388608\r\n\r\n");
        for _ in 0..1024 {
            if visit.stream.send(&[0; 8192]).is_err() {
                break;
            }
            counted.fetch_add(8192, Ordering::Relaxed);
        }
        Then::Close
    });
    let gateways = pair(&origin, "");
    let mut idle: Vec<Client> = (0..20).map(|_| Client::connect_small(gateways.first.address())).collect();
    for client in &mut idle {
        client.send_get("/big");
        assert_eq!(client.head().status, 200);
    }
    settled("the windows are full", Duration::from_millis(500), || sent.load(Ordering::Relaxed));
    assert_eq!(gateways.first.get("/small").text(), "bb");
}

/// Sends until there has been no room for half a second.
fn fill(client: &Http2, body: &mut h2::SendStream<Bytes>) {
    client.within(async {
        loop {
            body.reserve_capacity(64 << 10);
            let room = tokio::time::timeout(Duration::from_millis(500), poll_fn(|cx| body.poll_capacity(cx)));
            let Ok(room) = room.await else { return };
            body.send_data(vec![0; room.unwrap().unwrap()].into(), false).unwrap();
        }
    });
}

#[test]
fn uploads_that_nobody_takes_leave_others_their_room() {
    let (ended, held) = channel::<()>();
    let held = Mutex::new(held);
    let stuck = Origin::raw(move |_, stream| {
        let _ = stream.request_head();
        // Until the test is over.
        let _ = held.lock().unwrap().recv();
        Then::Close
    });
    let well = Origin::ok();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ stuck: {{ endpoints: [\"{}\"] }}, well: {{ endpoints: [\"{}\"] }} }}\n\
         routes: [{{ name: stuck, path: /stuck, upstream: stuck, limits: {{ request_body: 100MiB }} }}, \
         {{ name: well, path: /well, upstream: well }}]\n",
        stuck.address(),
        well.address()
    ));
    let mut client = Http2::connect(gateway.address());
    let request = |client: &Http2, path| client.request("POST", path);
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut asked = client.begin(request(&client, "/stuck"), false);
        fill(&client, &mut asked.body);
        held.push(asked);
    }
    let answer = client.send(request(&client, "/well"), &vec![1; 1 << 20]);
    assert_eq!(answer.status, 200);
    drop(ended);
}

/// Its time is longer than what either clock allows between two pieces.
#[test]
fn an_upload_that_moves_is_as_long_as_it_takes() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let origin = Origin::ok();
    let second = Gateway::start(&format!(
        "{}listeners: [{{ name: web, address: \"127.0.0.1:0\" }}, \
         {{ name: secure, address: \"127.0.0.1:0\", tls: {{ certificates: [{}] }} }}]\n",
        to(&[&origin], ""),
        files.words()
    ));
    let tls = format!("tls: {{ sni: a.test, ca: {} }}", pki.ca().display());
    for (listener, words) in [
        ("web", "protocol: http2".to_owned()),
        ("secure", format!("protocol: auto, {tls}")),
        ("web", String::new()),
    ] {
        let words = if words.is_empty() { words } else { format!(", {words}") };
        let gateway = Gateway::start(&format!(
            "upstreams: {{ next: {{ endpoints: [\"{}\"]{words} }} }}\n\
             routes: [{{ name: all, path: /*, upstream: next, timeouts: {{ read: 1500ms, stream_idle: 1500ms }} }}]\n",
            second.listener(listener)
        ));
        // What is spoken with the endpoint shows in its first answer.
        assert_eq!(gateway.get("/").status, 200, "{words}");
        let mut client = Http2::connect(gateway.address());
        let mut asked = client.begin(client.request("POST", "/"), false);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(3500) {
            client.write(&mut asked.body, b"piece", false);
            std::thread::sleep(Duration::from_millis(100));
        }
        client.write(&mut asked.body, b"", true);
        assert_eq!(client.answer(asked.answer).unwrap().status, 200, "{words}");
    }
}

/// An event comes when there is one.
fn events(visit: &mut Visit<'_>) -> Then {
    let kind =
        if visit.request.target == "/events" { "Text/Event-Stream; charset=utf-8" } else { "text/plain" };
    visit.send(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n6\r\none\n\n\n\r\n"
    ));
    std::thread::sleep(Duration::from_secs(2));
    visit.send("6\r\ntwo\n\n\n\r\n0\r\n\r\n");
    Then::Keep
}

#[test]
fn a_stream_of_events_may_be_silent_for_longer_than_another_answer() {
    let origin = Origin::start(events);
    let timeouts = ", timeouts: { read: 500ms }";
    let near = Gateway::before_with(&origin, &timeouts[2..]);
    let far = pair(&origin, timeouts);
    for gateway in [&near, &far.first] {
        assert_eq!(gateway.get("/events").text(), "one\n\n\ntwo\n\n\n");
        assert_eq!(Http2::connect(gateway.address()).get("/events").body, b"one\n\n\ntwo\n\n\n");
        let mut client = gateway.client();
        client.send_get("/other");
        assert!(client.try_response("GET").is_err(), "cut off");
        assert_eq!(gateway.log_of("/other")["reason"], "upstream_read_timeout");
    }
}
