//! The repository's own tasks, as functions.

pub mod bench;
pub mod codegen;
pub mod interop;
