//! What the client knows of each resource it watches: the last good value, and what went wrong since.

use crate::{
    config::{XdsError, XdsErrorCause},
    name::{Name, ResourceType},
};
use bytes::Bytes;
use serde::Serialize;
use std::{sync::Arc, time::Instant};

/// What is known of a resource at this moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Known<R> {
    /// Nothing yet; an answer is awaited.
    Pending,
    /// A value. With a note when something went wrong since it came (an ambient error of gRFC A88).
    Good {
        /// The last good one.
        resource: R,
        /// What went wrong since.
        note: Option<Arc<str>>,
    },
    /// There is no value to use.
    Bad(XdsError),
}

/// State of a watched resource, as CSDS calls it (gRFC A40, A88).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ResourceState {
    /// Asked for; no answer yet.
    Requested,
    /// The control plane does not have it.
    DoesNotExist,
    /// The last version was accepted.
    Acked,
    /// The last version was rejected; the one before stays in use if there was one.
    Nacked,
    /// The control plane reported an error for it.
    ReceivedError,
    /// It did not come in time, from a control plane whose silence means nothing.
    Timeout,
}

pub(super) struct Good<R> {
    pub(super) resource: R,
    pub(super) version: Arc<str>,
    /// Of its bytes, see [`super::Parse::mark`].
    pub(super) mark: Bytes,
}

pub(super) struct Failure {
    pub(super) cause: XdsErrorCause,
    pub(super) version: Arc<str>,
    pub(super) at: Instant,
    /// Nobody said so: no answer came in time.
    pub(super) silent: bool,
}

/// How long an answer has been awaited, over several streams.
#[derive(Clone, Copy)]
pub(super) struct Awaited {
    /// When silence on the first of them would have meant something.
    pub(super) due: Instant,
    /// How many there were.
    pub(super) streams: u32,
}

pub(super) struct Entry<R> {
    /// Watchers. Zero: listed, or unsubscribed and kept for a moment (see `Machine::release`).
    pub(super) references: u32,
    /// It came by the wildcard, or was given up by name and may be a part of that: kept though nobody names it.
    pub(super) listed: bool,
    /// Nobody has named it since it is kept: it came by the wildcard, and by nothing else.
    pub(super) unnamed: bool,
    /// Named in a request on this stream.
    pub(super) asked: bool,
    /// Subscribed again on this stream; what was known is still good, or bad, if anything was known.
    pub(super) restored: bool,
    /// Subscribed again on this stream, and not mentioned since: a complete response without it may be older than
    /// that, and says nothing.
    pub(super) unconfirmed: bool,
    /// An error was said of it on this stream (xRFC TP3), and nothing since: that is said once, and a complete response
    /// without it says no more.
    pub(super) excused: bool,
    /// Nobody names it, and it has not come again since the list that it is of was asked for anew.
    pub(super) of_earlier_list: bool,
    /// When silence means that it does not exist, or its time to live ends; or, without references, when it is
    /// dropped.
    pub(super) due: Option<Instant>,
    /// It was asked for on streams that ended well without an answer.
    pub(super) awaited: Option<Awaited>,
    /// When the good value ends, unless it is sent, or its heart beats, again.
    pub(super) expires: Option<Instant>,
    pub(super) state: ResourceState,
    pub(super) good: Option<Good<R>>,
    /// The value whose time to live ended: the control plane takes it for known here, and a late heart-beat is all that
    /// it sends.
    pub(super) lapsed: Option<Good<R>>,
    pub(super) failure: Option<Failure>,
    pub(super) updated: Option<Instant>,
}

impl<R> Entry<R> {
    pub(super) fn new() -> Self {
        Self {
            references: 0,
            listed: false,
            unnamed: false,
            asked: false,
            restored: false,
            unconfirmed: false,
            excused: false,
            of_earlier_list: false,
            due: None,
            awaited: None,
            expires: None,
            state: ResourceState::Requested,
            good: None,
            lapsed: None,
            failure: None,
            updated: None,
        }
    }

    /// Whether anything was ever said about it.
    pub(super) fn is_answered(&self) -> bool {
        self.state != ResourceState::Requested
    }

    /// Whether anybody cares for it, by its name or by the wildcard.
    pub(super) fn is_wanted(&self) -> bool {
        self.references > 0 || self.listed
    }

    /// Whether the control plane has it, well or ill, as far as is known: a part of what a wildcard stands for.
    pub(super) fn is_served(&self) -> bool {
        match self.state {
            ResourceState::Acked | ResourceState::Nacked | ResourceState::ReceivedError => true,
            ResourceState::Timeout => self.good.is_some(),
            ResourceState::Requested | ResourceState::DoesNotExist => false,
        }
    }

    /// A new good value; or the same again, when `resource` is absent. Says whether watchers see a difference.
    pub(super) fn accept(&mut self, new: Option<(R, Bytes)>, version: Arc<str>, now: Instant) -> bool {
        self.state = ResourceState::Acked;
        (self.unconfirmed, self.of_earlier_list, self.excused) = (false, false, false);
        self.awaited = None;
        self.lapsed = None;
        let recovered = self.failure.take().is_some();
        match new {
            Some((resource, mark)) => {
                self.good = Some(Good { resource, version, mark });
                self.updated = Some(now);
                true
            }
            None => {
                if let Some(good) = &mut self.good {
                    good.version = version;
                }
                recovered
            }
        }
    }

    /// Something went wrong. With `drop_data` the last good value goes too. Says whether watchers see a
    /// difference.
    pub(super) fn fail(
        &mut self,
        cause: XdsErrorCause,
        state: ResourceState,
        version: Arc<str>,
        drop_data: bool,
        now: Instant,
    ) -> bool {
        let dropped = drop_data && self.good.take().is_some();
        if dropped {
            self.expires = None;
        }
        self.state = state;
        (self.unconfirmed, self.of_earlier_list, self.excused) = (false, false, false);
        self.awaited = None;
        self.lapsed = None;
        let same = self.failure.as_ref().is_some_and(|failure| failure.cause == cause);
        self.failure = Some(Failure { cause, version, at: now, silent: false });
        dropped || !same
    }

    /// Whether the control plane itself took it away.
    pub(super) fn is_gone(&self) -> bool {
        let said =
            |failure: &Failure| !failure.silent && matches!(failure.cause, XdsErrorCause::DoesNotExist(_));
        self.good.is_none() && self.failure.as_ref().is_some_and(said)
    }
}

/// One resource that the client watches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResourceStatus {
    /// Which type.
    #[serde(skip)]
    pub resource_type: ResourceType,
    /// `CDS`, `EDS`, `LDS`, `RDS`, `SDS`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Resource name.
    pub name: Name,
    /// The control plane that it is from, or that is asked for it.
    pub server: Arc<str>,
    /// Version in use; absent when there is none.
    pub version: Option<Arc<str>>,
    /// The version in use, encoded, as it was understood; of a secret without the key.
    #[serde(skip)]
    pub body: Option<Bytes>,
    /// The version in use is from disk; when a control plane confirmed it last, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_cache: Option<f64>,
    /// What became of the last answer.
    pub state: ResourceState,
    /// What went wrong since the version in use, or why there is none.
    pub error: Option<ErrorStatus>,
    /// When the version in use came, in seconds since the epoch.
    pub updated: Option<f64>,
}

impl ResourceStatus {
    /// Its type and name.
    pub fn key(&self) -> (ResourceType, Name) {
        (self.resource_type, self.name.clone())
    }
}

/// What went wrong with a resource.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorStatus {
    /// What.
    pub text: Arc<str>,
    /// Version that was rejected; empty when that is not it.
    pub version: Arc<str>,
    /// When, in seconds since the epoch.
    pub at: f64,
}
