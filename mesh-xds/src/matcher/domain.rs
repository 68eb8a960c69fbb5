//! Domain patterns of a virtual host. ASCII case is ignored; patterns are kept in lower case.

use std::sync::Arc;

/// One entry of `virtual_hosts[].domains`. Order of precedence: exact, suffix, prefix, any; the longest
/// pattern wins inside a class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// `reviews.default:9080`
    Exact(Arc<str>),
    /// `*.example.com`, kept as `.example.com`.
    Suffix(Arc<str>),
    /// `reviews.*`, kept as `reviews.`.
    Prefix(Arc<str>),
    /// `*`
    Any,
}
