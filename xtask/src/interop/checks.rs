//! The scenarios, each with a control plane of its own.

mod clients;
mod envoy;
mod foreign;
mod ours;
mod policies;
mod proxy_protocol;
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
    Scenario { name: "mesh-client", run: clients::ours },
    Scenario { name: "c-core-policies", run: policies::core },
    Scenario { name: "grpc-js-policies", run: policies::js },
    Scenario { name: "mesh-client-policies", run: policies::ours },
    Scenario { name: "foreign-control-plane", run: foreign::state_of_the_world },
    Scenario { name: "foreign-control-plane-delta", run: foreign::delta },
    Scenario { name: "c-core-server", run: servers::core },
    Scenario { name: "impostor", run: servers::impostor },
    Scenario { name: "mesh-client-server", run: ours::servers },
    Scenario { name: "envoy", run: envoy::state_of_the_world },
    Scenario { name: "envoy-delta", run: envoy::delta },
    Scenario { name: "proxy-protocol", run: proxy_protocol::run },
    Scenario { name: "http-connect", run: foreign::http_connect },
];
