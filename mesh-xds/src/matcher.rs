//! Pure predicates over a request: strings, paths, headers, domains, fractions.
//!
//! Values are built by the resource parsers (from protobuf) or by `mesh-server` (from YAML) through the
//! same constructors, so a matcher that exists is a matcher that works.

mod domain;
mod expressions;
mod fraction;
mod header;
mod path;
mod re2;
mod string;
mod tree;

pub use domain::DomainPattern;
pub use expressions::FullRegex;
pub(crate) use expressions::{AnywhereRegex, Expressions};
pub use fraction::Fraction;
pub use header::{HeaderMatch, HeaderMatcher, HeaderOrPseudo, Headers, joined, joined_values};
pub use path::PathMatcher;
pub use string::{InvalidMatcher, StringMatcher, StringPattern};
pub use tree::{MatcherKind, MatcherTree, OnMatch, Predicate};
