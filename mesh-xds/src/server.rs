//! The serving side of ADS: per-stream machines over immutable views, state-of-the-world and delta.
//!
//! A [`View`] is one revision of what one node may see. A stream's machine ([`Sotw`], [`Delta`]) knows what
//! its client holds and says what it lacks; [`AdsService`] is the only part that does IO. No stream can
//! delay another, nor the publisher: each reads the latest view when it gets to it.

mod absent;
mod bucket;
#[cfg(test)]
mod counts;
mod delta;
mod desk;
mod held;
#[cfg(test)]
mod hostile;
mod http;
mod names;
mod node;
mod places;
#[cfg(test)]
pub(crate) mod recorded;
mod refusals;
mod rejections;
pub(crate) mod requests;
#[cfg(test)]
mod rules;
mod sotw;
mod status;
mod stream;
mod subscription;
mod task;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod turns;
mod unsent;
mod view;

pub use bucket::Bucket;
pub use delta::Delta;
pub use http::AdsServer;
pub use node::read_node;
pub use places::{Full, Place, Places};
pub use sotw::Sotw;
pub(crate) use status::epoch_seconds;
pub use status::{HeldStatus, NackStatus, StreamStatus, TypeStatus, Variant};
pub use stream::{Input, Outputs, Protocol, Rejection, Settings, Stream};
pub use task::{AdsService, AdsSettings, StreamEvent};
pub use view::{Absence, Changes, Encoded, Node, Touched, View, Views};
