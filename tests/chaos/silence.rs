//! Servers that fall silent behind a real wire: nothing refuses, nothing resets.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::{Gateway, eventually};
use crate::server::Server;
use crate::wire::Wire;
use crate::{ALL, MILLIS, SECOND, config, load, say};

/// How long it takes from `then` on until the server is out of the choice, or its breaker open.
fn out_after(gateway: &Gateway, server: &Server, then: Instant) -> Duration {
    let of = format!("{{upstream=\"origin\",endpoint=\"{}\"}}", server.address());
    let (healthy, circuit) =
        (format!("portcullis_endpoint_healthy{of}"), format!("portcullis_circuit_state{of}"));
    eventually("it is out", || gateway.metric(&healthy) == 0.0 || gateway.metric(&circuit) == 2.0);
    then.elapsed()
}

#[test]
fn one_of_three_is_behind_a_wire_that_was_cut_before() {
    let Some(wire) = Wire::new() else { return };
    let servers = [Server::start_with(wire.listen()), Server::start(), Server::start()];
    wire.cut();
    let gateway = Gateway::start_file(&config(&servers.each_ref(), ALL, ""));
    let (then, load) = (Instant::now(), load(&gateway));
    let out = out_after(&gateway, &servers[0], then);
    sleep(3 * SECOND);
    let told = load.end();
    wire.mend();
    say("nothing comes back from its machine", &told);
    println!("| ... out of the choice | after {out:?} |");
    assert_eq!(servers[0].served(), 0);
    assert_eq!(told.failed(), 0, "{:?}", told.failures());
    assert!(told.percentile(0.9) < MILLIS(150), "{:?}", told.percentile(0.9));
    // The first to try it wait for `connect`, all at once.
    assert!(out < MILLIS(300) + 2 * SECOND, "{out:?}");
}

#[test]
fn one_of_three_falls_silent_with_kept_connections() {
    let Some(wire) = Wire::new() else { return };
    let servers = [Server::start_with(wire.listen()), Server::start(), Server::start()];
    let route = "retry: { on: [connect_failure, timeout] }, timeouts: { per_try: 200ms }";
    let gateway = Gateway::start_file(&config(&servers.each_ref(), ALL, route));
    let load = load(&gateway);
    sleep(SECOND);
    let before = servers[0].served();
    assert!(before > 10, "its connections are kept: {before}");
    wire.cut();
    let then = Instant::now();
    let out = out_after(&gateway, &servers[0], then);
    sleep(3 * SECOND);
    let told = load.end();
    wire.mend();
    say("its machine falls silent", &told);
    println!("| ... out of the choice | after {out:?} |");
    assert_eq!(told.failed(), 0, "{:?}", told.failures());
    let after = told.since_instant(then + SECOND).percentile(0.9);
    assert!(after < MILLIS(150), "{after:?}");
    assert!(out < MILLIS(200) + 2 * SECOND, "{out:?}");
}
