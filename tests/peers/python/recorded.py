"""Writes resources that our own encoder did not make, for mesh-xds/src/resource/tests/recorded.rs.

They are built with Google's protobuf from the generated messages of PyPI `xds-protos`, in the shapes that other
control planes send, and then in shapes that no encoder of ours would choose: unknown fields, fields twice and out
of order, defaults on the wire, unpacked and packed numbers.

    python recorded.py DIRECTORY
"""

import pathlib
import sys

from google.protobuf import any_pb2
from google.protobuf.json_format import ParseDict

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.rbac.v3 import rbac_pb2  # noqa: F401 (registers the type)
from envoy.config.route.v3 import route_pb2
from envoy.extensions.clusters.aggregate.v3 import cluster_pb2 as aggregate_pb2  # noqa: F401
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2  # noqa: F401
from envoy.extensions.filters.http.fault.v3 import fault_pb2  # noqa: F401
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401
    http_connection_manager_pb2,
)
from envoy.extensions.grpc_service.channel_credentials.insecure.v3 import insecure_credentials_pb2  # noqa: F401
from envoy.extensions.grpc_service.channel_credentials.xds.v3 import xds_credentials_pb2  # noqa: F401
from envoy.extensions.http.stateful_session.header.v3 import header_pb2  # noqa: F401
from envoy.extensions.load_balancing_policies.ring_hash.v3 import ring_hash_pb2  # noqa: F401
from envoy.extensions.load_balancing_policies.round_robin.v3 import round_robin_pb2  # noqa: F401
from envoy.extensions.load_balancing_policies.wrr_locality.v3 import wrr_locality_pb2  # noqa: F401
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2  # noqa: F401
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: F401
from xds.type.v3 import typed_struct_pb2  # noqa: F401

OUT = pathlib.Path(sys.argv[1])
T = "type.googleapis.com/"
CREDENTIALS = "envoy.extensions.grpc_service.channel_credentials."
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": T + "envoy.extensions.filters.http.router.v3.Router"},
}
ADS = {"ads": {}, "resource_api_version": "V3"}


def write(name, body):
    raw = body if isinstance(body, bytes) else body.SerializeToString()
    (OUT / f"{name}.bin").write_bytes(raw)


def listener(json):
    return ParseDict(json, listener_pb2.Listener())


def routes(json):
    return ParseDict(json, route_pb2.RouteConfiguration())


def cluster(json):
    return ParseDict(json, cluster_pb2.Cluster())


def endpoints(json):
    return ParseDict(json, endpoint_pb2.ClusterLoadAssignment())


def hcm(filters, **specifier):
    return {
        "@type": T + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        **specifier,
        "http_filters": filters,
    }


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(tag, wire, payload):
    """One field: a varint (0) or bytes with their length (2), or as it is."""
    key = varint(tag << 3 | wire)
    return key + (varint(len(payload)) + payload if wire == 2 else payload)


def split(raw):
    """The top-level fields of a message, each with its key."""
    fields, at = [], 0

    def number(at):
        value = shift = 0
        while True:
            byte = raw[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at

    while at < len(raw):
        start = at
        key, at = number(at)
        if key & 7 == 0:
            _, at = number(at)
        elif key & 7 == 1:
            at += 8
        elif key & 7 == 5:
            at += 4
        else:
            length, at = number(at)
            at += length
        fields.append((key >> 3, raw[start:at]))
    return fields


UNKNOWN = field(19999, 2, b"from a later version") + field(19998, 0, varint(7)) + varint(19997 << 3 | 5) + b"abcd"

# --- Istio's generator for proxyless gRPC -----------------------------------------------------------------------

REVIEWS = "reviews.default.svc.cluster.local"
FAULT = {
    "name": "envoy.filters.http.fault",
    "typed_config": {"@type": T + "envoy.extensions.filters.http.fault.v3.HTTPFault"},
}

write(
    "istio-listener-outbound",
    listener(
        {
            "name": "reviews:9080",
            "address": {"socket_address": {"address": "10.96.4.17", "port_value": 9080}},
            "additional_addresses": [
                {"address": {"socket_address": {"address": "fd00:10:96::4:11", "port_value": 9080}}}
            ],
            "api_listener": {
                "api_listener": hcm(
                    [FAULT, ROUTER], rds={"config_source": ADS, "route_config_name": f"outbound|9080||{REVIEWS}"}
                )
            },
        }
    ),
)


def inbound(filters, **chain):
    return {
        "name": "xds.istio.io/grpc/lds/inbound/0.0.0.0:9080",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 9080}},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "inbound-hcm",
                        "typed_config": hcm(
                            filters,
                            route_config={
                                "name": "inbound",
                                "virtual_hosts": [
                                    {
                                        "domains": ["*"],
                                        "routes": [{"match": {"prefix": "/"}, "non_forwarding_action": {}}],
                                    }
                                ],
                            },
                        ),
                    }
                ],
                **chain,
            }
        ],
    }


write("istio-listener-inbound-plaintext", listener(inbound([ROUTER], name="inbound-plaintext")))


def rbac(name, action, policies):
    return {
        "name": name,
        "typed_config": {
            "@type": T + "envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": action, "policies": policies},
        },
    }


PROVIDER = {"instance_name": "default", "certificate_name": "default"}
ROOTS = {"instance_name": "default", "certificate_name": "ROOTCA"}
COMMON_TLS = {
    "tls_certificate_provider_instance": PROVIDER,
    "tls_certificate_certificate_provider_instance": PROVIDER,
    "combined_validation_context": {
        "default_validation_context": {"ca_certificate_provider_instance": ROOTS},
        "validation_context_certificate_provider_instance": ROOTS,
    },
}
DENY = {
    "ns[default]-policy[no-admin]-rule[0]": {
        "permissions": [{"and_rules": {"rules": [{"or_rules": {"rules": [{"url_path": {"path": {"prefix": "/admin"}}}]}}]}}],
        "principals": [{"and_ids": {"ids": [{"any": True}]}}],
    }
}
ALLOW = {
    "ns[default]-policy[productpage]-rule[0]": {
        "permissions": [
            {
                "and_rules": {
                    "rules": [
                        {"or_rules": {"rules": [{"header": {"name": ":method", "string_match": {"exact": "POST"}}}]}},
                        {"or_rules": {"rules": [{"destination_port": 9080}]}},
                    ]
                }
            }
        ],
        "principals": [
            {
                "and_ids": {
                    "ids": [
                        {
                            "or_ids": {
                                "ids": [
                                    {
                                        "authenticated": {
                                            "principal_name": {
                                                "exact": "spiffe://cluster.local/ns/default/sa/productpage"
                                            }
                                        }
                                    }
                                ]
                            }
                        },
                        {"or_ids": {"ids": [{"direct_remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}]}},
                    ]
                }
            }
        ],
    }
}
write(
    "istio-listener-inbound-mtls",
    listener(
        inbound(
            [
                rbac("envoy.filters.http.rbac.DENY", "DENY", DENY),
                rbac("envoy.filters.http.rbac", "ALLOW", ALLOW),
                ROUTER,
            ],
            name="inbound-mtls",
            transport_socket={
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": T + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": COMMON_TLS,
                    "require_client_certificate": True,
                },
            },
        )
    ),
)

RETRY = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": T + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": "5",
}
ISTIO_ROUTES = {
    "name": f"outbound|9080||{REVIEWS}",
    "validate_clusters": False,
    "virtual_hosts": [
        {
            "name": f"{REVIEWS}:9080",
            "domains": [
                REVIEWS,
                f"{REVIEWS}:9080",
                "reviews",
                "reviews:9080",
                "reviews.default.svc",
                "reviews.default.svc:9080",
                "reviews.default",
                "reviews.default:9080",
                "10.96.4.17",
                "10.96.4.17:9080",
            ],
            "include_request_attempt_count": True,
            "routes": [
                {
                    "name": "jason",
                    "match": {
                        "prefix": "/",
                        "case_sensitive": True,
                        "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}],
                    },
                    "decorator": {"operation": f"{REVIEWS}:9080/*"},
                    "metadata": {
                        "filter_metadata": {
                            "istio": {
                                "config": "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews"
                            }
                        }
                    },
                    "route": {
                        "cluster": f"outbound|9080|v2|{REVIEWS}",
                        "max_stream_duration": {"max_stream_duration": "3s"},
                        "retry_policy": RETRY,
                    },
                    "typed_per_filter_config": {
                        "envoy.filters.http.fault": {
                            "@type": T + "envoy.extensions.filters.http.fault.v3.HTTPFault",
                            "delay": {
                                "fixed_delay": "2s",
                                "percentage": {"numerator": 100000, "denominator": "MILLION"},
                            },
                        }
                    },
                },
                {
                    "match": {"safe_regex": {"regex": "/bookinfo[.]Reviews/.*", "google_re2": {}}},
                    "route": {
                        "weighted_clusters": {
                            "clusters": [
                                {"name": f"outbound|9080|v1|{REVIEWS}", "weight": 80},
                                {"name": f"outbound|9080|v3|{REVIEWS}", "weight": 20},
                            ],
                            "total_weight": 100,
                        },
                        "max_stream_duration": {"max_stream_duration": "0s"},
                        "retry_policy": RETRY,
                        "hash_policy": [{"header": {"header_name": "end-user"}}],
                    },
                },
                {
                    "name": "default",
                    "match": {"prefix": "/"},
                    "route": {"cluster": f"outbound|9080||{REVIEWS}", "max_grpc_timeout": "0s"},
                },
            ],
        }
    ],
}
write("istio-routes", routes(ISTIO_ROUTES))

write(
    "istio-cluster",
    cluster(
        {
            "name": f"outbound|9080|v1|{REVIEWS}",
            "type": "EDS",
            "eds_cluster_config": {"eds_config": ADS, "service_name": f"outbound|9080|v1|{REVIEWS}"},
            "circuit_breakers": {"thresholds": [{"max_requests": 100}]},
            "lb_policy": "RING_HASH",
            "ring_hash_lb_config": {"minimum_ring_size": "1024"},
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": T + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "common_tls_context": {
                        **COMMON_TLS,
                        "combined_validation_context": {
                            "default_validation_context": {
                                "ca_certificate_provider_instance": ROOTS,
                                "match_subject_alt_names": [
                                    {"exact": "spiffe://cluster.local/ns/default/sa/reviews"}
                                ],
                            },
                            "validation_context_certificate_provider_instance": ROOTS,
                        },
                    },
                    "sni": f"outbound_.9080_.v1_.{REVIEWS}",
                },
            },
        }
    ),
)


def endpoint(address, port, **more):
    return {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}, **more}


write(
    "istio-endpoints",
    endpoints(
        {
            "cluster_name": f"outbound|9080|v1|{REVIEWS}",
            "endpoints": [
                {
                    "locality": {"region": "eu", "zone": "eu-1", "sub_zone": "rack-7"},
                    "lb_endpoints": [
                        endpoint(
                            "10.1.2.3",
                            9080,
                            health_status="HEALTHY",
                            load_balancing_weight=1,
                            metadata={
                                "filter_metadata": {
                                    "envoy.transport_socket_match": {"tlsMode": "istio"},
                                    "istio": {"workload": "reviews-v1;default;reviews;v1;Kubernetes"},
                                }
                            },
                        ),
                        endpoint("10.1.2.4", 9080, health_status="DRAINING", load_balancing_weight=1),
                    ],
                    "load_balancing_weight": 2,
                },
                {
                    "locality": {"region": "us"},
                    "lb_endpoints": [endpoint("fd00::7", 9080, load_balancing_weight=3)],
                    "load_balancing_weight": 1,
                    "priority": 1,
                },
            ],
        }
    ),
)

# --- A control plane for plain gRPC clients, with the fields of the gRFCs -------------------------------------------

write(
    "grpc-listener-inline-routes",
    listener(
        {
            "name": "xds-test-server:80",
            "api_listener": {
                "api_listener": hcm(
                    [
                        {
                            "name": "something.new",
                            "is_optional": True,
                            "typed_config": {
                                "@type": T + "xds.type.v3.TypedStruct",
                                "type_url": T + "com.example.Later",
                                "value": {"knob": 7, "list": [1, "two", None, {"three": True}]},
                            },
                        },
                        ROUTER,
                    ],
                    common_http_protocol_options={"max_stream_duration": "30s"},
                    route_config={
                        "name": "inline",
                        "virtual_hosts": [
                            {
                                "domains": ["*"],
                                "routes": [
                                    {
                                        "match": {"path": "/grpc.testing.TestService/UnaryCall"},
                                        "route": {
                                            "cluster": "unary",
                                            "max_stream_duration": {
                                                "max_stream_duration": "10s",
                                                "grpc_timeout_header_max": "5s",
                                            },
                                        },
                                    },
                                    {
                                        "match": {
                                            "prefix": "",
                                            "runtime_fraction": {
                                                "default_value": {"numerator": 25, "denominator": "HUNDRED"},
                                                "runtime_key": "not.read",
                                            },
                                            "headers": [
                                                {"name": "n", "range_match": {"start": "-5", "end": "10"}},
                                                {"name": "p", "present_match": True, "invert_match": True},
                                                {"name": "s", "safe_regex_match": {"regex": "a+"}},
                                                {"name": "x", "prefix_match": "pre"},
                                            ],
                                        },
                                        "route": {"cluster": "rest"},
                                    },
                                ],
                            }
                        ],
                    },
                )
            },
        }
    ),
)

write(
    "grpc-listener-authz-and-session",
    listener(
        {
            "name": "guarded",
            "api_listener": {
                "api_listener": hcm(
                    [
                        {
                            "name": "authz",
                            "typed_config": {
                                "@type": T + "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
                                "transport_api_version": "V3",
                                "grpc_service": {
                                    "google_grpc": {
                                        "target_uri": "dns:///authz.example.com:9000",
                                        "stat_prefix": "authz",
                                        "channel_credentials_plugin": [
                                            {
                                                "@type": T + CREDENTIALS + "xds.v3.XdsCredentials",
                                                "fallback_credentials": {
                                                    "@type": T + CREDENTIALS + "insecure.v3.InsecureCredentials"
                                                },
                                            }
                                        ],
                                    },
                                    "timeout": "0.250s",
                                    "initial_metadata": [{"key": "x-caller", "value": "reviews"}],
                                },
                                "failure_mode_allow": True,
                                "status_on_error": {"code": "BadGateway"},
                                "allowed_headers": {"patterns": [{"exact": "x-user", "ignore_case": True}]},
                                "decoder_header_mutation_rules": {
                                    "disallow_expression": {"regex": "x-internal-.*"}
                                },
                            },
                        },
                        {
                            "name": "session",
                            "typed_config": {
                                "@type": T + "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
                                "session_state": {
                                    "name": "header",
                                    "typed_config": {
                                        "@type": T
                                        + "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState",
                                        "name": "x-session",
                                    },
                                },
                                "strict": True,
                            },
                        },
                        ROUTER,
                    ],
                    rds={"config_source": ADS, "route_config_name": "r"},
                )
            },
        }
    ),
)

write(
    "grpc-cluster-policies",
    cluster(
        {
            "name": "custom",
            "type": "EDS",
            "eds_cluster_config": {"eds_config": {"self": {}}, "service_name": "backend"},
            "load_balancing_policy": {
                "policies": [
                    {
                        "typed_extension_config": {
                            "name": "unknown",
                            "typed_config": {
                                "@type": T + "xds.type.v3.TypedStruct",
                                "type_url": T + "com.example.CustomBalancer",
                                "value": {"choices": 3},
                            },
                        }
                    },
                    {
                        "typed_extension_config": {
                            "name": "wrr_locality",
                            "typed_config": {
                                "@type": T
                                + "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality",
                                "endpoint_picking_policy": {
                                    "policies": [
                                        {
                                            "typed_extension_config": {
                                                "name": "round_robin",
                                                "typed_config": {
                                                    "@type": T
                                                    + "envoy.extensions.load_balancing_policies"
                                                    + ".round_robin.v3.RoundRobin"
                                                },
                                            }
                                        }
                                    ]
                                },
                            },
                        }
                    },
                ]
            },
            "lb_policy": "LOAD_BALANCING_POLICY_CONFIG",
            "circuit_breakers": {
                "thresholds": [
                    {"priority": "HIGH", "max_requests": 9},
                    {"priority": "DEFAULT", "max_requests": 50},
                ]
            },
            "outlier_detection": {
                "interval": "10s",
                "base_ejection_time": "30s",
                "max_ejection_time": "300s",
                "max_ejection_percent": 10,
                "success_rate_stdev_factor": 1900,
                "enforcing_success_rate": 100,
                "success_rate_minimum_hosts": 5,
                "success_rate_request_volume": 100,
                "failure_percentage_threshold": 85,
                "enforcing_failure_percentage": 0,
            },
        }
    ),
)

AGGREGATE = {
    "name": "aggregate",
    "cluster_type": {
        "name": "envoy.clusters.aggregate",
        "typed_config": {
            "@type": T + "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
            "clusters": ["primary", "secondary"],
        },
    },
}
write("grpc-cluster-aggregate", cluster(AGGREGATE))

write(
    "grpc-cluster-logical-dns",
    cluster(
        {
            "name": "dns",
            "type": "LOGICAL_DNS",
            "connect_timeout": "5s",
            "load_assignment": {
                "cluster_name": "dns",
                "endpoints": [{"lb_endpoints": [endpoint("backend.example.com", 443)]}],
            },
        }
    ),
)

write(
    "grpc-endpoints-drops",
    endpoints(
        {
            "cluster_name": "backend",
            "endpoints": [
                {
                    "locality": {"region": "r", "zone": "z"},
                    "load_balancing_weight": 3,
                    "lb_endpoints": [
                        endpoint("127.0.0.1", 8080),
                        {
                            "endpoint": {
                                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 8081}},
                                "additional_addresses": [
                                    {"address": {"socket_address": {"address": "::1", "port_value": 8081}}}
                                ],
                                "hostname": "b.example.com",
                            },
                            "load_balancing_weight": 5,
                            "health_status": "UNHEALTHY",
                        },
                    ],
                },
                {
                    "locality": {"region": "r", "zone": "ignored"},
                    "lb_endpoints": [endpoint("127.0.0.1", 8082)],
                },
            ],
            "policy": {
                "drop_overloads": [
                    {"category": "throttle", "drop_percentage": {"numerator": 5, "denominator": "HUNDRED"}},
                    {"category": "lb", "drop_percentage": {"numerator": 250, "denominator": "TEN_THOUSAND"}},
                ],
                "overprovisioning_factor": 200,
            },
        }
    ),
)

# --- Encodings that ours would not choose ---------------------------------------------------------------------------

ASSIGNMENT = endpoints(
    {
        "cluster_name": "odd",
        "endpoints": [
            {
                "locality": {"region": "r"},
                "load_balancing_weight": 1,
                "lb_endpoints": [endpoint("127.0.0.1", 80), endpoint("127.0.0.2", 80)],
            }
        ],
    }
)
raw = ASSIGNMENT.SerializeToString()
# Last field first, an unknown field between any two.
write("odd-order-and-unknown-fields", b"".join(part + UNKNOWN for _, part in reversed(split(raw))))
# The name first wrong, then right: of a field that comes twice, the last counts.
write("odd-field-twice", field(1, 2, b"overwritten") + raw)
# A message in two halves, which are merged: the localities of the one, the policy of the other.
overprovisioned = field(4, 2, field(3, 2, field(1, 0, varint(150))))
dropping = field(4, 2, field(2, 2, field(1, 2, b"half") + field(2, 2, field(1, 0, varint(50)))))
write("odd-message-in-halves", raw + overprovisioned + dropping)
# Defaults written out: priority 0, an empty locality's weight, an empty sub-zone, health UNKNOWN.
lb_endpoint = endpoint_pb2.ClusterLoadAssignment.FromString(raw).endpoints[0].lb_endpoints[0].SerializeToString()
locality = field(1, 2, field(1, 2, b"r") + field(2, 2, b"") + field(3, 2, b""))
locality += field(2, 2, lb_endpoint + field(2, 0, varint(0))) + field(3, 2, field(1, 0, varint(1))) + field(5, 0, varint(0))
write("odd-defaults-on-the-wire", field(1, 2, b"odd") + field(2, 2, locality))

# `retriable_status_codes`, which an encoder may pack or not.
retry = field(1, 2, b"unavailable,retriable-status-codes") + field(2, 2, field(1, 0, varint(2)))
for name, codes in {
    "odd-numbers-unpacked": field(7, 0, varint(503)) + field(7, 0, varint(504)),
    "odd-numbers-packed": field(7, 2, varint(503) + varint(504)),
    "odd-numbers-mixed": field(7, 2, varint(503)) + field(7, 0, varint(504)),
}.items():
    action = field(1, 2, b"c") + field(9, 2, retry + codes)
    route = field(1, 2, field(1, 2, b"")) + field(2, 2, action)
    host = field(1, 2, b"h") + field(2, 2, b"*") + field(3, 2, route)
    write(name, field(1, 2, b"odd") + field(2, 2, host))

# A map whose keys come in no order and one of them twice.
def named_filter_config(key, seconds):
    fault = fault_pb2.HTTPFault()
    fault.delay.fixed_delay.seconds = seconds
    fault.delay.percentage.numerator = 100
    config = any_pb2.Any()
    config.Pack(fault)
    return field(13, 2, field(1, 2, key) + field(2, 2, config.SerializeToString()))


route = field(1, 2, field(1, 2, b"")) + field(2, 2, field(1, 2, b"c"))
route += named_filter_config(b"z", 1) + named_filter_config(b"a", 2) + named_filter_config(b"z", 3)
write("odd-map-key-twice", field(1, 2, b"odd") + field(2, 2, field(2, 2, b"*") + field(3, 2, route)))

# A varint longer than it has to be.
write("odd-long-varint", raw[:1] + bytes([raw[1] | 0x80, 0x80, 0x00]) + raw[2:])

# --- What has to be refused -----------------------------------------------------------------------------------------

write("bad-truncated", raw[:-3])
write("bad-name-not-utf8", field(1, 2, b"odd\xff"))
write("bad-wire-type", field(1, 0, varint(7)))
write("bad-group", varint(1 << 3 | 3) + b"\x0a\x01x" + varint(1 << 3 | 4))
write("bad-length", field(1, 2, b"odd") + varint(2 << 3 | 2) + varint(2**40))
write("bad-no-name", endpoints({"endpoints": []}).SerializeToString())


def api(filters, **specifier):
    return listener({"name": "l", "api_listener": {"api_listener": hcm(filters, **specifier)}})


RDS = {"rds": {"config_source": ADS, "route_config_name": "r"}}
REQUIRED = {
    "name": "something.new",
    "typed_config": {"@type": T + "xds.type.v3.TypedStruct", "type_url": T + "com.example.Later"},
}
write("bad-listener-unknown-filter", api([REQUIRED, ROUTER], **RDS))
write("bad-listener-no-router", api([FAULT], **RDS))
write("bad-listener-router-not-last", api([ROUTER, FAULT], **RDS))
write("bad-listener-filter-name-twice", api([FAULT, FAULT, ROUTER], **RDS))
write(
    "bad-listener-routes-from-a-file",
    api([ROUTER], rds={"config_source": {"path": "/etc/routes"}, "route_config_name": "r"}),
)
write("bad-listener-trusted-hops", api([ROUTER], xff_num_trusted_hops=1, **RDS))
write(
    "bad-listener-unknown-provider",
    listener(
        inbound(
            [ROUTER],
            name="tls",
            transport_socket={
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": T + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": {
                        "tls_certificate_provider_instance": {"instance_name": "nobody's"},
                    },
                },
            },
        )
    ),
)


def host(match=None, action=None, **more):
    route = {"match": match or {"prefix": "/"}, "route": action or {"cluster": "c"}}
    return routes({"name": "r", "virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [route]}], **more})


write("bad-routes-regex", host(match={"safe_regex": {"regex": "a(b"}}))
write("bad-routes-no-path", host(match={"headers": [{"name": "a", "present_match": True}]}))
write(
    "bad-routes-weights",
    host(action={"weighted_clusters": {"clusters": [{"name": "a", "weight": 2**32 - 1}, {"name": "b", "weight": 1}]}}),
)
write("bad-routes-no-weight", host(action={"weighted_clusters": {"clusters": [{"name": "a", "weight": 0}]}}))
write(
    "bad-routes-retries",
    host(action={"cluster": "c", "retry_policy": {"retry_on": "unavailable", "num_retries": 0}}),
)
write(
    "bad-routes-domain-twice",
    routes(
        {
            "name": "r",
            "virtual_hosts": [
                {"name": "a", "domains": ["*"], "routes": []},
                {"name": "b", "domains": ["*"], "routes": []},
            ],
        }
    ),
)

EDS = {"name": "c", "type": "EDS", "eds_cluster_config": {"eds_config": ADS}}
write("bad-cluster-original-dst", cluster({"name": "c", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}))
write("bad-cluster-eds-from-a-file", cluster({**EDS, "eds_cluster_config": {"eds_config": {"path": "/eds"}}}))
write(
    "bad-cluster-ring",
    cluster(
        {
            **EDS,
            "lb_policy": "RING_HASH",
            "ring_hash_lb_config": {"minimum_ring_size": "2048", "maximum_ring_size": "1024"},
        }
    ),
)
write("bad-cluster-ejection-percent", cluster({**EDS, "outlier_detection": {"max_ejection_percent": 101}}))
write("bad-cluster-negative-interval", cluster({**EDS, "outlier_detection": {"interval": "-1s"}}))
write(
    "bad-cluster-only-unknown-policy",
    cluster(
        {
            **EDS,
            "load_balancing_policy": {
                "policies": [
                    {
                        "typed_extension_config": {
                            "name": "unknown",
                            "typed_config": {
                                "@type": T + "xds.type.v3.TypedStruct",
                                "type_url": T + "com.example.CustomBalancer",
                            },
                        }
                    }
                ]
            },
        }
    ),
)
write(
    "bad-cluster-aggregate-of-nothing",
    cluster(
        {
            "name": "aggregate",
            "cluster_type": {
                "name": "envoy.clusters.aggregate",
                "typed_config": {"@type": T + "envoy.extensions.clusters.aggregate.v3.ClusterConfig"},
            },
        }
    ),
)


def localities(*all):
    return endpoints({"cluster_name": "e", "endpoints": list(all)})


def at(region, priority=0, weight=1, **more):
    return {
        "locality": {"region": region},
        "priority": priority,
        "load_balancing_weight": weight,
        "lb_endpoints": [endpoint("127.0.0.1", 80)],
        **more,
    }


write(
    "bad-endpoints-priority-gap",
    localities(at("a"), at("b", priority=2, lb_endpoints=[endpoint("127.0.0.2", 80)])),
)
write("bad-endpoints-locality-twice", localities(at("a"), at("a", lb_endpoints=[endpoint("127.0.0.2", 80)])))
write("bad-endpoints-weight-sum", localities(at("a", weight=2**32 - 1), at("b", lb_endpoints=[endpoint("127.0.0.2", 80)])))
write("bad-endpoints-address-name", localities(at("a", lb_endpoints=[endpoint("backend.example.com", 80)])))
write("bad-endpoints-port", localities(at("a", lb_endpoints=[endpoint("127.0.0.1", 65536)])))
write("bad-endpoints-address-twice", localities(at("a"), at("b")))
