//! The task that asks endpoints whether they are well.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::edge::Drain;
use crate::snapshot::Live;
use crate::tls;
use crate::upstream::{HealthKeeper, Probers};

/// Probes what the snapshot in force has probed, until draining starts: what is known then is good for the requests that are
/// left. Where nothing is probed it costs nothing, and the system's authorities are not read.
pub(super) async fn keep(live: Arc<Live>, changed: Arc<Notify>, drain: Drain) {
    let probers = OnceLock::new();
    let wanted = move || {
        let snapshot = live.load_full();
        let probed = snapshot.upstreams.values().filter(|upstream| upstream.is_probed());
        let probers = || probers.get_or_init(|| Probers::new(tls::system_roots()));
        probed.flat_map(|upstream| upstream.checks(probers())).collect()
    };
    let keeper = HealthKeeper { wanted: Box::new(wanted) };
    let mut draining = drain.watch();
    let end = async {
        // A drain that nobody can start any more is over, too.
        let _ = draining.wait_for(|draining| *draining).await;
    };
    keeper.keep(&changed, end).await;
}
