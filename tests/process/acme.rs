//! Certificates by ACME over the life of the program.

use crate::gateway::{Gateway, Home, Words, errors, eventually};
use crate::harness::pebble::{Pebble, Setup};

/// What an authority says of a request.
const ASKED: &str = "calling handler";

/// A home with the words for a certificate for `a.test`, which is proved in the handshake, and the authority.
fn ordering(sleep: u32) -> (Home, Pebble) {
    let home = Home::new();
    let (web, plain) = (home.web, home.free());
    let pebble = Pebble::start(&Setup { hosts_at: web.ip(), tls: web.port(), sleep, ..Setup::default() });
    let certificates = "tls: { certificates: [{ acme: ca, hosts: [a.test] }] }";
    let listeners = format!(
        "{{ name: web, address: \"{web}\", {certificates} }}, {{ name: plain, address: \"{plain}\" }}"
    );
    let routes = "{ name: all, path: /*, respond: { body: hello } }".into();
    let more = format!(
        "acme: {{ ca: {{ directory: \"{}\", ca: {}, store: {{ file: {} }}, challenge: tls_alpn }} }}",
        pebble.directory(),
        pebble.ca().display(),
        home.path("acme").display()
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
fn to_check_and_to_explain_asks_no_authority_and_keeps_nothing() {
    let (home, pebble) = ordering(0);
    for command in ["check", "explain"] {
        let output = home.ask(&[command, "-c", &home.config().to_string_lossy()]);
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    }
    assert!(!pebble.log().contains(ASKED));
    assert!(!home.path("acme").exists());
}
