//! The API groups, versions and kinds that a directory of YAML may hold.
//!
//! Versions as in Istio: all released versions of a kind mean the same.

use super::Kind;

/// An API group and its kinds.
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) versions: &'static [&'static str],
    pub(super) served: &'static [Kind],
    /// Kinds that Istio would act on.
    pub(super) later: &'static [&'static str],
    /// Kinds that are not a mesh's business.
    pub(super) harmless: &'static [&'static str],
}

impl Group {
    /// Its name in a message.
    pub(super) fn describe(&self) -> &'static str {
        if self.name.is_empty() { "Kubernetes' core group" } else { self.name }
    }
}

/// The groups that Istio and its users write.
pub(super) const GROUPS: &[Group] = &[
    Group {
        name: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        served: &[
            Kind::VirtualService,
            Kind::DestinationRule,
            Kind::ServiceEntry,
            Kind::WorkloadEntry,
            Kind::WorkloadGroup,
        ],
        later: &["Gateway", "Sidecar", "EnvoyFilter", "ProxyConfig"],
        harmless: &[],
    },
    Group {
        name: "security.istio.io",
        versions: &["v1", "v1beta1"],
        served: &[Kind::PeerAuthentication, Kind::AuthorizationPolicy],
        later: &["RequestAuthentication"],
        harmless: &[],
    },
    Group {
        name: "telemetry.istio.io",
        versions: &["v1", "v1alpha1"],
        served: &[],
        later: &["Telemetry"],
        harmless: &[],
    },
    Group {
        name: "extensions.istio.io",
        versions: &["v1alpha1"],
        served: &[],
        later: &["WasmPlugin"],
        harmless: &[],
    },
    Group {
        name: "",
        versions: &["v1"],
        served: &[Kind::Service],
        later: &["Endpoints"],
        harmless: &[
            "ConfigMap",
            "LimitRange",
            "Namespace",
            "Node",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "ReplicationController",
            "ResourceQuota",
            "Secret",
            "ServiceAccount",
        ],
    },
    Group {
        name: "discovery.k8s.io",
        versions: &["v1"],
        served: &[Kind::EndpointSlice],
        later: &[],
        harmless: &[],
    },
    Group {
        name: "apps",
        versions: &["v1"],
        served: &[],
        later: &[],
        harmless: &["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"],
    },
    Group { name: "batch", versions: &["v1"], served: &[], later: &[], harmless: &["Job", "CronJob"] },
    Group {
        name: "networking.k8s.io",
        versions: &["v1"],
        served: &[],
        later: &["Ingress", "IngressClass"],
        harmless: &["NetworkPolicy"],
    },
    Group {
        name: "gateway.networking.k8s.io",
        versions: &["v1", "v1beta1", "v1alpha2", "v1alpha3"],
        served: &[],
        later: &[
            "BackendTLSPolicy",
            "GRPCRoute",
            "Gateway",
            "GatewayClass",
            "HTTPRoute",
            "ReferenceGrant",
            "TCPRoute",
            "TLSRoute",
            "UDPRoute",
        ],
        harmless: &[],
    },
];
