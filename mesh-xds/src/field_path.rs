//! Where in a message a parser is, and the faults it found there.
//!
//! A [`Path`] lives on the stack and is written out only when something is wrong.

use crate::error::{Invalid, Rejected};
use std::fmt;

/// A place in a message: `virtual_hosts[0].routes[2].match`.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The message itself.
    pub const ROOT: Path<'static> = Path { parent: None, segment: Segment::Root };

    pub fn field(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Field(name) }
    }

    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Index(index) }
    }

    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.segment {
            Segment::Root => Ok(()),
            Segment::Field(name) => {
                let first = self.parent.is_none_or(|parent| matches!(parent.segment, Segment::Root));
                write!(f, "{}{name}", if first { "" } else { "." })
            }
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

/// The faults found so far. A parser that returns `None` has added at least one.
#[derive(Default)]
pub struct Faults(Vec<Invalid>);

impl Faults {
    /// Notes a fault; always `None`, so that a parser can end with it.
    pub fn reject<T>(&mut self, at: &Path<'_>, reason: impl Into<String>) -> Option<T> {
        self.0.push(Invalid { path: at.to_string(), reason: reason.into() });
        None
    }

    /// The value, unless its making failed.
    pub fn take<T, E: fmt::Display>(&mut self, at: &Path<'_>, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => self.reject(at, error.to_string()),
        }
    }

    /// Requires `value`.
    pub fn required<'v, T>(&mut self, at: &Path<'_>, value: &'v Option<T>) -> Option<&'v T> {
        if value.is_none() {
            return self.reject(at, "is required");
        }
        value.as_ref()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says of the faults from the `first` on where their cause was written.
    pub fn written_at(&mut self, first: usize, place: Option<&str>) {
        let Some(place) = place else { return };
        for fault in self.0.iter_mut().skip(first) {
            fault.reason.push_str(&format!(" (written at {place})"));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_rejected(self) -> Rejected {
        Rejected { faults: self.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_like_the_message() {
        let root = Path::ROOT;
        let hosts = root.field("virtual_hosts");
        let host = hosts.index(0);
        let configs = host.field("typed_per_filter_config");
        let config = configs.key("fault");
        assert_eq!(config.to_string(), "virtual_hosts[0].typed_per_filter_config[\"fault\"]");
        assert_eq!(root.to_string(), "");
    }
}
