//! The scenarios, each with a control plane of its own.

mod clients;
mod envoy;
mod servers;

use super::{Lab, Outcome, report::Report};

/// Several checks that share their processes.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) run: fn(&Lab, &mut Report) -> Outcome,
}

pub(super) const ALL: &[Scenario] = &[
    Scenario { name: "c-core-client", run: clients::core },
    Scenario { name: "grpc-js-client", run: clients::js },
    Scenario { name: "c-core-server", run: servers::core },
    Scenario { name: "envoy", run: envoy::run },
];
