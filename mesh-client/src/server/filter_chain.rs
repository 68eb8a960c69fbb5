//! Which filter chain a connection is served by (gRFC A36, Envoy's `FilterChainMatch`).
//!
//! Five questions, in order: destination prefix, transport protocol, source type, source prefix, source
//! port. Each keeps the most specific chains that match and forgets the others; there is no way back. A
//! port that must serve both TLS and plaintext (Istio's PERMISSIVE) has a chain for each transport.

use super::http::Http;
use crate::tls::Providers;
use ipnet::IpNet;
use mesh_xds::resource::{
    listener::{FilterChainMatch, SourceType, TransportProtocol},
    tls::DownstreamTls,
};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// One chain, ready to serve.
pub(super) struct Chain {
    /// For logs.
    pub(super) name: Arc<str>,
    pub(super) matches: FilterChainMatch,
    /// Absent: plaintext.
    pub(super) tls: Option<ChainTls>,
    pub(super) http: Http,
}

/// The TLS of a chain.
#[derive(Clone)]
pub(super) struct ChainTls {
    pub(super) context: DownstreamTls,
    /// Or why there is none; its connections are refused then.
    pub(super) config: Result<Arc<rustls::ServerConfig>, Arc<str>>,
    /// Whose certificate it is.
    pub(super) providers: Arc<Providers>,
}

impl Chain {
    /// The context of its TLS.
    pub(super) fn context(&self) -> Option<&DownstreamTls> {
        self.tls.as_ref().map(|tls| &tls.context)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({:?}, {:?}, {:?})", self.name, self.matches, self.context())
    }
}

/// What a chain is chosen by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    local: IpAddr,
    remote: IpAddr,
    remote_port: u16,
    tls: bool,
}

impl Arrival {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr, tls: bool) -> Self {
        // An IPv4 peer of a dual-stack socket is still an IPv4 peer.
        let (local, remote_port) = (local.ip().to_canonical(), remote.port());
        Self { local, remote: remote.ip().to_canonical(), remote_port, tls }
    }
}

/// The chains of a listener.
#[derive(Debug)]
pub(super) struct Chains {
    pub(super) candidates: Vec<Arc<Chain>>,
    pub(super) default: Option<Arc<Chain>>,
}

impl Chains {
    /// The chain for a connection; none when it must be closed.
    pub(super) fn find(&self, arrival: Arrival) -> Option<&Arc<Chain>> {
        let mut left: Vec<&Arc<Chain>> = self.candidates.iter().collect();
        keep_best(&mut left, |chain| prefix(&chain.matches.destination_prefixes, arrival.local));
        keep_best(&mut left, |chain| transport(chain.matches.transport, arrival.tls));
        keep_best(&mut left, |chain| source_type(chain.matches.source_type, arrival));
        keep_best(&mut left, |chain| prefix(&chain.matches.source_prefixes, arrival.remote));
        keep_best(&mut left, |chain| port(&chain.matches.source_ports, arrival.remote_port));
        // Two equal matches were refused when the listener was parsed.
        left.first().copied().or(self.default.as_ref())
    }

    /// Every chain, the default one last.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.candidates.iter().chain(&self.default)
    }
}

/// Keeps the chains of the greatest rank; those without one do not match.
fn keep_best(chains: &mut Vec<&Arc<Chain>>, rank: impl Fn(&Chain) -> Option<u8>) {
    let best = chains.iter().filter_map(|chain| rank(chain)).max();
    chains.retain(|chain| best.is_some() && rank(chain) == best);
}

/// Nothing specified is less specific than `0.0.0.0/0`.
fn prefix(prefixes: &[IpNet], address: IpAddr) -> Option<u8> {
    if prefixes.is_empty() {
        return Some(0);
    }
    prefixes.iter().filter(|net| net.contains(&address)).map(|net| net.prefix_len() + 1).max()
}

fn transport(wanted: TransportProtocol, tls: bool) -> Option<u8> {
    match wanted {
        TransportProtocol::Any => Some(0),
        TransportProtocol::Tls => tls.then_some(1),
        TransportProtocol::RawBuffer => (!tls).then_some(1),
    }
}

fn source_type(wanted: SourceType, arrival: Arrival) -> Option<u8> {
    let near = arrival.local == arrival.remote || arrival.remote.is_loopback();
    match wanted {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => near.then_some(1),
        SourceType::External => (!near).then_some(1),
    }
}

fn port(ports: &[u16], port: u16) -> Option<u8> {
    if ports.is_empty() { Some(0) } else { ports.contains(&port).then_some(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, change: impl FnOnce(&mut FilterChainMatch)) -> Arc<Chain> {
        let mut matches = FilterChainMatch::default();
        change(&mut matches);
        Arc::new(Chain { name: name.into(), matches, tls: None, http: Http::broken("a test") })
    }

    fn nets(nets: &[&str]) -> Vec<IpNet> {
        nets.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn found(chains: &Chains, local: &str, remote: &str, tls: bool) -> Option<String> {
        let arrival = Arrival::new(local.parse().unwrap(), remote.parse().unwrap(), tls);
        chains.find(arrival).map(|chain| chain.name.to_string())
    }

    fn chains(candidates: Vec<Arc<Chain>>) -> Chains {
        Chains { candidates, default: Some(chain("default", |_| {})) }
    }

    #[test]
    fn the_most_specific_destination_wins_and_none_is_less_than_any_prefix() {
        let chains = chains(vec![
            chain("any", |_| {}),
            chain("all", |m| m.destination_prefixes = nets(&["0.0.0.0/0"])),
            chain("ten", |m| m.destination_prefixes = nets(&["192.168.0.0/16", "10.0.0.0/8"])),
        ]);
        assert_eq!(found(&chains, "10.1.1.1:80", "1.2.3.4:5", false).as_deref(), Some("ten"));
        assert_eq!(found(&chains, "172.16.0.1:80", "1.2.3.4:5", false).as_deref(), Some("all"));
        assert_eq!(found(&chains, "[fd00::1]:80", "[fd00::2]:5", false).as_deref(), Some("any"));
        assert_eq!(found(&chains, "[::ffff:10.1.1.1]:80", "1.2.3.4:5", false).as_deref(), Some("ten"));
    }

    #[test]
    fn one_port_serves_tls_and_plaintext_by_different_chains() {
        let chains = chains(vec![
            chain("tls", |m| m.transport = TransportProtocol::Tls),
            chain("raw", |m| m.transport = TransportProtocol::RawBuffer),
        ]);
        assert_eq!(found(&chains, "10.1.1.1:80", "1.2.3.4:5", true).as_deref(), Some("tls"));
        assert_eq!(found(&chains, "10.1.1.1:80", "1.2.3.4:5", false).as_deref(), Some("raw"));
    }

    #[test]
    fn each_stage_commits_even_when_a_later_one_then_finds_nothing() {
        let chains = chains(vec![
            chain("wide", |_| {}),
            chain("narrow", |m| {
                m.destination_prefixes = nets(&["10.0.0.0/8"]);
                m.source_ports = vec![7];
            }),
        ]);
        assert_eq!(found(&chains, "10.1.1.1:80", "1.2.3.4:7", false).as_deref(), Some("narrow"));
        assert_eq!(found(&chains, "10.1.1.1:80", "1.2.3.4:8", false).as_deref(), Some("default"));
    }

    #[test]
    fn the_source_is_near_when_it_is_loopback_or_the_same_address() {
        let chains = chains(vec![
            chain("near", |m| m.source_type = SourceType::SameIpOrLoopback),
            chain("far", |m| m.source_type = SourceType::External),
        ]);
        for near in ["127.0.0.1:5", "10.1.1.1:5"] {
            assert_eq!(found(&chains, "10.1.1.1:80", near, false).as_deref(), Some("near"));
        }
        assert_eq!(found(&chains, "10.1.1.1:80", "10.1.1.2:5", false).as_deref(), Some("far"));
    }

    #[test]
    fn the_most_specific_source_prefix_wins_before_the_port_is_asked_for() {
        let chains = chains(vec![
            chain("net", |m| m.source_prefixes = nets(&["1.2.0.0/16"])),
            chain("host", |m| m.source_prefixes = nets(&["1.2.3.4/32"])),
            chain("port", |m| m.source_ports = vec![5]),
        ]);
        assert_eq!(found(&chains, "10.1.1.1:80", "1.2.3.4:5", false).as_deref(), Some("host"));
        assert_eq!(found(&chains, "10.1.1.1:80", "1.2.9.9:5", false).as_deref(), Some("net"));
        assert_eq!(found(&chains, "10.1.1.1:80", "9.9.9.9:5", false).as_deref(), Some("port"));
    }

    #[test]
    fn without_a_match_or_a_default_there_is_no_chain() {
        let chains = Chains {
            candidates: vec![chain("tls", |m| m.transport = TransportProtocol::Tls)],
            default: None,
        };
        assert_eq!(found(&chains, "10.1.1.1:80", "1.2.3.4:5", false), None);
    }
}
