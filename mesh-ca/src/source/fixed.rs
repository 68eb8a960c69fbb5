//! An identity given once. It can still expire, and says so.

use super::{Source, SourceError};
use crate::{rotation::Schedule, workload::Identity};
use std::sync::Arc;

/// A source that gives the same identity for ever.
#[derive(Clone, Debug)]
pub struct FixedSource(Arc<Identity>);

impl FixedSource {
    /// Gives this identity.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self(identity)
    }
}

impl Source for FixedSource {
    fn origin(&self) -> String {
        "a fixed identity".to_owned()
    }

    fn schedule(&self) -> Schedule {
        Schedule::Never
    }

    async fn fetch(&mut self, _held: Option<&Arc<Identity>>) -> Result<Arc<Identity>, SourceError> {
        Ok(self.0.clone())
    }
}
