//! Sticky sessions: a client comes back to its endpoint by a cookie.

use std::collections::BTreeSet;
use std::fs;

use crate::harness::tls::Authority;
use crate::harness::{Client, Gateway, Nobody, Origin, Response, eventually};

const SECRET: &str = "a secret that the fleet has";

fn origins(count: usize) -> Vec<Origin> {
    (0..count).map(|at| Origin::named(&at.to_string())).collect()
}

/// A gateway's words: these endpoints, with these words in `sticky`.
fn words(endpoints: &[String], sticky: &str) -> String {
    format!(
        "upstreams: {{ origin: {{ endpoints: [{}], balance: {{ sticky: {{ cookie: lb{sticky} }} }} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin }}]\n",
        endpoints.join(", ")
    )
}

fn addresses<'o>(origins: impl IntoIterator<Item = &'o Origin>) -> Vec<String> {
    origins.into_iter().map(|origin| format!("\"{}\"", origin.address())).collect()
}

fn secret(word: &str) -> String {
    format!(", secret: \"{word}\"")
}

/// A request with this cookie, or none.
fn get(client: &mut Client, cookie: Option<&str>) -> Response {
    let cookie = cookie.map(|cookie| format!("cookie: {cookie}\r\n")).unwrap_or_default();
    let answer = client.ask(format!("GET / HTTP/1.1\r\nhost: a.test\r\n{cookie}\r\n"));
    assert_eq!(answer.status, 200);
    answer
}

/// The cookie that an answer sets, without its attributes.
fn set(answer: &Response) -> Option<String> {
    answer.header("set-cookie").map(|field| field.split(';').next().unwrap().to_owned())
}

/// A new client's cookie, and who answered it.
fn begin(client: &mut Client) -> (String, String) {
    let answer = get(client, None);
    (set(&answer).expect("a new client gets a cookie"), answer.text())
}

#[test]
fn a_client_comes_back_to_its_endpoint() {
    let origins = origins(3);
    let gateway = Gateway::start(&words(&addresses(&origins), ""));
    let mut client = gateway.client();
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let (cookie, endpoint) = begin(&mut client);
        for _ in 0..10 {
            let answer = get(&mut client, Some(&format!("a=b; {cookie}; c=d")));
            assert_eq!((answer.text(), set(&answer)), (endpoint.clone(), None), "nothing is set anew");
        }
        let passed = origins.iter().filter_map(|origin| origin.requests().pop());
        assert!(
            passed
                .into_iter()
                .any(|request| { request.header("cookie").is_some_and(|cookies| cookies.contains(&cookie)) })
        );
        seen.insert(endpoint);
    }
    assert_eq!(seen.len(), 3, "new clients take turns");
    assert!(gateway.admin_get("/upstreams").json()[0]["balance"] == "sticky by cookie lb, then round_robin");
}

#[test]
fn the_cookie_is_kept_from_scripts_and_other_sites() {
    let origins = origins(1);
    let gateway = Gateway::start(&words(&addresses(&origins), ""));
    let answer = get(&mut gateway.client(), None);
    let (_, attributes) = answer.header("set-cookie").unwrap().split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
}

#[test]
fn who_comes_by_tls_gets_it_for_tls_alone() {
    let pki = Authority::new();
    let files = pki.issue("a", &["a.test"]);
    let origins = origins(1);
    let tls = format!(
        "listeners: [{{ name: web, address: \"127.0.0.1:0\", tls: {{ certificates: [{}] }} }}]\n",
        files.words()
    );
    let gateway = Gateway::start(&(words(&addresses(&origins), "") + &tls));
    let mut client = pki.client().offering(&["http/1.1"]).connect(gateway.address(), "a.test").unwrap();
    assert!(get(&mut client, None).header("set-cookie").unwrap().ends_with("; Secure"));

    let trusted = "server: { threads: 1, trusted_proxies: [127.0.0.1] }\n";
    let gateway = Gateway::start(&(words(&addresses(&origins), "") + trusted));
    let behind = "GET / HTTP/1.1\r\nhost: a.test\r\nx-forwarded-proto: https\r\n\r\n";
    assert!(gateway.ask(behind).header("set-cookie").unwrap().ends_with("; Secure"));
}

#[test]
fn what_is_forged_or_of_another_key_is_replaced() {
    let origins = origins(2);
    let gateway = Gateway::start(&words(&addresses(&origins), ""));
    let other = Gateway::start(&words(&addresses(&origins), ""));
    let mut client = gateway.client();
    let (good, endpoint) = begin(&mut client);
    let (foreign, _) = begin(&mut other.client());
    let mut forged = good.clone();
    let last = if forged.ends_with('A') { 'B' } else { 'A' };
    forged.pop();
    forged.push(last);
    for bad in [&*forged, &*foreign, "lb=", "lb=x", "lb=\"\"", "lc=1", "LB=1"] {
        assert!(set(&get(&mut client, Some(bad))).is_some(), "{bad} is taken for a cookie");
    }
    let both = get(&mut client, Some(&format!("{forged}; {good}")));
    assert_eq!((both.text(), set(&both)), (endpoint, None), "of several the one that counts is found");
}

#[test]
fn gateways_with_one_secret_take_each_others_cookies() {
    let origins = origins(4);
    let start = |word: &str| Gateway::start(&words(&addresses(&origins), &secret(word)));
    let (one, same, another) = (start(SECRET), start(SECRET), start("quite another secret"));
    for _ in 0..4 {
        let (cookie, endpoint) = begin(&mut one.client());
        let answer = get(&mut same.client(), Some(&cookie));
        assert_eq!((answer.text(), set(&answer)), (endpoint, None));
        assert!(set(&get(&mut another.client(), Some(&cookie))).is_some());
    }
    assert!(!one.admin_get("/config").text().contains(SECRET));
}

#[test]
fn a_secret_in_a_file_is_read_again_when_it_changes() {
    let (origins, folder) = (origins(1), tempfile::tempdir().unwrap());
    let file = folder.path().join("secret");
    let write = |text: &str| {
        let next = folder.path().join("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, &file).unwrap();
    };
    write(&format!("{SECRET}\n"));
    let secret_file = format!(", secret: {{ file: {} }}", file.display());
    let gateway = Gateway::start_file(&words(&addresses(&origins), &secret_file));
    let same = Gateway::start(&words(&addresses(&origins), &secret(SECRET)));
    let (cookie, _) = begin(&mut same.client());
    assert_eq!(set(&get(&mut gateway.client(), Some(&cookie))), None);
    write("another secret of the fleet");
    eventually("the cookie counts no more", || set(&get(&mut gateway.client(), Some(&cookie))).is_some());
}

#[test]
fn the_key_is_kept_over_reloads_and_the_client_over_the_loss_of_its_endpoint() {
    let origins = origins(2);
    let gateway = Gateway::start_file(&words(&addresses(&origins), ""));
    let mut client = gateway.client();
    let (cookie, endpoint) = begin(&mut client);
    gateway.rewrite(&words(&addresses(origins.iter().rev()), ""));
    gateway.reload().unwrap();
    for _ in 0..4 {
        let answer = get(&mut client, Some(&cookie));
        assert_eq!((answer.text(), set(&answer)), (endpoint.clone(), None));
    }
    let left = origins.iter().enumerate().filter(|(at, _)| at.to_string() != endpoint);
    gateway.rewrite(&words(&addresses(left.map(|(_, origin)| origin)), ""));
    gateway.reload().unwrap();
    let answer = get(&mut client, Some(&cookie));
    assert_ne!(answer.text(), endpoint);
    let next = set(&answer).expect("the cookie leads to the endpoint that is left");
    let answer = get(&mut client, Some(&next));
    assert_eq!(set(&answer), None);
}

#[test]
fn an_endpoint_that_is_down_is_replaced_and_nothing_is_kept_of_a_refusal() {
    let (origins, nobody) = (origins(1), Nobody::new());
    let address = |address| format!("\"{address}\"");
    let lost = [address(nobody.address())];
    let both = [address(nobody.address()), address(origins[0].address())];
    let gateway = Gateway::start_file(&words(&lost, ""));
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.header("set-cookie")), (502, None));
    gateway.rewrite(&words(&both, ""));
    gateway.reload().unwrap();
    let mut client = gateway.client();
    for _ in 0..4 {
        let (cookie, _) = begin(&mut client);
        let answer = get(&mut client, Some(&cookie));
        assert_eq!((answer.text(), set(&answer)), ("0".into(), None), "it leads to the one that answered");
    }
}

#[test]
fn an_endpoint_without_weight_keeps_its_clients_and_gets_no_new_ones() {
    let origins = origins(2);
    let gateway = Gateway::start_file(&words(&addresses(&origins), ""));
    let mut client = gateway.client();
    let clients = [begin(&mut client), begin(&mut client)];
    let drained = [
        format!("{{ address: \"{}\", weight: 0 }}", origins[0].address()),
        format!("\"{}\"", origins[1].address()),
    ];
    gateway.rewrite(&words(&drained, ""));
    gateway.reload().unwrap();
    for (cookie, endpoint) in clients {
        let answer = get(&mut client, Some(&cookie));
        assert_eq!((answer.text(), set(&answer)), (endpoint, None));
    }
    for _ in 0..6 {
        assert_eq!(begin(&mut client).1, "1");
    }
}

#[test]
fn clients_without_a_cookie_are_placed_by_the_other_balance() {
    let inner = ", balance: { consistent_hash: { key: header:x-user } }";
    let origins = origins(3);
    let gateway = Gateway::start(&words(&addresses(&origins), inner));
    let mut client = gateway.client();
    let mut seen = BTreeSet::new();
    for user in 0..20 {
        let ask = format!("GET / HTTP/1.1\r\nhost: a.test\r\nx-user: u{user}\r\n\r\n");
        let places: BTreeSet<String> = (0..3).map(|_| client.ask(&ask).text()).collect();
        assert_eq!(places.len(), 1, "u{user}: {places:?}");
        seen.extend(places);
    }
    assert_eq!(seen.len(), 3);
}
