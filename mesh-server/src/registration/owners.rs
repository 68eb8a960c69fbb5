//! Who speaks for an entry: every living stream of the workload, and whose word counts.
//!
//! A workload that reaches this control plane by two names has two streams. What was said last counts; when the stream
//! that said it ends, what another one said before that does, and the entry goes with the last. A stream that was opened
//! again takes the place of the one before it, which may yet have to notice its end.

use crate::model::RegisteredWorkload;
use mesh_ca::spiffe_id::SpiffeId;

/// Who speaks for one entry: one identity, in one stream or more.
pub(super) struct Owner {
    pub(super) identity: Option<SpiffeId>,
    /// The last one counts. Empty only before the first and after the last word.
    claims: Vec<Claim>,
}

/// What one stream says.
pub(super) struct Claim {
    pub(super) stream: u64,
    /// The same when the stream is opened again, see `RegisterRequest.session`.
    pub(super) session: String,
    pub(super) workload: RegisteredWorkload,
}

/// What the end of a stream means for an entry.
pub(super) enum End {
    /// Nothing: another one speaks for it.
    Nothing,
    /// This counts again.
    Again(Box<RegisteredWorkload>),
    /// Nobody speaks for it any more.
    Gone,
}

impl Owner {
    pub(super) fn new(identity: Option<SpiffeId>) -> Self {
        Self { identity, claims: Vec::new() }
    }

    /// Whether this stream is one of those that speak for it.
    pub(super) fn is(&self, stream: u64) -> bool {
        self.claims.iter().any(|claim| claim.stream == stream)
    }

    /// What a stream says counts from now on.
    pub(super) fn say(&mut self, said: Claim) {
        self.claims.retain(|claim| claim.stream != said.stream && claim.session != said.session);
        self.claims.push(said);
    }

    /// The same, of a stream that speaks for it already.
    pub(super) fn say_again(&mut self, stream: u64, workload: RegisteredWorkload) {
        if let Some(at) = self.claims.iter().position(|claim| claim.stream == stream) {
            let claim = self.claims.remove(at);
            self.claims.push(Claim { workload, ..claim });
        }
    }

    pub(super) fn end(&mut self, stream: u64) -> End {
        let counted = self.claims.last().is_some_and(|claim| claim.stream == stream);
        self.claims.retain(|claim| claim.stream != stream);
        match self.claims.last() {
            None => End::Gone,
            Some(claim) if counted => End::Again(claim.workload.clone().into()),
            Some(_) => End::Nothing,
        }
    }
}
