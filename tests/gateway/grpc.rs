//! gRPC through the gateway, between the real client and server of the C core.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Gateway, Http2, Nobody, Origin};

/// A gRPC service, which ends with the test.
pub struct Service {
    child: Child,
    port: u16,
}

impl Service {
    pub fn start() -> Self {
        let mut child = peer(&["serve"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
        Self { child, port: port.trim().parse().expect("a port; `make setup-test` installs grpcio") }
    }

    /// A gateway before this service.
    pub fn gateway(&self, route: &str) -> Gateway {
        gateway(&format!("127.0.0.1:{}", self.port), route)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn gateway(endpoint: &str, route: &str) -> Gateway {
    let comma = if route.is_empty() { "" } else { ", " };
    Gateway::start(&format!(
        "upstreams: {{ service: {{ protocol: http2, endpoints: [\"{endpoint}\"] }} }}\n\
         routes: [{{ name: calls, path: /*, upstream: service{comma}{route} }}]\n"
    ))
}

fn peer(arguments: &[&str]) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers");
    let mut command = Command::new(folder.join("venv/bin/python"));
    command.arg(folder.join("grpc_peer.py")).args(arguments);
    command
}

/// What a client makes of a case.
fn call(gateway: &Gateway, case: &str) -> Value {
    let output = peer(&["call", &gateway.address().to_string(), case]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{case}: {text} {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn calls_of_all_four_kinds_pass_whole() {
    let service = Service::start();
    let gateway = service.gateway("");
    for (case, value) in [
        ("unary", json!([0, 5, 3_000_000])),
        ("client_stream", json!([500])),
        ("server_stream", json!(true)),
        ("both", json!(100)),
        ("at_once", json!(true)),
        ("cancel", json!(true)),
    ] {
        assert_eq!(call(&gateway, case), json!({ "code": "OK", "value": value }), "{case}");
    }
    let line = gateway.log_of("/s/Answer");
    assert_eq!(
        (&line["status"], &line["grpc_status"], &line["protocol"]),
        (&200.into(), &0.into(), &"HTTP/2.0".into())
    );
    assert!(line["reason"].is_null());
}

#[test]
fn what_the_service_says_is_passed_on() {
    let service = Service::start();
    let gateway = service.gateway("");
    let failed = call(&gateway, "fail");
    assert_eq!((&failed["code"], &failed["details"]), (&"NOT_FOUND".into(), &"größe 50% unknown".into()));
    assert_eq!(failed["after"]["x-after"], "told");
    assert_eq!(call(&gateway, "unknown")["code"], "UNIMPLEMENTED");
    assert_eq!(gateway.log_of("/s/Fail")["grpc_status"], 5);
    assert_eq!(gateway.log_of("/s/Nothing")["grpc_status"], 12);
}

#[test]
fn a_deadline_goes_with_the_call_and_gets_shorter() {
    let service = Service::start();
    let gateway = service.gateway("");
    let remaining = call(&gateway, "remaining")["value"].as_f64().unwrap();
    assert!((10.0..20.0).contains(&remaining), "{remaining}");
    assert_eq!(call(&gateway, "no_deadline")["value"], Value::Null);
    assert_eq!(call(&gateway, "deadline")["code"], "DEADLINE_EXCEEDED");
    // The route's own patience is shorter than the caller's.
    let strict = service.gateway("timeouts: { total: 5s }");
    for case in ["remaining", "no_deadline"] {
        let remaining = call(&strict, case)["value"].as_f64().unwrap();
        assert!((1.0..5.0).contains(&remaining), "{case} {remaining}");
    }
}

/// The caller of the last test gives up by itself. This one waits to be told.
#[test]
fn a_deadline_is_kept_for_a_caller_that_does_not() {
    let service = Service::start();
    let gateway = service.gateway("");
    let mut client = Http2::connect(gateway.address());
    let request =
        client.request("POST", "/s/Slow").header("content-type", "application/grpc").header("te", "trailers");
    // One message of one byte: a service that takes five seconds.
    let answer = client.send(request.header("grpc-timeout", "200m"), b"\0\0\0\0\x015");
    let ended = answer.trailers.unwrap_or(answer.fields);
    assert_eq!(ended["grpc-status"], "4");
    let line = gateway.log_of("/s/Slow");
    assert_eq!(line["grpc_status"], 4);
}

#[test]
fn the_gateways_own_errors_are_told_in_the_words_of_grpc() {
    let service = Service::start();
    let expect = |gateway: &Gateway, case: &str, code: &str, reason: &str| {
        let told = call(gateway, case);
        assert_eq!(told["code"], code, "{told}");
        assert!(told["details"].as_str().unwrap().starts_with(&format!("{reason}: ")), "{told}");
        let line = gateway.logged(|line| line["reason"] == reason);
        assert!(line["grpc_status"].as_u64().unwrap() > 0);
    };
    expect(
        &gateway(&Nobody::new().address().to_string(), ""),
        "echo",
        "UNAVAILABLE",
        "upstream_connect_failed",
    );
    expect(&service.gateway("methods: [GET]"), "echo", "UNIMPLEMENTED", "method_not_allowed");
    expect(
        &service.gateway("filters: [{ ip_restriction: { allow: [10.0.0.0/8] } }]"),
        "echo",
        "PERMISSION_DENIED",
        "ip_denied",
    );
    expect(
        &service.gateway("timeouts: { request: 200ms }"),
        "patient",
        "DEADLINE_EXCEEDED",
        "request_timeout",
    );
    expect(&service.gateway("timeouts: { total: 300ms }"), "stall", "DEADLINE_EXCEEDED", "total_timeout");
    expect(
        &service.gateway("limits: { request_body: 1KiB }"),
        "client_stream",
        "RESOURCE_EXHAUSTED",
        "body_too_large",
    );
}

#[test]
fn what_is_no_call_gets_a_problem() {
    let origin = Origin::ok();
    let gateway = Gateway::before_with(&origin, "methods: [GET]");
    let mut client = Http2::connect(gateway.address());
    let request = client.request("POST", "/").header("content-type", "application/grpc-web");
    assert_eq!(client.send(request, b"").problem(), (405, "method_not_allowed".into()));
}
