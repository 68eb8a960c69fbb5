//! What clients are told of resources that are not there (xRFC TP3).

use super::{Absence, names};
use crate::{
    name::{Name, ResourceType},
    printable::clip,
    proto,
};
use std::hash::{DefaultHasher, Hash, Hasher};
use tonic::Code;

/// Longest reason that is sent; a client may ask for thousands of names.
const MAX_MESSAGE: usize = 1024;

/// A name of which there is no resource, and what more there is to say.
pub(super) type Absent = (Name, Option<Absence>);

/// What a client knows of an absence. The words can be had again from the view, and clients choose how long they are:
/// what is kept is enough to see whether they changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// None: no more than that it does not exist.
    code: Option<Code>,
    /// Hash of the words.
    words: u64,
}

impl Told {
    pub(super) fn of(absence: Option<&Absence>) -> Self {
        let mut hasher = DefaultHasher::new();
        absence.map(|absence| &absence.message).hash(&mut hasher);
        Self { code: absence.map(|absence| absence.code), words: hasher.finish() }
    }

    /// There was more to say than that it does not exist.
    pub(super) fn has_reason(self) -> bool {
        self.code.is_some()
    }

    /// There is no such resource, as opposed to one that cannot be had now.
    pub(super) fn is_final(self) -> bool {
        matches!(self.code, None | Some(Code::NotFound | Code::PermissionDenied))
    }
}

/// What errors weigh.
pub(super) fn own_bytes(errors: &[proto::ResourceError]) -> usize {
    let name = |error: &proto::ResourceError| {
        error.resource_name.as_ref().map_or(0, |name| names::weight(&name.name))
    };
    let words =
        |error: &proto::ResourceError| error.error_detail.as_ref().map_or(0, |status| status.message.len());
    errors.iter().map(|error| name(error) + words(error)).sum()
}

/// The words for it.
pub(super) fn error(kind: ResourceType, (name, absence): &Absent) -> proto::ResourceError {
    let (code, message) = match absence {
        Some(absence) => (absence.code, clip(&absence.message, MAX_MESSAGE)),
        None => (Code::NotFound, format!("the control plane has no {kind} of this name for this node")),
    };
    proto::ResourceError {
        resource_name: Some(proto::ResourceName { name: name.to_string() }),
        error_detail: Some(proto::Status { code: code.into(), message }),
    }
}

#[cfg(test)]
mod tests;
