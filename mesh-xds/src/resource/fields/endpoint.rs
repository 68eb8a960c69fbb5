//! ClusterLoadAssignment and what it is made of (gRFC A27, A56, A61, A76, A86).

use super::{Message, carried, ignored, rejected, supported};
use envoy_types::pb::envoy::config::{
    core::v3::{PerHostConfig, SocketAddress},
    endpoint::v3::{
        self as proto,
        cluster_load_assignment::{Policy, policy::DropOverload},
        endpoint::{AdditionalAddress, HealthCheckConfig},
    },
};

pub(super) const MESSAGES: &[&Message] = &[
    &ASSIGNMENT,
    &POLICY,
    &DROP,
    &LOCALITY,
    &LB_ENDPOINT,
    &ENDPOINT,
    &ADDITIONAL_ADDRESS,
    &ENDPOINT_HEALTH_CHECK,
    &ENDPOINT_TLVS,
    &SOCKET_ADDRESS,
];

pub(in crate::resource) static ASSIGNMENT: Message = Message::of::<proto::ClusterLoadAssignment>(
    "",
    &[
        supported("cluster_name endpoints policy", "A27", ""),
        ignored("named_endpoints", "A27", "only referenced by `endpoint_name`, which is refused"),
    ],
);

pub(in crate::resource) static POLICY: Message = Message::of::<Policy>(
    "of an assignment",
    &[
        supported("drop_overloads", "A27", ""),
        carried("overprovisioning_factor", "A56", "traffic moves between priorities as a whole"),
        rejected("endpoint_stale_after", "Envoy", "endpoints are used until they are replaced"),
        rejected("weighted_priority_health", "Envoy", "a priority is used or not, as a whole (A56)"),
    ],
);

pub(in crate::resource) static DROP: Message = Message::of::<DropOverload>(
    "",
    &[supported("category", "A27", ""), supported("drop_percentage", "A27", "required")],
);

pub(in crate::resource) static LOCALITY: Message = Message::of::<proto::LocalityLbEndpoints>(
    "",
    &[
        supported("locality", "A27", "required; twice in a priority is refused"),
        supported("lb_endpoints", "A27", ""),
        supported(
            "load_balancing_weight",
            "A27",
            "unset or 0: the locality is left out, and its endpoints unread",
        ),
        supported("priority", "A56", "without gaps from 0"),
        supported("metadata", "A86", "the proxy of endpoints that name none"),
        rejected(
            "leds_cluster_locality_config load_balancer_endpoints",
            "A95",
            "another way to send endpoints",
        ),
        ignored("proximity", "Envoy", "not used by anybody"),
    ],
);

pub(in crate::resource) static LB_ENDPOINT: Message = Message::of::<proto::LbEndpoint>(
    "",
    &[
        supported("endpoint", "A27", ""),
        rejected("endpoint_name", "Envoy", "a reference instead of the endpoint"),
        supported("health_status", "A27", "UNHEALTHY, TIMEOUT and DRAINING get no new calls"),
        supported("load_balancing_weight", "A27", "default 1; 0 is refused"),
        supported(
            "metadata",
            "A76",
            "the key of consistent hashing (A76), the proxy (A86), whether it speaks mesh mTLS (Istio), its own TLVs of \
             the PROXY protocol (Envoy)",
        ),
    ],
);

pub(in crate::resource) static ENDPOINT: Message = Message::of::<proto::Endpoint>(
    "",
    &[
        supported("address", "A27", "a `socket_address` with a literal address; in DNS clusters a name"),
        supported("additional_addresses", "A61", "no address twice in the assignment"),
        supported("hostname", "A81", "for the authority and the server name"),
        supported("health_check_config", "Envoy", "of a data path that has health-checks"),
        ignored("observability_name", "Envoy", "a name in a proxy's statistics"),
    ],
);

pub(in crate::resource) static ADDITIONAL_ADDRESS: Message =
    Message::of::<AdditionalAddress>("", &[supported("address", "A61", "required")]);

pub(in crate::resource) static ENDPOINT_HEALTH_CHECK: Message = Message::of::<HealthCheckConfig>(
    "",
    &[supported("port_value hostname address disable_active_health_check", "Envoy", "")],
);

pub(in crate::resource) static ENDPOINT_TLVS: Message = Message::of::<PerHostConfig>(
    "in the metadata of an endpoint",
    &[supported(
        "added_tlvs",
        "Envoy",
        "of the PROXY protocol, version 2, before what the cluster adds of the same type; of a cluster without it they \
         have no effect",
    )],
);

pub(in crate::resource) static SOCKET_ADDRESS: Message = Message::of::<SocketAddress>(
    "of an endpoint",
    &[
        supported("address", "A27", "a literal IP address"),
        supported("port_value", "A27", "0 to 65535"),
        rejected("named_port", "A27", "ports are numbers"),
        ignored("protocol ipv4_compat network_namespace_filepath", "A27", "gRPC connects by TCP"),
        ignored("resolver_name", "A37", "of a literal address; that of a name is refused"),
    ],
);
