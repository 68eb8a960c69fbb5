//! Medians, and ratios of windows that were measured one after the other.

/// Median and quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half are below.
    pub median: f64,
    /// A quarter is below.
    pub low: f64,
    /// A quarter is above.
    pub high: f64,
}

/// Of any number of values; of none it is NaN.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = |share| quantile(&values, share).unwrap_or(f64::NAN);
    Spread { median: at(0.5), low: at(0.25), high: at(0.75) }
}

/// The value below which this share of the sorted values lies.
pub fn quantile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

/// `of` against `base`, round by round.
pub fn paired<'a>(
    of: &'a [f64],
    base: &'a [f64],
    relation: impl Fn(f64, f64) -> f64 + 'a,
) -> impl Iterator<Item = f64> + 'a {
    of.iter().zip(base).map(move |(of, base)| relation(*of, *base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_of_the_sorted_values() {
        let found = spread([5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(found, Spread { median: 3.0, low: 2.0, high: 4.0 });
        assert!(spread([]).median.is_nan());
    }

    #[test]
    fn a_round_is_compared_with_the_same_round() {
        let ratios: Vec<f64> = paired(&[2.0, 9.0], &[1.0, 3.0], |of, base| of / base).collect();
        assert_eq!(ratios, [2.0, 3.0]);
    }
}
