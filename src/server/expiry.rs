//! Certificates that end soon.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::snapshot::{Live, Snapshot};

/// From how long before the end of a certificate on its operator is warned.
const SOON: Duration = Duration::from_secs(21 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// The end of each certificate in force, in seconds since 1970, by the hosts it names.
pub(super) fn by_host(snapshot: &Snapshot) -> impl Iterator<Item = (String, u64)> {
    snapshot.certificates().flat_map(|(_, certificate)| {
        let end = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        certificate.hosts.iter().map(move |host| (host.to_string(), end))
    })
}

/// Warns of every certificate that ends soon, has ended, or has not begun.
pub(super) fn warn(snapshot: &Snapshot, now: SystemTime) {
    for (listener, certificate) in snapshot.certificates() {
        let left = certificate.left(now);
        let what = match left.as_secs() / DAY {
            _ if certificate.not_before > now => "is not valid yet".to_owned(),
            _ if left.is_zero() => "has expired".to_owned(),
            _ if left >= SOON => continue,
            0 => "expires within a day".to_owned(),
            1 => "expires in 1 day".to_owned(),
            days => format!("expires in {days} days"),
        };
        log::warn!(
            "listener {}: the certificate for {} ({}) {what}",
            listener.name,
            certificate.names(),
            certificate.file.display()
        );
    }
}

/// Looks once a day. Ends with the runtime.
pub(super) async fn watch(live: Arc<Live>) {
    loop {
        tokio::time::sleep(Duration::from_secs(DAY)).await;
        warn(&live.load_full(), SystemTime::now());
    }
}
