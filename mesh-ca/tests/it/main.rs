//! The wired crate: real handshakes over rotating identities, and workloads that join a real CA over
//! TCP and TLS. Needs the feature `issuer`.
#![cfg(feature = "issuer")]
// Helpers outside `#[test]` functions are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod handshakes;
mod join;
mod server;
