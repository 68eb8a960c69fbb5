//! Where a request's hash leads as far as configuration says: for explanations that no process adds to.

use super::{Explanation, Hashed, standing::Standing};
use crate::{
    balancing::{Caller, Hashing, RING_SIZE_CAP, Table, hash},
    config::{ClusterConfig, Effective, XdsConfig},
    matcher::Headers,
    name::Name,
    resource::{
        cluster::Discovery,
        route::{Destination as Named, HashPolicy, RouteAction},
        stateful_session::SessionState,
    },
};
use http::{HeaderMap, Uri};
use std::{net::SocketAddr, sync::Arc};

/// Where the hash of a request leads on its way to one of its destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// Whose endpoint it is: of a cluster of clusters, the one in use.
    pub cluster: Name,
    /// The endpoint.
    pub endpoint: SocketAddr,
    /// It has no connection until the call comes.
    pub is_idle: bool,
}

impl Explanation {
    /// Where every call that this is about has a hash, the endpoints that no hash leads to are not picked; unless sessions
    /// go before it.
    pub fn narrow(&mut self, leads: &[Lead]) {
        let decisions = &self.decisions;
        let leads_somewhere = |hashed: &Hashed| hashed.endpoint.is_some() && hashed.session.is_none();
        let mut destinations = decisions.iter().flat_map(|one| &one.destinations);
        let all_lead = destinations.all(|one| one.hashed.as_ref().is_some_and(leads_somewhere));
        if !all_lead || decisions.iter().any(|one| !one.mirrors.is_empty()) {
            return;
        }
        for cluster in &mut self.clusters {
            let here: Vec<&Lead> = leads.iter().filter(|lead| lead.cluster == cluster.name).collect();
            let Some(first) = here.first() else { continue };
            for endpoint in &mut cluster.endpoints {
                match here.iter().find(|lead| lead.endpoint == endpoint.address) {
                    None if endpoint.not_picked.is_none() => {
                        endpoint.not_picked = Some(format!("the hash leads to {}", first.endpoint));
                    }
                    Some(lead) if lead.is_idle => {
                        endpoint.not_picked =
                            Some("it is connected when the call comes, which waits for it".to_owned());
                    }
                    _ => {}
                }
            }
        }
    }

    /// Adds where the request's hash leads, and which endpoints are not picked therefore. Endpoints whose health status
    /// allows calls are taken for reachable; rings are limited as gRPC limits them ([`RING_SIZE_CAP`]).
    pub fn lead(&mut self, config: &XdsConfig, request: &Headers<'_>, query: Option<&str>) {
        let path = query.map_or_else(|| request.path.to_owned(), |query| format!("{}?{query}", request.path));
        let Ok(uri) = path.parse::<Uri>() else { return };
        let mut leads = Vec::new();
        for decision in &mut self.decisions {
            let Some(route) = config.virtual_host.routes.get(decision.route) else { continue };
            let RouteAction::Forward(forward) = &route.action else { continue };
            if forward.hash.is_empty() {
                continue;
            }
            for (index, destination) in decision.destinations.iter_mut().enumerate() {
                let weighted = match &forward.destination {
                    Named::Weighted(weighted) => weighted.get(index),
                    Named::Cluster(_) | Named::Header(_) => None,
                };
                let Some(Ok(cluster)) = config.clusters.get(&destination.cluster) else { continue };
                let effective = config.effective(route, forward, weighted);
                let leaf = in_use(cluster);
                destination.hashed = hashed(leaf, &forward.hash, &effective, request.map, &uri);
                let hashed = destination.hashed.as_ref();
                // Its session may go before the hash.
                let certain = hashed.filter(|hashed| hashed.note.is_none());
                if let Some(endpoint) = certain.and_then(|hashed| hashed.endpoint) {
                    leads.push(Lead { cluster: leaf.cluster.name.clone(), endpoint, is_idle: false });
                }
            }
        }
        let count: usize = self.decisions.iter().map(|one| one.destinations.len()).sum();
        if leads.len() == count {
            self.narrow(&leads);
        }
    }
}

/// Two that share nothing: a hash that they do not share is the process's, not the request's.
fn callers() -> [Caller; 2] {
    [("one", 1), ("another", 2)].map(|(address, channel)| Caller { channel, address: address.into() })
}

fn hashed(
    leaf: &ClusterConfig,
    policies: &[HashPolicy],
    effective: &Effective<'_>,
    head: &HeaderMap,
    uri: &Uri,
) -> Option<Hashed> {
    let hashing = Hashing::of(&leaf.cluster.lb, RING_SIZE_CAP)?;
    let mut headers = head.clone();
    for (_, level) in effective.headers() {
        level.request.apply(&mut headers);
    }
    let [one, another] = callers().map(|caller| hash(policies, &headers, uri, &caller).hash);
    let session = has_session(effective, head, uri);
    let mut note: Option<Arc<str>> = session.then(|| "its session goes before its hash".into());
    if one != another {
        let why = "it is made of what each process has for itself: its address, its channels";
        return Some(Hashed {
            hash: None,
            endpoint: None,
            ready: None,
            session: None,
            note: Some(why.into()),
        });
    }
    let endpoint = match (one, &leaf.cluster.discovery) {
        (None, _) => None,
        (Some(_), Discovery::StrictDns(_) | Discovery::LogicalDns(_)) => {
            note = Some("each process looks up the addresses for itself".into());
            None
        }
        (Some(_), _) if leaf.cluster.lb_options.subsetting.is_some() => {
            note = Some("each process uses a subset of its own".into());
            None
        }
        (Some(hash), _) => lead(leaf, hashing, hash),
    };
    let hash = one.map(|hash| format!("{hash:016x}"));
    Some(Hashed { hash, endpoint, ready: None, session: None, note })
}

/// Of a cluster of clusters the first that has endpoints: it is used for as long as one of them can be reached.
fn in_use(cluster: &ClusterConfig) -> &ClusterConfig {
    let has_endpoints =
        |leaf: &&ClusterConfig| !Standing::new(&leaf.cluster, &leaf.endpoints).parts().is_empty();
    let leaves = || cluster.leaves.iter().filter_map(|leaf| leaf.config.as_ref().ok()).map(|leaf| &**leaf);
    leaves().find(has_endpoints).or_else(|| leaves().next()).unwrap_or(cluster)
}

/// Whether the caller keeps something for this destination's session.
fn has_session(effective: &Effective<'_>, head: &HeaderMap, uri: &Uri) -> bool {
    match effective.session().and_then(|session| session.state.as_ref()) {
        Some(SessionState::Cookie(cookie)) => {
            cookie.is_for(uri.path()) && crate::balancing::cookie(head, &cookie.name).is_some()
        }
        Some(SessionState::Header(name)) => head.contains_key(name),
        None => false,
    }
}

/// The endpoint of a hash, as the picker of a process finds it.
fn lead(cluster: &ClusterConfig, hashing: Hashing, hash: u64) -> Option<SocketAddr> {
    let standing = Standing::new(&cluster.cluster, &cluster.endpoints);
    let parts = standing.parts();
    let all: u32 = parts.iter().map(|part| part.share).sum();
    let point = hash % u64::from(all.max(1));
    let mut up_to = 0;
    let part = parts.into_iter().find(|part| {
        up_to += u64::from(part.share);
        point < up_to
    })?;
    let localities = standing
        .of(part)
        .map(|(weight, endpoints)| (weight, endpoints.into_iter().map(|one| (one, one.address()))));
    let (shares, addresses) = hashing.shares(localities);
    let owner = Table::new(hashing.algorithm, shares).walk(hash).next()?;
    addresses.get(owner).copied()
}
