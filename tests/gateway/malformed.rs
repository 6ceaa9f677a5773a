//! The corpus of raw requests over a real socket: what is refused reaches no origin and is told and logged; what is
//! accepted reaches it in one reading.

use std::collections::HashMap;

use http::Uri;
use portcullis::types::NormalPath;
use serde_json::json;

use crate::corpus::{self, Entry, Expect, Reading};
use crate::harness::{Client, Gateway, Origin, Response, eventually_some, to};

/// The listener that the corpus is written for.
const LISTENER: &str =
    "listeners: [{ name: web, address: \"127.0.0.1:0\", protocols: [http1], limits: { uri_bytes: 8KiB } }]";

pub fn gateway(origin: &Origin) -> Gateway {
    Gateway::start(&format!("{}{LISTENER}", to(&[origin], "")))
}

/// Sends what the gateway may have refused before its end.
pub fn send(client: &mut Client, raw: &[u8]) {
    let _ = client.stream.send(raw);
}

/// The first answer that is no success, and how many came before it.
pub fn refusal(client: &mut Client, name: &str) -> (Response, usize) {
    for before in 0..10 {
        let response = client.try_response("GET").unwrap_or_else(|error| panic!("{name}: {error}"));
        if response.status != 200 {
            return (response, before);
        }
    }
    panic!("{name}: nothing was refused");
}

#[test]
fn what_is_refused_is_told_and_logged_and_reaches_no_origin() {
    let origin = Origin::ok();
    let gateway = gateway(&origin);
    let entries = corpus::entries();
    let refused = entries.iter().filter_map(|entry| match &entry.expect {
        Expect::Refused(status, reason) => Some((entry, *status, reason.clone())),
        Expect::Path(status) => Some((entry, *status, "bad_path".to_owned())),
        Expect::Accepted => None,
    });
    let (mut told, mut served) = (Vec::new(), 0);
    for (entry, status, reason) in refused {
        let name = &entry.name;
        let mut client = gateway.client();
        send(&mut client, &entry.raw);
        let (response, before) = refusal(&mut client, name);
        served += before;
        assert_eq!(response.problem(), (status, reason.clone()), "{name}");
        let id = response.json()["request_id"].clone();
        assert_eq!(id.as_str(), response.header("x-request-id"), "{name}");
        if matches!(entry.expect, Expect::Refused(..)) {
            assert_eq!(response.header("connection"), Some("close"), "{name}");
            client.finish();
            assert!(client.ends(), "{name}: more than one answer");
        }
        told.push((name, id, status, reason));
    }
    assert!(told.len() >= 400, "{} entries", told.len());
    assert_eq!(origin.requests().len(), served);
    // Only a body that breaks after its first bytes leaves a head at the origin, and never a whole request.
    let heads = origin.heads();
    let chunked = heads.iter().filter(|head| head.fields.lists("transfer-encoding", "chunked")).count();
    assert!(heads.len() <= served + chunked);
    let log = eventually_some("the last line in the access log", || {
        let log = gateway.log();
        (log.len() >= told.len() + served).then_some(log)
    });
    assert_eq!(log.len(), told.len() + served, "one line each");
    let lines: HashMap<_, _> = log.iter().map(|line| (&line["request_id"], line)).collect();
    for (name, id, status, reason) in &told {
        let line = lines[id];
        assert_eq!((&line["status"], &line["reason"]), (&json!(status), &json!(reason)), "{name}");
    }
}

#[test]
fn what_is_refused_in_pieces_reaches_no_origin_as_a_whole_request() {
    let origin = Origin::ok();
    let gateway = gateway(&origin);
    let mut served = 0;
    for entry in corpus::entries().iter().filter(|entry| matches!(entry.expect, Expect::Refused(..))) {
        let cut = entry.raw.len() / 2;
        let mut client = gateway.client();
        // Both halves are sent; whether they are read together is chance.
        send(&mut client, &entry.raw[..cut]);
        std::thread::yield_now();
        send(&mut client, &entry.raw[cut..]);
        let (response, before) = refusal(&mut client, &entry.name);
        served += before;
        let Expect::Refused(status, reason) = &entry.expect else { unreachable!() };
        assert_eq!(response.problem(), (*status, reason.clone()), "{}", entry.name);
    }
    assert_eq!(origin.requests().len(), served);
}

#[test]
fn what_is_accepted_reaches_the_origin_in_one_reading_and_in_step() {
    let origin = Origin::ok();
    let gateway = gateway(&origin);
    for entry in corpus::entries().iter().filter(|entry| entry.expect == Expect::Accepted) {
        let before = origin.requests().len();
        let mut client = gateway.client();
        send(&mut client, &entry.raw);
        let stays = entry.readings.iter().all(|reading| answered(&mut client, entry, reading));
        if stays {
            let response = client.get("/after");
            assert_eq!(response.status, 200, "{}: the next request is out of step", entry.name);
        } else {
            assert!(client.ends(), "{}", entry.name);
        }
        let mut expected: Vec<_> = entry.readings.iter().filter_map(forwarded).collect();
        expected.extend(stays.then(|| ("GET".to_owned(), "/after".to_owned(), None)));
        let got: Vec<_> = origin.requests()[before..]
            .iter()
            .map(|got| {
                (got.method.clone(), got.target.clone(), got.body.as_ref().map(|body| body.len() as u64))
            })
            .collect();
        assert_eq!(got, expected, "{}", entry.name);
    }
    assert_eq!(origin.take_breaches(), Vec::<String>::new());
}

/// Reads the final response of one request; whether the connection stays.
pub fn answered(client: &mut Client, entry: &Entry, reading: &Reading) -> bool {
    let response = loop {
        let response: Response = client
            .try_response(&reading.method)
            .unwrap_or_else(|error| panic!("{}: {error} for {reading:?}", entry.name));
        if response.status >= 200 {
            break response;
        }
    };
    let expected = if reading.target == "*" { 204 } else { 200 };
    assert_eq!(response.status, expected, "{}: {}", entry.name, response.text());
    !response.fields.lists("connection", "close") && response.version == "HTTP/1.1"
}

/// Method, target and size of content as the origin is to get them.
fn forwarded(reading: &Reading) -> Option<(String, String, Option<u64>)> {
    if reading.target == "*" {
        return None;
    }
    let uri: Uri = reading.target.parse().unwrap();
    let path = NormalPath::parse(uri.path()).unwrap();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some((reading.method.clone(), format!("{}{query}", path.as_str()), reading.payload))
}
