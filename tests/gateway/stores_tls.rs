//! Stores that are several servers, over TLS.

use crate::harness::redis::Redis;
use crate::harness::tls::Authority;
use crate::harness::{Gateway, eventually, eventually_some};

/// A gateway that counts at a store whose certificates this authority has issued, and refuses what it cannot count.
fn gateway(url: &str, pki: &Authority) -> Gateway {
    Gateway::start(&format!(
        "stores: {{ main: {{ redis: {{ url: \"{url}\", timeout: 10s, ca: {} }} }} }}\n\
         routes:\n  - name: all\n    path: /*\n    respond: {{}}\n    filters:\n      - rate_limit: {{ store: main, \
         rate: 1000/h, key: 'header:x-user', on_store_error: closed }}\n",
        pki.ca().display()
    ))
}

fn status(gateway: &Gateway, user: usize) -> u16 {
    gateway.ask(format!("GET / HTTP/1.1\r\nhost: a\r\nx-user: {user}\r\n\r\n")).status
}

#[test]
fn sentinels_and_their_servers_are_spoken_to_over_tls() {
    let (pki, stranger) = (Authority::new(), Authority::new());
    let mut first = Redis::beside_tls(&pki);
    let second = Redis::beside_tls(&pki).follows(&first);
    let sentinel = Redis::sentinel_with_tls(&first, &pki);
    eventually("the sentinel knows of the second", || {
        let told: String = sentinel.ask(&["INFO", "sentinel"]);
        told.contains("slaves=1")
    });
    let url = format!("rediss+sentinel://{}/main", sentinel.secure());
    // Whoever cannot prove who it is is told nothing.
    assert_eq!(status(&gateway(&url, &stranger), 0), 503);
    assert!(first.keys("").is_empty());

    let gateway = gateway(&url, &pki);
    assert_eq!([(); 5].map(|()| status(&gateway, 0)), [200; 5]);
    assert_eq!(first.keys("").len(), 1);
    eventually("the second has the count", || !second.keys("").is_empty());
    first.stop();
    let answer = eventually_some("the second counts", || {
        let answer = gateway.ask("GET / HTTP/1.1\r\nhost: a\r\nx-user: 0\r\n\r\n");
        Some(answer).filter(|answer| answer.status == 200)
    });
    assert!(answer.header("ratelimit").unwrap().starts_with("\"default\";r=994;"));
}

#[test]
fn all_servers_of_a_cluster_are_spoken_to_over_tls() {
    let (pki, stranger) = (Authority::new(), Authority::new());
    let servers = Redis::cluster_with_tls(3, &pki);
    let url = format!("rediss+cluster://{}", servers[0].secure());
    assert_eq!(status(&gateway(&url, &stranger), 0), 503);
    let gateway = gateway(&url, &pki);
    assert!((0..30).all(|user| status(&gateway, user) == 200));
    let keys: Vec<usize> = servers.iter().map(|server| server.keys("").len()).collect();
    assert!(keys.iter().all(|count| *count > 0) && keys.iter().sum::<usize>() == 30, "{keys:?}");
    // In the clear nobody is asked.
    let clients: String = servers[1].ask(&["CLIENT", "LIST"]);
    let ours = clients.lines().filter(|line| line.contains(&format!("laddr={}", servers[1].address())));
    assert_eq!(ours.count(), 1, "the test itself: {clients}");
}
