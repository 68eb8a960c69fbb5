//! Tests that cross crates, in one binary because linking is the slow part.

mod joining;
mod tidy;
