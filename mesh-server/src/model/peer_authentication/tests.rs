//! PeerAuthentication from YAML.

use super::*;
use crate::model::Object;
use crate::model::fixture::{assert_refused, lines, object, parsed};

#[test]
fn modes_are_read_for_the_workload_and_its_ports() {
    let spec = "selector: {matchLabels: {app: a}}\nmtls: {mode: STRICT}\nportLevelMtls: {8080: {mode: DISABLE}, 81: {mode: UNSET}}";
    let parsed = parsed(&object("PeerAuthentication", spec));
    let [Object::PeerAuthentication(policy)] = parsed.objects.as_slice() else {
        panic!("{:#?}", lines(&parsed))
    };
    assert_eq!(policy.mode, Some(MtlsMode::Strict));
    assert_eq!(policy.ports, [(8080, Some(MtlsMode::Disable)), (81, None)].into());
}

#[test]
fn invalid_objects_are_refused_where_they_are_wrong() {
    assert_refused(
        "PeerAuthentication",
        &[
            ("mtls: {mode: strict}", "5:16 `strict` is no mode"),
            ("portLevelMtls: {80: {mode: STRICT}}", "5:3 `portLevelMtls` needs a selector with labels"),
            (
                "selector: {matchLabels: {a: b}}\nportLevelMtls: {http: {mode: STRICT}}",
                "6:19 \"http\" is not a port",
            ),
            ("selector: {matchLabel: {a: b}}", "5:14 unknown field `matchLabel` in a selector"),
        ],
    );
}

#[test]
fn a_selector_without_labels_is_reported() {
    let parsed = parsed(&object("PeerAuthentication", "selector: {}\nmtls: {mode: STRICT}"));
    assert_eq!(parsed.objects.len(), 1);
    assert!(lines(&parsed)[0].starts_with("IST0166 warning 5:13 the selector has no labels"));
}
