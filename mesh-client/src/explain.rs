//! Why a call goes where it goes, in this process, at this moment.
//!
//! [`Mesh::explain`] and [`MeshChannel::explain`] put what the configuration decides
//! ([`mesh_xds::explain`]) and what the live clusters know into one [`Explanation`]. [`Mesh::explain_service`]
//! answers the same to `meshctl explain --at`, if the program serves it.

mod service;
#[cfg(test)]
mod tests;

pub use mesh_xds::explain::{
    Cluster, ClusterState, Decision, Destination, Endpoint, EndpointState, Explanation, Hashed, Lead, Place,
    Route, Setting, Verdict, VirtualHost,
};
#[cfg(test)]
pub(crate) use service::proto;
pub use service::{ExplainService, Explainer};

use crate::{
    Mesh, MeshError,
    channel::Subscription,
    cluster::Cluster as LiveCluster,
    lb,
    retry::hedging::Entry,
    snapshot::State,
    stack::{self, Core},
    table::{Action, RouteTable},
};
use http::request::Parts;
use mesh_xds::{config::XdsConfig, explain::explain, matcher::Headers};
use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

#[allow(unused_imports)] // For the links above.
use crate::MeshChannel;

/// A control plane that has not answered by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

impl Mesh {
    /// Why a call with this head would go where it goes; the target is its URI's authority (`reviews:9080`).
    /// Asked of a target that nothing in the process uses, it is subscribed to for as long as this takes, as a
    /// channel would be. See [`MeshChannel::explain`].
    pub async fn explain(&self, request: &Parts) -> Result<Explanation, MeshError> {
        let target = request.uri.authority().map_or("", |authority| authority.as_str());
        Ok(self.subscribed(target)?.explain(request).await)
    }

    /// A service for the program's own gRPC server that answers `meshctl explain --at`: for the targets that the
    /// process uses, and nothing is changed by asking. Answers name endpoints and configuration: serve it on
    /// loopback, or where [`MeshServer`](crate::MeshServer) lets only operators in.
    pub fn explain_service(&self) -> ExplainService {
        service::new(self.clone())
    }
}

impl Subscription {
    pub(crate) async fn explain(&self, request: &Parts) -> Explanation {
        let core = &self.core;
        let mut changes = core.snapshot.subscribe();
        let answered = async {
            while matches!(&**core.snapshot.load(), State::Pending) {
                // The sender lives as long as this target.
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(PATIENCE, answered).await;
        let (mut explanation, clusters, hashes) = {
            let state = core.snapshot.load();
            let config = core.snapshot.config();
            let config = match &**state {
                State::Table(_) => config.as_deref().ok_or_else(|| "there is no configuration".to_owned()),
                State::Pending => Err("the control plane has not answered yet".to_owned()),
                State::Failed(error) => Err(error.to_string()),
                State::Closed => Err("the mesh has been shut down".to_owned()),
            };
            let headers = Headers {
                map: &request.headers,
                authority: core.authority.as_str(),
                path: request.uri.path(),
                scheme: "http",
            };
            let mut explanation =
                explain(config.clone(), &headers, request.uri.query(), &self.control_planes);
            let own = core.settings.hedging.as_ref().and_then(|policies| policies.of(headers.path));
            if let Some(Entry { methods, hedging }) = own {
                let value = format!("{hedging}; what the route says of attempts does not hold");
                explanation.replace_attempts(&value, &format!("MeshBuilder::hedging({methods:?}, _)"));
            }
            let (clusters, hashes) = match (&**state, config) {
                (State::Table(table), Ok(config)) => {
                    (clusters(table), hashes(core, table, config, &explanation, request))
                }
                _ => (HashMap::new(), Vec::new()),
            };
            (explanation, clusters, hashes)
        };
        let live = |name: &Arc<str>| clusters.get(name).cloned().or_else(|| self.clusters.find(name));
        for cluster in &mut explanation.clusters {
            if let Some(live) = live(&cluster.name) {
                enliven(cluster, &live).await;
            }
        }
        let mut leads = Vec::new();
        let destinations = explanation.decisions.iter_mut().flat_map(|one| &mut one.destinations);
        for (destination, (hash, session)) in destinations.zip(hashes) {
            let Some((hash, live)) = hash.zip(live(&destination.cluster)) else { continue };
            if live.wants_hash() {
                let lead = hash.and_then(|hash| live.leads(hash));
                let state = lead.as_ref().map(|(_, state)| *state);
                destination.hashed = Some(Hashed {
                    hash: hash.map(|hash| format!("{hash:016x}")),
                    endpoint: lead.as_ref().map(|(lead, _)| lead.endpoint),
                    ready: Some(state == Some(lb::hashed::State::Ready)),
                    note: None,
                    session,
                });
                leads.extend(lead.map(|(lead, _)| lead));
            }
        }
        explanation.narrow(&leads);
        explanation
    }
}

/// The live clusters of a table, by name.
fn clusters(table: &RouteTable<LiveCluster>) -> HashMap<Arc<str>, Arc<LiveCluster>> {
    let mut clusters = HashMap::new();
    for route in table.routes() {
        let Action::Forward(forwarding) = &route.action else { continue };
        let mirrors = forwarding.mirrors.iter().map(|(mirror, destination)| (&mirror.cluster, destination));
        let choices = forwarding.choices().iter().map(|choice| (&choice.name, &choice.cluster));
        for (name, destination) in choices.chain(mirrors) {
            if let Ok(cluster) = destination {
                clusters.insert(name.clone(), cluster.clone());
            }
        }
    }
    clusters
}

/// What a call would be hashed by on the way to each destination, decision by decision, and where its session is.
fn hashes(
    core: &Core<LiveCluster>,
    table: &RouteTable<LiveCluster>,
    config: &XdsConfig,
    explanation: &Explanation,
    request: &Parts,
) -> Vec<(Option<Option<u64>>, Option<SocketAddr>)> {
    let compiled = |decision: &Decision| {
        let route = config.virtual_host.routes.get(decision.route)?;
        table.routes().iter().find(|compiled| Arc::ptr_eq(&compiled.route, route))
    };
    let of = |decision, destination| {
        let Some(compiled) = compiled(decision) else { return (None, None) };
        let session = stack::session_of(compiled, destination, request);
        (core.hash_of(compiled, destination, request), session)
    };
    let decisions = explanation.decisions.iter();
    decisions.flat_map(|one| (0..one.destinations.len()).map(move |index| of(one, index))).collect()
}

/// Adds what the live cluster knows.
async fn enliven(cluster: &mut Cluster, live: &LiveCluster) {
    if let Some(state) = live.describe_leaves() {
        cluster.live = Some(state);
        return;
    }
    let Some(mut description) = live.describe().await else { return };
    cluster.fill(&description.config);
    for endpoint in &mut cluster.endpoints {
        if let Some((state, not_picked)) = description.endpoints.remove(&endpoint.address) {
            endpoint.live = Some(state);
            endpoint.not_picked = not_picked;
        }
    }
    cluster.live = Some(description.state);
}
