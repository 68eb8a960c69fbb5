//! Findings about the configuration.

mod finding;
mod render;

pub use finding::{Code, Finding, Place, Position, Severity};
pub use render::render;
