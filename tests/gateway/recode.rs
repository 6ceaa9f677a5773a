//! Content codings in other hands: `tests/readers/recode.py` encodes and decodes with libraries that share no code with
//! the gateway's.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

/// Decodes a whole stream; `None` when it is not one.
pub fn decode(coding: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    run("decode", coding, bytes, 1)
}

/// Decodes what there is of a stream that goes on; `None` when it has ended.
pub fn begin(coding: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    run("begin", coding, bytes, 1)
}

/// Encodes.
pub fn encode(coding: &str, bytes: &[u8]) -> Vec<u8> {
    encode_times(coding, bytes, 1)
}

/// Encodes so many repetitions.
pub fn encode_times(coding: &str, bytes: &[u8], times: usize) -> Vec<u8> {
    run("encode", coding, bytes, times).unwrap()
}

/// Text that shrinks, of this length.
pub fn text(length: usize) -> String {
    let mut text: String = (0..=length / 20).map(|at| format!("line {at} of the text\n")).collect();
    text.truncate(length);
    text
}

fn run(what: &str, coding: &str, bytes: &[u8], times: usize) -> Option<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers");
    let python = folder.join("venv/bin/python");
    let mut child = Command::new(&python)
        .arg(folder.join("recode.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; `make setup-test` installs it", python.display()));
    let task = json!({ "do": what, "coding": coding, "bytes": hex(bytes), "times": times });
    child.stdin.take().unwrap().write_all(task.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the readers failed; `make setup-test` installs them");
    let answer: Option<String> = serde_json::from_slice(&output.stdout).unwrap();
    answer.map(|hex| unhex(&hex))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
