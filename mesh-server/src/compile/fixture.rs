//! What the tests of the compiler have in common: YAML in, resources out.

use super::{
    Compiled, Compiler, Mesh,
    client::{Client, ClientKind, EnvoyOptions},
};
use crate::{
    analysis::Severity,
    model::{ClientScope, Config, Health, Labels, Model, RegisteredWorkload, Workloads, parse},
    source::SourceFile,
};
use mesh_xds::{
    name::ResourceType,
    resource::{
        Cluster, ClusterLoadAssignment, Listener, Locality, ParseContext, Resource, RouteConfiguration,
        Support,
    },
};
use std::sync::Arc;

/// Two services of the namespace `default`, one of `other`.
pub(crate) const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: grpc, port: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: other}
spec:
  selector: {app: ratings}
  ports: [{name: grpc, port: 9080}, {name: grpc-admin, port: 9090}]
";

pub(crate) const MESH: ClientKind = ClientKind::Mesh;
pub(crate) const GRPC: ClientKind = ClientKind::Grpc { least_request: false };

pub(crate) fn envoy() -> ClientKind {
    ClientKind::Envoy(EnvoyOptions { proxy_port: Some(15007), certificate: None })
}

/// A model, and who asks.
pub(crate) struct World {
    pub(crate) model: Model,
    pub(crate) mesh: Mesh,
    pub(crate) client: Client,
}

/// The services above and more YAML, as a client of namespace `default` sees them.
pub(crate) fn world(kind: ClientKind, yaml: &str) -> World {
    world_of(kind, format!("{SERVICES}---\n{yaml}"))
}

/// This YAML alone, as a client of namespace `default` sees it.
pub(crate) fn world_of(kind: ClientKind, text: String) -> World {
    let parsed = parse(&Arc::new(SourceFile::new("mesh.yaml", text)), &Arc::default());
    let errors: Vec<_> =
        parsed.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "the fixture has errors: {errors:#?}");
    let config = Arc::new(Config::new(Arc::default(), parsed.objects));
    World {
        model: Model { config, workloads: Arc::new(Workloads::default()) },
        mesh: Mesh {
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            load_reports: false,
        },
        client: Client {
            kind,
            scope: ClientScope { namespace: "default".into(), labels: Labels::new() },
            service_account: None,
            workload: None,
            group: None,
            domain: "cluster.local".into(),
            locality: Locality::default(),
        },
    }
}

/// A workload of `reviews` at an address, speaking mTLS.
pub(crate) fn workload(address: &str) -> RegisteredWorkload {
    RegisteredWorkload {
        name: format!("reviews-{address}"),
        namespace: "default".into(),
        service_account: "bookinfo-reviews".into(),
        address: address.parse().unwrap(),
        ports: [(String::new(), 9080)].into(),
        labels: labels(&[("app", "reviews"), ("version", "v1"), ("security.istio.io/tlsMode", "istio")]),
        locality: crate::model::Locality::default(),
        weight: 1,
        health: Health::Healthy,
        group: None,
    }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl World {
    pub(crate) fn with(mut self, workload: RegisteredWorkload) -> Self {
        self.model.workloads = Arc::new(self.model.workloads.with(workload));
        self
    }

    pub(crate) fn compiler(&self) -> Compiler<'_> {
        Compiler::new(&self.model, &self.mesh, &self.client)
    }

    pub(crate) fn listener(&self, name: &str) -> Option<Listener> {
        match self.compiler().resource(ResourceType::Listener, name)? {
            Compiled::Listener(listener) => Some(listener),
            other => panic!("not a listener: {other:?}"),
        }
    }

    pub(crate) fn routes(&self, name: &str) -> Option<RouteConfiguration> {
        match self.compiler().resource(ResourceType::RouteConfiguration, name)? {
            Compiled::Routes(routes) => Some(routes),
            other => panic!("not routes: {other:?}"),
        }
    }

    pub(crate) fn cluster(&self, name: &str) -> Option<Cluster> {
        match self.compiler().resource(ResourceType::Cluster, name)? {
            Compiled::Cluster(cluster) => Some(*cluster),
            // What an Envoy is sent is more than the vocabulary has; the rest is read back.
            Compiled::Envoy(bytes) => {
                let mut context = ParseContext { support: Support::all(), ..ParseContext::default() };
                context.certificate_providers.insert("default".into());
                Some(Cluster::parse(&bytes, &context).unwrap())
            }
            other => panic!("not a cluster: {other:?}"),
        }
    }

    pub(crate) fn endpoints(&self, name: &str) -> Option<ClusterLoadAssignment> {
        match self.compiler().resource(ResourceType::ClusterLoadAssignment, name)? {
            Compiled::Endpoints(endpoints) => Some(endpoints),
            other => panic!("not endpoints: {other:?}"),
        }
    }
}
