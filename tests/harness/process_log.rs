//! What the gateways of this process say of themselves. The logging facade has one logger a process, hence the static.

use std::sync::Mutex;

use log::{Log, Metadata, Record};

use super::eventually_some;

static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listener;

impl Log for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{} {}: {}", record.level(), record.target(), record.args());
        HEARD.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

/// Takes the place of the gateway's own logger. Call it before the first gateway starts; later calls do nothing.
pub fn listen() {
    // An error means that it listens already.
    let _ = log::set_logger(&Listener);
}

/// Waits for a line that holds all these words.
pub fn heard(words: &[&str]) -> String {
    eventually_some(&format!("a log line with {words:?}"), || {
        let lines = HEARD.lock().unwrap();
        lines.iter().find(|line| words.iter().all(|word| line.contains(word))).cloned()
    })
}

/// Every line so far, those of other tests included.
pub fn lines() -> Vec<String> {
    HEARD.lock().unwrap().clone()
}
