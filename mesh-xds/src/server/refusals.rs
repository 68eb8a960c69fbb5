//! Why a stream ends, as its client is told.

use super::{AdsSettings, places::Full, requests::Unread};
use tonic::Status;

/// What a client is told whose credentials have ended.
pub(super) fn expired() -> Status {
    Status::unauthenticated(
        "the certificate that this stream was opened with has expired; connect again with a new one",
    )
}

/// What a client is told of which no more can be kept.
pub(super) fn forgetful(full: Full, settings: &AdsSettings) -> Status {
    let limit = settings.max_kept_bytes;
    Status::unavailable(match full {
        Full::All => format!(
            "this control plane keeps its limit of {limit} bytes of what clients say of themselves and subscribe to \
             (max_kept_bytes); try again, or add a replica"
        ),
        Full::Peer => format!(
            "this control plane keeps nearly its limit of {limit} bytes of what clients say of themselves and subscribe \
             to (max_kept_bytes), and what is left is not for a peer of which it keeps as much as of this one; try \
             again, or add a replica"
        ),
    })
}

/// What a client is told whose request could not be read.
pub(super) fn unreadable(why: Unread, settings: &AdsSettings) -> Status {
    match why {
        Unread::TooLarge(bytes) => Status::resource_exhausted(format!(
            "a request of {bytes} bytes is larger than the limit of {} (max_request_bytes)",
            settings.max_request_bytes
        )),
        Unread::NoRoom(full) => forgetful(full, settings),
        Unread::Failed(status) => status,
    }
}
