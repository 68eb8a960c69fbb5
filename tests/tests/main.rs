//! Tests that cross crates, in one binary because linking is the slow part.

// Helpers of tests may end a test as well as tests may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod joining;
mod outliers;
mod proxy_protocol;
mod resources;
mod tidy;
mod xds_support;
