//! What the gateway sends upstream, before other eyes: five HTTP/1.1 parsers that share no code with each other or with
//! the gateway must read the same requests in it. `tests/readers/read.py` holds them.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis::guard::{BodyFraming, Head, HeadLimits, Progress};
use serde::Deserialize;
use serde_json::json;

use crate::corpus::{self, Expect};
use crate::harness::{Client, Origin, Request, Then, eventually};
use crate::malformed::{answered, gateway, refusal, send};

/// The limits that the corpus is written for.
const LIMITS: HeadLimits = HeadLimits { header_bytes: 64 << 10, headers: 100, uri_bytes: 8 << 10 };

/// Bytes that an origin got on one connection, and the whole requests that its own reader found in them.
struct Stream {
    name: String,
    bytes: Vec<u8>,
    requests: Vec<Request>,
}

/// What the readers say of a stream.
#[derive(Debug, Deserialize)]
struct Verdict {
    name: String,
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    cut: bool,
    #[serde(default)]
    faults: Vec<String>,
}

/// A request as all readers see it: names in lower case, the body in hexadecimal digits.
#[derive(Debug, Deserialize, PartialEq)]
struct Message {
    method: String,
    target: String,
    version: String,
    fields: Vec<(String, String)>,
    body: String,
}

#[test]
fn what_is_accepted_is_read_alike_by_others() {
    let origin = Origin::ok();
    let gateway = gateway(&origin);
    let mut streams = Vec::new();
    for entry in corpus::entries().iter().filter(|entry| entry.expect == Expect::Accepted) {
        let before = lengths(&origin);
        let mut client = gateway.client();
        send(&mut client, &entry.raw);
        let stays = entry.readings.iter().all(|reading| answered(&mut client, entry, reading));
        assert!(!stays || client.get("/after").status == 200, "{}", entry.name);
        streams.extend(streams_since(&origin, &before, &entry.name));
    }
    assert!(streams.len() >= 40, "{} streams", streams.len());
    for verdict in judge(&streams) {
        assert!(!verdict.cut, "{}", verdict.name);
    }
}

/// Names that are nearly a framing field's are others' fields, to everyone.
#[test]
fn names_near_a_framing_field_are_read_alike_by_others() {
    let origin = Origin::ok();
    let gateway = gateway(&origin);
    let names = (b'!'..=b'~').map(char::from).flat_map(|byte| {
        let (name, other) = ("Transfer-Encoding", "Content-Length");
        [format!("{byte}{name}"), format!("{name}{byte}"), format!("{byte}{other}"), format!("{other}{byte}")]
    });
    let mut streams = Vec::new();
    for name in names {
        let raw = format!("POST / HTTP/1.1\r\nHost: a\r\n{name}: chunked\r\nContent-Length: 5\r\n\r\nhello");
        if !matches!(Head::parse(raw.as_bytes(), &LIMITS), Progress::Done(_)) {
            continue;
        }
        let before = lengths(&origin);
        let mut client = gateway.client();
        assert_eq!(client.ask(raw).status, 200, "{name}");
        assert_eq!(client.get("/after").status, 200, "{name}");
        streams.extend(streams_since(&origin, &before, &name));
    }
    assert!(streams.len() >= 250, "{} streams", streams.len());
    for verdict in judge(&streams) {
        assert!(!verdict.cut, "{}", verdict.name);
    }
}

#[test]
fn what_is_refused_on_its_way_is_no_whole_request_to_others() {
    let origin = Origin::start(|visit| {
        visit.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        Then::Close
    });
    let gateway = gateway(&origin);
    let mut streams = Vec::new();
    // Of each entry, the requests that were answered before the refusal: no more and no fewer are whole.
    let mut whole: HashMap<String, usize> = HashMap::new();
    for entry in corpus::entries().iter().filter(|entry| entry.expect != Expect::Accepted) {
        let before = lengths(&origin);
        let mut client = gateway.client();
        send_so_far(&mut client, &entry.raw, &origin);
        let (_, served) = refusal(&mut client, &entry.name);
        drop(client);
        // Connections are accepted in their order, so the entry's is there when this one is answered.
        assert_eq!(gateway.get("/after").status, 200);
        eventually("the connections to the origin end", || origin.open() == 0);
        let mut of_entry = streams_since(&origin, &before, &entry.name);
        of_entry.pop();
        whole.insert(entry.name.clone(), served);
        streams.extend(of_entry);
    }
    assert!(streams.len() >= 50, "{} streams", streams.len());
    for verdict in judge(&streams) {
        assert!(verdict.cut || !verdict.messages.is_empty(), "{}", verdict.name);
        *whole.get_mut(&verdict.name).unwrap() -= verdict.messages.len();
    }
    let missing: Vec<_> = whole.into_iter().filter(|(_, left)| *left > 0).collect();
    assert!(missing.is_empty(), "served, but not whole to the readers: {missing:?}");
}

/// Sends a head that is good, waits until it has reached the origin, and sends what follows.
fn send_so_far(client: &mut Client, raw: &[u8], origin: &Origin) {
    let heads = origin.heads().len();
    let head = match Head::parse(raw, &LIMITS) {
        Progress::Done(head) if head.framing == BodyFraming::Chunked => head.len,
        _ => 0,
    };
    send(client, &raw[..head]);
    eventually("the head is at the origin", || head == 0 || origin.heads().len() > heads);
    send(client, &raw[head..]);
}

/// Bytes and whole requests of each connection so far.
fn lengths(origin: &Origin) -> Vec<(usize, usize)> {
    let requests = origin.requests();
    let count = |index| requests.iter().filter(|request| request.connection == index).count();
    origin.bytes().iter().enumerate().map(|(index, bytes)| (bytes.len(), count(index))).collect()
}

/// What has come since, connection by connection.
fn streams_since(origin: &Origin, before: &[(usize, usize)], name: &str) -> Vec<Stream> {
    let requests = origin.requests();
    let streams = origin.bytes().into_iter().enumerate().map(|(index, bytes)| {
        let (length, count) = before.get(index).copied().unwrap_or_default();
        let of_connection = requests.iter().filter(|request| request.connection == index);
        Stream {
            name: name.to_owned(),
            bytes: bytes[length..].to_vec(),
            requests: of_connection.skip(count).cloned().collect(),
        }
    });
    streams.filter(|stream| !stream.bytes.is_empty()).collect()
}

/// The readers' verdicts, which agree with each other and with the origin.
fn judge(streams: &[Stream]) -> Vec<Verdict> {
    let verdicts = read(streams);
    assert_eq!(verdicts.len(), streams.len());
    let faults: Vec<_> = verdicts.iter().filter(|verdict| !verdict.faults.is_empty()).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    for (stream, verdict) in streams.iter().zip(&verdicts) {
        let expected: Vec<_> = stream.requests.iter().map(Message::of).collect();
        assert_eq!(verdict.messages, expected, "{}", stream.name);
    }
    verdicts
}

fn read(streams: &[Stream]) -> Vec<Verdict> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers");
    let python = folder.join("venv/bin/python");
    let mut child = Command::new(&python)
        .arg(folder.join("read.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; `make setup-test` installs it", python.display()));
    let input: Vec<_> =
        streams.iter().map(|stream| json!({ "name": stream.name, "bytes": hex(&stream.bytes) })).collect();
    child.stdin.take().unwrap().write_all(json!(input).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the readers failed; `make setup-test` installs them");
    serde_json::from_slice(&output.stdout).unwrap()
}

impl Message {
    fn of(request: &Request) -> Self {
        let fields = request.fields.0.iter();
        Self {
            method: request.method.clone(),
            target: request.target.clone(),
            version: request.version.trim_start_matches("HTTP/").to_owned(),
            fields: fields.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect(),
            body: hex(request.content()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
