//! Until when certificates are valid. The series are those of the configuration in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

use super::opts;

/// The seconds since 1970 by host.
#[derive(Debug, Default)]
pub(super) struct CertificateExpiry(Mutex<BTreeMap<String, u64>>);

impl CertificateExpiry {
    /// Of several certificates for a host the one that ends first counts.
    pub(super) fn set(&self, expiry: impl IntoIterator<Item = (String, u64)>) {
        let mut by_host = BTreeMap::new();
        for (host, end) in expiry {
            by_host.entry(host).and_modify(|first: &mut u64| *first = end.min(*first)).or_insert(end);
        }
        *self.0.lock() = by_host;
    }
}

/// Gathers them.
pub(super) struct CertificateCollector {
    expiry: Arc<CertificateExpiry>,
    description: Desc,
}

impl CertificateCollector {
    pub(super) fn new(expiry: Arc<CertificateExpiry>) -> prometheus::Result<Self> {
        let empty = gauges()?;
        let description = empty.desc().into_iter().next().cloned();
        let description =
            description.ok_or_else(|| prometheus::Error::Msg("a family without a name".into()))?;
        Ok(Self { expiry, description })
    }
}

impl Collector for CertificateCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(gauges) = gauges() else { return Vec::new() };
        for (host, end) in &*self.expiry.0.lock() {
            if let Ok(gauge) = gauges.get_metric_with_label_values(&[host]) {
                // Exact for the next two hundred million years.
                gauge.set(*end as f64);
            }
        }
        gauges.collect()
    }
}

fn gauges() -> prometheus::Result<GaugeVec> {
    let opts: Opts =
        opts("certificate_expiry_timestamp_seconds", "When the certificate for a host ends to be valid.");
    GaugeVec::new(opts, &["host"])
}
