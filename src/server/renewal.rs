//! The task that orders and renews certificates.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{Parts, expiry};
use crate::acme::Keeper;
use crate::edge::Drain;
use crate::snapshot::Live;

/// Keeps the certificates of the configuration in force until draining starts: the process after this one goes on.
pub(super) async fn keep(parts: Arc<Parts>, live: Arc<Live>, changed: Arc<Notify>, drain: Drain) {
    let orders = parts.metrics.acme_orders();
    let seen = Arc::clone(&live);
    let wanted = move || {
        let snapshot = seen.load();
        Some((snapshot.acme.clone(), snapshot.challenges.clone()?))
    };
    let served = move || parts.metrics.certificates(expiry::by_host(&live.load()));
    let keeper = Keeper { wanted: Box::new(wanted), served: Arc::new(served), orders };
    let mut draining = drain.watch();
    tokio::select! {
        () = keeper.keep(&changed) => {}
        _ = draining.wait_for(|draining| *draining) => {}
    }
}
