//! Matching the names of a certificate (gRFC A29, "Server Authorization").

use mesh_ca::certificate::PeerCertificate;
use mesh_xds::{
    matcher::StringPattern,
    resource::tls::{SanKind, SanMatcher},
};
use std::{fmt, net::IpAddr};

/// Whether any name of the peer satisfies the matcher.
///
/// A DNS name is compared without regard to case when the matcher is exact, and a wildcard in the
/// certificate (`*.example.com`) then stands for one label; an IP address is then the same however it is written.
/// All others are compared as text.
pub(super) fn matches(peer: &PeerCertificate, matcher: &SanMatcher) -> bool {
    let SanMatcher { kind, name } = matcher;
    let of = |wanted: SanKind| kind.is_none_or(|kind| kind == wanted);
    let dns = |san: &String| match &name.pattern {
        StringPattern::Exact(wanted) => dns_name_covers(san, wanted),
        _ => name.matches(san),
    };
    let ip = |san: &IpAddr| match &name.pattern {
        StringPattern::Exact(wanted) => wanted.parse().is_ok_and(|wanted: IpAddr| wanted == *san),
        _ => name.matches(&san.to_string()),
    };
    of(SanKind::Uri) && peer.uri_sans.iter().any(|uri| name.matches(uri))
        || of(SanKind::Dns) && peer.dns_sans.iter().any(dns)
        || of(SanKind::Ip) && peer.ip_sans.iter().any(ip)
        || of(SanKind::Email) && peer.email_sans.iter().any(|address| name.matches(address))
}

/// Whether the peer's certificate is good for this DNS name.
pub(super) fn has_dns_name(peer: &PeerCertificate, name: &str) -> bool {
    peer.dns_sans.iter().any(|san| dns_name_covers(san, name))
}

/// Whether a DNS name of a certificate, perhaps a wildcard, covers a name: `*` must be the whole leftmost
/// label, stands for exactly one label, and at least two labels must follow it.
fn dns_name_covers(san: &str, name: &str) -> bool {
    let (san, name) = (san.trim_end_matches('.'), name.trim_end_matches('.'));
    if san.is_empty() || name.is_empty() {
        return false;
    }
    match san.strip_prefix("*.") {
        None => !san.contains('*') && san.eq_ignore_ascii_case(name),
        Some(parent) => {
            parent.contains('.')
                && !parent.contains('*')
                && name
                    .split_once('.')
                    .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
        }
    }
}

/// Matchers, for a message.
pub(super) struct Shown<'a>(pub(super) &'a [SanMatcher]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any name");
        }
        for (i, matcher) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" or ")?;
            }
            match &matcher.name.pattern {
                StringPattern::Exact(text) => f.write_str(text)?,
                StringPattern::Prefix(text) => write!(f, "{text}*")?,
                StringPattern::Suffix(text) => write!(f, "*{text}")?,
                StringPattern::Contains(text) => write!(f, "*{text}*")?,
                StringPattern::Regex(_) => f.write_str("a regular expression")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{dns_name_covers, matches};
    use mesh_ca::certificate::PeerCertificate;
    use mesh_xds::{
        matcher::StringMatcher,
        resource::tls::{SanKind, SanMatcher},
    };
    use rcgen::{CertificateParams, KeyPair, SanType};

    #[test]
    fn names_are_matched_by_kind_and_text() {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![
            SanType::URI("spiffe://td/a".try_into().unwrap()),
            SanType::DnsName("a.example.com".try_into().unwrap()),
            SanType::IpAddress([10, 0, 0, 1].into()),
            SanType::Rfc822Name("ops@example.com".try_into().unwrap()),
        ];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let peer = PeerCertificate::from_der(certificate.der()).unwrap();
        let exact = |text| StringMatcher::exact(text, false);
        for (name, kind) in [
            (exact("spiffe://td/a"), SanKind::Uri),
            (exact("A.example.com"), SanKind::Dns),
            (exact("10.0.0.1"), SanKind::Ip),
            (exact("ops@example.com"), SanKind::Email),
            (StringMatcher::exact("OPS@example.com", true), SanKind::Email),
            (StringMatcher::prefix("ops@", false).unwrap(), SanKind::Email),
            (StringMatcher::regex("[a-z]+@example[.]com").unwrap(), SanKind::Email),
        ] {
            let any = SanMatcher::from(name);
            assert!(matches(&peer, &any), "{any}");
            for other in SanKind::ALL {
                let one = SanMatcher { kind: Some(other), ..any.clone() };
                assert_eq!(matches(&peer, &one), other == kind, "{one}");
            }
        }
        for wrong in [exact("OPS@example.com"), exact("example.com"), exact("ops")] {
            assert!(!matches(&peer, &SanMatcher { kind: Some(SanKind::Email), name: wrong }));
        }
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            ["2001:db8::1", "10.0.0.1"].map(|ip| SanType::IpAddress(ip.parse().unwrap())).to_vec();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let peer = PeerCertificate::from_der(certificate.der()).unwrap();
        let exact = |name: &str| StringMatcher::exact(name, false);
        for (kind, name, matched) in [
            (Some(SanKind::Ip), exact("2001:db8::1"), true),
            (Some(SanKind::Ip), exact("2001:DB8::0001"), true),
            (None, exact("2001:db8:0:0:0:0:0:1"), true),
            (Some(SanKind::Ip), exact("10.0.0.1"), true),
            (Some(SanKind::Ip), exact("2001:db8::2"), false),
            (Some(SanKind::Ip), exact("10.0.0.01"), false),
            (Some(SanKind::Ip), exact(""), false),
            (Some(SanKind::Dns), exact("2001:db8::1"), false),
            (Some(SanKind::Ip), StringMatcher::prefix("2001:db8::", false).unwrap(), true),
            (Some(SanKind::Ip), StringMatcher::prefix("2001:DB8::", false).unwrap(), false),
        ] {
            let matcher = SanMatcher { kind, name };
            assert_eq!(matches(&peer, &matcher), matched, "{matcher:?}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_whole_leftmost_label() {
        for (san, name, covers) in [
            ("reviews.example.com", "Reviews.Example.com", true),
            ("reviews.example.com", "reviews.example.com.", true),
            ("reviews.example.com", "ratings.example.com", false),
            ("*.example.com", "reviews.example.com", true),
            ("*.example.com", "a.reviews.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.com", "example.com", false),
            ("rev*.example.com", "reviews.example.com", false),
            ("reviews.*.com", "reviews.example.com", false),
            ("*.*.com", "reviews.example.com", false),
            ("*", "reviews", false),
            ("", "", false),
        ] {
            assert_eq!(dns_name_covers(san, name), covers, "{san} {name}");
        }
    }
}
