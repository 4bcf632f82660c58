//! How figures are written.

use crate::stats::{median, spread};

/// A whole number with commas.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let threes = digits.as_bytes().rchunks(3).rev();
    let threes: Vec<_> = threes.map(String::from_utf8_lossy).collect();
    threes.join(",")
}

/// A figure with three digits that count; a dash where a small round has none.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        String::from("-")
    } else if size >= 99.95 {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", grouped(size.round() as u64))
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else if size == 0.0 || size >= 0.0995 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// The median and, if they differ, the least and the greatest; nothing if one is of nothing.
pub(crate) fn told(values: &[f64]) -> String {
    if values.iter().any(|value| value.is_nan()) {
        return String::from("-");
    }
    let (least, greatest) = spread(values);
    let (middle, least, greatest) = (short(median(values)), short(least), short(greatest));
    if least == greatest {
        middle
    } else {
        format!("{middle} [{least}..{greatest}]")
    }
}
