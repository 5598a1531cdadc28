//! Where a value stands on an axis, and where its ticks are.

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Equal differences, from zero.
    Linear,
    /// Equal ratios.
    Log,
}

/// An axis over a range of values, `0.0..=1.0` long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis that has room for all of them: from zero where it is linear. A single value gets room around itself.
    pub(crate) fn over(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite() && (scale == Scale::Linear || *value > 0.0)) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (1.0, 1.0);
        }
        match scale {
            Scale::Linear => {
                low = low.min(0.0);
                high = if high > low { high + (high - low) * 0.06 } else { low + 1.0 };
            }
            Scale::Log if high / low < 1.5 => {
                low /= 2.0;
                high *= 2.0;
            }
            Scale::Log => {}
        }
        Self { scale, low, high }
    }

    /// Widened to powers of ten, for axes of rates and latencies.
    pub(crate) fn to_decades(mut self) -> Self {
        if self.scale == Scale::Log {
            self.low = 10f64.powf(self.low.log10().floor());
            self.high = 10f64.powf(self.high.log10().ceil());
        }
        self
    }

    pub(crate) fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => {
                (value.max(f64::MIN_POSITIVE).log2() - self.low.log2()) / (self.high.log2() - self.low.log2())
            }
        }
    }

    pub(crate) fn ticks(&self) -> Vec<f64> {
        ticks(self.scale, self.low, self.high)
    }
}

/// Round values between two others: steps of 1, 2 or 5 for a linear axis, powers of ten (with 2 and 5 where there are few)
/// for a logarithmic one.
#[must_use]
pub fn ticks(scale: Scale, low: f64, high: f64) -> Vec<f64> {
    let inside = |value: &f64| *value >= low * (1.0 - 1e-9) - 1e-12 && *value <= high * (1.0 + 1e-9);
    match scale {
        Scale::Linear => {
            let rough = (high - low) / 5.0;
            let power = 10f64.powf(rough.log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|each| each * power).find(|step| *step >= rough);
            let step = step.unwrap_or(power * 10.0);
            let first = (low / step).ceil() as i64;
            (first..first + 12).map(|each| each as f64 * step).filter(inside).collect()
        }
        Scale::Log => {
            let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
            let per_decade: &[f64] = if last - first <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let stride = usize::try_from((last - first) / 8).unwrap_or(0) + 1;
            (first..=last)
                .step_by(stride)
                .flat_map(|decade| per_decade.iter().map(move |each| each * 10f64.powi(decade)))
                .filter(inside)
                .collect()
        }
    }
}
