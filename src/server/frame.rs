//! The words that the process itself is built on: what remains of a configuration once it is compiled.

use crate::config::{Admin, Config, Server, Telemetry};
use crate::types::ListenAddress;

/// What only a new process can change, and what a reload compares. The rest of the words is let go: a configuration
/// of many routes is large.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) server: Server,
    pub(super) admin: Option<Admin>,
    pub(super) telemetry: Telemetry,
    /// Names and addresses, in file order.
    pub(super) listeners: Vec<(String, ListenAddress)>,
}

impl Frame {
    pub(super) fn new(config: &Config) -> Self {
        let listeners = config.listeners.iter();
        let listeners = listeners.map(|listener| (listener.name.clone(), listener.address.clone()));
        Self {
            server: config.server.clone(),
            admin: config.admin.clone(),
            telemetry: config.telemetry.clone(),
            listeners: listeners.collect(),
        }
    }

    /// What differs in `next` that a running process cannot take over.
    ///
    /// # Errors
    ///
    /// A sentence that names it, with a word on what to do.
    pub(super) fn allows(&self, next: &Self) -> Result<(), String> {
        let (old, new) = (&self.server, &next.server);
        let changed = [
            ("listeners (names, addresses and their order)", self.listeners != next.listeners),
            ("admin", self.admin != next.admin),
            ("server.threads", old.threads != new.threads),
            ("server.work_stealing", old.work_stealing != new.work_stealing),
            ("server.upstream_keepalive", old.upstream_keepalive != new.upstream_keepalive),
            ("server.upgrade_socket", old.upgrade_socket != new.upgrade_socket),
            ("telemetry.log.format", self.telemetry.log.format != next.telemetry.log.format),
            ("telemetry.metrics", self.telemetry.metrics != next.telemetry.metrics),
        ];
        let changed: Vec<_> =
            changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect();
        if changed.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{} cannot change in a running process\n  hint: `portcullis upgrade` starts a new process with the new \
             configuration and hands the connections over",
            changed.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_is_built_on_cannot_change() {
        let frame = Frame::new(&Config::default());
        assert_eq!(frame.allows(&frame), Ok(()));
        let mut other = frame.clone();
        other.server.work_stealing = false;
        other.listeners.push(("web".into(), "127.0.0.1:1".parse().unwrap()));
        let message = frame.allows(&other).unwrap_err();
        assert!(
            message.starts_with("listeners (names, addresses and their order), server.work_stealing cannot")
        );
        assert!(message.contains("portcullis upgrade"));
    }
}
