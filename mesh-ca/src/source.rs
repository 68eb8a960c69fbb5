//! Where an identity comes from: [`fixed`] values, [`mod@file`]s that somebody else renews, or a [`ca`].

use crate::{rotation::Schedule, workload::Identity};
use std::{future::Future, sync::Arc};

pub mod ca;
pub mod file;
pub mod fixed;

/// Somewhere an identity can be fetched from, again and again. One fetch at a time.
pub trait Source: Send + 'static {
    /// Where that is, for messages: `CA at 127.0.0.1:15012`, `files /a, /b, /c`.
    fn origin(&self) -> String;

    /// When to fetch again.
    fn schedule(&self) -> Schedule;

    /// Fetches an identity. `held` is the one in hand; returning it (the same `Arc`) says that nothing
    /// changed. Dropped when it takes too long, so it must be cancel safe.
    fn fetch(
        &mut self,
        held: Option<&Arc<Identity>>,
    ) -> impl Future<Output = Result<Arc<Identity>, SourceError>> + Send;
}

/// Why a fetch failed. The text names what was asked and what it said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The source cannot be reached or read now.
    #[error("{0}")]
    Unavailable(Arc<str>),
    /// The source was reached and said no: trying again with the same credentials is not likely to help.
    #[error("{0}")]
    Refused(Arc<str>),
    /// What the source gave is not a sound identity.
    #[error("{0}")]
    Invalid(Arc<str>),
}

impl SourceError {
    /// Cannot be reached or read.
    pub fn unavailable(reason: impl Into<Arc<str>>) -> Self {
        Self::Unavailable(reason.into())
    }

    /// Said no.
    pub fn refused(reason: impl Into<Arc<str>>) -> Self {
        Self::Refused(reason.into())
    }

    /// Gave something unsound.
    pub fn invalid(reason: impl Into<Arc<str>>) -> Self {
        Self::Invalid(reason.into())
    }
}
