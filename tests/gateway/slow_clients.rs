//! Clients that take their time: each is ended by its own limit, and nothing stays behind.

use std::time::{Duration, Instant};

use crate::harness::{Client, Gateway, Http2, Origin, eventually, to};

fn gateway(origin: &Origin, limits: &str) -> Gateway {
    let listener = format!("listeners: [{{ name: web, address: \"127.0.0.1:0\", limits: {{ {limits} }} }}]");
    Gateway::start(&format!("{}{listener}", to(&[origin], "")))
}

const POST: &str = "POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";

/// Whether something has come, or does in a moment; it is left to be read.
fn has_spoken(client: &Client) -> bool {
    let socket = &client.stream.socket;
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let peeked = socket.peek(&mut [0]);
    socket.set_read_timeout(Some(Gateway::soon())).unwrap();
    peeked.is_ok()
}

/// Everything that a slow client takes is given back.
fn assert_nothing_is_left(gateway: &Gateway, origin: &Origin) {
    for series in
        ["portcullis_connections_active{listener=\"web\"}", "portcullis_requests_active{route=\"all\"}"]
    {
        eventually(series, || gateway.metric(series) == 0.0);
    }
    eventually("connections to the origin are given back", || origin.open() <= 1);
}

/// The first 10 seconds are free: this test takes as long, whatever the machine.
#[test]
fn a_body_that_trickles_is_ended() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "body_min_rate: 1GiB/s");
    let lenient = self::gateway(&origin, "body_min_rate: 0B/s");
    let begun = Instant::now();
    let mut one = gateway.client();
    let mut unhurried = lenient.client();
    one.send(POST);
    unhurried.send(POST);
    let mut two = Http2::connect(gateway.address());
    let mut asked = two.begin(two.request("POST", "/up2"), false);
    two.write(&mut asked.body, b"a", false);
    let mut ended = false;
    while !ended {
        let _ = one.stream.send(b"a");
        unhurried.send("a");
        ended = has_spoken(&one);
    }
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(one.response().problem(), (408, "body_too_slow".into()));
    assert!(one.ends());
    assert_eq!(two.answer(asked.answer).unwrap().problem(), (408, "body_too_slow".into()));
    for path in ["/up", "/up2"] {
        assert_eq!(gateway.log_of(path)["reason"], "body_too_slow");
    }
    assert!(unhurried.is_silent(Duration::from_millis(500)), "0B/s is no rate at all");
    drop((one, two));
    assert_nothing_is_left(&gateway, &origin);
}

/// Heads that drip, bodies that stop, answers that nobody reads: as slowhttptest makes them.
#[test]
fn many_slow_clients_leave_nothing_behind() {
    let origin = Origin::start(|visit| {
        let body = "b".repeat(8 << 20);
        visit.answer(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    });
    let gateway = Gateway::start(&format!(
        "{}listeners: [{{ name: web, address: \"127.0.0.1:0\", limits: {{ header_timeout: 300ms }} }}]",
        to(&[&origin], "timeouts: { stream_idle: 300ms }")
    ));
    let before = descriptors();
    let mut heads: Vec<Client> = (0..100).map(|_| gateway.client()).collect();
    let mut bodies: Vec<Client> = (0..100).map(|_| gateway.client()).collect();
    let readers: Vec<Client> = (0..4).map(|_| Client::connect_small(gateway.address())).collect();
    heads.iter_mut().for_each(|client| drop(client.stream.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-")));
    bodies.iter_mut().for_each(|client| drop(client.stream.send(POST.as_bytes())));
    let mut readers: Vec<Client> = readers
        .into_iter()
        .map(|mut client| {
            client.send_get("/big");
            client
        })
        .collect();
    for client in &mut heads {
        assert_eq!(client.response().problem(), (408, "header_timeout".into()));
        assert!(client.ends());
    }
    for client in &mut bodies {
        assert_eq!(client.response().problem(), (408, "body_timeout".into()));
        assert!(client.ends());
    }
    assert_nothing_is_left(&gateway, &origin);
    for client in &mut readers {
        assert!(client.rest().len() < 8 << 20, "cut off");
    }
    drop((heads, bodies, readers));
    // Other tests run in this process, too: their descriptors come and go.
    eventually("descriptors are given back", || descriptors() < before + 60);
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_connection_ends_at_its_age() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "connection_lifetime: 300ms");
    let mut unused = gateway.client();
    let mut busy = gateway.client();
    let begun = Instant::now();
    let mut closes = false;
    while !closes {
        let response = busy.get("/");
        assert_eq!(response.status, 200);
        closes = response.fields.lists("connection", "close");
    }
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    assert!(busy.ends());
    assert!(unused.ends());

    let mut http2 = Http2::connect(gateway.address());
    assert_eq!(http2.get("/").status, 200);
    eventually("GOAWAY", || !http2.is_open());
    assert_nothing_is_left(&gateway, &origin);
}

#[test]
fn a_request_under_way_outlives_its_connection() {
    let origin = Origin::ok();
    let gateway = gateway(&origin, "connection_lifetime: 100ms");
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na");
    assert!(client.is_silent(Duration::from_millis(300)));
    assert_eq!(client.ask("b").status, 200);
    // Whoever does not know yet is still answered, and told.
    assert!(client.get("/").fields.lists("connection", "close"));
    assert!(client.ends());
}
