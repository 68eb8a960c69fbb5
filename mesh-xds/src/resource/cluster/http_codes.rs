//! A set of HTTP status codes. Of 100 to 599, as they are in responses; no other can be in it.

use std::{fmt, ops::RangeInclusive};

/// A set of HTTP status codes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct HttpCodes([u64; Self::WORDS]);

impl HttpCodes {
    /// What a code can be.
    pub const RANGE: RangeInclusive<u16> = 100..=599;

    /// How many words [`Self::words`] has.
    pub const WORDS: usize = 8;

    /// Where a code is: the word, and the bit in it. `None` of what is no code.
    pub fn place(code: u16) -> Option<(usize, u64)> {
        let index = Self::RANGE.contains(&code).then(|| code - Self::RANGE.start())?;
        Some((usize::from(index / 64), 1 << (index % 64)))
    }

    /// The set as bits, each where [`Self::place`] says.
    pub fn words(&self) -> [u64; Self::WORDS] {
        self.0
    }

    /// Whether it is in the set.
    pub fn contains(&self, code: u16) -> bool {
        Self::place(code).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }

    /// Those in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        Self::RANGE.filter(|code| self.contains(*code))
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; Self::WORDS]
    }
}

impl FromIterator<u16> for HttpCodes {
    /// What is no code is left out.
    fn from_iter<T: IntoIterator<Item = u16>>(codes: T) -> Self {
        let mut words = [0; Self::WORDS];
        for (word, bit) in codes.into_iter().filter_map(Self::place) {
            words[word] |= bit;
        }
        Self(words)
    }
}

impl fmt::Display for HttpCodes {
    /// `429, 500-504`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut codes, mut between) = (self.iter().peekable(), "");
        while let Some(first) = codes.next() {
            let mut last = first;
            while let Some(next) = codes.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{between}{first}")?,
                1 => write!(f, "{between}{first}, {last}")?,
                _ => write!(f, "{between}{first}-{last}")?,
            }
            between = ", ";
        }
        Ok(())
    }
}

impl fmt::Debug for HttpCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_it_was_made_of_and_nothing_else() {
        let codes: HttpCodes = [599, 100, 163, 164, 429, 99, 600, 0, u16::MAX].into_iter().collect();
        assert_eq!(codes.iter().collect::<Vec<_>>(), [100, 163, 164, 429, 599]);
        assert!(!codes.contains(99) && !codes.contains(600) && !codes.contains(101));
        assert_eq!(HttpCodes::RANGE.collect::<HttpCodes>().iter().count(), 500);
        assert!(HttpCodes::default().is_empty() && !codes.is_empty());
    }

    #[test]
    fn neighbours_read_as_a_range() {
        let text = |codes: &[u16]| codes.iter().copied().collect::<HttpCodes>().to_string();
        assert_eq!(text(&[503, 429, 500, 502, 501, 401, 400]), "400, 401, 429, 500-503");
        assert_eq!(text(&[599]), "599");
        assert_eq!(text(&[]), "");
    }
}
