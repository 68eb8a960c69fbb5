//! Everything, of several control planes: it is that of one, and the disk has none of it.

use super::*;

impl Script {
    /// `a=1 b=2`, with what is wrong in brackets.
    fn listing(&self, kind: ResourceType) -> String {
        match self.federation.listing(kind) {
            Known::Pending => "pending".to_owned(),
            Known::Bad(error) => error.to_string(),
            Known::Good { resource, note } => {
                let one = |(name, listed): &(Name, Listed<Arc<str>>)| {
                    let value = listed.resource.as_deref().unwrap_or_default();
                    let error = listed.error.as_ref().map(|error| format!("({error})")).unwrap_or_default();
                    format!("{name}={value}{error}")
                };
                let note = note.map(|note| format!(" [{note}]")).unwrap_or_default();
                format!("{}{note}", resource.iter().map(one).collect::<Vec<_>>().join(" "))
            }
        }
    }
}

/// A route may name any cluster: only who asks for the list means it.
#[test]
fn the_wildcard_is_a_list_and_no_resource() {
    let mut script = Script::new(&bootstrap(&["a:1"]));
    assert_eq!(script.add(&[(CDS, "*")]), ["0 connect"]);
    assert_eq!(script.open(0), ["0 CDS  *"]);
    assert_eq!(script.listing(CDS), "pending");
    script.answer(0, CDS, &["x=1", "y=2"]);
    assert_eq!(script.listing(CDS), "x=1 y=2");
    assert!(script.known(CDS, "*").contains("names no resource"), "{}", script.known(CDS, "*"));
    let of = |(kind, name): Key| format!("{} {name}", kind.abbreviation());
    let status = script.federation.status(|_| 0.0);
    assert!(status.iter().all(|one| one.state == ResourceState::Acked));
    assert_eq!(status.iter().map(|one| of(one.key())).collect::<Vec<_>>(), ["CDS *", "CDS x", "CDS y"]);
    assert!(script.federation.accepted().is_empty(), "nothing of it is for the disk");
    assert!(
        script.listing(EDS).contains("only Listener and Cluster have a wildcard"),
        "{}",
        script.listing(EDS)
    );
}

#[test]
fn names_with_an_authority_are_no_part_of_the_list_even_of_the_same_control_plane() {
    let mut script = Script::new(&bootstrap(&["a:1"]).with_authority("x", bootstrap::Authority::new("x")));
    let (named, other) = (
        "xdstp://x/envoy.config.cluster.v3.Cluster/named",
        "xdstp://x/envoy.config.cluster.v3.Cluster/other",
    );
    script.add(&[(CDS, "*"), (CDS, named)]);
    assert_eq!(script.open(0), [format!("0 CDS  *,{named}")]);
    script.answer(0, CDS, &["x=1", &format!("{named}=1"), &format!("{other}=1")]);
    assert_eq!((script.listing(CDS), script.known(CDS, named)), ("x=1".into(), "1".into()));
    let status = script.federation.status(|_| 0.0);
    assert_eq!(status.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["*", "x", named]);
}

#[test]
fn a_collection_of_an_authority_is_an_error_at_once_and_nobody_is_asked() {
    let mut script = Script::new(&bootstrap(&["a:1"]).with_authority("x", bootstrap::Authority::new("x")));
    let all = "xdstp://x/envoy.config.cluster.v3.Cluster/some/*";
    assert!(script.add(&[(CDS, all)]).is_empty());
    let text = script.known(CDS, all);
    assert!(text.contains("it names a collection of `xdstp:` resources"), "{text}");
    assert!(script.federation.status(|_| 0.0).is_empty());
}

#[test]
fn the_list_is_that_of_the_control_plane_that_speaks_and_of_no_other() {
    let mut script = Script::new(&bootstrap(&["a:1", "b:1"]));
    script.add(&[(CDS, "*")]);
    script.open(0);
    script.answer(0, CDS, &["x=a", "y=a"]);
    // What is known is enough, however long it is away.
    script.close(0);
    script.pass(5);
    script.close(0);
    assert_eq!(script.speaks(), "a:1");
    assert!(
        script.listing(CDS).starts_with("x=a y=a [Cluster * is not known: control plane unreachable"),
        "{}",
        script.listing(CDS)
    );
    // Something is not: then the list is asked for as well.
    assert_eq!(script.add(&[(CDS, "z")]), ["1 connect"]);
    assert_eq!((script.speaks(), script.listing(CDS).as_str()), ("b:1", "pending"));
    assert_eq!(script.open(1), ["1 CDS  *,z"]);
    script.answer(1, CDS, &["x=b", "z=b"]);
    assert_eq!(script.listing(CDS), "x=b z=b");
    // What the first had is forgotten meanwhile.
    script.pass(60);
    script.open(0);
    script.answer(0, CDS, &["y=c", "z=c"]);
    assert_eq!((script.speaks(), script.listing(CDS).as_str()), ("a:1", "y=c z=c"));
}

#[test]
fn the_list_of_nobody_says_so_and_what_is_on_disk_is_none() {
    let kept = |name: &str| {
        let (resource, body) = (Arc::from("disk"), format!("{name}=disk").into());
        let kept = Kept { resource, body, version: "old".into(), server: "a:1".into(), confirmed: 1.0 };
        (key(CDS, name), kept)
    };
    let stored = Stored::of([kept("x"), kept("y")].into(), "/cache", 60);
    let mut script = Script::with(&bootstrap(&["a:1"]), stored, Variant::Sotw);
    script.add(&[(CDS, "*"), (CDS, "x")]);
    script.close(0);
    assert!(script.federation.is_stored() && script.known(CDS, "x").starts_with("disk"));
    let text = script.listing(CDS);
    assert!(text.contains("control plane unreachable: a:1: refused; and the last known good one"), "{text}");
    assert!(text.contains("does not say what else there is"), "{text}");
    let status = script.federation.status(|_| 0.0);
    assert_eq!(status.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["*", "x"]);
}

#[test]
fn silence_is_an_error_of_the_list_and_an_empty_answer_is_an_empty_list() {
    for (answers, expected) in [
        (true, ""),
        (false, "Cluster * cannot be used: the control plane did not say what there is within 15 s"),
    ] {
        let mut script = Script::new(&bootstrap(&["a:1"]));
        script.add(&[(CDS, "*")]);
        script.open(0);
        if answers {
            script.answer(0, CDS, &[]);
        }
        script.pass(15);
        assert!(script.listing(CDS).starts_with(expected), "{}", script.listing(CDS));
        assert_eq!(script.listing(CDS).is_empty(), answers);
    }
}
