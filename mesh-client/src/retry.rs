//! Retries: which outcomes are repeated, when, and what of a request is kept for that (gRFC A6, A44).

pub(crate) mod backoff;
pub(crate) mod codes;
pub(crate) mod head;
pub(crate) mod hedging;
pub(crate) mod policy;
pub(crate) mod replay;
pub(crate) mod spare;
pub(crate) mod throttle;
