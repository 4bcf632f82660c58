//! Medians, spreads, ratios of rounds that take turns, and a line through points.

/// The middle of the values; NaN if there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (length, half) if length % 2 == 0 => f64::midpoint(sorted[half - 1], sorted[half]),
        (_, half) => sorted[half],
    }
}

/// The least and the greatest.
pub(crate) fn spread(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, greatest)
}

/// Each value by its floor of the same round.
pub(crate) fn ratios(values: &[f64], floors: &[f64]) -> Vec<f64> {
    values
        .iter()
        .zip(floors)
        .map(|(value, floor)| value / floor)
        .collect()
}

/// The line with the least squares through points, at the first of them and at the last.
pub(crate) fn ends_of_line(points: &[(f64, f64)]) -> [f64; 2] {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_y = points.iter().map(|point| point.1).sum::<f64>() / count;
    let covariance: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let slope = covariance / variance;
    let ends = [points.first(), points.last()];
    ends.map(|end| end.map_or(f64::NAN, |(x, _)| mean_y + slope * (x - mean_x)))
}
