//! Where in a message a parser is, and the faults it found there.
//!
//! A [`Path`] lives on the stack and is written out only when something is wrong. However many faults a message has, and
//! however long the names in it, what is told of them is bounded: whoever sends it must not choose how much is kept.

use crate::{
    error::{Invalid, Rejected},
    matcher::Expressions,
    printable::{clip, start},
};
use std::fmt::{self, Write};

/// Faults that are told; of others that there are more.
const MOST: usize = 64;
/// Bytes of a path, and of the place where the cause was written.
const LONGEST: usize = 1024;
/// Bytes of a reason; protobuf's own names each of a hundred levels.
const LONGEST_REASON: usize = 4 * LONGEST;

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

/// The beginning of what is written.
struct Beginning {
    text: String,
    limit: usize,
}

impl Beginning {
    /// As much of `value` as `limit` bytes hold, and a sign if that is not all. No more is made of it either: it may
    /// quote a long value, and be one of many that do.
    fn of(value: impl fmt::Display, limit: usize) -> String {
        let mut beginning = Self { text: String::new(), limit };
        if write!(beginning, "{value}").is_err() {
            beginning.text.push('…');
        }
        beginning.text
    }
}

impl Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let some = start(text, self.limit - self.text.len());
        self.text.push_str(some);
        // Nothing more is written after an error.
        if some.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// The faults found so far. A parser that returns `None` has added at least one.
#[derive(Default)]
pub struct Faults {
    /// Those of the message, which are counted together: what goes through all of a parser carries them too.
    pub(crate) expressions: Expressions,
    told: Vec<Invalid>,
    more: usize,
}

impl Faults {
    /// Notes a fault; always `None`, so that a parser can end with it. A reason that quotes something is best given as
    /// `format_args!`, which is written only as far as it is told.
    pub fn reject<T>(&mut self, at: &Path<'_>, reason: impl fmt::Display) -> Option<T> {
        if self.told.len() == MOST {
            self.more += 1;
            return None;
        }
        self.told.push(Invalid {
            path: Beginning::of(at, LONGEST),
            reason: Beginning::of(reason, LONGEST_REASON),
        });
        None
    }

    /// The value, unless its making failed.
    pub fn take<T, E: fmt::Display>(&mut self, at: &Path<'_>, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => self.reject(at, error),
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
        self.told.len() + self.more
    }

    /// Says of the faults from the `first` on where their cause was written.
    pub fn written_at(&mut self, first: usize, place: Option<&str>) {
        let Some(place) = place.map(|place| clip(place, LONGEST)) else { return };
        for fault in self.told.iter_mut().skip(first) {
            fault.reason.push_str(&format!(" (written at {place})"));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    pub fn into_rejected(self) -> Rejected {
        let Self { told: mut faults, more, .. } = self;
        if more > 0 {
            faults.push(Invalid { path: String::new(), reason: format!("and {more} more faults") });
        }
        Rejected { faults }
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

    #[test]
    fn what_is_told_of_faults_is_bounded_whatever_a_message_has() {
        let (root, long) = (Path::ROOT, "ü".repeat(LONGEST_REASON));
        let map = root.field("policies");
        let at = map.key(&long);
        let mut faults = Faults::default();
        for index in 0..100_000 {
            faults.reject::<()>(&at.index(index), "says nothing");
        }
        faults.reject::<()>(&root, long.clone());
        assert_eq!(faults.len(), 100_001);
        faults.written_at(0, Some(&long));
        let text = faults.into_rejected().to_string();
        assert!(text.len() < MOST * (2 * LONGEST + LONGEST_REASON + 100), "{} bytes", text.len());
        assert!(text.starts_with("policies[\"ü") && text.ends_with("and 99937 more faults"));
        let mut faults = Faults::default();
        faults.reject::<()>(&root.field("x"), long);
        assert!(faults.into_rejected().to_string().ends_with("ü…"));
    }

    #[test]
    fn no_more_is_made_of_a_reason_than_is_told() {
        use std::cell::Cell;
        struct Long<'c>(&'c Cell<usize>);
        impl fmt::Display for Long<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for _ in 0..1_000_000 {
                    self.0.set(self.0.get() + 1);
                    f.write_str("x")?;
                }
                Ok(())
            }
        }
        let written = Cell::new(0);
        let mut faults = Faults::default();
        for _ in 0..1000 {
            faults.reject::<()>(&Path::ROOT, format_args!("`{}` is long", Long(&written)));
            faults.take::<(), _>(&Path::ROOT, Err(Long(&written)));
        }
        assert_eq!(faults.len(), 2000);
        assert!(written.get() <= MOST * (LONGEST_REASON + 1), "{} characters", written.get());
    }
}
