//! Certificates that end soon.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::acme::Managed;
use crate::snapshot::{Live, Snapshot};
use crate::telemetry::{EventKind, Events, Subject};
use crate::tls::Certificate;

/// From how long before the end of a certificate on its operator is warned.
const SOON: Duration = Duration::from_secs(21 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// The end of each certificate in force, in seconds since 1970, by the hosts it names.
pub(super) fn by_host(snapshot: &Snapshot) -> impl Iterator<Item = (String, u64)> {
    snapshot.certificates().flat_map(|(_, certificate)| {
        let end = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let hosts: Vec<_> = certificate.hosts.iter().map(|host| (host.to_string(), end)).collect();
        hosts
    })
}

/// A certificate that ends soon, has ended, or has not begun.
struct Ending {
    subject: Subject,
    /// What is wrong with it.
    why: String,
    /// The whole sentence.
    warning: String,
}

/// A sentence for every certificate that ends soon, has ended, or has not begun.
pub(super) fn warnings(snapshot: &Snapshot, now: SystemTime) -> Vec<String> {
    ending(snapshot, now).map(|ending| ending.warning).collect()
}

/// Tells of every such certificate.
pub(super) fn tell(snapshot: &Snapshot, events: &Events) {
    for Ending { subject, why, warning } in ending(snapshot, SystemTime::now()) {
        events.tell(EventKind::CertificateExpiring, subject, &why, format_args!("{warning}"));
    }
}

fn ending(snapshot: &Snapshot, now: SystemTime) -> impl Iterator<Item = Ending> {
    snapshot.certificates().filter_map(move |(listener, certificate)| {
        let soon = soon(snapshot, &certificate);
        let why = what_of(certificate.not_before, certificate.not_after, soon, now)?;
        let (names, file) = (certificate.names(), certificate.file.display());
        let warning = format!("listener {}: the certificate for {names} ({file}) {why}", listener.name);
        let hosts = certificate.hosts.iter().map(|host| host.to_string().into()).collect();
        let subject =
            Subject { listener: Some(Arc::clone(&listener.name)), hosts: Some(hosts), ..Subject::default() };
        Some(Ending { subject, why, warning })
    })
}

/// From how long before its end on a certificate ends soon. One that is ordered is renewed in time: it is told of when
/// that has failed for a while, and short lives are nothing to warn of.
fn soon(snapshot: &Snapshot, certificate: &Arc<Certificate>) -> Duration {
    let ordered = |managed: &Managed| {
        managed.progress.issued().certificate().is_some_and(|served| Arc::ptr_eq(&served, certificate))
    };
    if snapshot.acme.iter().any(ordered) {
        let life = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
        (life / 5).min(SOON)
    } else {
        SOON
    }
}

fn what_of(not_before: SystemTime, not_after: SystemTime, soon: Duration, now: SystemTime) -> Option<String> {
    let left = not_after.duration_since(now).unwrap_or_default();
    Some(match left.as_secs() / DAY {
        _ if not_before > now => "is not valid yet".to_owned(),
        _ if left.is_zero() => "has expired".to_owned(),
        _ if left >= soon => return None,
        0 => "expires within a day".to_owned(),
        1 => "expires in 1 day".to_owned(),
        days => format!("expires in {days} days"),
    })
}

/// Looks once a day. Ends with the runtime.
pub(super) async fn watch(live: Arc<Live>, events: Events) {
    loop {
        tokio::time::sleep(Duration::from_secs(DAY)).await;
        tell(&live.load_full(), &events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_depends_on_what_is_left() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * DAY);
        let at = |seconds| now + Duration::from_secs(seconds);
        let said = |not_before, not_after| what_of(not_before, not_after, SOON, now);
        assert_eq!(said(now, at(21 * DAY)), None);
        assert_eq!(said(now, at(21 * DAY - 1)).unwrap(), "expires in 20 days");
        assert_eq!(what_of(now, at(6 * DAY), Duration::from_secs(DAY), now), None);
        assert_eq!(said(now, at(DAY)).unwrap(), "expires in 1 day");
        assert_eq!(said(now, at(DAY - 1)).unwrap(), "expires within a day");
        assert_eq!(said(now, now).unwrap(), "has expired");
        assert_eq!(said(at(1), at(30 * DAY)).unwrap(), "is not valid yet");
    }
}
