//! Every option of `concurrency`.

use crate::ask::{Ask, upstream};
use crate::harness::{Client, Gateway, Origin, eventually};
use crate::rate_limit::limited;
use crate::websocket::{SWITCH, UPGRADE};

/// An origin that answers `/slow` with a body that never ends, and anything else at once.
fn slow() -> Origin {
    Origin::start(|visit| {
        if !visit.request.target.starts_with("/slow") {
            return visit.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
        visit.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nslow");
        visit.wait_for_close();
        crate::harness::Then::Close
    })
}

/// A client in the middle of a slow answer.
fn there(gateway: &Gateway, fields: &str, from: &str) -> Client {
    let mut client = Client::connect_from(from.parse().unwrap(), gateway.address());
    let fields: String = fields.lines().map(|line| format!("{line}\r\n")).collect();
    client.send(format!("GET /slow HTTP/1.1\r\nhost: a\r\n{fields}\r\n"));
    assert_eq!(client.head().status, 200);
    client
}

fn passes(gateway: &Gateway, fields: &str, from: &str) -> bool {
    let answer = Ask::new("GET /").header(fields).from(from).send(gateway.address());
    match answer.status {
        200 => true,
        _ => {
            assert_eq!(answer.problem(), (429, "concurrency_limited".to_owned()));
            assert_eq!(answer.header("retry-after"), Some("1"));
            false
        }
    }
}

#[test]
fn so_many_are_there_at_once_and_the_next_when_one_has_gone() {
    let origin = slow();
    let gateway = limited(&origin, "{ concurrency: { limit: 2 } }");
    let one = there(&gateway, "", "127.0.0.1");
    let _two = there(&gateway, "", "127.0.0.1");
    assert!(!passes(&gateway, "", "127.0.0.1"));
    assert!(passes(&gateway, "", "127.0.0.2"));
    drop(one);
    eventually("a place is free", || passes(&gateway, "", "127.0.0.1"));
    // One that was refused holds no place.
    assert!((0..5).all(|_| passes(&gateway, "", "127.0.0.1")));
    assert!(gateway.metric("portcullis_rate_limited_total{route=\"all\",filter=\"concurrency\"}") >= 1.0);
}

#[test]
fn whoever_the_key_says_is_counted() {
    let origin = slow();
    let local = "127.0.0.1";
    // The words, a client that is there, one of the same, one of another.
    for (words, one, same, other) in [
        ("key: 'header:x-user'", "x-user: a", "x-user: a", "x-user: b"),
        ("key: consumer", "x-as: a", "x-as: a", "x-as: b"),
        ("key: 'header:x-user', missing_key: skip", "x-user: a", "x-user: a", "x-other: a"),
        ("key: 'header:x-user', missing_key: share", "x-other: b", "x-other: a", "x-user: a"),
    ] {
        let gateway = limited(&origin, &format!("{{ concurrency: {{ limit: 1, {words} }} }}"));
        let _there = there(&gateway, one, local);
        assert!(!passes(&gateway, same, local), "{words}");
        assert!(passes(&gateway, other, local), "{words}");
    }
    let gateway =
        limited(&origin, "{ concurrency: { limit: 1, key: 'header:x-user', missing_key: refuse } }");
    assert_eq!(gateway.get("/").problem(), (400, "limit_key_missing".to_owned()));
    for (prefix, passes_too) in [(64, true), (48, false)] {
        let gateway = limited(&origin, &format!("{{ concurrency: {{ limit: 1, ipv6_prefix: {prefix} }} }}"));
        let _there = there(&gateway, "x-forwarded-for: 2001:db8:0:1::1", "127.0.0.9");
        assert!(!passes(&gateway, "x-forwarded-for: 2001:db8:0:1::2", "127.0.0.9"));
        assert_eq!(passes(&gateway, "x-forwarded-for: 2001:db8:0:2::2", "127.0.0.9"), passes_too);
    }
}

#[test]
fn consumers_and_groups_have_limits_of_their_own() {
    let origin = slow();
    let words = "limit: 1, key: consumer, overrides: { consumers: { mobile: 2 }, groups: { partners: 3 } }";
    let gateway = limited(&origin, &format!("{{ concurrency: {{ {words} }} }}"));
    for (who, limit) in [("x-as: mobile partners", 2), ("x-as: b partners", 3), ("x-as: c", 1)] {
        let _all: Vec<_> = (0..limit).map(|_| there(&gateway, who, "127.0.0.1")).collect();
        assert!(!passes(&gateway, who, "127.0.0.1"), "{who}");
    }
}

#[test]
fn a_dry_run_lets_everyone_in_and_counts() {
    let origin = slow();
    let gateway = limited(&origin, "{ concurrency: { limit: 1, dry_run: true } }");
    let _there = there(&gateway, "", "127.0.0.1");
    assert!(passes(&gateway, "", "127.0.0.1"));
    let verdict =
        "portcullis_filter_verdicts_total{route=\"all\",filter=\"concurrency\",verdict=\"dry_run\"}";
    eventually("it is counted", || gateway.metric(verdict) == 1.0);
}

#[test]
fn no_more_clients_are_known_than_may_be() {
    let origin = slow();
    let gateway = limited(&origin, "{ concurrency: { limit: 1, max_keys: 1 } }");
    let one = there(&gateway, "", "127.0.0.1");
    assert!(!passes(&gateway, "", "127.0.0.2"));
    drop(one);
    eventually("there is room again", || passes(&gateway, "", "127.0.0.2"));
}

#[test]
fn a_websocket_counts_to_its_end() {
    let origin = Origin::raw(|_, stream| {
        let _ = stream.request_head();
        let _ = stream.send(SWITCH);
        let _ = stream.until_end();
        crate::harness::Then::Close
    });
    let gateway = limited(&origin, "{ concurrency: { limit: 1 } }");
    let open = || {
        let mut client = gateway.client();
        let status = client.send(UPGRADE).head().status;
        (client, status)
    };
    let (client, status) = open();
    assert_eq!(status, 101);
    assert_eq!(open().1, 429);
    drop(client);
    eventually("its place is free", || open().1 == 101);
}

#[test]
fn who_is_there_is_still_there_after_a_reload() {
    let origin = slow();
    let yaml = |limit: u64| {
        format!(
            "{}routes: [{{ name: all, path: /*, filters: [{{ concurrency: {{ limit: {limit} }} }}], upstream: echo }}]",
            upstream(&origin)
        )
    };
    let gateway = Gateway::start_file(&yaml(1));
    let one = there(&gateway, "", "127.0.0.1");
    gateway.rewrite(&yaml(2));
    gateway.reload().unwrap();
    let _two = there(&gateway, "", "127.0.0.1");
    assert!(!passes(&gateway, "", "127.0.0.1"));
    drop(one);
    eventually("a place is free", || passes(&gateway, "", "127.0.0.1"));
}

#[test]
fn the_same_words_under_other_conditions_count_apart() {
    let origin = slow();
    let filters: Vec<String> = ["a", "b"]
        .map(|part| {
            format!("{{ concurrency: {{ limit: 1 }}, when: 'request.headers[\"x-part\"] == \"{part}\"' }}")
        })
        .into();
    let gateway = limited(&origin, &filters.join(", "));
    let _there = there(&gateway, "x-part: a", "127.0.0.1");
    assert!(!passes(&gateway, "x-part: a", "127.0.0.1"));
    assert!(passes(&gateway, "x-part: b", "127.0.0.1"));
}
