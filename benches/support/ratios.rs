//! How what was measured in rounds that take turns is told: medians, and ratios of neighbours with their middle half.

use std::time::Duration;

/// p50, p99 and p99.9 in milliseconds.
pub(crate) fn percentiles(mut delays: Vec<Duration>) -> [f64; 3] {
    delays.sort_unstable();
    [0.5, 0.99, 0.999].map(|share| {
        let index = share * (delays.len() - 1) as f64;
        delays[index as usize].as_secs_f64() * 1000.0
    })
}

/// The value below which this share of the values lies.
fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let at = share * values.len().saturating_sub(1) as f64;
    let value = |at: f64| values.get(at as usize).copied().unwrap_or(f64::NAN);
    f64::midpoint(value(at.floor()), value(at.ceil()))
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The median of the ratios and their middle half.
pub(crate) fn ratios(pairs: impl Iterator<Item = (f64, f64)>) -> String {
    let ratios: Vec<f64> = pairs.map(|(before, after)| after / before).collect();
    let [low, middle, high] =
        [0.25, 0.5, 0.75].map(|share| quantile(ratios.iter().copied(), share));
    format!("{middle:.2} [{low:.2} .. {high:.2}]")
}
