//! Clusters whose endpoints are found by name: what is asked, and what an answer makes of it.

use crate::{
    name::Name,
    resource::{
        ClusterLoadAssignment, Locality,
        endpoint::{DropOverload, Endpoint, LocalityEndpoints, Priority},
    },
};
use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

/// A name (or a literal address, which resolves to itself) and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Never empty.
    pub host: Arc<str>,
    /// Of every address of the host.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, self.port).fmt(f),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// STRICT_DNS: every address of a name is an endpoint, with what is said of the name.
#[derive(Clone, Debug, PartialEq)]
pub struct StrictDns {
    /// By priority, contiguous from 0. Empty: the cluster has no endpoints.
    pub priorities: Vec<Priority<HostPort>>,
    /// Share of calls dropped.
    pub drops: Vec<DropOverload>,
    /// How names are resolved.
    pub dns: DnsResolution,
}

impl StrictDns {
    /// Every name, once.
    pub fn hosts(&self) -> impl Iterator<Item = &HostPort> {
        let mut seen = HashSet::new();
        let localities = self.priorities.iter().flat_map(|priority| &priority.localities);
        let hosts = localities.flat_map(|locality| &locality.endpoints).map(|endpoint| &endpoint.addresses);
        hosts.filter(move |host| seen.insert(*host))
    }

    /// The endpoints, when `resolve` knows the addresses of a host. An address that comes twice counts where
    /// it comes first; a host's weight is that of each of its addresses, as in Envoy.
    pub fn assignment<I>(&self, name: Name, resolve: impl Fn(&HostPort) -> I) -> ClusterLoadAssignment
    where
        I: IntoIterator<Item = IpAddr>,
    {
        let mut seen = HashSet::new();
        let priorities = self.priorities.iter().map(|priority| {
            let localities = priority.localities.iter().map(|locality| {
                let mut sum = 0_u32;
                let mut endpoints = Vec::new();
                for host in &locality.endpoints {
                    for ip in resolve(&host.addresses) {
                        let address = SocketAddr::new(ip, host.addresses.port);
                        // No locality's weights sum to more than a `u32` holds.
                        let Some(total) = sum.checked_add(host.weight.get()) else { break };
                        if seen.insert(address) {
                            sum = total;
                            endpoints.push(Arc::new(host.at(vec![address])));
                        }
                    }
                }
                LocalityEndpoints { locality: locality.locality.clone(), weight: locality.weight, endpoints }
            });
            Priority { localities: localities.collect() }
        });
        ClusterLoadAssignment {
            priorities: priorities.collect(),
            drops: self.drops.clone(),
            ..ClusterLoadAssignment::new(name)
        }
    }
}

/// LOGICAL_DNS: all addresses of a name are one endpoint, the only one (gRFC A37, A61).
#[derive(Clone, Debug, PartialEq)]
pub struct LogicalDns {
    /// Where it is, for load reports.
    pub locality: Locality,
    /// The one endpoint.
    pub endpoint: Endpoint<HostPort>,
    /// Share of calls dropped.
    pub drops: Vec<DropOverload>,
    /// How the name is resolved.
    pub dns: DnsResolution,
}

impl LogicalDns {
    /// The endpoint with these addresses; none without any.
    pub fn assignment(
        &self,
        name: Name,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> ClusterLoadAssignment {
        let port = self.endpoint.addresses.port;
        let mut seen = HashSet::new();
        let addresses: Vec<_> = addresses
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .filter(|address| seen.insert(*address))
            .collect();
        let endpoints =
            if addresses.is_empty() { Vec::new() } else { vec![Arc::new(self.endpoint.at(addresses))] };
        let locality =
            LocalityEndpoints { locality: self.locality.clone(), weight: NonZeroU32::MIN, endpoints };
        ClusterLoadAssignment {
            priorities: vec![Priority { localities: vec![locality] }],
            drops: self.drops.clone(),
            ..ClusterLoadAssignment::new(name)
        }
    }
}

/// When and how a name is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsResolution {
    /// Between resolutions. Default 5 s.
    pub refresh_rate: Duration,
    /// After a failed one; absent: `refresh_rate`.
    pub failure_refresh: Option<DnsRefresh>,
    /// The time to live of the answer is used instead of `refresh_rate`.
    pub respect_ttl: bool,
    /// A shorter time to live counts as this; at least 1 s. Absent: there is no floor.
    pub min_refresh_rate: Option<Duration>,
    /// A random delay below this is added to each wait; zero: none.
    pub jitter: Duration,
    /// Which addresses are asked for.
    pub family: DnsLookupFamily,
}

impl Default for DnsResolution {
    fn default() -> Self {
        Self {
            refresh_rate: Duration::from_secs(5),
            failure_refresh: None,
            respect_ttl: false,
            min_refresh_rate: None,
            jitter: Duration::ZERO,
            family: DnsLookupFamily::Auto,
        }
    }
}

/// Exponential backoff after failed resolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsRefresh {
    /// First wait.
    pub base: Duration,
    /// Longest wait; at least `base`.
    pub max: Duration,
}

/// `dns_lookup_family`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsLookupFamily {
    /// IPv6, and IPv4 when there is none.
    #[default]
    Auto,
    /// IPv4.
    V4Only,
    /// IPv6.
    V6Only,
    /// IPv4, and IPv6 when there is none.
    V4Preferred,
    /// Both.
    All,
}
