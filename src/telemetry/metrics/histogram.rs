//! Durations counted by size: two atomic additions an observation. The `prometheus` crate's histogram takes three and
//! a compare-and-swap loop, and holds its buckets twice, to keep sum and count consistent within one scrape; rates over
//! minutes do not need that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto;
use smallvec::SmallVec;

/// Upper bounds of a histogram's buckets, in rising order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets(Vec<u64>);

/// Bounds that no histogram can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBuckets {
    /// Each bound must be above the one before, and the first above zero.
    #[error("bucket {0:?} is not above the one before it")]
    NotRising(Duration),
    /// There is no bound.
    #[error("a histogram needs at least one bucket")]
    Empty,
}

impl Buckets {
    /// Checks the bounds; a duration equal to one is within it.
    ///
    /// # Errors
    ///
    /// When there is none, or they do not rise.
    pub fn new(bounds: &[Duration]) -> Result<Self, InvalidBuckets> {
        let mut last = Duration::ZERO;
        for &bound in bounds {
            if bound <= last {
                return Err(InvalidBuckets::NotRising(bound));
            }
            last = bound;
        }
        if bounds.is_empty() {
            return Err(InvalidBuckets::Empty);
        }
        Ok(Self(bounds.iter().copied().map(nanos).collect()))
    }
}

impl Default for Buckets {
    /// From 1 ms to 10 s: a gateway's common range, roughly doubling.
    fn default() -> Self {
        Self([1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000].map(|ms| ms * 1_000_000).to_vec())
    }
}

/// A duration histogram.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: Arc<Buckets>,
    /// Observations within each bucket alone; the last is for those above every bound.
    /// In place for the default buckets: what a request counts lies together.
    counts: SmallVec<[AtomicU64; 14]>,
    sum_nanos: AtomicU64,
}

impl Histogram {
    pub(super) fn new(buckets: Arc<Buckets>) -> Self {
        let counts = (0..=buckets.0.len()).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, counts, sum_nanos: AtomicU64::new(0) }
    }

    /// Counts one duration.
    pub(super) fn observe(&self, duration: Duration) {
        let nanos = nanos(duration);
        let bucket = self.buckets.0.partition_point(|bound| *bound < nanos);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What a scrape shows, in seconds. The count is that of the buckets read, so that they always agree; the sum may
    /// be an observation ahead or behind.
    pub(super) fn proto(&self) -> proto::Histogram {
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(self.buckets.0.len());
        for (bound, count) in self.buckets.0.iter().zip(&self.counts) {
            cumulative += count.load(Ordering::Relaxed);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let above = self.counts.last().map_or(0, |count| count.load(Ordering::Relaxed));
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(cumulative + above);
        histogram.set_sample_sum(seconds(self.sum_nanos.load(Ordering::Relaxed)));
        histogram
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(values: &[u64]) -> Vec<Duration> {
        values.iter().copied().map(Duration::from_millis).collect()
    }

    fn histogram(bounds: &[u64]) -> Histogram {
        Histogram::new(Arc::new(Buckets::new(&millis(bounds)).unwrap()))
    }

    #[test]
    fn bounds_must_rise() {
        assert_eq!(Buckets::new(&[]), Err(InvalidBuckets::Empty));
        assert_eq!(Buckets::new(&millis(&[0, 5])), Err(InvalidBuckets::NotRising(Duration::ZERO)));
        assert_eq!(Buckets::new(&millis(&[5, 5])), Err(InvalidBuckets::NotRising(Duration::from_millis(5))));
        let default = Buckets::default().0.iter().copied().map(Duration::from_nanos).collect::<Vec<_>>();
        assert_eq!(Buckets::new(&default), Ok(Buckets::default()));
    }

    #[test]
    fn a_bound_is_inclusive_and_buckets_are_cumulative() {
        let histogram = histogram(&[5, 10]);
        for duration in millis(&[1, 5, 6, 11, 4000]) {
            histogram.observe(duration);
        }
        let shown = histogram.proto();
        let buckets: Vec<_> = shown
            .get_bucket()
            .iter()
            .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
            .collect();
        assert_eq!(buckets, [(0.005, 2), (0.01, 3)]);
        assert_eq!(shown.get_sample_count(), 5);
        assert!((shown.get_sample_sum() - 4.023).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(micros in prop::collection::vec(0..20_000_u64, 0..100)) {
            let ours = histogram(&[1, 5, 10]);
            let options = prometheus::HistogramOpts::new("h", "h").buckets(vec![0.001, 0.005, 0.01]);
            let reference = prometheus::Histogram::with_opts(options).unwrap();
            for micros in micros {
                ours.observe(Duration::from_micros(micros));
                reference.observe(Duration::from_micros(micros).as_secs_f64());
            }
            let reference = prometheus::core::Metric::metric(&reference);
            let (ours, reference) = (ours.proto(), reference.get_histogram());
            prop_assert_eq!(ours.get_bucket(), reference.get_bucket());
            prop_assert_eq!(ours.get_sample_count(), reference.get_sample_count());
            prop_assert!((ours.get_sample_sum() - reference.get_sample_sum()).abs() < 1e-6);
        }
    }
}
