//! Webhooks: whoever is told of events by HTTP.
//!
//! 1. Each [`Webhook`] that a snapshot wants has a task and a queue of its own, so none waits for another. It outlives
//!    snapshots for as long as its words stay the same; a webhook that is not wanted any more is told nothing more.
//! 2. An event is posted as JSON and takes up to three tries. What is worth another try: no answer in time, a connection
//!    that breaks, and the statuses 408, 429 and 5xx. Any 2xx is success; redirects are not followed.
//! 3. The same event of the same subject is told at most once a second (`merge`).
//! 4. What finds no room in the queue is dropped and counted.

mod merge;
mod post;
mod teller;

use std::time::Duration;

use http::{HeaderMap, Uri};

use crate::telemetry::EventKind;

pub use teller::Teller;

/// Where events are posted, and which.
#[derive(Clone, PartialEq)]
pub struct Webhook {
    /// The URL, which begins with `http://` or `https://`. Many services have a key in it: it is never shown.
    pub url: Uri,
    /// What is sent along, as the token.
    pub headers: HeaderMap,
    /// The kinds that are wanted; all of them where none is named.
    pub on: Box<[EventKind]>,
    /// The PEM text of the authorities who may have issued its certificate; those of the system else.
    pub ca: Option<Box<[u8]>>,
    /// How long a try may take.
    pub timeout: Duration,
}

impl Webhook {
    fn wants(&self, kind: EventKind) -> bool {
        self.on.is_empty() || self.on.contains(&kind)
    }

    /// What may be said of where it is.
    fn place(&self) -> &str {
        self.url.host().unwrap_or_default()
    }
}
