//! Bytes that were handed to connections and are not written yet: so many in all, and no account can have them all.
//!
//! A connection takes a response as a whole, and keeps it as long as its peer does not read. Who opens thousands of
//! streams and reads none of them has filled a part; the next of his responses are not even encoded.

use super::{Full, Place, Places};
use bytes::{Bytes, BytesMut};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::Status;

/// How long a response waits for room before its stream is given up …
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// … and how often it asks. Others that wait ask too, so that nobody is kept out by one who wants much.
const PAUSE: Duration = Duration::from_millis(50);

/// The bytes of all streams.
#[derive(Clone)]
pub(super) struct Unsent {
    bytes: Arc<Places>,
    limit: usize,
}

/// Leave for a response, until it is written.
pub(super) struct Leave(#[expect(dead_code, reason = "it is held")] Place);

impl Unsent {
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Places::new(limit), limit }
    }

    /// Waits until there is room for so many bytes; of more than half of all, for half.
    pub(super) async fn leave(self, account: Arc<str>, bytes: usize) -> Result<Leave, Status> {
        let bytes = bytes.min(self.limit / 2);
        let mut place = self.bytes.none(&account);
        let until = Instant::now() + PATIENCE;
        let mut full = place.resize(bytes);
        while full.is_err() && Instant::now() < until {
            tokio::time::sleep(PAUSE).await;
            full = place.resize(bytes);
        }
        let limit = self.limit;
        full.map(|()| Leave(place)).map_err(|full| {
            Status::unavailable(match full {
                Full::All => format!(
                    "connections of this control plane hold its limit of {limit} bytes of responses that their clients \
                     do not read (max_unsent_bytes); try again, or add a replica"
                ),
                Full::Peer => format!(
                    "connections of this peer hold too much of the limit of {limit} bytes of responses that clients do \
                     not read (max_unsent_bytes): look for clients with its identity or address that are stuck"
                ),
            })
        })
    }
}

/// Bytes that give their leave back when the last of them is let go.
struct Kept(BytesMut, #[expect(dead_code, reason = "it is held")] Leave);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Leave {
    /// A response under this leave.
    pub(super) fn for_response(self, bytes: BytesMut) -> Bytes {
        Bytes::from_owner(Kept(bytes, self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test(start_paused = true)]
    async fn an_account_waits_until_its_bytes_are_let_go_and_not_for_ever() {
        let unsent = Unsent::new(1_000);
        let ask = |account: &str, bytes| unsent.clone().leave(account.into(), bytes);
        let data = ask("a", 500).await.unwrap().for_response(BytesMut::from(&b"abc"[..]));
        assert!(ask("a", 400).now_or_never().is_none(), "it would have more than its part");
        assert!(ask("b", 300).now_or_never().is_some());
        let part = data.slice(1..2);
        drop(data);
        let status = ask("a", 400).await.err().expect("a part of it is still there");
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.message().contains("connections of this peer"), "{status}");
        let waits = tokio::spawn(ask("a", 400));
        tokio::time::sleep(PATIENCE / 2).await;
        assert_eq!(&part[..], b"b");
        drop(part);
        waits.await.unwrap().unwrap();
        assert!(ask("", usize::MAX).await.is_ok(), "one that is too large waits for half of it all");
    }
}
