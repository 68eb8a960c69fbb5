//! Clusters whose TLS contexts name secrets.

use super::*;

/// `t` routes by `r` to `a`, which needs the secrets `own` and `roots`; of those nothing is known yet.
fn routed() -> (ClientTarget, Facts) {
    let mut facts = Facts::default();
    let cluster = secured("a", "own", "roots");
    facts.good(&[listener("t", "r"), routes("r", &[("t", &["a"])]), cluster]);
    (target(), facts)
}

fn published(target: &mut ClientTarget, facts: &Facts) -> Arc<XdsConfig> {
    target.resolve(facts).publish.unwrap().unwrap()
}

fn a(config: &XdsConfig) -> &ClusterConfig {
    config.clusters["a"].as_ref().unwrap()
}

#[test]
fn secrets_are_asked_for_with_the_endpoints_and_waited_for() {
    let (mut target, mut facts) = routed();
    let all = ["CDS a", "EDS a", "SDS own", "SDS roots", "LDS t", "RDS r"];
    let steps = [endpoints("a", 1), key_pair("own", "one")];
    assert_eq!(wanted(&target.resolve(&facts).wanted), all);
    for resource in steps {
        let resolution = target.resolve(facts.good(&[resource]));
        assert!(resolution.publish.is_none(), "incomplete");
        assert_eq!(wanted(&resolution.wanted), all);
    }
    let config = published(&mut target, facts.good(&[secret_roots("roots", "one")]));
    let secrets = &a(&config).secrets;
    assert_eq!(secrets.identity.as_ref().unwrap().name.as_ref(), "own");
    assert_eq!(secrets.roots.as_ref().unwrap().name.as_ref(), "roots");
    assert!(!format!("{config:?}").contains("PRIVATE KEY"), "no key is printed");
}

#[test]
fn another_secret_is_another_configuration_of_the_same_cluster() {
    let (mut target, mut facts) = routed();
    facts.good(&[endpoints("a", 1), key_pair("own", "one"), secret_roots("roots", "one")]);
    let before = published(&mut target, &facts);
    assert!(target.resolve(facts.good(&[key_pair("own", "one")])).publish.is_none(), "the same again");
    let after = published(&mut target, facts.good(&[key_pair("own", "two")]));
    let (before, after) = (a(&before), a(&after));
    assert!(Arc::ptr_eq(&before.cluster, &after.cluster) && Arc::ptr_eq(&before.endpoints, &after.endpoints));
    assert_ne!(before.secrets.identity, after.secrets.identity);
    assert!(Arc::ptr_eq(before.secrets.roots.as_ref().unwrap(), after.secrets.roots.as_ref().unwrap()));
}

#[test]
fn a_cluster_without_its_secret_is_an_error_that_names_both() {
    let (mut target, mut facts) = routed();
    facts.good(&[endpoints("a", 1), secret_roots("roots", "one")]);
    let config = published(&mut target, facts.bad(SDS, "own"));
    let error = config.clusters["a"].as_ref().unwrap_err().to_string();
    assert!(
        error.starts_with("Cluster a cannot be used: its TLS context needs a secret: Secret own does not"),
        "{error}"
    );
    assert!(error.contains("said so"), "{error}");
    // Of the wrong kind.
    let config = published(&mut target, facts.good(&[secret_roots("own", "one")]));
    let error = config.clusters["a"].as_ref().unwrap_err().to_string();
    assert!(error.contains("secret own to be a tls_certificate, and it is a validation_context"), "{error}");
    // And then it is there.
    let config = published(&mut target, facts.good(&[key_pair("own", "one")]));
    assert!(config.clusters["a"].is_ok());
}

#[test]
fn what_goes_wrong_with_a_secret_in_use_is_a_note() {
    let (mut target, mut facts) = routed();
    facts.good(&[endpoints("a", 1), key_pair("own", "one"), secret_roots("roots", "one")]);
    published(&mut target, &facts);
    facts.noted(SDS, "own", "rejected");
    facts.noted(SDS, "roots", "stale");
    let config = published(&mut target, &facts);
    assert_eq!(a(&config).note.as_deref(), Some("rejected; stale"));
    assert!(a(&config).secrets.identity.is_some());
}

#[test]
fn leaves_of_an_aggregate_have_their_own_secrets() {
    let mut facts = Facts::default();
    facts.good(&[listener("t", "r"), routes("r", &[("t", &["top"])]), aggregate("top", &["a", "b"])]);
    facts.good(&[secured("a", "own", "roots"), cluster("b"), endpoints("a", 1), endpoints("b", 2)]);
    facts.good(&[secret_roots("roots", "one")]);
    let mut target = target();
    assert!(target.resolve(&facts).publish.is_none(), "incomplete");
    let config = published(&mut target, facts.bad(SDS, "own"));
    let leaves = &config.clusters["top"].as_ref().unwrap().leaves;
    assert!(leaves[0].config.is_err() && leaves[1].config.is_ok(), "it costs the other leaf nothing");
    let config = published(&mut target, facts.good(&[key_pair("own", "one")]));
    let leaf = config.clusters["top"].as_ref().unwrap().leaves[0].config.as_ref().unwrap();
    assert!(leaf.secrets.identity.is_some() && leaf.secrets.roots.is_some());
}
