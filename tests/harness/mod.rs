//! What the socket tests stand on: a gateway in this process, scripted origins, raw clients.
//!
//! A test starts its own of each on free ports, so all tests run in parallel. Nothing sleeps to wait for something:
//! [`eventually`] polls with a deadline, and every read has one.

#![allow(dead_code, unused_imports, reason = "several test binaries stand on this, each on another part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

pub mod browser;
mod client;
pub mod dns;
mod gateway;
mod http2;
mod message;
mod origin;
pub mod pebble;
pub mod process_log;
pub mod redis;
pub mod tls;

use std::time::{Duration, Instant};

pub use client::Client;
pub use gateway::{Gateway, to};
pub use http2::{Answer, Frame, Frames, Http2, fields};
pub use message::{Fields, Request, Response, Stream};
pub use origin::{FullBacklog, Nobody, Origin, Then, Visit, reset, wait_for_close};

/// How long anything may take that should happen at once. Long, for a busy machine: a test that passes never waits so
/// long.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits until `done` says so.
///
/// # Panics
/// When it does not within [`SOON`].
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    eventually_some(what, || done().then_some(()));
}

/// Waits until a count above zero has stood still for `moment`, and returns it.
///
/// # Panics
/// When it does not within [`SOON`].
pub fn settled(what: &str, moment: Duration, count: impl Fn() -> usize) -> usize {
    let mut seen = (count(), Instant::now());
    eventually_some(what, || {
        let now = count();
        if now != seen.0 {
            seen = (now, Instant::now());
        }
        (now > 0 && seen.1.elapsed() >= moment).then_some(now)
    })
}

/// Waits until `look` finds something.
///
/// # Panics
/// When it does not within [`SOON`].
pub fn eventually_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < SOON, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
