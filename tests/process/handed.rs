//! What outlives an upgrade beside the sockets: the sessions of sticky clients, and changes to endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;

use crate::gateway::{Gateway, Home, Words};
use crate::harness::{Client, Origin};
use crate::upgrade::upgrade;

fn ask(gateway: &Gateway, fields: &str) -> (String, Option<String>) {
    let answer =
        Client::connect(gateway.home.web).ask(format!("GET / HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n"));
    assert_eq!(answer.status, 200);
    (answer.text(), answer.header("set-cookie").map(str::to_owned))
}

fn start(origins: &[&Origin], words: &str) -> (Gateway, Words) {
    let home = Home::new();
    let endpoints: Vec<_> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    let upstreams = format!("origin: {{ endpoints: [{}], {words} }}", endpoints.join(", "));
    let words = Words { upstreams, ..home.words("127.0.0.1:1") };
    home.write(&words);
    (home.start(), words)
}

#[test]
fn clients_come_back_to_their_servers_after_an_upgrade() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let (gateway, words) = start(&origins.each_ref(), "balance: { sticky: { cookie: lb } }");
    let sessions: Vec<(String, String)> = (0..6)
        .map(|_| {
            let (name, cookie) = ask(&gateway, "");
            (name, cookie.unwrap().split(';').next().unwrap().to_owned())
        })
        .collect();
    assert_eq!(sessions.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), 3);
    let come_back = |when: &str| {
        for (name, cookie) in &sessions {
            let again = ask(&gateway, &format!("cookie: {cookie}\r\n"));
            assert_eq!(again, (name.clone(), None), "{when}");
        }
    };
    come_back("before");
    upgrade(&gateway);
    come_back("after an upgrade");
    upgrade(&gateway);
    come_back("after another");

    // What was made of a secret is not kept: whoever takes the secret out has a new key.
    let secret = "cookie: lb, secret: a secret of the fleet";
    gateway.home.write(&Words { upstreams: words.upstreams.replace("cookie: lb", secret), ..words.clone() });
    upgrade(&gateway);
    let (_, cookie) = ask(&gateway, &format!("cookie: {}\r\n", sessions[0].1));
    assert!(cookie.is_some(), "another key");
    gateway.home.write(&words);
    upgrade(&gateway);
    let (_, fresh) = ask(&gateway, &format!("cookie: {}\r\n", cookie.unwrap().split(';').next().unwrap()));
    assert!(fresh.is_some(), "a key of its own");
}

/// What is said of each endpoint.
fn shown(gateway: &Gateway) -> BTreeMap<String, [Value; 4]> {
    let view: Value = serde_json::from_slice(&gateway.admin("GET", "/upstreams").unwrap().body).unwrap();
    let endpoints = view[0]["endpoints"].as_array().unwrap().clone();
    let row = |endpoint: Value| {
        let words = ["origin", "weight", "zone", "state"].map(|word| endpoint[word].clone());
        (endpoint["address"].as_str().unwrap().to_owned(), words)
    };
    endpoints.into_iter().map(row).collect()
}

fn change(gateway: &Gateway, method: &str, address: SocketAddr, body: &str) {
    let admin = gateway.home.admin;
    let answer = Client::connect(admin).ask(format!(
        "{method} /upstreams/origin/endpoints/{address} HTTP/1.1\r\nhost: {admin}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn what_an_operator_has_changed_of_endpoints_holds_after_an_upgrade() {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(Origin::named);
    let (gateway, words) = start(&[&a, &b, &c], "balance: round_robin");
    change(&gateway, "PUT", a.address(), r#"{"state": "draining"}"#);
    change(&gateway, "PUT", b.address(), r#"{"weight": 3, "zone": "z"}"#);
    change(&gateway, "DELETE", c.address(), "");
    change(&gateway, "PUT", d.address(), "");
    let before = shown(&gateway);
    let who = || (0..12).map(|_| ask(&gateway, "").0).collect::<BTreeSet<_>>();
    assert_eq!(before.len(), 3);
    assert_eq!(who(), BTreeSet::from(["b".into(), "d".into()]));
    for _ in 0..2 {
        upgrade(&gateway);
        assert_eq!(shown(&gateway), before);
        assert_eq!(who(), BTreeSet::from(["b".into(), "d".into()]));
    }
    // The file has another word on one of them by now.
    let upstreams = words
        .upstreams
        .replace(&format!("\"{}\"", a.address()), &format!("{{ address: \"{}\", weight: 2 }}", a.address()));
    gateway.home.write(&Words { upstreams, ..words });
    upgrade(&gateway);
    assert_eq!(who(), BTreeSet::from(["a".into(), "b".into(), "d".into()]));
    assert_eq!(shown(&gateway)[&a.address().to_string()][0], "file");
    gateway.logged("holds no more");
}
