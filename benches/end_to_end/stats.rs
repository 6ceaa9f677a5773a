//! From noisy rounds to a figure with its uncertainty.

/// A median and its 95% confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

const RESAMPLES: usize = 10_000;

/// The median of the rounds, with a percentile-bootstrap interval: the rounds are drawn again with replacement, many
/// times, and the middle 95% of those medians is the interval. `None` without rounds.
///
/// The generator is seeded alike each time, so that the same rounds give the same figures.
pub fn estimate(rounds: &[f64]) -> Option<Estimate> {
    let median_of_rounds = median(rounds)?;
    let mut random = SplitMix64(0x5EED);
    let mut sample = vec![0.0; rounds.len()];
    let mut medians = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        sample.fill_with(|| rounds[random.below(rounds.len())]);
        medians.extend(median(&sample));
    }
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[((RESAMPLES - 1) as f64 * share).round() as usize];
    Some(Estimate { median: median_of_rounds, low: at(0.025), high: at(0.975) })
}

/// `ours / base`, round by round: what disturbs a round disturbs both, and cancels.
pub fn paired_ratios(ours: &[f64], base: &[f64]) -> Vec<f64> {
    ours.iter().zip(base).map(|(ours, base)| ours / base).collect()
}

/// The middle value, or the mean of the middle two; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Sebastiano Vigna's generator: ample for resampling, and repeatable.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, by the high bits of a product; the bias of 2^-60 is of no account here.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 7.0]), Some(6.0));
    }

    #[test]
    fn equal_rounds_leave_no_uncertainty() {
        assert_eq!(estimate(&[2.0; 7]), Some(Estimate { median: 2.0, low: 2.0, high: 2.0 }));
        assert_eq!(estimate(&[]), None);
    }

    #[test]
    fn the_interval_holds_the_median_stays_within_the_rounds_and_repeats() {
        let rounds = [1.0, 1.1, 0.9, 1.3, 1.05, 0.95, 1.02];
        let first = estimate(&rounds).unwrap();
        assert_eq!(first.median, 1.02);
        assert!(
            0.9 <= first.low && first.low < first.median && first.median < first.high && first.high <= 1.3
        );
        assert_eq!(estimate(&rounds), Some(first));
    }

    #[test]
    fn an_outlier_moves_the_median_little() {
        let steady = estimate(&[10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.0]).unwrap();
        let disturbed = estimate(&[10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 90.0]).unwrap();
        assert!((steady.median - disturbed.median).abs() < 0.2);
    }

    /// The interval of a median of 15 normal-like rounds should hold the true one in about 95 of 100 trials.
    #[test]
    fn the_interval_covers_the_truth_about_as_often_as_it_claims() {
        let mut random = SplitMix64(1);
        let mut sum_of_twelve =
            || (0..12).map(|_| random.below(1 << 20) as f64 / f64::from(1 << 20)).sum::<f64>();
        let covered = (0..100)
            .filter(|_| {
                let rounds: Vec<f64> = (0..15).map(|_| sum_of_twelve()).collect();
                let estimate = estimate(&rounds).unwrap();
                estimate.low <= 6.0 && 6.0 <= estimate.high
            })
            .count();
        assert!((88..=100).contains(&covered), "{covered} of 100");
    }

    #[test]
    fn pairing_cancels_what_disturbs_a_whole_round() {
        let ratios = paired_ratios(&[11.0, 22.0, 33.0], &[10.0, 20.0, 30.0]);
        assert!(ratios.iter().all(|ratio| (ratio - 1.1).abs() < 1e-12));
    }
}
