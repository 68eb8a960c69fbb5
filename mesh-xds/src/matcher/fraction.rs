//! A probability in parts per million (`FractionalPercent`, `Percent`, runtime fractions).

/// A probability in parts per million, at most 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fraction(u32);

impl Fraction {
    /// Never.
    pub const ZERO: Self = Self(0);
    /// Always.
    pub const ONE: Self = Self(1_000_000);

    /// From parts per million, capped at always.
    pub const fn per_million(parts: u32) -> Self {
        Self(if parts > 1_000_000 { 1_000_000 } else { parts })
    }

    /// Parts per million.
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// In percent, 0 to 100.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Whether a draw, uniform over `0..1_000_000`, hits. Zero never does, one always.
    pub const fn hit(self, draw: u32) -> bool {
        draw < self.0
    }
}

impl std::fmt::Display for Fraction {
    /// `12.5 %`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} %", self.percent())
    }
}
