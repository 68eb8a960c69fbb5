//! What clients are told of resources that are not there (xRFC TP3).

use super::{Absence, Node, RESOURCE_ERRORS_FEATURE};
use crate::{
    name::{Name, ResourceType},
    proto,
};

/// A name of which there is no resource, and what more there is to say.
pub(super) type Absent = (Name, Option<Absence>);

/// Whether a client understands `resource_errors`.
pub(super) fn understands_errors(node: &Node) -> bool {
    node.features.iter().any(|feature| &**feature == RESOURCE_ERRORS_FEATURE)
}

/// The words for it.
pub(super) fn error(kind: ResourceType, name: &Name, absence: Option<&Absence>) -> proto::ResourceError {
    let (code, message) = match absence {
        Some(absence) => (absence.code, absence.message.to_string()),
        None => {
            (tonic::Code::NotFound, format!("the control plane has no {kind} of this name for this node"))
        }
    };
    proto::ResourceError {
        resource_name: Some(proto::ResourceName { name: name.to_string() }),
        error_detail: Some(proto::Status { code: code.into(), message }),
    }
}

#[cfg(test)]
mod tests;
