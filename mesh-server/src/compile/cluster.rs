//! Clusters: `outbound|9080|v1|reviews.default.svc.cluster.local`.
//!
//! One for each (service, subset, port) that a route may name; the policy is the DestinationRule's that
//! applies to this client (Istio's `buildDefaultCluster`, `applyTrafficPolicy`). Success rate and failure
//! percentage are off, as in Istio.

mod policy;
mod tls;

pub(super) use tls::PROVIDER;

use super::{
    Compiler,
    client::ClientKind,
    names::{FAILING, Outbound},
};
use crate::model::{
    DestinationRule, EffectivePolicy, Endpoint, Labels, Resolution, Service, ServicePort, Subset,
};
use mesh_xds::matcher::Fraction;
use mesh_xds::resource::{
    Origin,
    cluster::{
        Cluster, Discovery, DnsLookupFamily, DnsResolution, LbOptions, LogicalDns, ReportedMetrics, StrictDns,
    },
    endpoint::{ClusterLoadAssignment, DropOverload},
    route::HashPolicy,
};
use std::{sync::Arc, time::Duration};

/// Istio's settings, except that IPv6 is used where there is no IPv4.
const DNS: DnsResolution = DnsResolution {
    refresh_rate: Duration::from_secs(60),
    failure_refresh: None,
    respect_ttl: true,
    min_refresh_rate: None,
    jitter: Duration::ZERO,
    family: DnsLookupFamily::V4Preferred,
};

/// What a cluster name means to a client.
pub(super) struct Destination<'m, 'n> {
    pub(super) name: Outbound<'n>,
    pub(super) service: &'m Service,
    pub(super) port: &'m ServicePort,
    pub(super) rule: Option<&'m DestinationRule>,
    pub(super) part: Part<'m>,
    pub(super) policy: EffectivePolicy,
}

/// Which of a service's endpoints.
#[derive(Clone, Copy)]
pub(super) enum Part<'m> {
    Whole,
    Subset(&'m Subset),
    /// A subset that routes name and no rule defines, which analysis reports: no endpoints. Our own client is told that
    /// there is no such cluster; others would wait 15 s for it and hold back the rest of the change.
    Missing,
}

impl<'m> Compiler<'m> {
    /// Resolves a cluster name; `None` when this client cannot see such a service, port or subset.
    pub(super) fn destination<'n>(&self, name: &'n str) -> Option<Destination<'m, 'n>> {
        let name = Outbound::parse(name)?;
        let service = self.service(name.host)?;
        let port = service.port(name.port)?;
        let rule = self.model.config.destination_rule_for(&self.client.scope, service).map(Arc::as_ref);
        let part = match (name.subset, rule.and_then(|rule| rule.subset(name.subset))) {
            ("", _) => Part::Whole,
            (_, Some(subset)) => Part::Subset(subset),
            (_, None) if self.client.is_mesh() && rule.is_none_or(|rule| rule.refused.is_none()) => {
                return None;
            }
            // Names that clients make up are none.
            (subset, None) if !self.model.config.routes_name_subset(subset) => return None,
            (_, None) => Part::Missing,
        };
        let subset_name = (!name.subset.is_empty()).then_some(name.subset);
        let policy = self.model.config.effective_traffic_policy(rule, subset_name, name.port);
        Some(Destination { name, service, port, rule, part, policy })
    }

    /// The endpoints of a destination, before any client's view of them.
    pub(super) fn endpoints_of(&self, destination: &Destination<'_, '_>) -> Vec<Endpoint> {
        let all = Labels::new();
        let labels = match destination.part {
            Part::Whole => &all,
            Part::Subset(subset) => &subset.labels,
            Part::Missing => return Vec::new(),
        };
        self.model.endpoints(destination.service, destination.port, labels)
    }

    /// A cluster by its name.
    pub(super) fn cluster(&self, name: &str) -> Option<Cluster> {
        let destination = self.destination(name)?;
        if self.failure(&destination).is_some() {
            return Some(Cluster {
                discovery: Discovery::Eds(format!("{FAILING}{name}").into()),
                origin: Some(self.origin_of(&destination)),
                ..Cluster::eds(name)
            });
        }
        let blocks = &destination.policy.blocks;
        let kind = &self.client.kind;
        let outlier = blocks.outlier_detection.as_ref();
        let balancer = blocks.load_balancer.as_ref();
        let lb = policy::load_balancing(balancer, kind);
        let slow_start = policy::slow_start(balancer, &lb, kind);
        let localities = policy::localities(balancer, &lb, kind);
        Some(Cluster {
            discovery: self.discovery(name, &destination),
            lb,
            lb_options: LbOptions {
                localities,
                slow_start,
                override_host_status: policy::override_host_status(destination.service, kind),
                ..LbOptions::default()
            },
            circuit_breakers: policy::circuit_breakers(
                blocks.connection_pool.as_ref(),
                destination.policy.retry_budget,
                kind,
            ),
            outlier_detection: outlier.map(policy::outlier_detection),
            tls: self.upstream_tls(&destination).map(Arc::new),
            proxy_protocol: blocks.proxy_protocol.as_ref().map(policy::proxy_protocol),
            connection: policy::connection(blocks.connection_pool.as_ref()),
            panic_threshold: policy::panic_threshold(outlier, kind),
            // Other clients would report as well; nobody has asked theirs to open a stream for it.
            load_reporting: (self.mesh.load_reports && self.client.is_mesh()).then(ReportedMetrics::default),
            origin: Some(self.origin_of(&destination)),
            ..Cluster::eds(name)
        })
    }

    /// Why all calls to a destination fail: what they would need cannot be had, and without it they must not go out.
    fn failure(&self, destination: &Destination<'m, '_>) -> Option<Arc<str>> {
        if let Some(refused) = destination.rule.and_then(|rule| rule.refused.as_ref()) {
            return Some(refused.reason.clone());
        }
        let rule = |at| match destination.rule {
            Some(rule) => format!("{} ({})", rule.origin.id, rule.origin.at(at)),
            None => "the DestinationRule".to_owned(),
        };
        let blocks = &destination.policy.blocks;
        if let Some(tls) = &blocks.tls
            && let Some(why) = tls::cannot_be_told(tls, &self.client.kind)
        {
            let rule = rule(tls.at);
            return Some(
                format!("{rule} asks for TLS {why}: calls fail instead of going out in plaintext").into(),
            );
        }
        if let Some(header) = &blocks.proxy_protocol
            && matches!(self.client.kind, ClientKind::Grpc { .. })
        {
            let rule = rule(header.at);
            let why =
                "which only clients of the mesh and Envoys have: calls fail, for servers wait for its header";
            return Some(format!("{rule} asks for the PROXY protocol, {why}").into());
        }
        None
    }

    /// The endpoints of a cluster whose calls fail: none, and a drop of everything whose name is the reason, which
    /// the errors of clients show.
    pub(super) fn failing_assignment(&self, name: &str, cluster: &str) -> Option<ClusterLoadAssignment> {
        let category = self.failure(&self.destination(cluster)?)?;
        let drops = vec![DropOverload { category, fraction: Fraction::per_million(1_000_000) }];
        Some(ClusterLoadAssignment { drops, ..ClusterLoadAssignment::new(name) })
    }

    /// What the calls to a cluster are hashed by, if its policy hashes.
    pub(super) fn hash_policy(&self, cluster: &str) -> Option<HashPolicy> {
        let destination = self.destination(cluster)?;
        policy::hash(destination.policy.blocks.load_balancer.as_ref(), &self.client.kind)
    }

    /// Endpoints come from this control plane, unless they are names: the client asks DNS about those, as Istio's
    /// would. One name that stands for one endpoint is all that gRPC has (A37); a client of it that would need
    /// more gets the endpoints that are addresses.
    fn discovery(&self, name: &str, destination: &Destination<'_, '_>) -> Discovery {
        let eds = Discovery::Eds(name.into());
        let grpc = matches!(self.client.kind, ClientKind::Grpc { .. });
        let priorities = match destination.service.resolution {
            Resolution::Dns | Resolution::DnsRoundRobin => self.named_endpoints(destination),
            Resolution::None | Resolution::Static => return eds,
        };
        let localities = priorities.iter().flat_map(|priority| &priority.localities);
        let mut endpoints =
            localities.flat_map(|one| one.endpoints.iter().map(|endpoint| (&one.locality, endpoint)));
        let (first, more) = (endpoints.next(), endpoints.next().is_some());
        match first {
            Some((locality, endpoint))
                if destination.service.resolution == Resolution::DnsRoundRobin || (grpc && !more) =>
            {
                Discovery::LogicalDns(Arc::new(LogicalDns {
                    locality: locality.clone(),
                    endpoint: (**endpoint).clone(),
                    drops: Vec::new(),
                    dns: DNS,
                }))
            }
            _ if grpc => eds,
            _ => Discovery::StrictDns(Arc::new(StrictDns { priorities, drops: Vec::new(), dns: DNS })),
        }
    }

    /// What decided the cluster: the subset, the rule, or the service itself.
    fn origin_of(&self, destination: &Destination<'_, '_>) -> Origin {
        let (place, object) = match (destination.part, destination.rule) {
            (Part::Subset(subset), _) => (subset.origin.at(subset.name.at), &subset.origin.id),
            (_, Some(rule)) => (rule.origin.place(), &rule.origin.id),
            (_, None) => (destination.service.origin.place(), &destination.service.origin.id),
        };
        let settings = destination.policy.blocks.written.iter();
        self.origin(&place, object, settings.map(|(setting, place)| (setting.to_owned(), place.clone())))
    }
}

#[cfg(test)]
mod tests;
