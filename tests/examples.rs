//! The examples do what they say. (`examples/minimal.rs` is the documentation test of the library, too.)

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
#[path = "../examples/custom_balancer.rs"]
mod custom_balancer;
#[path = "../examples/custom_filter.rs"]
mod custom_filter;
#[path = "../examples/handler.rs"]
mod handler;

use std::net::TcpListener;

use client::{ask, echo};
use portcullis::{Gateway, Route, Running};

/// Starts a gateway that keeps its log to itself.
fn start(mut gateway: Gateway) -> Running {
    gateway.config_mut().telemetry.access_log.output = "off".into();
    gateway.start().unwrap()
}

#[test]
fn minimal() {
    let upstream = echo().to_string();
    let gateway = Gateway::new().listen("127.0.0.1:0");
    let running = start(gateway.route(Route::new("app", "/*").forward_to([upstream.as_str()])));
    let answer = ask(running.address("").unwrap(), "GET", "/a?b", &["Host: a.test"]);
    assert!(answer.status == 200 && answer.body.starts_with("GET /a?b HTTP/1.1"), "{answer:?}");
}

#[test]
fn custom_filter_from_yaml_and_from_code() {
    let running = start(custom_filter::gateway("127.0.0.1:0"));
    for (path, motto, body) in
        [("/yaml", "x-motto: keep calm keep calm", "from YAML"), ("/code", "x-motto: carry on", "from code")]
    {
        let answer = ask(running.address("web").unwrap(), "GET", path, &["Host: a.test"]);
        assert!(answer.head.contains(motto) && answer.body == body, "{answer:?}");
    }
}

#[test]
fn custom_filter_tells_its_mistakes_as_those_of_the_house_do() {
    let text = "listeners: [{ name: web, address: 127.0.0.1:0 }]\n\
                filters: [{ motto: { text: a, times: 0 } }, { motto: { txt: a } }]\n";
    let refused =
        Gateway::from_yaml(text).filter_kind::<custom_filter::Motto>().start().err().unwrap().to_string();
    for words in
        ["filters[0].motto.times: a motto that is never said", "filters[1].motto.txt: unknown key `txt`"]
    {
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn handler() {
    let running = start(handler::gateway("127.0.0.1:0"));
    let fields = ["Host: a.test", "Content-Length: 0"];
    let answer = ask(running.address("web").unwrap(), "POST", "/greet/Ada", &fields);
    assert_eq!(answer.body, "Hello Ada! You said: \"\"\n");
    assert_eq!(ask(running.address("web").unwrap(), "GET", "/greet/Ada", &["Host: a.test"]).status, 405);
}

#[test]
fn custom_balancer_asks_the_first() {
    let standby = TcpListener::bind("127.0.0.1:0").unwrap();
    standby.set_nonblocking(true).unwrap();
    let endpoints = [echo(), standby.local_addr().unwrap()];
    let running = start(custom_balancer::gateway("127.0.0.1:0", endpoints));
    for _ in 0..10 {
        let answer = ask(running.address("web").unwrap(), "GET", "/", &["Host: a.test"]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert!(standby.accept().is_err(), "nobody asks who stands by");
}
