//! Certificates by ACME over the life of the program.

use rustix::process::Signal;

use crate::gateway::{Gateway, Home, Words, errors, eventually};
use crate::harness::pebble::{Pebble, Setup};
use crate::harness::redis::Redis;
use crate::harness::tls::Caller;

/// What an authority says of a request.
const ASKED: &str = "calling handler";

/// A home with the words for a certificate for `a.test`, which is proved in the handshake, and the authority.
fn ordering(sleep: u32) -> (Home, Pebble) {
    let home = Home::new();
    let store = format!("{{ file: {} }}", home.path("acme").display());
    ordering_into(home, &store, "", sleep)
}

/// The same with a store of these words.
fn ordering_into(home: Home, store: &str, stores: &str, sleep: u32) -> (Home, Pebble) {
    let (web, plain) = (home.web, home.free());
    let pebble = Pebble::start(&Setup { hosts_at: web.ip(), tls: web.port(), sleep, ..Setup::default() });
    let certificates = "tls: { certificates: [{ acme: ca, hosts: [a.test] }] }";
    let listeners = format!(
        "{{ name: web, address: \"{web}\", {certificates} }}, {{ name: plain, address: \"{plain}\" }}"
    );
    let routes = "{ name: all, path: /*, respond: { body: hello } }".into();
    let more = format!(
        "acme: {{ ca: {{ directory: \"{}\", ca: {}, store: {store}, challenge: tls_alpn }} }}\n{stores}",
        pebble.directory(),
        pebble.ca().display(),
    );
    home.write(&Words { listeners, routes, more, ..home.words(plain) });
    (home, pebble)
}

fn lines(gateway: &Gateway, text: &str) -> usize {
    gateway.log().iter().filter(|line| line.contains(text)).count()
}

#[test]
fn after_an_upgrade_the_new_process_alone_goes_on() {
    let (home, pebble) = ordering(5);
    let mut gateway = home.start();
    gateway.logged("ordering a certificate for a.test");
    let output = gateway.ask("upgrade");
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(gateway.ended().code(), Some(0), "nothing holds the old process");
    eventually("a certificate", || {
        pebble.client().connect(gateway.home.web, "a.test").ok().map(|mut client| client.get("/").text())
    });
    assert_eq!(lines(&gateway, "a certificate for a.test until"), 1);
    assert_eq!(lines(&gateway, "no certificate for"), 0);
    assert!(pebble.log().contains(ASKED));
}

#[test]
fn an_upgrade_gives_the_lock_back_and_what_is_shared_is_served_from_the_start() {
    let redis = Redis::start();
    let stores = format!("stores: {{ main: {{ redis: {{ url: \"{}\" }} }} }}", redis.url());
    let (home, mut pebble) = ordering_into(Home::new(), "{ redis: main }", &stores, 2);
    let gateway = home.start();
    gateway.logged("ordering a certificate for a.test");
    let output = gateway.ask("upgrade");
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let web = gateway.home.web;
    let hello = |caller: &Caller| Some(caller.connect(web, "a.test").ok()?.get("/").text());
    let caller = pebble.client();
    // Sooner than the lock would run out.
    assert_eq!(eventually("a certificate", || hello(&caller)), "hello");
    gateway.logged("a certificate for a.test until");
    assert_eq!(lines(&gateway, "a certificate for a.test until"), 1);

    pebble.stop();
    let output = gateway.ask("upgrade");
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(hello(&caller).as_deref(), Some("hello"));
    assert_eq!(lines(&gateway, "a certificate for a.test until"), 1);
    assert_eq!(lines(&gateway, "no certificate for"), 0);
}

#[test]
fn one_that_is_stopped_in_the_midst_of_an_order_gives_its_lock_back() {
    let redis = Redis::start();
    let stores = format!("stores: {{ main: {{ redis: {{ url: \"{}\" }} }} }}", redis.url());
    let (home, _pebble) = ordering_into(Home::new(), "{ redis: main }", &stores, 5);
    let mut gateway = home.start();
    eventually("the lock", || (!redis.keys(":lock:a.test-*").is_empty()).then_some(()));
    eventually("an answer", || (!redis.keys(":tls:*").is_empty()).then_some(()));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
    assert_eq!(redis.keys(":lock:*").len() + redis.keys(":tls:*").len(), 0);
}

#[test]
fn what_is_printed_has_no_password() {
    let home = Home::new();
    let words = home.words("127.0.0.1:1");
    let more = "stores: { main: { redis: { url: \"redis://gate:hunter2@127.0.0.1:6379\" } } }".into();
    home.write(&Words { more, ..words });
    let printed = home.ask(&["check", "--print", "-c", &home.config().to_string_lossy()]);
    assert_eq!(printed.status.code(), Some(0), "{}", errors(&printed));
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("url: '***'") && !text.contains("hunter2"), "{text}");
}

#[test]
fn to_check_and_to_explain_asks_no_authority_and_keeps_nothing() {
    let (home, pebble) = ordering(0);
    for command in ["check", "explain"] {
        let output = home.ask(&[command, "-c", &home.config().to_string_lossy()]);
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    }
    assert!(!pebble.log().contains(ASKED));
    assert!(!home.path("acme").exists());
}
