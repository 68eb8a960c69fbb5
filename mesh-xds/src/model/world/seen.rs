//! What a watcher sees of a resource, whichever the words: so that the variants, and what was expected, can be compared.

use crate::{
    client::Known,
    config::XdsErrorCause,
    model::event::{VALUES, value},
};
use std::sync::Arc;

/// What a watcher sees of a resource, whichever the words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Pending,
    Good(Arc<str>, Option<Trouble>),
    Nothing(Trouble),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trouble {
    Absent,
    /// For that reason.
    Refused(Arc<str>),
    Rejected(Arc<str>),
    Unreachable,
    Silence,
}

/// What a resource may be seen as that is kept: as before.
pub(crate) fn is_earlier(known: &Seen) -> bool {
    matches!(known, Seen::Good(_, None | Some(Trouble::Rejected(_))) | Seen::Nothing(Trouble::Rejected(_)))
}

pub(crate) fn seen(known: Known<Arc<str>>) -> Seen {
    match known {
        Known::Pending => Seen::Pending,
        Known::Good { resource, note } => Seen::Good(resource, note.map(|note| trouble(&note))),
        Known::Bad(error) => Seen::Nothing(match error.cause {
            XdsErrorCause::Unreachable(_) => Trouble::Unreachable,
            _ => trouble(&error.to_string()),
        }),
    }
}

/// Which trouble a text speaks of.
pub(super) fn trouble(text: &str) -> Trouble {
    // `… bad7 is bad …`, `… err5 is refused …`
    let word_before = |end: &str| {
        let word = text[..text.find(end)?].rsplit([' ', ':']).next()?;
        (0..VALUES).map(value).find(|value| **value == *word)
    };
    if let Some(value) = word_before(" is bad") {
        Trouble::Rejected(value)
    } else if let Some(value) = word_before(" is refused") {
        Trouble::Refused(value)
    } else if text.contains("does not exist") {
        Trouble::Absent
    } else if text.contains("unreachable") {
        Trouble::Unreachable
    } else if text.contains("did not send it") {
        Trouble::Silence
    } else {
        panic!("no trouble: {text}")
    }
}
