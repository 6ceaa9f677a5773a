//! HTTP/2 clients of others: nghttp2's own, one that loads and one that tells every frame.

use std::process::Command;

use crate::harness::tls::Authority;
use crate::harness::{Gateway, Origin, to};

/// What a program says, which has to end well.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; `make setup-test` installs it"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program}: {text}");
    text
}

/// Every mix of a listener in the clear or by TLS, and an upstream of either version, under load from many streams.
#[test]
fn h2load_gets_every_answer() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let origin = Origin::ok();
    let second = Gateway::before(&[&origin]);
    for (upstream, protocol) in [(origin.address(), "http1"), (second.address(), "http2")] {
        let words = format!(
            "upstreams: {{ next: {{ endpoints: [\"{upstream}\"], protocol: {protocol} }} }}\n\
             routes: [{{ name: all, path: /*, upstream: next }}]\n"
        );
        for (scheme, tls) in
            [("http", String::new()), ("https", format!(", tls: {{ certificates: [{}] }}", files.words()))]
        {
            let gateway = Gateway::start(&format!(
                "listeners: [{{ name: web, address: \"127.0.0.1:0\"{tls} }}]\n{words}"
            ));
            let url = format!("{scheme}://{}/", gateway.address());
            let body = files.cert.display().to_string();
            for more in [&["-n", "1000"][..], &["-n", "200", "-d", &body]] {
                let told = said("h2load", &[&["-c", "10", "-m", "50"][..], more, &[&url]].concat());
                let whole =
                    format!("{0} total, {0} started, {0} done, {0} succeeded, 0 failed, 0 errored", more[1]);
                assert!(told.contains(&whole), "{protocol} {url} {more:?}: {told}");
                assert!(told.contains("Application protocol: h2"), "{told}");
            }
        }
    }
}

#[test]
fn nghttp_finds_nothing_wrong() {
    let origin = Origin::ok();
    let gateway = Gateway::start(&to(&[&origin], ""));
    let url = format!("http://{}/", gateway.address());
    let told = said(
        "nghttp",
        &["-nv", "--trailer=x-after: told", "-d", "Cargo.toml", &url, &format!("{url}second")],
    );
    assert!(!told.contains("RST_STREAM") && !told.contains("INVALID"), "{told}");
    assert_eq!(told.matches(":status: 200").count(), 2, "{told}");
    assert_eq!(origin.last().method, "POST");
}
