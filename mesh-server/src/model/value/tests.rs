//! Values: what is accepted, and what it means.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn host(text: &str) -> Host {
    Host::parse(text).expect("a host")
}

#[test]
fn a_wildcard_does_not_match_its_own_parent() {
    assert!(host("*.foo.com").matches("a.foo.com"));
    assert!(!host("*.foo.com").matches("foo.com"));
    assert!(host("*").matches("anything"));
    assert!(host("*.com").overlaps(&host("*.foo.com")));
    assert!(host("*.foo.com").overlaps(&host("*.com")));
    assert!(!host("*.foo.com").overlaps(&host("*.bar.com")));
}

#[test]
fn an_exact_host_is_more_specific_than_any_wildcard() {
    let mut hosts = [host("*"), host("*.com"), host("a.com"), host("*.example.com")];
    hosts.sort_by_key(|host| std::cmp::Reverse(host.specificity()));
    assert_eq!(hosts.map(|host| host.to_string()), ["a.com", "*.example.com", "*.com", "*"]);
}

#[test]
fn hosts_that_no_dns_name_can_be_are_refused() {
    let long_label = "a".repeat(64);
    for bad in ["", "a b", "foo.*.com", "-a.com", "a..b", "1.2.3", long_label.as_str(), "*foo*"] {
        assert!(Host::parse(bad).is_err(), "{bad:?} was accepted");
    }
    for good in ["a", "A.example", "istio.io.", "10.0.0.1", "*-foo.example.com", "*foo.com", "*.a"] {
        assert!(Host::parse(good).is_ok(), "{good:?} was refused");
    }
}

#[test]
fn only_a_name_without_dots_is_short() {
    assert_eq!(expand_short_name("reviews", "shop", "cluster.local"), "reviews.shop.svc.cluster.local");
    for name in ["reviews.other", "*", "*.com", "10.1.2.3", "::1", ""] {
        assert_eq!(expand_short_name(name, "shop", "cluster.local"), name);
    }
}

#[test]
fn durations_are_read_exactly() {
    for (text, millis) in
        [("7s", 7_000), ("0s", 0), ("1.5s", 1_500), ("250ms", 250), ("1h30m", 5_400_000), (".5s", 500)]
    {
        assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "7", "s", "-1s", "1 s", "1d", "1.s2", "1e3s", "99999999999999999999s"] {
        assert_eq!(duration(text), None, "{text}");
    }
}

#[test]
fn percent_becomes_millionths_as_in_istio() {
    let parsed = |percent| PerMillion::from_percent(percent).map(PerMillion::millionths);
    assert_eq!(parsed(0.0), Some(0));
    assert_eq!(parsed(100.0), Some(1_000_000));
    assert_eq!(parsed(0.29), Some(2_900));
    assert_eq!(parsed(0.0001), Some(1));
    assert_eq!(parsed(0.00001), None);
    assert_eq!(parsed(100.1), None);
    assert_eq!(parsed(-1.0), None);
    assert_eq!(parsed(f64::NAN), None);
}

#[test]
fn label_keys_and_values_follow_kubernetes() {
    for key in ["app", "a.b/c_d", "security.istio.io/tlsMode"] {
        assert!(is_label_key(key), "{key}");
    }
    for key in ["", "/a", "a/", "-a", "a b", "a/b/c", "*"] {
        assert!(!is_label_key(key), "{key}");
    }
    assert!(is_label_value(""));
    assert!(!is_label_value("a/b"));
}

proptest! {
    #[test]
    fn reading_a_host_never_panics_and_showing_it_is_reading_it_again(text in "[*a-zA-Z0-9.-]{0,20}") {
        if let Ok(host) = Host::parse(&text) {
            prop_assert_eq!(Host::parse(&host.to_string()), Ok(host));
        }
    }

    #[test]
    fn overlapping_is_symmetric_and_follows_from_a_common_name(
        a in "(\\*)?(\\.)?[ab](\\.[ab]){0,2}", b in "(\\*)?(\\.)?[ab](\\.[ab]){0,2}", name in "[ab](\\.[ab]){0,3}",
    ) {
        if let (Ok(a), Ok(b)) = (Host::parse(&a), Host::parse(&b)) {
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
            prop_assert!(!(a.matches(&name) && b.matches(&name)) || a.overlaps(&b));
        }
    }

    #[test]
    fn any_text_is_a_duration_or_refused(text in "\\PC{0,12}") {
        let _ = duration(&text);
    }
}
