//! Who a configuration is compiled for: the part of a node that decides what it is sent.
//!
//! Two nodes with equal [`Client`]s get equal resources, byte for byte; the publisher shares what it
//! encoded between them. Metadata keys are Istio's (`NAMESPACE`, `LABELS`, `HTTP_PROXY_PORT`, …).

use crate::model::{ClientScope, Labels, NODE_LABEL};
use mesh_ca::spiffe_id::SpiffeId;
use mesh_xds::{resource::Locality, server::Node};

/// What decides the configuration of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client {
    /// What it understands.
    pub kind: ClientKind,
    /// Its namespace, where short names and policies are looked up, and its labels, as it says.
    pub scope: ClientScope,
    /// Its service account: the verified one, or the one it names when nothing is verified.
    pub service_account: Option<String>,
    /// `WORKLOAD_NAME`: what it registers as, when it has no group.
    pub workload: Option<String>,
    /// `AUTO_REGISTER_GROUP`: the WorkloadGroup that it registers with.
    pub group: Option<String>,
    /// What follows `.svc.` in the names of services.
    pub domain: String,
    /// Where it runs.
    pub locality: Locality,
}

/// What a client understands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientKind {
    /// Our own: everything in the vocabulary, the marks of auto-mTLS and of PERMISSIVE included.
    Mesh,
    /// Another implementation of gRPC's xDS.
    Grpc {
        /// It implements gRFC A48; the others reject a cluster that asks for it.
        least_request: bool,
    },
    /// An Envoy proxy.
    Envoy(EnvoyOptions),
}

/// What an Envoy says about itself in its node metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnvoyOptions {
    /// `HTTP_PROXY_PORT`: where it listens for the mesh's hosts, on 127.0.0.1.
    pub proxy_port: Option<u16>,
    /// Its certificate, when it has one.
    pub certificate: Option<CertificateFiles>,
}

/// Files that an Envoy reads its identity from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateFiles {
    /// `TLS_CLIENT_CERT_CHAIN`
    pub chain: String,
    /// `TLS_CLIENT_KEY`
    pub key: String,
    /// `TLS_CLIENT_ROOT_CERT`
    pub root: String,
}

impl Client {
    /// Reads a node's message. A verified identity wins over what the node says of itself; whether the
    /// two may differ is not decided here. The error says what no node can be: names of hosts are made of its
    /// domain and its namespace.
    pub fn of(node: &Node, identity: Option<&SpiffeId>, default_domain: &str) -> Result<Self, String> {
        let id = NodeId::parse(&node.id);
        let said =
            |key: &str| node.metadata.get(key).map(|value| value.as_ref()).filter(|value| !value.is_empty());
        let verified = identity.and_then(|id| Some((id.namespace()?, id.service_account()?)));
        let namespace = verified.map(|(namespace, _)| namespace).or(said("NAMESPACE")).or(id.namespace);
        let service_account = verified.map(|(_, account)| account).or(said("SERVICE_ACCOUNT"));
        let mut labels: Labels = node
            .metadata
            .iter()
            .filter_map(|(key, value)| {
                Some((key.strip_prefix("LABELS.")?.to_owned(), value.as_ref().to_owned()))
            })
            .collect();
        if let Some(node_name) = said("NODE_NAME") {
            labels.entry(NODE_LABEL.to_owned()).or_insert_with(|| node_name.to_owned());
        }
        let (namespace, domain) = (namespace.unwrap_or("default"), id.domain.unwrap_or(default_domain));
        for (what, name) in [("namespace", Some(namespace)), ("domain", id.domain)] {
            if let Some(name) = name
                && !could_be_dns_name(name)
            {
                return Err(format!(
                    "the {what} {:?} of this node is no DNS name (at most {MAX_DNS_NAME} letters, digits, `-`, `_` and \
                     `.`); node ids are like sidecar~10.0.0.1~reviews-v1.default~default.svc.cluster.local",
                    name.chars().take(80).collect::<String>()
                ));
            }
        }
        Ok(Self {
            kind: ClientKind::of(node, &said),
            scope: ClientScope { namespace: namespace.to_owned(), labels },
            service_account: service_account.map(str::to_owned),
            workload: said("WORKLOAD_NAME").map(str::to_owned),
            group: said("AUTO_REGISTER_GROUP").map(str::to_owned),
            domain: domain.to_owned(),
            locality: node.locality.clone(),
        })
    }

    /// Whether it is one of ours.
    pub fn is_mesh(&self) -> bool {
        self.kind == ClientKind::Mesh
    }

    /// Whether it is an Envoy.
    pub fn is_envoy(&self) -> bool {
        matches!(self.kind, ClientKind::Envoy(_))
    }
}

impl ClientKind {
    fn of<'n>(node: &Node, said: &impl Fn(&str) -> Option<&'n str>) -> Self {
        let agent = node.user_agent.as_ref();
        if agent.starts_with("mesh-client") {
            return Self::Mesh;
        }
        if agent == "envoy" {
            let certificate =
                match (said("TLS_CLIENT_CERT_CHAIN"), said("TLS_CLIENT_KEY"), said("TLS_CLIENT_ROOT_CERT")) {
                    (Some(chain), Some(key), Some(root)) => Some(CertificateFiles {
                        chain: chain.to_owned(),
                        key: key.to_owned(),
                        root: root.to_owned(),
                    }),
                    _ => None,
                };
            let proxy_port =
                said("HTTP_PROXY_PORT").and_then(|port| port.parse().ok()).filter(|port| *port != 0);
            return Self::Envoy(EnvoyOptions { proxy_port, certificate });
        }
        // grpc_xds_features: LEAST_REQUEST is implemented by Java and Go.
        Self::Grpc { least_request: agent.starts_with("gRPC Go") || agent.starts_with("gRPC Java") }
    }
}

/// RFC 1035.
const MAX_DNS_NAME: usize = 253;

fn could_be_dns_name(name: &str) -> bool {
    let is_of_one = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= MAX_DNS_NAME && name.bytes().all(is_of_one)
}

/// Istio's node id: `sidecar~10.0.0.1~reviews-v1.default~default.svc.cluster.local`.
#[derive(Default)]
struct NodeId<'a> {
    namespace: Option<&'a str>,
    domain: Option<&'a str>,
}

impl<'a> NodeId<'a> {
    fn parse(id: &'a str) -> Self {
        let parts: Vec<&str> = id.split('~').collect();
        let [_, _, pod, domain] = parts.as_slice() else { return Self::default() };
        Self {
            namespace: pod.rsplit_once('.').map(|(_, namespace)| namespace).filter(|name| !name.is_empty()),
            domain: domain.split_once(".svc.").map(|(_, domain)| domain).filter(|name| !name.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, agent: &str, metadata: &[(&str, &str)]) -> Node {
        Node {
            id: id.into(),
            user_agent: agent.into(),
            metadata: metadata.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            ..Node::default()
        }
    }

    #[test]
    fn a_node_is_placed_by_its_metadata_then_by_its_id_then_by_default() {
        let id = "sidecar~10.0.0.1~reviews-v1.prod~prod.svc.mesh.test";
        let said = [
            ("NAMESPACE", "other"),
            ("LABELS.app", "reviews"),
            ("WORKLOAD_NAME", "reviews-v1"),
            ("AUTO_REGISTER_GROUP", "reviews"),
        ];
        let client = Client::of(&node(id, "gRPC Go", &said), None, "d").unwrap();
        assert_eq!(
            (client.workload.as_deref(), client.group.as_deref()),
            (Some("reviews-v1"), Some("reviews"))
        );
        assert_eq!((client.scope.namespace.as_str(), client.domain.as_str()), ("other", "mesh.test"));
        assert_eq!(client.scope.labels, [("app".to_owned(), "reviews".to_owned())].into());
        assert_eq!(client.kind, ClientKind::Grpc { least_request: true });

        let client = Client::of(&node(id, "gRPC C-core", &[]), None, "d").unwrap();
        assert_eq!(
            (client.scope.namespace.as_str(), client.kind),
            ("prod", ClientKind::Grpc { least_request: false })
        );

        let client = Client::of(&node("anything", "mesh-client 0.1", &[]), None, "cluster.local").unwrap();
        assert_eq!((client.scope.namespace.as_str(), client.domain.as_str()), ("default", "cluster.local"));
        assert!(client.is_mesh());
    }

    #[test]
    fn a_verified_identity_wins_over_what_a_node_says() {
        let identity = SpiffeId::parse("spiffe://cluster.local/ns/prod/sa/reviews").unwrap();
        let said = node("", "gRPC Go", &[("NAMESPACE", "other"), ("SERVICE_ACCOUNT", "admin")]);
        let client = Client::of(&said, Some(&identity), "cluster.local").unwrap();
        assert_eq!(
            (client.scope.namespace.as_str(), client.service_account.as_deref()),
            ("prod", Some("reviews"))
        );
    }

    #[test]
    fn a_node_whose_hosts_could_have_no_name_is_refused() {
        let long = "x".repeat(254);
        let cases = [
            (format!("sidecar~1.1.1.1~pod.ns~ns.svc.{long}"), vec![], "the domain \"xxxx"),
            ("sidecar~1.1.1.1~pod.ns~ns.svc.a b".to_owned(), vec![], "the domain \"a b\""),
            (format!("sidecar~1.1.1.1~pod.{long}~ns.svc.d"), vec![], "the namespace \"xxx"),
            (String::new(), vec![("NAMESPACE", "a/b")], "the namespace \"a/b\""),
        ];
        for (id, said, text) in cases {
            let refused = Client::of(&node(&id, "gRPC Go", &said), None, "d").unwrap_err();
            assert!(refused.contains(text) && refused.len() < 400, "{refused}");
        }
    }

    #[test]
    fn an_envoy_names_its_port_and_its_certificate_files() {
        let files =
            [("TLS_CLIENT_CERT_CHAIN", "/c"), ("TLS_CLIENT_KEY", "/k"), ("TLS_CLIENT_ROOT_CERT", "/r")];
        let said: Vec<_> = files.into_iter().chain([("HTTP_PROXY_PORT", "15007")]).collect();
        let ClientKind::Envoy(options) = Client::of(&node("", "envoy", &said), None, "d").unwrap().kind
        else {
            panic!("not an envoy")
        };
        assert_eq!(options.proxy_port, Some(15007));
        assert_eq!(options.certificate.unwrap().key, "/k");
        let ClientKind::Envoy(options) = Client::of(&node("", "envoy", &files[..2]), None, "d").unwrap().kind
        else {
            panic!("not an envoy")
        };
        assert_eq!(options, EnvoyOptions::default());
    }
}
