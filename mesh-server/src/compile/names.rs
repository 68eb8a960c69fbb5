//! The names of compiled resources: Istio's (`outbound|9080|v1|reviews.default.svc.cluster.local`).
//!
//! Names come from clients, so parsing takes anything and answers `None` for what nobody has. See
//! Istio's `BuildSubsetKey` and grpcgen.

use std::{fmt, net::IpAddr};

/// What the listener of a server is called, before its address.
pub const INBOUND_PREFIX: &str = "xds.istio.io/grpc/lds/inbound/";

/// Name of an outbound route configuration or cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outbound<'a> {
    /// Service port.
    pub port: u16,
    /// Subset; empty for the whole service.
    pub subset: &'a str,
    /// The service's fully qualified host.
    pub host: &'a str,
}

impl<'a> Outbound<'a> {
    /// Reads `outbound|9080|v1|reviews.default.svc.cluster.local`.
    pub fn parse(name: &'a str) -> Option<Self> {
        let mut parts = name.split('|');
        let (direction, port, subset, host) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let port = parse_port(port)?;
        (direction == "outbound" && !host.is_empty() && parts.next().is_none()).then_some(Self {
            port,
            subset,
            host,
        })
    }

    /// Istio's server name for mTLS: `outbound_.9080_.v1_.reviews.default.svc.cluster.local`.
    pub fn sni(&self) -> String {
        format!("outbound_.{}_.{}_.{}", self.port, self.subset, self.host)
    }
}

impl fmt::Display for Outbound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outbound|{}|{}|{}", self.port, self.subset, self.host)
    }
}

/// The endpoints of a cluster whose calls fail, before its name: a resource of its own, so that no client takes the
/// endpoints that it has of the cluster to be reached without the TLS that is missing.
pub(super) const FAILING: &str = "failing|";

/// A client's target: `reviews`, `reviews.default:9080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The host as it was written, without a trailing dot.
    pub host: &'a str,
    /// The port, if there was one.
    pub port: Option<u16>,
}

impl<'a> Target<'a> {
    /// Splits a target; `None` when the port is not one.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (host, port) = match name.rsplit_once(':') {
            // Brackets and no port, or an address that forgot its brackets: no port to be found.
            Some((host, tail)) if !tail.contains(']') && (!host.contains(':') || host.ends_with(']')) => {
                (host, Some(parse_port(tail)?))
            }
            _ => (name, None),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        (!host.is_empty()).then_some(Self { host, port })
    }

    /// The fully qualified names that the host may stand for, most likely first: a short name is
    /// completed as the resolver of a pod in `namespace` would.
    pub fn candidates(&self, namespace: &str, domain: &str) -> Vec<String> {
        let host = self.host.to_ascii_lowercase();
        let mut candidates = Vec::with_capacity(2);
        match host.split('.').count() {
            1 => candidates.push(format!("{host}.{namespace}.svc.{domain}")),
            2 => candidates.push(format!("{host}.svc.{domain}")),
            3 if host.ends_with(".svc") => candidates.push(format!("{host}.{domain}")),
            _ => {}
        }
        candidates.push(host);
        candidates
    }
}

/// Reads the address of `xds.istio.io/grpc/lds/inbound/10.0.0.1:9080`.
pub fn parse_inbound(name: &str) -> Option<(IpAddr, u16)> {
    let (host, port) = name.strip_prefix(INBOUND_PREFIX)?.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.parse().ok()?, parse_port(port)?))
}

fn parse_port(text: &str) -> Option<u16> {
    // `+80` and `080` are numbers to Rust, and not what a name's author meant.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbound_name_reads_back_as_written() {
        for name in ["outbound|9080||reviews.default.svc.cluster.local", "outbound|80|v1|a.b"] {
            assert_eq!(Outbound::parse(name).unwrap().to_string(), name);
        }
        let bad = [
            "",
            "outbound|9080|v1",
            "inbound|9080||a",
            "outbound|0||a",
            "outbound|9080||",
            "outbound|1||a|b",
        ];
        for name in bad {
            assert_eq!(Outbound::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_target_may_lack_its_port_and_ends_without_a_dot() {
        let cases = [
            ("reviews:9080", Some(("reviews", Some(9080)))),
            ("reviews", Some(("reviews", None))),
            ("reviews.default.svc.cluster.local.:80", Some(("reviews.default.svc.cluster.local", Some(80)))),
            ("[::1]:80", Some(("[::1]", Some(80)))),
            ("::1", Some(("::1", None))),
            ("reviews:http", None),
            ("reviews:70000", None),
            (":80", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(Target::parse(name).map(|target| (target.host, target.port)), expected, "{name}");
        }
    }

    #[test]
    fn short_names_are_completed_with_the_namespace_of_the_client() {
        let of = |name| Target::parse(name).unwrap().candidates("prod", "mesh.test");
        assert_eq!(of("Reviews"), ["reviews.prod.svc.mesh.test", "reviews"]);
        assert_eq!(of("reviews.other"), ["reviews.other.svc.mesh.test", "reviews.other"]);
        assert_eq!(of("reviews.other.svc"), ["reviews.other.svc.mesh.test", "reviews.other.svc"]);
        assert_eq!(of("api.example.com"), ["api.example.com"]);
    }

    #[test]
    fn an_inbound_name_holds_a_literal_address() {
        assert_eq!(
            parse_inbound("xds.istio.io/grpc/lds/inbound/[::1]:50051"),
            Some(("::1".parse().unwrap(), 50051))
        );
        assert_eq!(
            parse_inbound("xds.istio.io/grpc/lds/inbound/0.0.0.0:9080"),
            Some(("0.0.0.0".parse().unwrap(), 9080))
        );
        assert_eq!(parse_inbound("xds.istio.io/grpc/lds/inbound/reviews:9080"), None);
        assert_eq!(parse_inbound("reviews:9080"), None);
    }
}
