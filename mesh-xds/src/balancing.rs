//! What balancing decides from configuration and counts alone: what a request is hashed by, which endpoint a hash leads to
//! (gRFC A42; Envoy's ring hash and Maglev), how priorities share the calls.
//!
//! Promises: pure functions, the same for calls and for explanations of them. Who takes calls at a moment, and what
//! happens when nobody does, is the data path's.

mod hashing;
mod maglev;
mod request;
mod ring;
mod spill;
mod table;

pub use hashing::{Hashing, RING_SIZE_CAP};
pub use request::{Caller, Hashed, cookie, hash};
pub use ring::RingSize;
pub use spill::{Counts, Load, Loads, is_panic, split};
pub use table::{Algorithm, Share, Table};
