//! The corpus of raw requests against the guard: every verdict, and the one reading of what is accepted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is a failed test")]

mod corpus;

use corpus::{Entry, Expect, Reading};
use portcullis::guard::{BodyFraming, BodyScanner, Head, HeadLimits, HeadScanner, Progress, Refusal};
use proptest::prelude::*;
use std::{collections::HashSet, sync::LazyLock};

/// The limits that the corpus is written for.
const LIMITS: HeadLimits = HeadLimits { header_bytes: 64 * 1024, headers: 100, uri_bytes: 8 * 1024 };

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(corpus::entries);

/// What the guard makes of the bytes of one connection.
#[derive(Debug, PartialEq)]
enum Verdict {
    Accepted(Vec<Reading>),
    Refused(Refusal),
    Unfinished,
}

#[test]
fn every_entry_gets_its_verdict() {
    for entry in ENTRIES.iter() {
        let verdict = judge(&entry.raw, usize::MAX);
        match &entry.expect {
            Expect::Accepted | Expect::Path(_) => {
                assert_eq!(verdict, Verdict::Accepted(entry.readings.clone()), "{}", entry.name);
            }
            Expect::Refused(status, reason) => {
                let Verdict::Refused(refusal) = verdict else { panic!("{}: {verdict:?}", entry.name) };
                assert_eq!(
                    (refusal.status(), refusal.reason()),
                    (*status, reason.as_str()),
                    "{}",
                    entry.name
                );
            }
        }
    }
}

#[test]
fn every_entry_gets_the_same_verdict_byte_by_byte() {
    for entry in ENTRIES.iter() {
        assert_eq!(judge(&entry.raw, usize::MAX), judge(&entry.raw, 1), "{}", entry.name);
    }
}

#[test]
fn the_corpus_is_sound_and_covers_every_refusal() {
    let entries = &*ENTRIES;
    let names: HashSet<_> = entries.iter().map(|entry| &entry.name).collect();
    assert_eq!(names.len(), entries.len(), "a name is used twice");

    let is_refused = |entry: &&Entry| matches!(entry.expect, Expect::Refused(..));
    assert!(entries.iter().filter(is_refused).count() >= 90);
    assert!(entries.iter().filter(|entry| entry.expect == Expect::Accepted).count() >= 20);

    for refusal in Refusal::ALL {
        let expect = Expect::Refused(refusal.status(), refusal.reason().to_owned());
        assert!(entries.iter().any(|entry| entry.expect == expect), "no entry for {}", refusal.reason());
    }
}

/// What obfuscates a field that decides framing or routing: any byte in any place of its line. Either nobody gets the
/// request, or the field is what its bytes say and nothing else.
#[test]
fn one_byte_more_makes_no_second_reading() {
    let fields = ["Transfer-Encoding: chunked", "Content-Length: 5", "Host: a.example"];
    let mut accepted = 0;
    for (changed, line) in fields.iter().enumerate() {
        for (at, byte) in (0..=line.len()).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
            let mut lines = fields.map(|line| line.as_bytes().to_vec());
            lines[changed].insert(at, byte);
            let raw = [b"POST / HTTP/1.1\r\n", lines.join(&b"\r\n"[..]).as_slice(), b"\r\n\r\n"].concat();
            if let Progress::Done(head) = Head::parse(&raw, &LIMITS) {
                assert_eq!(head.framing, plain_framing(&raw), "{}", raw.escape_ascii());
                accepted += 1;
            }
        }
    }
    assert!(accepted > 1000, "{accepted} accepted");
}

/// The framing by the names and values that stand there, letter by letter.
fn plain_framing(raw: &[u8]) -> BodyFraming {
    let mut fields = [httparse::EMPTY_HEADER; 8];
    let mut oracle = httparse::Request::new(&mut fields);
    assert!(oracle.parse(raw).unwrap().is_complete());
    let value = |name: &str| {
        let mut values = oracle.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let value = values.next().map(|field| std::str::from_utf8(field.value).unwrap());
        assert!(values.next().is_none());
        value
    };
    match (value("content-length"), value("transfer-encoding")) {
        (Some(length), None) => BodyFraming::Length(length.parse().unwrap()),
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => BodyFraming::Chunked,
        (None, None) => BodyFraming::None,
        both => panic!("two framings: {both:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// One byte changed, two entries spliced: whatever comes out, pieces change nothing, and the guard agrees with
    /// another parser on what it accepts.
    #[test]
    fn mutants_are_read_in_one_way(
        (first, second) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        (cut, at) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"\r\n\t :,;\0_"[..])],
        size in 1usize..40,
    ) {
        let short: Vec<_> = ENTRIES.iter().map(|entry| &entry.raw).filter(|raw| raw.len() < 1000).collect();
        let (first, second) = (first.get(&short), second.get(&short));
        let mut raw = [&first[..cut.index(first.len() + 1)], second].concat();
        let at = at.index(raw.len());
        raw[at] = byte;

        prop_assert_eq!(judge(&raw, usize::MAX), judge(&raw, size));
        if let Progress::Done(head) = Head::parse(&raw, &LIMITS) {
            agrees_with_httparse(&raw, &head)?;
        }
    }
}

fn agrees_with_httparse(raw: &[u8], head: &Head) -> Result<(), TestCaseError> {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut oracle = httparse::Request::new(&mut fields);
    prop_assert_eq!(oracle.parse(raw), Ok(httparse::Status::Complete(head.len)));
    prop_assert_eq!(oracle.method.map(str::as_bytes), Some(&raw[head.method.clone()]));
    prop_assert_eq!(oracle.path.map(str::as_bytes), Some(&raw[head.target.clone()]));
    prop_assert_eq!(oracle.headers.len(), head.headers);
    prop_assert!(!raw[..head.len].windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r'));
    Ok(())
}

/// Reads request after request from bytes that come in pieces of `size`.
fn judge(raw: &[u8], size: usize) -> Verdict {
    let mut readings = Vec::new();
    let mut rest = raw;
    while !rest.is_empty() {
        match judge_one(rest, size) {
            Ok(Some((reading, len))) => {
                readings.push(reading);
                rest = &rest[len..];
            }
            Ok(None) => return Verdict::Unfinished,
            Err(refusal) => return Verdict::Refused(refusal),
        }
    }
    Verdict::Accepted(readings)
}

/// One request from the start of `raw`, and how many bytes it took.
fn judge_one(raw: &[u8], size: usize) -> Result<Option<(Reading, usize)>, Refusal> {
    let Some(head) = judge_head(raw, size)? else {
        return Ok(None);
    };
    let mut body = BodyScanner::new(head.framing);
    let mut len = head.len;
    let mut done = body.feed(&[])?.done;
    for piece in raw[head.len..].chunks(size.min(raw.len())) {
        if done {
            break;
        }
        let fed = body.feed(piece)?;
        len += fed.consumed;
        done = fed.done;
    }
    let text = |at: std::ops::Range<usize>| String::from_utf8_lossy(&raw[at]).into_owned();
    let reading = Reading {
        method: text(head.method),
        target: text(head.target),
        payload: (head.framing != BodyFraming::None).then(|| body.payload()),
    };
    Ok(done.then_some((reading, len)))
}

fn judge_head(raw: &[u8], size: usize) -> Result<Option<Head>, Refusal> {
    let mut scanner = HeadScanner::new(LIMITS);
    let mut len = 0;
    while len < raw.len() {
        len = len.saturating_add(size).min(raw.len());
        match scanner.advance(&raw[..len]) {
            Progress::NeedMore => {}
            Progress::Done(head) => return Ok(Some(head)),
            Progress::Refused(refusal) => return Err(refusal),
        }
    }
    Ok(None)
}
