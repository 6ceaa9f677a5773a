//! `upstreams.X.timeouts.lifetime`: how old a connection to an upstream gets.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::{Frames, Gateway, Origin, Stream, Then};

/// The age of its connection, and which that was, for each request.
type Ages = Arc<Mutex<Vec<(usize, Duration)>>>;

const LIFETIME: Duration = Duration::from_secs(1);
/// How much later a request may be seen than it was sent, on a busy machine.
const SLACK: Duration = Duration::from_secs(1);

fn origin(http2: bool) -> (Origin, Ages) {
    let ages = Ages::default();
    let seen = Arc::clone(&ages);
    let origin = Origin::raw(move |index, stream| {
        let begun = Instant::now();
        let note = || seen.lock().unwrap().push((index, begun.elapsed()));
        if http2 {
            http2_requests(stream, note)
        } else {
            http1_requests(stream, note)
        }
        Then::Close
    });
    (origin, ages)
}

fn http1_requests(stream: &mut Stream, note: impl Fn()) {
    while let Ok(Some(_)) = stream.request_head() {
        note();
        let _ = stream.send(b"HTTP/1.1 204 No Content\r\n\r\n");
    }
}

fn http2_requests(stream: &mut Stream, note: impl Fn()) {
    let _ = stream.exactly(24);
    let _ = stream.send(&Frames::spell(Frames::SETTINGS, 0, 0, &[]));
    while let Ok(head) = stream.exactly(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let _ = stream.exactly(length);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let answer = match head[3] {
            Frames::SETTINGS if head[4] == 0 => Frames::spell(Frames::SETTINGS, 1, 0, &[]),
            Frames::HEADERS => {
                note();
                Frames::spell(Frames::HEADERS, Frames::END_HEADERS | Frames::END_STREAM, id, &[0x89])
            }
            _ => continue,
        };
        let _ = stream.send(&answer);
    }
}

/// Asks for four lifetimes; the connections that requests came on, and the oldest of them at a request.
fn ask(protocol: &str, words: &str) -> (usize, Duration) {
    let (origin, ages) = origin(protocol == "http2");
    let gateway = Gateway::start(&format!(
        "upstreams: {{ origin: {{ protocol: {protocol}, endpoints: [\"{}\"], timeouts: {{ {words} }} }} }}\n\
         routes: [{{ name: all, path: /*, upstream: origin }}]\n",
        origin.address()
    ));
    let mut client = gateway.client();
    let begun = Instant::now();
    while begun.elapsed() < LIFETIME * 4 {
        assert_eq!(client.get("/").status, 204);
        std::thread::sleep(Duration::from_millis(5));
    }
    let ages = ages.lock().unwrap();
    let connections = ages.iter().map(|(index, _)| *index).max().unwrap() + 1;
    (connections, ages.iter().map(|(_, age)| *age).max().unwrap())
}

#[test]
fn connections_are_renewed_before_they_are_too_old() {
    for protocol in ["http1", "http2"] {
        let (connections, oldest) = ask(protocol, "lifetime: 1s");
        assert!(oldest < LIFETIME + SLACK, "{protocol}: {oldest:?}");
        assert!((3..=12).contains(&connections), "{protocol}: {connections}");
    }
}

#[test]
fn without_a_word_they_may_be_of_any_age() {
    for protocol in ["http1", "http2"] {
        let (connections, oldest) = ask(protocol, "idle: 90s");
        assert!(oldest > LIFETIME * 3, "{protocol}: {oldest:?}");
        assert_eq!(connections, 1, "{protocol}");
    }
}
