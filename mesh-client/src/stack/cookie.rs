//! Cookies of requests, and those that callers are given.

use http::{HeaderMap, HeaderValue, header::COOKIE};
use std::{fmt::Write, sync::Arc, time::Duration};

/// The first cookie of this name that is not empty, without quotes.
pub(super) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    let bare =
        |value: &'a str| value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    values.map(bare).find(|value| !value.is_empty())
}

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
