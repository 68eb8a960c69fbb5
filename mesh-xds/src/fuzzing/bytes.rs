//! Choices made from bytes; when they run out, every choice is the first.

pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn of<T: Copy>(&mut self, first: T, others: &[T]) -> T {
        let at = usize::from(self.byte()) % (others.len() + 1);
        at.checked_sub(1).and_then(|at| others.get(at)).copied().unwrap_or(first)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Fewer than `limit` of something.
    pub(crate) fn several<T>(&mut self, limit: u8, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.byte() % limit).map(|_| one(self)).collect()
    }
}
