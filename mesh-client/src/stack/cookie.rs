//! Cookies that callers are given.

use http::HeaderValue;
use std::{fmt::Write, sync::Arc, time::Duration};

/// What a cookie that a caller is given has beside its name and value.
pub(super) struct Terms<'c> {
    /// None, or zero: as long as the caller.
    pub(super) ttl: Option<Duration>,
    /// May be empty.
    pub(super) path: &'c str,
    pub(super) attributes: &'c [(Arc<str>, Arc<str>)],
}

/// `set-cookie` of a cookie that a caller is given.
pub(super) fn given(name: &str, value: &str, terms: &Terms<'_>) -> Option<HeaderValue> {
    let Terms { ttl, path, attributes } = terms;
    let mut text = format!("{name}={value}");
    if let Some(seconds) = ttl.map(|ttl| ttl.as_secs()).filter(|seconds| *seconds > 0) {
        let _ = write!(text, "; Max-Age={seconds}");
    }
    if !path.is_empty() {
        let _ = write!(text, "; Path={path}");
    }
    for (name, value) in *attributes {
        let equals = if value.is_empty() { "" } else { "=" };
        let _ = write!(text, "; {name}{equals}{value}");
    }
    text.push_str("; HttpOnly");
    HeaderValue::try_from(text).ok()
}
