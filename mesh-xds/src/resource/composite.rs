//! Filters that are chosen by the request (gRFC A103).

pub(super) mod wire;

use super::filter::FilterConfig;
use crate::matcher::{Fraction, MatcherTree};
use std::sync::Arc;

/// A Composite in an ExtensionWithMatcher.
#[derive(Clone, Debug, PartialEq)]
pub struct Composite {
    /// What is done with a request. One that matches nothing fails UNAVAILABLE.
    pub matcher: MatcherTree<CompositeAction>,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum CompositeAction {
    /// It goes on.
    Skip,
    /// It goes through these; at least one, never the router.
    Execute {
        /// In order, with their names.
        filters: Vec<(Arc<str>, FilterConfig)>,
        /// Share of the requests that do; the others go on.
        sample: Fraction,
    },
}
