//! What the process says of itself.

use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;

/// What the process says of itself.
pub struct Status {
    started: Instant,
    reload: Mutex<Option<Reload>>,
}

/// How the last reload ended.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Reload {
    /// Seconds since the Unix epoch.
    at: u64,
    /// Why it was refused; absent when it was put in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Status {
    /// A process that started then.
    pub fn new(started: Instant) -> Self {
        Self { started, reload: Mutex::new(None) }
    }

    /// Notes how a reload ended.
    pub fn reloaded(&self, error: Option<String>) {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        *self.reload.lock() = Some(Reload { at, error });
    }

    pub(super) fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub(super) fn last_reload(&self) -> Option<Reload> {
        self.reload.lock().clone()
    }
}
