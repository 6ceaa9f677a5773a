//! The task that tells webhooks what happens.

use std::sync::Arc;

use tokio::sync::Notify;

use super::Parts;
use crate::snapshot::Live;
use crate::webhooks::Teller;

/// Tells events to the webhooks of the snapshot in force, to the end: draining is a time to watch, too. What has not been
/// told by then is lost.
pub(super) async fn keep(parts: Arc<Parts>, live: Arc<Live>, changed: Arc<Notify>) {
    let inbox = parts.inbox.lock().take();
    let Some(inbox) = inbox else { return };
    let teller = Teller {
        wanted: Box::new(move || Arc::clone(&live.load().webhooks)),
        gateway: rustix::system::uname().nodename().to_string_lossy().into(),
        sent: parts.metrics.events_sent(),
        dropped: parts.metrics.events_dropped(),
    };
    teller.keep(&changed, inbox).await;
}
