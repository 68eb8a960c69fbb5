//! Where the configuration comes from, and what a load of it yields.

use std::fmt;
use std::sync::Arc;

use crate::analysis::Finding;
use crate::model::Config;

mod dir;
mod last_good;
mod scan;

pub use dir::{Directory, SourceError, load};

/// One state of the configuration, as a source has it.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What is to be served.
    pub config: Arc<Config>,
    /// What there is to say about it.
    pub findings: Vec<Finding>,
    /// True when something could not even be named and nothing earlier stands in for it: it may be any
    /// object, a security policy too. After a first load such a configuration must not be served; a later
    /// one is what was served before, until everything can be named again.
    pub incomplete: bool,
    /// A hash of what was read: the same text is the same revision, wherever it is read.
    pub revision: String,
}

/// The text of one configuration file, kept so that any later message can show its line.
pub struct SourceFile {
    path: String,
    text: String,
}

impl SourceFile {
    /// A file's text under the path that messages show.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The path that messages show.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A one-based line of the text.
    pub fn line(&self, number: u32) -> Option<&str> {
        self.text.lines().nth(usize::try_from(number).ok()?.checked_sub(1)?)
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceFile").field(&self.path).finish()
    }
}
