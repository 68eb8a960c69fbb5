//! Choosing an endpoint for a call by its hash.

use super::{
    Cluster, Shared,
    attempt::{AttemptContext, AttemptErrorKind, Choice},
    snapshot::Snapshot,
};
use crate::{
    endpoint::{Endpoint, Reserved},
    lb::{
        Picker,
        hashed::{Hit, State},
    },
};
use mesh_xds::explain::Lead;
use std::sync::Arc;

impl Cluster {
    /// Calls are balanced by their hash, so it is worth while to compute it.
    pub(crate) fn wants_hash(&self) -> bool {
        if let Some(leaf) = self.leaf() {
            return leaf.wants_hash();
        }
        self.shared.snapshot.load().picker.is_hashed()
    }
}

impl Cluster {
    /// Where a call of this hash would go at this moment. Nothing is connected for asking.
    pub(crate) fn leads(&self, hash: u64) -> Option<(Lead, State)> {
        if let Some(leaf) = self.leaf() {
            return leaf.leads(hash);
        }
        let snapshot = self.shared.snapshot.load();
        let (endpoint, state) = snapshot.picker.find_by_hash(hash)?;
        let (cluster, endpoint) = (self.name().clone(), endpoint.address);
        Some((Lead { cluster, endpoint, is_idle: state == State::Idle }, state))
    }
}

impl Shared {
    /// The endpoint of the call's hash; `fails`: why the call fails if there is none. A call waits for it while it connects, and while all its connections
    /// have as many streams as they may: another one would not do.
    pub(super) fn choose_by_hash(
        &self,
        snapshot: &Snapshot,
        picker: &Picker,
        fails: Option<&Arc<str>>,
        context: &mut AttemptContext,
    ) -> Choice {
        let hit = {
            let (tried, avoiding) = (&context.tried, context.selection_attempts > 0);
            let avoid = |endpoint: &Endpoint| avoiding && tried.contains(endpoint.address);
            picker.pick_by_hash(context.hash, &self.dice, avoid)
        };
        match hit {
            Hit::Ready(endpoint) => match endpoint.reserve() {
                Reserved::Stream(stream) => self.admit(snapshot, stream, context),
                Reserved::Full => Choice::Busy(endpoint.address),
                Reserved::Gone => Choice::Later,
            },
            Hit::Wait(endpoint) => {
                tracing::trace!(cluster = %self.name, endpoint = %endpoint.address, "a call waits for the endpoint of its hash");
                Choice::Later
            }
            Hit::Nobody => match fails {
                Some(reason) => Choice::Fail(AttemptErrorKind::NoEndpoint, reason.to_string()),
                None => Choice::Later,
            },
        }
    }
}
