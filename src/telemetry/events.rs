//! Events: what an operator may want to be called for.
//!
//! 1. Whoever sees one tells it once, to [`Events`]. It goes to the process log, and to whoever takes it from the
//!    [`Inbox`] and tells it to others.
//! 2. Telling never waits: what finds no room is dropped and counted.
//! 3. Where nobody else wants to know, it costs the line in the log.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::access_log::rfc3339;
use log::Level;
use prometheus::IntCounter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// How many events wait at most until they are taken.
const ROOM: usize = 1024;

/// What kind of thing has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An endpoint is out of the choice: probes fail, or requests do.
    EndpointDown,
    /// An endpoint is back in the choice.
    EndpointUp,
    /// A circuit breaker lets no request through.
    CircuitOpen,
    /// A circuit breaker lets a few requests through, to find out.
    CircuitHalfOpen,
    /// A circuit breaker lets all requests through again.
    CircuitClosed,
    /// A certificate ends soon, has ended, or has not begun. Told at the start, at each reload and once a day.
    CertificateExpiring,
    /// No certificate was had of an ACME authority. It is tried again.
    CertificateFailed,
    /// A new configuration was refused; the old one stays in force.
    ReloadRefused,
    /// New requests are refused: a mark of `server.shed` is passed.
    SheddingStarted,
    /// New requests are taken again.
    SheddingEnded,
    /// The endpoints of an upstream cannot be looked up. What was found stays.
    DiscoveryFailed,
    /// The endpoints of an upstream are found again.
    DiscoveryRecovered,
}

impl EventKind {
    /// How grave it is in the process log.
    pub fn level(self) -> Level {
        match self {
            Self::ReloadRefused => Level::Error,
            Self::EndpointDown
            | Self::CircuitOpen
            | Self::CertificateExpiring
            | Self::CertificateFailed
            | Self::SheddingStarted
            | Self::DiscoveryFailed => Level::Warn,
            Self::EndpointUp
            | Self::CircuitHalfOpen
            | Self::CircuitClosed
            | Self::SheddingEnded
            | Self::DiscoveryRecovered => Level::Info,
        }
    }
}

/// Something has happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What kind of thing.
    pub kind: EventKind,
    /// When.
    pub at: SystemTime,
    /// To whom.
    pub subject: Subject,
    /// Why.
    pub why: Box<str>,
    /// What the process log says of it.
    pub message: Box<str>,
}

impl Event {
    /// When, by RFC 3339 in UTC.
    pub fn at_text(&self) -> String {
        String::from_utf8(rfc3339(self.at)).unwrap_or_default()
    }
}

/// To whom something happens; what does not apply is missing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Subject {
    /// The upstream's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Arc<str>>,
    /// The endpoint's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// The listener's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Arc<str>>,
    /// The name of the ACME authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<Box<str>>,
    /// The hosts that a certificate is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Box<[Box<str>]>>,
}

/// Where events are told. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Events(Option<Arc<Line>>);

/// Where told events wait to be taken.
pub type Inbox = Receiver<Event>;

#[derive(Debug)]
struct Line {
    sender: Sender<Event>,
    dropped: IntCounter,
    wanted: AtomicBool,
}

impl Events {
    /// Where events are told and where they are taken. What finds no room is counted. The default tells the process log
    /// alone.
    pub fn open(dropped: IntCounter) -> (Self, Inbox) {
        let (sender, inbox) = channel(ROOM);
        let line = Line { sender, dropped, wanted: AtomicBool::new(false) };
        (Self(Some(Arc::new(line))), inbox)
    }

    /// Says whether anybody beside the process log wants to know of events.
    pub fn want(&self, wanted: bool) {
        if let Some(line) = &self.0 {
            line.wanted.store(wanted, Ordering::Relaxed);
        }
    }

    /// Tells that something has happened just now, and why; `message` is for the process log.
    pub fn tell(
        &self,
        kind: EventKind,
        subject: Subject,
        why: &dyn fmt::Display,
        message: fmt::Arguments<'_>,
    ) {
        log::log!(kind.level(), "{message}");
        let Some(line) = self.0.as_ref().filter(|line| line.wanted.load(Ordering::Relaxed)) else { return };
        let event = Event {
            kind,
            at: SystemTime::now(),
            subject,
            why: why.to_string().into(),
            message: message.to_string().into(),
        };
        match line.sender.try_send(event) {
            Err(TrySendError::Full(_)) => line.dropped.inc(),
            // With nobody there to take it the gateway is ending.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(events: &Events) {
        events.tell(EventKind::EndpointUp, Subject::default(), &"because", format_args!("it is up"));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_what_nobody_wants_is_not() {
        let dropped = IntCounter::new("dropped", "Dropped.").unwrap();
        let (events, mut inbox) = Events::open(dropped.clone());
        (0..2 * ROOM).for_each(|_| tell(&events));
        assert_eq!(dropped.get(), 0);
        assert!(inbox.try_recv().is_err());

        events.want(true);
        (0..ROOM + 3).for_each(|_| tell(&events));
        assert_eq!(dropped.get(), 3);
        let event = inbox.try_recv().unwrap();
        assert_eq!((&*event.why, &*event.message), ("because", "it is up"));
        drop(inbox);
        tell(&events);
        assert_eq!(dropped.get(), 3);
    }
}
