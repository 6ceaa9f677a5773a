//! The corpus of raw requests, `requests.txt`, and its reader. The format is described at the head of that file.

#![expect(clippy::panic, reason = "a malformed corpus is a broken test")]

/// One entry of the corpus.
#[derive(Debug, Default)]
pub struct Entry {
    /// Unique name, by which a failing test is found.
    pub name: String,
    /// What must become of it.
    pub expect: Expect,
    /// The bytes to send.
    pub raw: Vec<u8>,
    /// Of an accepted entry: the one reading of each request in it.
    pub readings: Vec<Reading>,
}

/// What must become of an entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Accepted, with the readings given.
    #[default]
    Accepted,
    /// Refused by the guard, with this status and reason code.
    Refused(u16, String),
    /// Accepted by the guard, and refused with this status by the router: its path has no canonical form.
    Path(u16),
}

/// How one accepted request is to be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub method: String,
    pub target: String,
    /// Bytes of content, framing removed; `None` if the request has no body.
    pub payload: Option<u64>,
}

/// Every entry, in the order of the file.
///
/// # Panics
/// If the file is malformed: with the line.
pub fn entries() -> Vec<Entry> {
    parse(include_str!("requests.txt"))
}

/// Reads the text of a corpus.
///
/// # Panics
/// If it is malformed: with the line.
pub fn parse(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("line {}: no key", number + 1));
        if key == "name" {
            entries.push(Entry { name: value.to_owned(), ..Entry::default() });
            continue;
        }
        let entry = entries.last_mut().unwrap_or_else(|| panic!("line {}: no name yet", number + 1));
        set(entry, key, value).unwrap_or_else(|| panic!("line {}: malformed {key}", number + 1));
    }
    entries
}

fn set(entry: &mut Entry, key: &str, value: &str) -> Option<()> {
    match key {
        "expect" => entry.expect = parse_expect(value)?,
        "raw" => entry.raw.extend(unescape(value.as_bytes())?),
        "reading" => entry.readings.push(parse_reading(value)?),
        _ => return None,
    }
    Some(())
}

fn parse_expect(value: &str) -> Option<Expect> {
    match value.split_once(' ') {
        None => (value == "ok").then_some(Expect::Accepted),
        Some((status, "path")) => Some(Expect::Path(status.parse().ok()?)),
        Some((status, reason)) => Some(Expect::Refused(status.parse().ok()?, reason.to_owned())),
    }
}

fn parse_reading(value: &str) -> Option<Reading> {
    let mut words = value.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let payload = match words.next()? {
        "-" => None,
        count => Some(count.parse().ok()?),
    };
    words.next().is_none().then_some(Reading { method, target, payload })
}

/// Replaces `\r \n \t \\ \xNN`, and `\{N:text}` by N times the text.
fn unescape(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some((&first, rest)) = text.split_first() {
        if first != b'\\' {
            bytes.push(first);
            text = rest;
            continue;
        }
        let (&escape, rest) = rest.split_first()?;
        text = rest;
        match escape {
            b'r' => bytes.push(b'\r'),
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                let digits = std::str::from_utf8(text.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                text = &text[2..];
            }
            b'{' => {
                let end = text.iter().position(|&b| b == b'}')?;
                bytes.extend(repeat(&text[..end])?);
                text = &text[end + 1..];
            }
            _ => return None,
        }
    }
    Some(bytes)
}

fn repeat(inside: &[u8]) -> Option<Vec<u8>> {
    let colon = inside.iter().position(|&b| b == b':')?;
    let count: usize = std::str::from_utf8(&inside[..colon]).ok()?.parse().ok()?;
    Some(unescape(&inside[colon + 1..])?.repeat(count))
}

#[test]
fn an_entry_is_read_with_its_escapes() {
    let text = "# comment\n\nname: a\nexpect: 400 bad_host\nraw: G\\x00\\r\\n\nraw: \\{3:x\\t}\\\\ \n\
                name: b\nexpect: ok\nreading: GET /x 5\nreading: GET /y -\n";
    let entries = parse(text);
    assert_eq!(entries[0].raw, b"G\0\r\nx\tx\tx\t\\ ");
    assert_eq!(entries[0].expect, Expect::Refused(400, "bad_host".to_owned()));
    let payloads: Vec<_> = entries[1].readings.iter().map(|reading| reading.payload).collect();
    assert_eq!(payloads, [Some(5), None]);
}
