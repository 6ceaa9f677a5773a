//! Several endpoints: shares, failover, and connections that went stale.

use std::collections::BTreeMap;

use crate::harness::{Gateway, Nobody, Origin, Then, eventually, to};

fn gateway(endpoints: &[String]) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [{}] }} }}\nroutes: [{{ name: all, path: /*, upstream: origin }}]",
        endpoints.join(", ")
    ))
}

#[test]
fn endpoints_take_turns_by_weight_evenly_spread() {
    let origins = [Origin::named("a"), Origin::named("b"), Origin::named("c")];
    let weights = [5, 1, 1];
    let endpoints: Vec<_> = origins
        .iter()
        .zip(weights)
        .map(|(origin, weight)| format!("{{ address: \"{}\", weight: {weight} }}", origin.address()))
        .collect();
    let gateway = gateway(&endpoints);
    let mut client = gateway.client();
    let turns: Vec<String> = (0..70).map(|_| client.get("/").text()).collect();
    for round in turns.chunks(7) {
        let mut counts = BTreeMap::new();
        for name in round {
            *counts.entry(name.as_str()).or_insert(0) += 1;
        }
        assert_eq!(counts, BTreeMap::from([("a", 5), ("b", 1), ("c", 1)]), "{turns:?}");
        // Smooth: `a` never has all its turns in a row.
        assert!(!round.windows(4).any(|turns| turns.iter().all(|name| name == "a")), "{round:?}");
    }
}

#[test]
fn a_failed_connect_goes_to_another_endpoint_without_the_client_noticing() {
    let origin = Origin::ok();
    let live = format!("\"{}\"", origin.address());
    let nobodies = [Nobody::new(), Nobody::new(), Nobody::new()];
    let [dead, dead2, dead3] = nobodies.each_ref().map(|nobody| format!("\"{}\"", nobody.address()));
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for endpoints in [vec![dead.clone(), live.clone()], vec![dead, dead2, live, dead3]] {
        let gateway = gateway(&endpoints);
        let mut client = gateway.client();
        for request in [get, post, chunked].into_iter().cycle().take(12) {
            assert_eq!(client.ask(request).status, 200, "{request:?}");
            assert_eq!(origin.last().content(), if request == get { &b""[..] } else { b"body" });
        }
        assert_eq!(origin.requests().len() % 12, 0, "each request once");
        let tries = gateway.logged(|line| line["tries"].as_u64() > Some(1));
        assert_eq!((&tries["status"], tries.get("reason")), (&200.into(), None));
    }
}

#[test]
fn when_every_endpoint_is_down_the_last_failure_is_told() {
    let nobodies = [Nobody::new(), Nobody::new()];
    let gateway = gateway(&nobodies.each_ref().map(|nobody| format!("\"{}\"", nobody.address())));
    assert_eq!(gateway.get("/").problem(), (502, "upstream_connect_failed".into()));
    assert_eq!(gateway.log_of("/")["tries"], 3, "each, and one again");
}

/// An origin that closes a connection after its answer without saying so: the next request finds it stale.
fn forgetful() -> Origin {
    Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        Then::Close
    })
}

#[test]
fn a_pooled_connection_that_was_closed_meanwhile_is_nobodys_error() {
    let origin = forgetful();
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").status, 200);
    }
}

/// An origin that resets a kept connection when the second request comes on it.
fn stale() -> Origin {
    Origin::raw(|_, stream| {
        let Ok(Some(first)) = stream.request_head() else { return Then::Close };
        let _ = stream.request_body(&first.fields);
        let _ = stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let _ = stream.request_head();
        Then::Reset
    })
}

#[test]
fn a_request_that_meets_a_stale_connection_goes_again_if_it_may() {
    let origin = stale();
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    let put = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for request in [get, get, put, get, put, put] {
        assert_eq!(client.ask(request).status, 200, "{request:?}");
    }
    assert_eq!(origin.connections(), 6);
}

#[test]
fn a_post_that_meets_a_stale_connection_is_not_sent_twice() {
    let origin = stale();
    let gateway = Gateway::before(&[&origin]);
    let mut client = gateway.client();
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";
    assert_eq!(client.ask(post).status, 200);
    assert_eq!(client.ask(post).problem(), (502, "upstream_reset".into()));
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_fresh_connection_that_breaks_is_no_stale_one() {
    let origin = Origin::start(|_| Then::Reset);
    let gateway = Gateway::before_with(&origin, "retry: { max_retries: 0 }");
    assert_eq!(gateway.get("/").problem(), (502, "upstream_reset".into()));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_changed_set_of_endpoints_goes_live_by_reload() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let gateway = Gateway::start_file(&to(&[&old], ""));
    let mut client = gateway.client();
    assert_eq!(client.get("/").text(), "old");
    gateway.rewrite(&to(&[&new], ""));
    gateway.reload().unwrap();
    assert_eq!(client.get("/").text(), "new");
    eventually("the generation is told", || gateway.metric("portcullis_config_generation") >= 2.0);
}
