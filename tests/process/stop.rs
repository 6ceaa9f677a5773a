//! The end: unready first, then no new connections, then no longer than the last request takes.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Client;
use crate::gateway::{Gateway, Home, eventually};
use crate::origin::Origin;

/// Far below every grace period here, far above what ending takes.
const SOON: Duration = Duration::from_secs(15);

/// Below the time for which a client just answered is waited for.
const COURTESY: Duration = Duration::from_millis(400);

fn start(origin: &Origin, server: &str) -> Gateway {
    let home = Home::new();
    let mut words = home.words(origin.address);
    words.server = format!("{}, {server}", words.server.replace("grace_period: 30s, ", ""));
    home.write(&words);
    home.start()
}

fn refuses(gateway: &Gateway) -> bool {
    TcpStream::connect(gateway.home.web).is_err()
}

#[test]
fn sigterm_is_unready_then_closed_then_over_with_the_last_request() {
    let origin = Origin::start();
    let mut gateway = start(&origin, "grace_period: 60s, drain_delay: 1s");
    let mut held = Client::connect(gateway.home.web).unwrap();
    held.send("GET", "/held", "").unwrap();
    let mut idle = Client::connect(gateway.home.web).unwrap();
    assert_eq!(idle.get("/a").unwrap().status, 200);
    origin.holds(1);

    let told = Instant::now();
    gateway.signal(Signal::TERM);
    eventually("unreadiness", || (gateway.admin("GET", "/readyz").unwrap().status == 503).then_some(()));
    assert_eq!(gateway.get("/a").unwrap().status, 200, "unready, and still served");
    eventually("the listeners to close", || refuses(&gateway).then_some(()));
    assert!(told.elapsed() >= Duration::from_secs(1), "not before drain_delay is over");
    assert!(idle.is_closed());
    assert_eq!(gateway.admin("GET", "/readyz").unwrap().status, 503, "the operator is still answered");
    drop(idle);
    eventually("one connection to be left", || (gateway.status()["connections"] == 1).then_some(()));
    assert!(!gateway.has_ended());

    let released = Instant::now();
    origin.open();
    assert_eq!(held.receive().unwrap().text(), "origin /held\n");
    assert_eq!(gateway.ended().code(), Some(0));
    assert!(released.elapsed() < SOON);
    assert!(!gateway.home.upgrade_socket().exists());
}

#[test]
fn nobody_there_is_nobody_to_wait_for() {
    let origin = Origin::start();
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut gateway = start(&origin, "grace_period: 60s");
        let mut idle = Client::connect(gateway.home.web).unwrap();
        assert_eq!(idle.get("/a").unwrap().status, 200);
        let told = Instant::now();
        gateway.signal(signal);
        assert_eq!(gateway.ended().code(), Some(0), "{signal:?}");
        assert!(told.elapsed() < SOON);
        assert!(idle.is_closed());
    }
}

/// The client cannot know that the gateway is ending: it was just connected, or answered with leave to go on.
#[test]
fn a_request_that_crosses_the_end_is_answered_and_told_that_it_is_the_last() {
    let origin = Origin::start();
    let crossed = (0..20).any(|_| {
        let mut gateway = start(&origin, "grace_period: 60s");
        let mut fresh = Client::connect(gateway.home.web).unwrap();
        let mut busy = Client::connect(gateway.home.web).unwrap();
        assert!(!busy.get("/a").unwrap().closes());
        let answered = Instant::now();
        gateway.signal(Signal::TERM);
        eventually("the listeners to close", || refuses(&gateway).then_some(()));
        let last = [busy.get("/last"), fresh.get("/last")];
        // On a busy machine the clients may have been too slow to be waited for.
        if answered.elapsed() > COURTESY {
            return false;
        }
        for response in last {
            let response = response.unwrap();
            assert_eq!((response.text().as_str(), response.closes()), ("origin /last\n", true));
        }
        assert!(busy.is_closed() && fresh.is_closed());
        assert_eq!(gateway.ended().code(), Some(0));
        true
    });
    assert!(crossed, "never in time");
}

#[test]
fn the_grace_period_is_the_most_that_requests_get() {
    let origin = Origin::start();
    let mut gateway = start(&origin, "grace_period: 300ms");
    let mut held = Client::connect(gateway.home.web).unwrap();
    held.send("GET", "/held", "").unwrap();
    origin.holds(1);
    let told = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
    assert!((Duration::from_millis(300)..SOON).contains(&told.elapsed()));
    assert!(held.receive().is_err());
    gateway.logged("1 connections were cut off");
}

#[test]
fn told_twice_it_ends_at_once() {
    let origin = Origin::start();
    for server in ["grace_period: 10m", "drain_delay: 10m"] {
        let mut gateway = start(&origin, server);
        let mut held = Client::connect(gateway.home.web).unwrap();
        held.send("GET", "/held", "").unwrap();
        origin.holds(1);
        gateway.signal(Signal::TERM);
        eventually("unreadiness", || (gateway.admin("GET", "/readyz").unwrap().status == 503).then_some(()));
        assert!(!gateway.has_ended());
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.ended().code(), Some(0));
    }
}

#[test]
fn the_access_log_is_opened_anew_while_draining_too() {
    let origin = Origin::start();
    let home = Home::new();
    let (words, path) = home.words_logged(origin.address);
    let old = home.path("access.log.1");
    home.write(&words);
    let mut gateway = home.start();
    let mut held = Client::connect(gateway.home.web).unwrap();
    held.send("GET", "/held", "").unwrap();
    origin.holds(1);
    gateway.signal(Signal::TERM);
    eventually("the listeners to close", || refuses(&gateway).then_some(()));
    fs::rename(&path, &old).unwrap();
    gateway.signal(Signal::USR1);
    eventually("the new file", || path.exists().then_some(()));
    origin.open();
    assert_eq!(held.receive().unwrap().status, 200);
    assert_eq!(gateway.ended().code(), Some(0));
    assert!(fs::read_to_string(&path).unwrap().contains("/held"));
    assert!(fs::read_to_string(&old).unwrap().is_empty());
}

/// A reload that has begun does not hold up the end.
#[test]
fn a_reload_just_before_the_end_is_forgotten() {
    let origin = Origin::start();
    let mut gateway = start(&origin, "grace_period: 60s");
    for _ in 0..5 {
        gateway.signal(Signal::HUP);
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
}
