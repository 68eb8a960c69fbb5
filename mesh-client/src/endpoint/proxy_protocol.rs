//! The header that a connection begins with where the cluster asks for the PROXY protocol
//! (<https://www.haproxy.org/download/2.1/doc/proxy-protocol.txt>).
//!
//! A sidecar says in it which connection of the application it goes on with. Here no connection goes before: the client
//! itself is the source, and the address of the endpoint that it dials is the destination, also where the stream leads
//! to a proxy first. A stream that is not known to have an address of its own (what a program opened, a Unix socket) is
//! announced as LOCAL, in version 1 as UNKNOWN: then the receiver goes by what it sees. So are health checks in version
//! 2, as the specification and Envoy have it.

use mesh_xds::resource::cluster::{ProxyProtocol, Tlv};
use std::net::{IpAddr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and what is announced.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Families, over TCP.
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header of a connection from here (`None`: who knows) to there.
pub(super) fn header(
    version: &ProxyProtocol,
    from: Option<SocketAddr>,
    to: SocketAddr,
    is_check: bool,
) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => v1(from.map(|from| one_family(from, to))),
        ProxyProtocol::V2 { .. } if is_check => v2(None, &[]),
        ProxyProtocol::V2 { tlvs } => v2(from.map(|from| one_family(from, to)), tlvs),
    }
}

/// Both as IPv4 if they are that, in whatever form; both as IPv6 otherwise.
fn one_family(from: SocketAddr, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    let ips = match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V6(to)) => (from.to_ipv6_mapped().into(), to.into()),
        (IpAddr::V6(from), IpAddr::V4(to)) => (from.into(), to.to_ipv6_mapped().into()),
        same => same,
    };
    // Built anew: the zone of a link-local address means nothing to others.
    (SocketAddr::new(ips.0, from.port()), SocketAddr::new(ips.1, to.port()))
}

fn v1(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((from, to)) = addresses else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if from.is_ipv4() { 4 } else { 6 };
    format!("PROXY TCP{family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
}

/// Of what is LOCAL nothing is said but that.
fn v2(addresses: Option<(SocketAddr, SocketAddr)>, tlvs: &[Tlv]) -> Vec<u8> {
    let (command, family, mut block) = match addresses {
        None => (LOCAL, UNSPECIFIED, Vec::new()),
        Some((from, to)) => {
            let mut block = Vec::new();
            for address in [from, to] {
                match address.ip() {
                    IpAddr::V4(ip) => block.extend(ip.octets()),
                    IpAddr::V6(ip) => block.extend(ip.octets()),
                }
            }
            block.extend(from.port().to_be_bytes());
            block.extend(to.port().to_be_bytes());
            (PROXY, if from.is_ipv4() { TCP4 } else { TCP6 }, block)
        }
    };
    if command == PROXY {
        for Tlv { kind, value } in tlvs {
            block.push(*kind);
            block.extend(length(value));
            block.extend(&**value);
        }
    }
    let mut header = Vec::with_capacity(SIGNATURE.len() + 4 + block.len());
    header.extend(SIGNATURE);
    header.extend([command, family]);
    header.extend(length(&block));
    header.extend(block);
    header
}

/// The parser has seen to it that all fits ([`Tlv::MOST`]).
fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn v2_of(tlvs: &[(u8, &[u8])]) -> ProxyProtocol {
        let tlvs = tlvs.iter().map(|(kind, value)| Tlv { kind: *kind, value: (*value).into() });
        ProxyProtocol::V2 { tlvs: tlvs.collect() }
    }

    #[test]
    fn version_1_is_a_line() {
        for (from, to, line) in [
            (Some("10.0.0.1:49152"), "10.0.0.2:80", "PROXY TCP4 10.0.0.1 10.0.0.2 49152 80\r\n"),
            (Some("[fd00::1]:49152"), "[fd00::2]:80", "PROXY TCP6 fd00::1 fd00::2 49152 80\r\n"),
            (Some("[fe80::1%3]:49152"), "[fe80::2]:80", "PROXY TCP6 fe80::1 fe80::2 49152 80\r\n"),
            // A socket for both families that speaks IPv4.
            (Some("[::ffff:10.0.0.1]:1"), "10.0.0.2:80", "PROXY TCP4 10.0.0.1 10.0.0.2 1 80\r\n"),
            // A proxy that is reached by the other family.
            (Some("[fd00::1]:1"), "10.0.0.2:80", "PROXY TCP6 fd00::1 ::ffff:10.0.0.2 1 80\r\n"),
            (Some("10.0.0.1:1"), "[fd00::2]:80", "PROXY TCP6 ::ffff:10.0.0.1 fd00::2 1 80\r\n"),
            (None, "10.0.0.2:80", "PROXY UNKNOWN\r\n"),
        ] {
            for is_check in [false, true] {
                let header = header(&ProxyProtocol::V1, from.map(address), address(to), is_check);
                assert_eq!(String::from_utf8(header).unwrap(), line);
            }
        }
    }

    #[test]
    fn version_2_is_binary() {
        let mut v4 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
        v4.extend([10, 0, 0, 1, 10, 0, 0, 2, 0xc0, 0, 0, 80]);
        let (from, to) = (address("10.0.0.1:49152"), address("10.0.0.2:80"));
        assert_eq!(header(&v2_of(&[]), Some(from), to, false), v4);

        let mut v6 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24".to_vec();
        v6.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        v6.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        v6.extend([0xc0, 0, 0, 80]);
        let (from6, to6) = (address("[fd00::1]:49152"), address("[fd00::2]:80"));
        assert_eq!(header(&v2_of(&[]), Some(from6), to6, false), v6);

        let mixed = header(&v2_of(&[]), Some(from6), to, false);
        assert_eq!(mixed[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(mixed[32..48], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2]);
    }

    #[test]
    fn version_2_is_local_where_nobody_is_told_of() {
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec();
        let (from, to) = (address("10.0.0.1:49152"), address("10.0.0.2:80"));
        let version = v2_of(&[(0xe0, b"a")]);
        assert_eq!(header(&version, None, to, false), local);
        assert_eq!(header(&version, Some(from), to, true), local);
    }

    #[test]
    fn tlvs_follow_the_addresses_and_are_counted() {
        let (from, to) = (address("10.0.0.1:1"), address("10.0.0.2:2"));
        let tlvs = header(&v2_of(&[(0xe0, b"abc"), (1, &[7])]), Some(from), to, false);
        assert_eq!(tlvs[14..16], [0, 12 + 6 + 4]);
        assert_eq!(tlvs[28..], [0xe0, 0, 3, b'a', b'b', b'c', 1, 0, 1, 7]);

        let most = vec![9; Tlv::MOST - 3];
        let (from, to) = (address("[fd00::1]:1"), address("[fd00::2]:2"));
        let full = header(&v2_of(&[(5, &most)]), Some(from), to, false);
        assert_eq!((&full[14..16], full.len()), (&[0xff, 0xff][..], 16 + 0xffff));
        assert_eq!(full[52..55], [5, 0xff, 0xd8]);
    }
}
