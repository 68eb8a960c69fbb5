//! What is kept of a request that goes out without a retry policy, until its response begins: for the one failure
//! that says that no server has looked at it (gRPC A6's transparent retries).
//!
//! Promises: an ordinary unary request is kept with one allocation; a message that is long is not copied but held,
//! within [`CALL_LIMIT`] and the cluster's budget, and a request that finds no room there is sent once. A stream is
//! kept as retries keep it: until the response begins, or until it is too long.

use super::{
    head::Head,
    replay::{Budget, CALL_LIMIT, Kept, Replay},
};
use std::sync::Arc;

/// What a message that is held costs at least: it may be a part of its encoder's buffer.
const LEAST: usize = 8 << 10;

/// What has been sent of a body.
pub(crate) enum Sent {
    /// All of it.
    Whole(Kept),
    /// This much, and more may come.
    Open(Replay),
}

/// A request that was sent and may be sent again.
pub(crate) struct Spare {
    /// Boxed, since a call's state is moved a dozen times on its way, which costs more than an allocation.
    head: Box<Head>,
    body: Body,
}

enum Body {
    /// Beside the head.
    Short,
    Held(Kept, Share),
    Open(Replay),
}

/// A share of a budget, until dropped.
struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    fn of(budget: &Arc<Budget>, bytes: usize) -> Option<Self> {
        budget.take(bytes).then(|| Self { budget: Arc::clone(budget), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

impl Spare {
    /// None: there is no room for it.
    pub(crate) fn new(mut head: Box<Head>, sent: Sent, budget: &Arc<Budget>) -> Option<Self> {
        let body = match sent {
            Sent::Open(replay) => Body::Open(replay),
            Sent::Whole(kept) => match kept.only() {
                Some(message) if head.keep(message) => Body::Short,
                _ if kept.bytes() > CALL_LIMIT => return None,
                _ => {
                    let share = Share::of(budget, kept.bytes().max(LEAST))?;
                    Body::Held(kept, share)
                }
            },
        };
        Some(Self { head, body })
    }

    /// The response has begun: nothing more is kept.
    pub(crate) fn commit(self) {
        if let Body::Open(replay) = self.body {
            replay.commit();
        }
    }

    /// For further attempts. What is kept of it counts against this budget from now on, if it did not before.
    pub(crate) fn into_parts(self, budget: &Arc<Budget>) -> Option<(Box<Head>, Replay)> {
        let replay = match self.body {
            Body::Open(replay) => replay,
            Body::Held(kept, share) => {
                drop(share);
                Replay::sent(kept, budget)?
            }
            Body::Short => {
                let mut kept = Kept::default();
                kept.push(self.head.message());
                Replay::sent(kept, budget)?
            }
        };
        Some((self.head, replay))
    }
}
