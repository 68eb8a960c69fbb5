//! A service mesh with no proxy: routing, resilience, load balancing and mTLS inside a tonic program.

// Used by the stack above, which is being built on it.
#[allow(dead_code)]
mod body;
#[allow(dead_code)]
mod cluster;
pub mod context;
#[allow(dead_code)]
mod endpoint;
#[allow(dead_code)]
mod lb;
pub mod registration;
pub mod server;
#[cfg(test)]
mod testing;
#[allow(dead_code)]
mod timeout;
pub mod tls;
