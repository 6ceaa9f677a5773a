//! Nothing is left behind: connections, descriptors, memory.

use std::fs;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::harness::{Client, Gateway, Origin, Then, eventually, settled, to};

const ACTIVE: &str = "portcullis_connections_active{listener=\"web\"}";

/// Sockets of this machine whose local end has this port, the listening one and those that only wait for late packets
/// left out. While the table changes an entry may show twice.
fn sockets(address: SocketAddr) -> usize {
    let port = format!(":{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(&port) && !matches!(row[3], "0A" | "06")).count()
}

#[test]
fn two_thousand_idle_connections_leave_nothing_behind() {
    let origin = Origin::ok();
    let listener =
        "listeners: [{ name: web, address: \"127.0.0.1:0\", limits: { connections_per_ip: 3000 } }]";
    let gateway = Gateway::start(&format!("{}{listener}", to(&[&origin], "")));
    let mut clients: Vec<Client> = (0..2_000).map(|_| gateway.client()).collect();
    eventually("all are here", || gateway.metric(ACTIVE) == 2_000.0);
    // Some were used, some are in the middle of a head, most never spoke.
    for client in &mut clients[..100] {
        assert_eq!(client.get("/").status, 200);
    }
    for client in &mut clients[100..200] {
        client.send("GET / HTTP/1.1\r\nho");
    }
    drop(clients);
    eventually("all are gone", || gateway.metric(ACTIVE) == 0.0);
    eventually("their sockets are gone", || sockets(gateway.address()) == 0);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn failures_of_every_kind_leave_nothing_behind() {
    let origin = Origin::on_head(|visit| match visit.request.target.as_str() {
        "/reset" => Then::Reset,
        "/garbage" => visit.answer("garbage\r\n\r\n"),
        "/half" => {
            visit.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
            Then::Close
        }
        _ => {
            visit.wait_for_close();
            Then::Close
        }
    });
    let gateway = Gateway::before_with(&origin, "timeouts: { request: 200ms }");
    for round in 0..20 {
        let mut client = gateway.client();
        client.send_get(["/reset", "/garbage", "/half", "/silent"][round % 4]);
        if round % 3 == 0 {
            client.reset();
        } else {
            let _ = client.try_response("GET");
        }
    }
    eventually("all clients are gone", || gateway.metric(ACTIVE) == 0.0);
    eventually("their sockets are gone", || sockets(gateway.address()) == 0);
    eventually("the origin's connections are gone", || origin.open() == 0);
    eventually("no request is counted as active", || {
        gateway.metric("portcullis_requests_active{route=\"all\"}") == 0.0
    });
}

/// A client that takes nothing holds the origin back: what lies between is bounded.
#[test]
fn a_download_nobody_reads_stays_with_the_origin() {
    let (origin, sent) = Origin::endless();
    let gateway = Gateway::before(&[&origin]);
    let mut client = Client::connect_small(gateway.address());
    client.send_get("/");
    let taken = settled("it stops", Duration::from_millis(300), || sent.load(Ordering::Relaxed));
    assert!(taken < 32 << 20, "{taken} bytes were taken from the origin");
}

/// An origin that takes nothing holds the client back.
#[test]
fn an_upload_nobody_reads_stays_with_the_client() {
    let (_hold, held) = channel::<()>();
    let held = Mutex::new(held);
    let origin = Origin::on_head(move |_| {
        let _ = held.lock().unwrap().recv();
        Then::Reset
    });
    let gateway = Gateway::before_with(
        &origin,
        "limits: { request_body: 2GiB }, timeouts: { write: 2s, read: 1s, stream_idle: 1s }",
    );
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1073741824\r\n\r\n");
    client.stream.socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let piece = vec![b'x'; 64 << 10];
    let sent =
        (0..(1 << 30) / piece.len()).take_while(|_| client.stream.send(&piece).is_ok()).count() * piece.len();
    assert!(sent < 64 << 20, "{sent} bytes were taken from the client");
    client.reset();
    // The client is not read from, so its leaving is noticed when the origin is given up.
    gateway.log_of("/");
    eventually("the client's connection is gone", || gateway.metric(ACTIVE) == 0.0);
}

#[test]
fn a_graceful_end_waits_for_the_request_under_way() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let origin = Origin::start(move |visit| {
        gone.lock().unwrap().recv().unwrap();
        visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let gateway = Gateway::before(&[&origin]);
    let mut idle = gateway.client();
    let mut busy = gateway.client();
    busy.send_get("/");
    origin.request(0);
    let address = gateway.address();
    let ending = std::thread::spawn(move || gateway.shutdown());
    assert!(idle.ends());
    eventually("nobody is let in any more", || std::net::TcpStream::connect(address).is_err());
    go.send(()).unwrap();
    let response = busy.response();
    assert_eq!(response.status, 200);
    assert!(busy.ends());
    ending.join().unwrap();
}
