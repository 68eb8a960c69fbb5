//! A weighted draw: index `i` with probability `weight[i] / sum`.

/// Prepared weights. Equal ones cost no search.
#[derive(Debug)]
pub(crate) enum Draw {
    /// All the same; this many.
    Equal(usize),
    /// Running sums.
    Sums(Box<[u64]>),
}

impl Default for Draw {
    fn default() -> Self {
        Self::Equal(0)
    }
}

impl Draw {
    pub(crate) fn new(weights: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        let mut values = weights.clone();
        let first = values.next();
        if values.all(|weight| Some(weight) == first) {
            return Self::Equal(weights.len());
        }
        let sums = weights.scan(0, |sum, weight| {
            *sum += u64::from(weight);
            Some(*sum)
        });
        Self::Sums(sums.collect())
    }

    /// An index; none if there is nothing to draw.
    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        match self {
            Self::Equal(0) => None,
            Self::Equal(count) => Some(rng.usize(0..*count)),
            Self::Sums(sums) => {
                let point = rng.u64(0..*sums.last()?);
                Some(sums.partition_point(|sum| *sum <= point))
            }
        }
    }
}
