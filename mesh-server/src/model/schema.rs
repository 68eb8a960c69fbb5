//! The shape of blocks that this version reads and does not act on.
//!
//! They are reported as a whole, and still checked: a misspelt field in a block that a later
//! version will serve is better found today.

use super::node::Node;
use super::read::{self, Report};

/// What a block may look like.
pub(crate) enum Shape {
    Text,
    Bool,
    Number,
    Duration,
    /// Anything.
    Any,
    List(&'static Shape),
    /// Known fields.
    Fields(&'static [(&'static str, Shape)]),
    /// Any keys, one shape.
    Dict(&'static Shape),
}

use Shape::{Any, Bool, Dict, Duration, Fields, List, Number, Text};

/// Reports every field that the shape does not have and every value of another type.
pub(crate) fn check(node: &Node, what: &str, shape: &Shape, report: &mut Report) {
    match shape {
        Any => {}
        Text => drop(read::text(node, report)),
        Bool => drop(read::boolean(node, report)),
        Number => drop(read::number(node, report)),
        Duration => drop(read::duration_or_zero(node, report)),
        List(item) => drop(report.list(node, |node, report| {
            check(node, what, item, report);
            Some(())
        })),
        Fields(fields) => {
            let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            let Some(map) = report.map(node, what, &names) else { return };
            for (name, shape) in *fields {
                if let Some(node) = map.get(name) {
                    check(node, name, shape, report);
                }
            }
        }
        Dict(value) => {
            for entry in report.entries(node, what).unwrap_or_default() {
                check(&entry.node, &entry.key, value, report);
            }
        }
    }
}

pub(crate) const STRING_MATCH: Shape = Fields(&[("exact", Text), ("prefix", Text), ("regex", Text)]);
const PORT: Shape = Fields(&[("number", Number)]);
const DESTINATION: Shape = Fields(&[("host", Text), ("subset", Text), ("port", PORT)]);
const ROUTE_DESTINATION: Shape = Fields(&[("destination", DESTINATION), ("weight", Number)]);

/// HTTPRoute.corsPolicy
pub(crate) const CORS: Shape = Fields(&[
    ("allowOrigins", List(&STRING_MATCH)),
    ("allowOrigin", List(&Text)),
    ("allowMethods", List(&Text)),
    ("allowHeaders", List(&Text)),
    ("exposeHeaders", List(&Text)),
    ("maxAge", Duration),
    ("allowCredentials", Bool),
    ("unmatchedPreflights", Text),
]);

/// VirtualService.tls
pub(crate) const TLS_ROUTES: Shape = List(&Fields(&[
    (
        "match",
        List(&Fields(&[
            ("sniHosts", List(&Text)),
            ("destinationSubnets", List(&Text)),
            ("port", Number),
            ("sourceLabels", Dict(&Text)),
            ("sourceNamespace", Text),
            ("gateways", List(&Text)),
        ])),
    ),
    ("route", List(&ROUTE_DESTINATION)),
]));

/// VirtualService.tcp
pub(crate) const TCP_ROUTES: Shape = List(&Fields(&[
    (
        "match",
        List(&Fields(&[
            ("destinationSubnets", List(&Text)),
            ("port", Number),
            ("sourceLabels", Dict(&Text)),
            ("sourceSubnet", Text),
            ("sourceNamespace", Text),
            ("gateways", List(&Text)),
        ])),
    ),
    ("route", List(&ROUTE_DESTINATION)),
]));

/// TrafficPolicy.tunnel
pub(crate) const TUNNEL: Shape = Fields(&[("protocol", Text), ("targetHost", Text), ("targetPort", Number)]);

/// WorkloadGroup.probe
pub(crate) const PROBE: Shape = Fields(&[
    ("initialDelaySeconds", Number),
    ("timeoutSeconds", Number),
    ("periodSeconds", Number),
    ("successThreshold", Number),
    ("failureThreshold", Number),
    (
        "httpGet",
        Fields(&[
            ("path", Text),
            ("port", Number),
            ("host", Text),
            ("scheme", Text),
            ("httpHeaders", List(&Fields(&[("name", Text), ("value", Text)]))),
        ]),
    ),
    ("tcpSocket", Fields(&[("host", Text), ("port", Number)])),
    ("exec", Fields(&[("command", List(&Text))])),
    ("grpc", Fields(&[("port", Number), ("service", Text)])),
]);

/// AuthorizationPolicy.targetRefs and friends
pub(crate) const TARGET_REF: Shape =
    Fields(&[("group", Text), ("kind", Text), ("name", Text), ("namespace", Text)]);
