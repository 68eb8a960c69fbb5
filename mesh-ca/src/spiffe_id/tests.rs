//! What parses as a SPIFFE id and what must not.

use super::*;
use proptest::prelude::*;

#[test]
fn an_istio_id_has_its_parts() {
    let id = SpiffeId::parse("spiffe://cluster.local/ns/default/sa/bookinfo-reviews").unwrap();
    assert_eq!(id.trust_domain().as_str(), "cluster.local");
    assert_eq!(id.path(), "/ns/default/sa/bookinfo-reviews");
    assert_eq!((id.namespace(), id.service_account()), (Some("default"), Some("bookinfo-reviews")));
    assert_eq!(SpiffeId::workload(id.trust_domain(), "default", "bookinfo-reviews").unwrap(), id);
}

#[test]
fn other_paths_have_no_namespace() {
    for uri in [
        "spiffe://td",
        "spiffe://td/ns/a",
        "spiffe://td/ns/a/sa",
        "spiffe://td/ns/a/sa/b/c",
        "spiffe://td/ns/a/b/sa/c",
        "spiffe://td/x/ns/a/sa/b",
    ] {
        let id = SpiffeId::parse(uri).unwrap();
        assert_eq!((id.namespace(), id.service_account()), (None, None), "{uri}");
    }
}

#[test]
fn what_is_not_strictly_a_spiffe_id_is_refused_with_the_reason() {
    let long = format!("spiffe://td/{}", "a".repeat(2048));
    let long_domain = format!("spiffe://{}/a", "a".repeat(256));
    let cases = [
        ("", "begin with"),
        ("https://td/a", "begin with"),
        ("SPIFFE://td/a", "begin with"),
        ("spiffe:/td/a", "begin with"),
        ("spiffe://", "empty"),
        ("spiffe:///a", "empty"),
        ("spiffe://TD/a", "a-z"),
        ("spiffe://td:443/a", "a-z"),
        ("spiffe://user@td/a", "a-z"),
        ("spiffe://t%64/a", "a-z"),
        ("spiffe://td?q", "a-z"),
        ("spiffe://td/", "empty"),
        ("spiffe://td/a/", "empty"),
        ("spiffe://td//a", "empty"),
        ("spiffe://td/./a", "`..`"),
        ("spiffe://td/a/../b", "`..`"),
        ("spiffe://td/a?q=1", "segment"),
        ("spiffe://td/a#f", "segment"),
        ("spiffe://td/a%2fb", "segment"),
        ("spiffe://td/ä", "segment"),
        ("spiffe://td/a b", "segment"),
        (&long, "2048"),
        (&long_domain, "255"),
    ];
    for (uri, reason) in cases {
        let error = SpiffeId::parse(uri).unwrap_err().to_string();
        assert!(error.contains(reason), "{uri:.40}: {error}");
    }
}

#[test]
fn a_namespace_cannot_smuggle_a_segment() {
    let domain = TrustDomain::parse("td").unwrap();
    for part in ["", "..", "a/sa/b", "a?b", "ns "] {
        assert!(SpiffeId::workload(&domain, part, "sa").is_err(), "{part}");
        assert!(SpiffeId::workload(&domain, "ns", part).is_err(), "{part}");
    }
}

#[test]
fn a_longer_trust_domain_is_another_one() {
    let prod = SpiffeId::parse("spiffe://prod/ns/a/sa/b").unwrap();
    let evil = SpiffeId::parse("spiffe://prod.evil/ns/a/sa/b").unwrap();
    assert_ne!(prod.trust_domain(), evil.trust_domain());
}

proptest! {
    #[test]
    fn every_valid_id_is_displayed_as_it_was_parsed(
        domain in "[a-z0-9._-]{1,64}",
        segments in proptest::collection::vec("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,16}", 0..6),
    ) {
        let uri = segments.iter().fold(format!("spiffe://{domain}"), |uri, s| format!("{uri}/{s}"));
        let id = SpiffeId::parse(&uri).unwrap();
        prop_assert_eq!(id.to_string(), uri);
        prop_assert_eq!(id.trust_domain().to_string(), domain);
        prop_assert_eq!(id.path().split('/').count(), segments.len() + 1);
    }

    #[test]
    fn no_text_makes_the_parser_panic_and_what_it_accepts_it_shows_unchanged(text in "(spiffe://)?\\PC{0,64}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), text);
        }
    }
}
