//! What an upstream tells its operator as it happens.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::breaker::{Change, State};
use super::rules::Common;
use crate::telemetry::{EventKind, Subject};

impl Common {
    /// Tells that an endpoint is out of the choice or back in it: why, and `what` it is now.
    pub(super) fn tell_endpoint(
        &self,
        kind: EventKind,
        address: SocketAddr,
        why: &dyn fmt::Display,
        what: fmt::Arguments<'_>,
    ) {
        let message = format_args!("upstream {}: endpoint {address} is {what}", self.name);
        self.events.tell(kind, self.subject(Some(address)), why, message);
    }

    /// Tells a change of a circuit: that of an endpoint, or the one before all.
    pub(super) fn tell_circuit(&self, change: Change, endpoint: Option<SocketAddr>) {
        let kind = match change.to {
            State::Open => EventKind::CircuitOpen,
            State::HalfOpen => EventKind::CircuitHalfOpen,
            State::Closed => EventKind::CircuitClosed,
        };
        let (name, word, why) = (&self.name, change.to.word(), change.why);
        let subject = self.subject(endpoint);
        match endpoint {
            None => {
                self.events.tell(
                    kind,
                    subject,
                    &why,
                    format_args!("upstream {name}: the circuit is {word}: {why}"),
                );
            }
            Some(address) => {
                let message = format_args!("upstream {name}: the circuit of {address} is {word}: {why}");
                self.events.tell(kind, subject, &why, message);
            }
        }
    }

    fn subject(&self, endpoint: Option<SocketAddr>) -> Subject {
        Subject { upstream: Some(Arc::clone(&self.name)), endpoint, ..Subject::default() }
    }
}
