//! Why a request goes where it goes: a decision as a tree of words and values.
//!
//! [`explain`] asks what the data path asks ([`crate::resource::route::RouteMatch::miss`],
//! [`crate::config::Effective`]) about one request and one [`XdsConfig`], and keeps the answers that a call
//! throws away: each route and the first condition that it fails by, each destination with its share, what holds
//! there and which line set it ([`crate::resource::Origin`]), each endpoint. Draws are shown as probabilities.
//!
//! It knows configuration only. What happens now (connections, ejections, calls in flight) is added by whoever
//! has it: [`Endpoint::live`], [`Cluster::live`].

mod balancing;
mod cluster;
mod hashed;
mod route;
mod standing;
#[cfg(test)]
mod tests;
mod text;

pub use hashed::Lead;

use crate::{
    config::XdsConfig,
    matcher::Headers,
    resource::route::{Destination as Named, RouteAction},
};
use serde::Serialize;
use std::{net::SocketAddr, sync::Arc};

/// A decision and its reasons. `Display` is an indented tree; `Serialize` has the fields as they are named here.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The service asked for: `reviews:9080`.
    pub target: Arc<str>,
    /// The path, with query.
    pub path: String,
    /// Where the configuration comes from: a control plane's address, a directory.
    pub source: Arc<str>,
    /// Version of the configuration; absent when there is none.
    pub version: Option<Arc<str>>,
    /// Routes belong to it; absent when there is no configuration.
    pub virtual_host: Option<VirtualHost>,
    /// Every route, in order.
    pub routes: Vec<Route>,
    /// What happens to the request: one entry, or one for each route that takes a share of such requests.
    pub decisions: Vec<Decision>,
    /// Every cluster that the decisions name.
    pub clusters: Vec<Cluster>,
    /// Why such a call fails before it has an endpoint; absent when it does not.
    pub failure: Option<String>,
}

/// The virtual host and how it was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct VirtualHost {
    /// Its name.
    pub name: Arc<str>,
    /// Its domain that matches the target best.
    pub domain: Option<String>,
}

/// A route and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Route {
    /// May be empty.
    pub name: Arc<str>,
    /// Where it was written, if the control plane says.
    pub origin: Option<Arc<str>>,
    /// What it asks of a request.
    pub condition: String,
    /// Where the condition was written.
    pub condition_origin: Place,
    /// Whether it takes this one.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Whether a route takes the request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// It does; the first such route decides.
    Matched,
    /// It takes a share of such requests; the others go on to the next routes.
    Sometimes {
        /// How many, in percent.
        percent: f64,
    },
    /// It does not.
    Rejected {
        /// The first condition that does not hold, and what was found instead.
        reason: String,
    },
    /// An earlier route takes the request.
    NotReached,
}

/// What a route does with the request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Decision {
    /// Which of [`Explanation::routes`], from 0.
    pub route: usize,
    /// Share of such requests that it takes, in percent.
    pub share: f64,
    /// What holds, whichever destination is drawn.
    pub settings: Vec<Setting>,
    /// Where it may go; the shares sum to 100.
    pub destinations: Vec<Destination>,
    /// Where copies go.
    pub mirrors: Vec<Destination>,
    /// Why the route cannot be used by a client; absent when it can.
    pub failure: Option<String>,
}

/// A cluster and how likely it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Destination {
    /// Which of [`Explanation::clusters`].
    pub cluster: Arc<str>,
    /// In percent, among the requests of the decision.
    pub share: f64,
    /// Where it was written.
    pub origin: Place,
    /// What holds for this destination only.
    pub settings: Vec<Setting>,
    /// Where the request's hash leads; absent where its cluster does not balance by it.
    pub hashed: Option<Hashed>,
}

/// What a request is hashed to, and where that leads now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hashed {
    /// In hexadecimal digits; absent when the request has nothing that is hashed: it goes to any endpoint.
    pub hash: Option<String>,
    /// The endpoint that the ring or the table has for it; absent when nobody takes calls.
    pub endpoint: Option<SocketAddr>,
    /// Whether that one is connected: otherwise the call waits until it is. Absent in an explanation of configuration
    /// alone.
    pub ready: Option<bool>,
    /// The endpoint that the request's session names: it goes before the hash for as long as sessions can have it.
    pub session: Option<SocketAddr>,
    /// Why configuration alone does not tell the hash, or the endpoint.
    pub note: Option<Arc<str>>,
}

/// One value in force.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Setting {
    /// As it is called in Istio's object: `timeout`, `connectionPool.http.http2MaxRequests`; `hedging` is the program's.
    pub name: &'static str,
    /// In words.
    pub value: String,
    /// Where it was written.
    pub origin: Place,
}

/// Where a value comes from. In JSON: the place, `"default"`, or null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `reviews.yaml:14:7`
    Written(Arc<str>),
    /// Nobody wrote it: a default.
    Default,
    /// The control plane does not say.
    Unknown,
}

/// A cluster, how its endpoints are treated, and they.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Cluster {
    /// Its name.
    pub name: Arc<str>,
    /// What decided it.
    pub origin: Option<Arc<str>>,
    /// Why calls cannot be sent to it; absent when they can.
    pub failure: Option<String>,
    /// What is wrong with its endpoints' configuration, if anything is.
    pub note: Option<Arc<str>>,
    /// How it is treated.
    pub settings: Vec<Setting>,
    /// The clusters that it is made of, in order of preference; they are among [`Explanation::clusters`].
    pub leaves: Vec<Arc<str>>,
    /// By priority.
    pub endpoints: Vec<Endpoint>,
    /// Its state now; absent in an explanation of configuration alone.
    pub live: Option<ClusterState>,
}

/// What is counted for a cluster now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClusterState {
    /// Attempts in flight, those of all channels of the process.
    pub in_flight: u32,
    /// Of those, the ones of priority HIGH.
    pub high_priority_in_flight: u32,
    /// Attempts that a circuit breaker did not let through, so far.
    pub refused: u64,
    /// The priority in use.
    pub priority: Option<usize>,
    /// Of a cluster of clusters, the one in use.
    pub leaf: Option<Arc<str>>,
    /// Why no endpoint can be picked; absent when one can.
    pub unavailable: Option<Arc<str>>,
    /// Shares of the localities of the first priority, or why they have none; where zone-aware routing is the option.
    pub zone_routing: Option<Arc<str>>,
}

/// An endpoint, and whether a call would go there.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Endpoint {
    /// Identifies it.
    pub address: SocketAddr,
    /// 0 comes first.
    pub priority: usize,
    /// `region/zone/sub-zone`; empty when it is not known.
    pub locality: String,
    /// Share of the priority's traffic that its locality gets.
    pub locality_weight: u32,
    /// Share of the locality's traffic.
    pub weight: u32,
    /// What the control plane knows: `healthy`, `draining`, …
    pub health: &'static str,
    /// Whether connections to it are encrypted.
    pub tls: bool,
    /// The HTTP CONNECT proxy that connections go through.
    pub proxy: Option<SocketAddr>,
    /// Why it would not be picked; absent when it may be.
    pub not_picked: Option<String>,
    /// Its state now; absent in an explanation of configuration alone.
    pub live: Option<EndpointState>,
}

/// What is known of an endpoint now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointState {
    /// `ready`, `connecting`, `idle`, `backing off`.
    pub connectivity: &'static str,
    /// Why the last connection failed, while it has no other.
    pub last_failure: Option<Arc<str>>,
    /// Attempts in flight.
    pub in_flight: u32,
    /// Milliseconds until its ejection ends (at the sweep after); absent when it is not ejected.
    pub ejected_for_ms: Option<u64>,
    /// Ejections lately: each makes the next one longer.
    pub ejections: u32,
    /// Its weight by the load that it reports; absent when it has none, or where that is not the policy.
    pub load_weight: Option<f64>,
    /// Why it has no such weight though the policy weighs by load: it gets the mean of the others.
    pub no_load_weight: Option<&'static str>,
}

/// Explains one request. `request.authority` is the target; `source` says where `config` comes from, or the
/// error why there is none.
pub fn explain(
    config: Result<&XdsConfig, String>,
    request: &Headers<'_>,
    query: Option<&str>,
    source: &str,
) -> Explanation {
    let mut explanation = Explanation {
        target: request.authority.into(),
        path: match query {
            Some(query) => format!("{}?{query}", request.path),
            None => request.path.to_owned(),
        },
        source: source.into(),
        version: None,
        virtual_host: None,
        routes: Vec::new(),
        decisions: Vec::new(),
        clusters: Vec::new(),
        failure: None,
    };
    match config {
        Ok(config) => explanation.decide(config, request, query),
        Err(why) => explanation.failure = Some(why),
    }
    explanation
}

impl Explanation {
    /// Whether such a call has a route and a cluster to go to.
    pub fn is_routed(&self) -> bool {
        self.failure.is_none()
    }

    /// The program that makes the call decides on its attempts, in the place of what routes say of retries and hedges:
    /// in these words, by this place of the program.
    pub fn replace_attempts(&mut self, value: &str, place: &str) {
        for decision in &mut self.decisions {
            decision.replace_attempts(Setting {
                name: "hedging",
                value: value.to_owned(),
                origin: Place::Written(place.into()),
            });
        }
    }

    fn decide(&mut self, config: &XdsConfig, request: &Headers<'_>, query: Option<&str>) {
        let host = &config.virtual_host;
        let authority = config.routes.compared(request.authority);
        let ranked = host.domains.iter().filter_map(|domain| Some((domain.rank(authority)?, domain)));
        let domain = ranked.max_by_key(|(rank, _)| *rank).map(|(_, domain)| domain.to_string());
        self.version = Some(config.version.clone()).filter(|version| !version.is_empty());
        self.virtual_host = Some(VirtualHost { name: host.name.clone(), domain });
        // What no earlier route has taken, in percent.
        let mut left = 100.0;
        for (index, route) in host.routes.iter().enumerate() {
            let verdict = route::verdict(&route.matches, request, query, left > 0.0);
            let share = match &verdict {
                Verdict::Matched => left,
                Verdict::Sometimes { percent } => left * percent / 100.0,
                Verdict::Rejected { .. } | Verdict::NotReached => 0.0,
            };
            if share > 0.0 {
                left -= share;
                self.decisions.push(route::decision(config, index, route, share, request));
            }
            self.routes.push(Route {
                name: route.name.clone(),
                origin: route.origin.as_ref().map(|origin| origin.place().clone()),
                condition: route.matches.to_string(),
                condition_origin: Place::of(route.origin.as_ref(), "match"),
                verdict,
            });
        }
        let by_request = |decision: &Decision| {
            let action = host.routes.get(decision.route).map(|route| &route.action);
            matches!(action, Some(RouteAction::Forward(forward)) if matches!(forward.destination, Named::Header(_)))
        };
        let mut names: Vec<(&Arc<str>, bool)> = Vec::new();
        for decision in &self.decisions {
            let destinations = decision.destinations.iter().map(|one| (one, by_request(decision)));
            for (one, by_request) in destinations.chain(decision.mirrors.iter().map(|one| (one, false))) {
                if names.iter().all(|(name, _)| *name != &one.cluster) {
                    names.push((&one.cluster, by_request));
                }
            }
        }
        let mut clusters: Vec<Cluster> = Vec::new();
        for cluster in
            names.into_iter().flat_map(|(name, by_request)| cluster::clusters(config, name, by_request))
        {
            if clusters.iter().all(|other| other.name != cluster.name) {
                clusters.push(cluster);
            }
        }
        self.clusters = clusters;
        if self.decisions.is_empty() {
            let (routes, name) = (host.routes.len(), &host.name);
            self.failure = Some(match routes {
                0 => format!("virtual host {name} has no routes"),
                _ => format!("none of the {routes} routes of virtual host {name} matches"),
            });
            return;
        }
        let failures: Vec<&String> = self.decisions.iter().filter_map(|one| self.failure_of(one)).collect();
        if let (Some(first), true) = (failures.first(), failures.len() == self.decisions.len()) {
            self.failure = Some((*first).clone());
        }
    }

    /// Why no request of a decision gets anywhere; none when some may.
    fn failure_of<'a>(&'a self, decision: &'a Decision) -> Option<&'a String> {
        let cluster = |name: &Arc<str>| self.clusters.iter().find(|cluster| cluster.name == *name);
        let failure = |one: &Destination| cluster(&one.cluster)?.failure.as_ref();
        let failures: Vec<&String> = decision.destinations.iter().filter_map(failure).collect();
        let all = failures.len() == decision.destinations.len();
        decision.failure.as_ref().or(failures.first().copied().filter(|_| all))
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Written(place) => serializer.serialize_str(place),
            Self::Default => serializer.serialize_str("default"),
            Self::Unknown => serializer.serialize_none(),
        }
    }
}
