//! Findings about the configuration: what Istio's `analyze` would say, and what this mesh adds.
//!
//! Objects that do not parse never get here: their findings come from [`crate::model::parse`].
//! [`analyze`] looks at the objects that do, together: names that lead nowhere, two owners of one
//! host, routes that no request can reach. Nothing here refuses an object. Codes are Istio's
//! (<https://istio.io/latest/docs/reference/config/analysis/>).

use crate::model::Model;

mod delegates;
mod destination_rules;
mod finding;
mod hosts;
mod policies;
mod render;
mod routes;

pub use finding::{Code, Finding, Place, Position, Severity};
pub use render::render;

/// Everything there is to say about a model as a whole.
pub fn analyze(model: &Model) -> Vec<Finding> {
    let mut findings = Vec::new();
    hosts::analyze(model, &mut findings);
    delegates::analyze(model, &mut findings);
    routes::analyze(model, &mut findings);
    destination_rules::analyze(model, &mut findings);
    policies::analyze(model, &mut findings);
    findings
}

#[cfg(test)]
mod tests;
