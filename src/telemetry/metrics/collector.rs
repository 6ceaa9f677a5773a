//! From values adopted by name to metric families.
//!
//! The `prometheus` crate's labelled vectors are not used for these: they tell label sets apart by a hash of the values
//! run together (upstream `v1` with endpoint `0.0.0.1:80` is `v` with `10.0.0.1:80`), and every series would have to be
//! found and removed when a reload drops its route.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

use super::adopted::Adopted;

/// Before every metric's name.
pub(super) const NAMESPACE: &str = "portcullis";

/// A metric's name (without the namespace), what it says, its type and its labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    pub(super) labels: &'static [&'static str],
}

/// Something that has series in some families.
pub(super) trait Series: Send + Sync {
    /// Adds its series. `families` are in the order of the families that the collector was made with.
    fn collect(&self, families: &mut [Samples]);
}

/// The series of one family, being gathered.
#[derive(Debug)]
pub(super) struct Samples {
    family: Family,
    metrics: Vec<Metric>,
}

impl Samples {
    /// Adds a counter.
    pub(super) fn counter(&mut self, labels: &[&str], value: u64) {
        let mut counter = proto::Counter::default();
        counter.set_value(value as f64);
        self.add(labels).set_counter(counter);
    }

    /// Adds a gauge.
    pub(super) fn gauge(&mut self, labels: &[&str], value: i64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value as f64);
        self.add(labels).set_gauge(gauge);
    }

    /// Adds a histogram.
    pub(super) fn histogram(&mut self, labels: &[&str], histogram: proto::Histogram) {
        self.add(labels).set_histogram(histogram);
    }

    fn add(&mut self, labels: &[&str]) -> &mut Metric {
        let pairs = self.family.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        self.metrics.push(Metric::from_label(pairs.collect()));
        let last = self.metrics.len() - 1;
        &mut self.metrics[last]
    }
}

/// Gathers the series of everything adopted.
pub(super) struct SeriesCollector<V> {
    adopted: Arc<Adopted<V>>,
    families: &'static [Family],
    descriptions: Vec<Desc>,
}

impl<V> SeriesCollector<V> {
    pub(super) fn new(adopted: Arc<Adopted<V>>, families: &'static [Family]) -> prometheus::Result<Self> {
        let descriptions = families.iter().map(describe).collect::<prometheus::Result<_>>()?;
        Ok(Self { adopted, families, descriptions })
    }
}

impl<V: Series> Collector for SeriesCollector<V> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families: Vec<Samples> =
            self.families.iter().map(|family| Samples { family: *family, metrics: Vec::new() }).collect();
        for value in self.adopted.living() {
            value.collect(&mut families);
        }
        families.into_iter().map(MetricFamily::from).collect()
    }
}

impl From<Samples> for MetricFamily {
    fn from(samples: Samples) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(full_name(&samples.family));
        family.set_help(samples.family.help.to_owned());
        family.set_field_type(samples.family.kind);
        family.set_metric(samples.metrics);
        family
    }
}

fn describe(family: &Family) -> prometheus::Result<Desc> {
    let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
    Desc::new(full_name(family), family.help.to_owned(), labels, HashMap::new())
}

fn full_name(family: &Family) -> String {
    format!("{NAMESPACE}_{}", family.name)
}
