//! xDS for Rust: typed resources, client and server state machines, one coherent configuration.
//!
//! Wire bytes become typed values in one place ([`resource`]); inside, every value is valid by
//! construction. Protocol cores ([`client`], [`server`]) are sans-IO machines with one small task each.
//!
//! This crate knows nothing of certificates: a TLS resource names a provider, and whoever owns the
//! provider decides what it holds.

pub mod balancing;
pub mod bootstrap;
pub mod client;
pub mod config;
pub mod csds;
pub mod error;
pub mod explain;
mod field_path;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod lrs;
pub mod matcher;
#[cfg(test)]
mod model;
pub mod name;
pub mod orca;
pub mod printable;
pub mod resource;
pub mod server;

/// Generated from `proto/ads.proto` by `cargo xtask codegen`.
#[allow(missing_docs, clippy::all, unreachable_pub, rustdoc::all)]
#[rustfmt::skip]
pub mod proto {
    include!("proto/ads.rs");
}
