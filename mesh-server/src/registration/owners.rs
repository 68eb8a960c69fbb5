//! Who speaks for an entry: every living stream of its workload, and whose word counts.
//!
//! A process that reaches this control plane by two names has two streams, and two processes may share a port for as long
//! as one replaces the other. What was said last counts; when the stream that said it ends, what another one said before
//! does. Health is a process's own, the last that it said in any stream: none of its earlier words undoes its drain. A
//! stream that was opened again takes the place of the one before it, which may have yet to notice its end. The entry goes
//! with the last stream.

use crate::model::RegisteredWorkload;
use mesh_ca::spiffe_id::SpiffeId;

/// Who speaks for one entry: one identity, in one stream or more.
pub(super) struct Owner {
    pub(super) identity: Option<SpiffeId>,
    /// The last one counts. Empty only before the first and after the last word.
    claims: Vec<Claim>,
}

/// A stream, and what it is one of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Speaker {
    pub(super) stream: u64,
    /// See `RegisterRequest.process`.
    pub(super) process: String,
    /// See `RegisterRequest.session`.
    pub(super) session: String,
}

impl Speaker {
    /// The same one, in whatever stream.
    fn is_one_with(&self, other: &Self) -> bool {
        (&self.process, &self.session) == (&other.process, &other.session)
    }
}

/// What one stream says.
struct Claim {
    speaker: Speaker,
    workload: RegisteredWorkload,
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
        self.claims.iter().any(|claim| claim.speaker.stream == stream)
    }

    /// Whether a stream of this identity is an earlier one of those, opened again.
    pub(super) fn is_again(&self, speaker: &Speaker, identity: Option<&SpiffeId>) -> bool {
        let again = |claim: &Claim| !speaker.session.is_empty() && claim.speaker.is_one_with(speaker);
        self.identity.as_ref() == identity && self.claims.iter().any(again)
    }

    /// What a stream says counts from now on.
    pub(super) fn say(&mut self, speaker: Speaker, workload: RegisteredWorkload) {
        self.claims
            .retain(|claim| claim.speaker.stream != speaker.stream && !claim.speaker.is_one_with(&speaker));
        self.claims.push(Claim { speaker, workload });
        self.share_health();
    }

    /// The same, of a stream that speaks for it already.
    pub(super) fn say_again(&mut self, stream: u64, workload: RegisteredWorkload) {
        if let Some(at) = self.claims.iter().position(|claim| claim.speaker.stream == stream) {
            let Claim { speaker, .. } = self.claims.remove(at);
            self.say(speaker, workload);
        }
    }

    /// What the last one says of its health is true of its process, whatever its other streams said before.
    fn share_health(&mut self) {
        let Some((last, before)) = self.claims.split_last_mut() else { return };
        for claim in before.iter_mut().filter(|claim| claim.speaker.process == last.speaker.process) {
            claim.workload.health = last.workload.health;
        }
    }

    pub(super) fn end(&mut self, stream: u64) -> End {
        let counted = self.claims.last().is_some_and(|claim| claim.speaker.stream == stream);
        self.claims.retain(|claim| claim.speaker.stream != stream);
        match self.claims.last() {
            None => End::Gone,
            Some(claim) if counted => End::Again(claim.workload.clone().into()),
            Some(_) => End::Nothing,
        }
    }
}
