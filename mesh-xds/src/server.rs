//! The serving side of ADS: per-stream machines over immutable views, state-of-the-world and delta.

mod view;

pub use view::{Encoded, Node, View, Views};
