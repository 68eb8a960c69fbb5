//! Who speaks for an entry: every living stream of its workload, and whose word counts.
//!
//! A process that reaches this control plane by two names has two streams, and two processes may share a port for as
//! long as one replaces the other. What was said last counts; when the stream that said it ends, what another one said
//! before does. Health is a process's own, the last that it said in any stream: none of its earlier words undoes its
//! drain. A stream that was opened again takes the place of the one before it, which may have yet to notice its end. The
//! entry goes with the last stream.
//!
//! A stream that this control plane ended, with its certificate or its connection, is waited for: what it said holds
//! until its process is back, or says itself that it goes.

use crate::model::RegisteredWorkload;
use mesh_ca::spiffe_id::SpiffeId;

/// Streams that speak for one entry at once; a workload has one for each name of a control plane.
const MAX_CLAIMS: usize = 32;

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
    /// The stream is over, and another one in its place is waited for.
    awaited: bool,
}

/// As many streams speak for an entry as may.
#[derive(Debug)]
pub(super) struct TooMany(pub(super) usize);

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
    pub(super) fn say(&mut self, speaker: Speaker, workload: RegisteredWorkload) -> Result<(), TooMany> {
        self.claims
            .retain(|claim| claim.speaker.stream != speaker.stream && !claim.speaker.is_one_with(&speaker));
        if self.claims.len() >= MAX_CLAIMS {
            return Err(TooMany(MAX_CLAIMS));
        }
        self.claims.push(Claim { speaker, workload, awaited: false });
        self.share_health();
        Ok(())
    }

    /// The same, of a stream that speaks for it already.
    pub(super) fn say_again(&mut self, stream: u64, workload: RegisteredWorkload) {
        if let Some(at) = self.at(stream) {
            let claim = self.claims.remove(at);
            self.claims.push(Claim { workload, ..claim });
            self.share_health();
        }
    }

    /// What the last one says of its health is true of its process, whatever its other streams said before.
    fn share_health(&mut self) {
        let Some((last, before)) = self.claims.split_last_mut() else { return };
        for claim in before.iter_mut().filter(|claim| claim.speaker.process == last.speaker.process) {
            claim.workload.health = last.workload.health;
        }
    }

    /// A stream is over whose process is there, and comes back.
    pub(super) fn wait_for(&mut self, stream: u64) {
        if let Some(claim) = self.at(stream).and_then(|at| self.claims.get_mut(at)) {
            claim.awaited = true;
        }
    }

    /// A stream is over. If it was its process that ended it, that is waited for in no other stream either.
    pub(super) fn end(&mut self, stream: u64) -> End {
        let Some(at) = self.at(stream) else { return End::Nothing };
        let counted = self.claims.last().map(|claim| claim.speaker.stream);
        let ended = self.claims.remove(at);
        if !ended.awaited {
            self.claims.retain(|claim| !claim.awaited || claim.speaker.process != ended.speaker.process);
        }
        match self.claims.last() {
            None => End::Gone,
            Some(claim) if counted != Some(claim.speaker.stream) => End::Again(claim.workload.clone().into()),
            Some(_) => End::Nothing,
        }
    }

    #[cfg(test)]
    pub(super) fn is_awaited(&self) -> bool {
        self.claims.iter().all(|claim| claim.awaited)
    }

    fn at(&self, stream: u64) -> Option<usize> {
        self.claims.iter().position(|claim| claim.speaker.stream == stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::fixture::workload;

    fn speaker(stream: u64, process: &str) -> Speaker {
        Speaker { stream, process: process.into(), session: stream.to_string() }
    }

    fn says(owner: &mut Owner, stream: u64, process: &str) {
        let said = RegisteredWorkload { weight: stream.try_into().unwrap(), ..workload("10.0.0.1") };
        owner.say(speaker(stream, process), said).unwrap();
    }

    /// The stream whose word counts now.
    fn end(owner: &mut Owner, stream: u64) -> Option<u32> {
        match owner.end(stream) {
            End::Nothing => panic!("{stream} changed nothing"),
            End::Again(workload) => Some(workload.weight),
            End::Gone => None,
        }
    }

    #[test]
    fn who_is_waited_for_is_not_when_its_process_goes() {
        let mut owner = Owner::new(None);
        says(&mut owner, 1, "p");
        owner.wait_for(1);
        says(&mut owner, 2, "p");
        assert_eq!(end(&mut owner, 2), None, "stream 1 is over, and its process has left");

        // Of another process nothing is known but that it comes back.
        let mut owner = Owner::new(None);
        says(&mut owner, 1, "p");
        owner.wait_for(1);
        says(&mut owner, 2, "q");
        assert_eq!(end(&mut owner, 2), Some(1));
        assert_eq!(end(&mut owner, 1), None, "it did not");

        // A stream that nobody ended goes on.
        let mut owner = Owner::new(None);
        says(&mut owner, 1, "p");
        says(&mut owner, 2, "p");
        owner.wait_for(2);
        assert_eq!(end(&mut owner, 2), Some(1));
    }

    #[test]
    fn streams_of_an_entry_are_so_many_and_one_that_comes_again_is_no_further_one() {
        let mut owner = Owner::new(None);
        for stream in 0..32 {
            says(&mut owner, stream, "p");
        }
        assert!(owner.say(speaker(99, "p"), workload("10.0.0.1")).is_err());
        let again = Speaker { stream: 99, ..speaker(7, "p") };
        owner.say(again, workload("10.0.0.1")).unwrap();
        assert!(owner.is(99) && !owner.is(7));
    }
}
