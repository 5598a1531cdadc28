//! Medians and spreads. Medians, because what disturbs a sample (another process, an interrupt) only ever makes it slower.

/// A set of samples in five numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// How many samples.
    pub count: usize,
    /// The least.
    pub min: f64,
    /// The first quartile: a quarter of the samples are at most this.
    pub lower: f64,
    /// The median.
    pub median: f64,
    /// The third quartile.
    pub upper: f64,
    /// The greatest.
    pub max: f64,
}

impl Summary {
    /// `None` of no samples.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        if samples.is_empty() {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |quantile: f64| {
            let place = quantile * (sorted.len() - 1) as f64;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            sorted[below] + (sorted[above] - sorted[below]) * place.fract()
        };
        Some(Self {
            count: sorted.len(),
            min: sorted[0],
            lower: at(0.25),
            median: at(0.5),
            upper: at(0.75),
            max: sorted[sorted.len() - 1],
        })
    }

    /// Half the distance between the quartiles, relative to the median: 0.02 means that half of the samples lie within
    /// about 2 % of it.
    #[must_use]
    pub fn spread(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.upper - self.lower) / 2.0 / self.median }
    }
}

/// How many times faster than `other` whoever took `seconds` is: the median, over rounds, of their ratio within the
/// round. Steadier than the ratio of medians when the machine changes its speed in the course of a run.
///
/// Rounds that only one of them has are left out; `None` where there is no other.
#[must_use]
pub fn median_ratio(seconds: &[f64], other: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = seconds.iter().zip(other).filter(|(s, _)| **s > 0.0).map(|(s, o)| o / s).collect();
    Summary::of(&ratios).map(|summary| summary.median)
}
