//! The repository's own tasks, as functions.

pub mod codegen;
pub mod interop;
