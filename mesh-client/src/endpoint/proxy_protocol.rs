//! The header that a connection begins with where the cluster asks for the PROXY protocol
//! (<https://www.haproxy.org/download/2.1/doc/proxy-protocol.txt>).
//!
//! A sidecar says in it which connection of the application it goes on with. Here no connection goes before: the client
//! itself is the source, and the address of the endpoint that it dials is the destination, also where the stream leads
//! to a proxy first. A stream that is not known to have an address of its own (what a program opened, a Unix socket) is
//! announced as LOCAL, in version 1 as UNKNOWN: then the receiver goes by what it sees. So are health checks in version
//! 2, as the specification and Envoy have it.
//!
//! What else a header of version 2 says are the endpoint's own TLVs, then those of the cluster whose kind the endpoint
//! has none of; kinds that stand twice in a list are said twice, as by Envoys since 1.37. One with which the header would
//! be longer than it can be is left out with a warning, and those after it that fit are said, as in Envoy.

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
    own: &[Tlv],
    from: Option<SocketAddr>,
    to: SocketAddr,
    is_check: bool,
) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => v1(from.map(|from| one_family(from, to))),
        ProxyProtocol::V2 { .. } if is_check => v2(None, &[], &[]),
        ProxyProtocol::V2 { tlvs } => v2(from.map(|from| one_family(from, to)), own, tlvs),
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
fn v2(addresses: Option<(SocketAddr, SocketAddr)>, own: &[Tlv], common: &[Tlv]) -> Vec<u8> {
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
        let common = common.iter().filter(|tlv| own.iter().all(|own| own.kind != tlv.kind));
        for tlv in own.iter().chain(common) {
            if block.len() + tlv.len() > usize::from(u16::MAX) {
                let (kind, bytes) = (tlv.kind, tlv.len());
                tracing::warn!(kind, bytes, "a TLV is left out: a PROXY protocol header has no room for it");
                continue;
            }
            block.push(tlv.kind);
            block.extend(length(&tlv.value));
            block.extend(&*tlv.value);
        }
    }
    let mut header = Vec::with_capacity(SIGNATURE.len() + 4 + block.len());
    header.extend(SIGNATURE);
    header.extend([command, family]);
    header.extend(length(&block));
    header.extend(block);
    header
}

/// Of what fits.
fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn tlv(kind: u8, value: &[u8]) -> Tlv {
        Tlv { kind, value: value.into() }
    }

    fn v2_of(tlvs: &[(u8, &[u8])]) -> ProxyProtocol {
        ProxyProtocol::V2 { tlvs: tlvs.iter().map(|(kind, value)| tlv(*kind, value)).collect() }
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
                let own = [tlv(1, b"x")];
                let header = header(&ProxyProtocol::V1, &own, from.map(address), address(to), is_check);
                assert_eq!(String::from_utf8(header).unwrap(), line);
            }
        }
    }

    #[test]
    fn version_2_is_binary() {
        let mut v4 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
        v4.extend([10, 0, 0, 1, 10, 0, 0, 2, 0xc0, 0, 0, 80]);
        let (from, to) = (address("10.0.0.1:49152"), address("10.0.0.2:80"));
        assert_eq!(header(&v2_of(&[]), &[], Some(from), to, false), v4);

        let mut v6 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24".to_vec();
        v6.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        v6.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        v6.extend([0xc0, 0, 0, 80]);
        let (from6, to6) = (address("[fd00::1]:49152"), address("[fd00::2]:80"));
        assert_eq!(header(&v2_of(&[]), &[], Some(from6), to6, false), v6);

        let mixed = header(&v2_of(&[]), &[], Some(from6), to, false);
        assert_eq!(mixed[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(mixed[32..48], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2]);
    }

    #[test]
    fn version_2_is_local_where_nobody_is_told_of() {
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec();
        let (from, to) = (address("10.0.0.1:49152"), address("10.0.0.2:80"));
        let (version, own) = (v2_of(&[(0xe0, b"a")]), [tlv(0xe1, b"b")]);
        assert_eq!(header(&version, &own, None, to, false), local);
        assert_eq!(header(&version, &own, Some(from), to, true), local);
    }

    #[test]
    fn tlvs_follow_the_addresses_and_are_counted() {
        let (from, to) = (address("10.0.0.1:1"), address("10.0.0.2:2"));
        let tlvs = header(&v2_of(&[(0xe0, b"abc"), (1, &[7])]), &[], Some(from), to, false);
        assert_eq!(tlvs[14..16], [0, 12 + 6 + 4]);
        assert_eq!(tlvs[28..], [0xe0, 0, 3, b'a', b'b', b'c', 1, 0, 1, 7]);

        let most = vec![9; Tlv::MOST - 3];
        let (from, to) = (address("[fd00::1]:1"), address("[fd00::2]:2"));
        let full = header(&v2_of(&[(5, &most)]), &[], Some(from), to, false);
        assert_eq!((&full[14..16], full.len()), (&[0xff, 0xff][..], 16 + 0xffff));
        assert_eq!(full[52..55], [5, 0xff, 0xd8]);
    }

    #[test]
    fn an_endpoints_own_tlvs_go_before_those_of_the_cluster_and_stand_for_those_of_their_kind() {
        let (from, to) = (address("10.0.0.1:1"), address("10.0.0.2:2"));
        let cluster = v2_of(&[(1, b"c"), (2, b"c"), (2, b"d"), (3, b"c")]);
        let own = [tlv(9, b"o"), tlv(1, b"o"), tlv(9, b"p")];
        let said = header(&cluster, &own, Some(from), to, false);
        let expected = [(9, b'o'), (1, b'o'), (9, b'p'), (2, b'c'), (2, b'd'), (3, b'c')];
        assert_eq!(said[14..16], [0, 12 + 6 * 4]);
        assert_eq!(said[28..], expected.map(|(kind, value)| [kind, 0, 1, value]).concat());
        assert_eq!(header(&v2_of(&[]), &own[..1], Some(from), to, false)[28..], [9, 0, 1, b'o']);
    }

    #[test]
    fn a_tlv_for_which_there_is_no_room_is_left_out_and_what_fits_after_it_is_said() {
        for (from, to, addresses) in [("10.0.0.1:1", "10.0.0.2:2", 12), ("[fd00::1]:1", "[fd00::2]:2", 36)] {
            let room = 0xffff - addresses;
            // All but 8 bytes.
            let own = [tlv(1, &vec![7; room - 8 - 3])];
            let cluster = v2_of(&[(2, b"123456"), (3, b"12345"), (4, b"1")]);
            let said = header(&cluster, &own, Some(address(from)), address(to), false);
            assert_eq!((&said[14..16], said.len()), (&[0xff, 0xff][..], 16 + 0xffff));
            assert_eq!(said[said.len() - 8..], *b"\x03\0\x0512345");
        }
    }
}
