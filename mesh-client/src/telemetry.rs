//! What the client counts. Events themselves go to `tracing`.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What happened to the calls of a target.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) calls: Counter,
    pub(crate) passed_through: Counter,
    pub(crate) failed_here: Counter,
    pub(crate) deadline_exceeded: Counter,
    pub(crate) faults_delayed: Counter,
    pub(crate) faults_aborted: Counter,
    pub(crate) faults_over_limit: Counter,
    pub(crate) retries: Counter,
    pub(crate) hedges: Counter,
    pub(crate) transparent_retries: Counter,
    pub(crate) retries_denied: Counter,
    pub(crate) retries_throttled: Counter,
    pub(crate) mirrored: Counter,
    pub(crate) not_mirrored: Counter,
}

/// What happened to the calls of a target, up to one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CallCounts {
    /// Calls begun.
    pub calls: u64,
    /// Calls to hosts that the control plane does not know, given to the wrapped service.
    pub passed_through: u64,
    /// Calls that failed without an answer of an endpoint.
    pub failed_here: u64,
    /// Of those, calls whose time was over.
    pub deadline_exceeded: u64,
    /// Delays injected.
    pub faults_delayed: u64,
    /// Aborts injected.
    pub faults_aborted: u64,
    /// Faults not injected because as many were active as may be.
    pub faults_over_limit: u64,
    /// Attempts after the first, by policy.
    pub retries: u64,
    /// Attempts made while another one was in flight, by policy; of a program's policy, all attempts after the first.
    pub hedges: u64,
    /// Attempts after one that no server had processed.
    pub transparent_retries: u64,
    /// Retries that the cluster's budget did not allow.
    pub retries_denied: u64,
    /// Retries and hedges that throttling did not allow.
    pub retries_throttled: u64,
    /// Copies sent.
    pub mirrored: u64,
    /// Copies not sent: too long, too many at once, no endpoint took it, or the call was over before its request was.
    pub not_mirrored: u64,
}

impl Counters {
    pub(crate) fn read(&self) -> CallCounts {
        CallCounts {
            calls: self.calls.read(),
            passed_through: self.passed_through.read(),
            failed_here: self.failed_here.read(),
            deadline_exceeded: self.deadline_exceeded.read(),
            faults_delayed: self.faults_delayed.read(),
            faults_aborted: self.faults_aborted.read(),
            faults_over_limit: self.faults_over_limit.read(),
            retries: self.retries.read(),
            hedges: self.hedges.read(),
            transparent_retries: self.transparent_retries.read(),
            retries_denied: self.retries_denied.read(),
            retries_throttled: self.retries_throttled.read(),
            mirrored: self.mirrored.read(),
            not_mirrored: self.not_mirrored.read(),
        }
    }
}
