//! Everything of a type, as it is published.

use super::*;
use crate::client::{
    Known, ResourceState, SetChanges,
    slot::{Published, Reader},
};
use ResourceType::{Cluster as CDS, Listener as LDS};
use std::time::Duration;

type Clusters = ResourceSet<Cluster>;

/// Everything is watched, over an open stream; one reader looks at all that is published.
fn watching(core: &mut Core<Resources>, now: Instant) -> (Published<Clusters>, Reader<Clusters>) {
    let (slot, published) = Slot::new();
    let reader = published.reader();
    core.command(now, [Command::WatchClusters { id: 1, slot }]);
    assert_eq!(asked(&core.on(now, 0, Input::Opened)), [(CDS, 1)]);
    (published, reader)
}

fn look(reader: &mut Reader<Clusters>) -> Arc<Clusters> {
    reader.borrow_and_update().clone().expect("something is known").expect("there is a list")
}

fn names(set: &Clusters) -> Vec<&str> {
    set.resources.keys().map(|name| &**name).collect()
}

fn of_version(version: &str, resources: &[AnyResource]) -> Input {
    let Input::Response(Response::Sotw(response)) = response(CDS, resources) else { unreachable!() };
    Input::Response(Response::Sotw(proto::DiscoveryResponse { version_info: version.into(), ..response }))
}

#[test]
fn what_is_published_says_what_was_added_changed_and_removed_and_keeps_the_rest() {
    let (mut core, now) = (core(), Instant::now());
    let (_published, mut reader) = watching(&mut core, now);
    core.on(now, 0, of_version("1", &[cluster("a"), cluster("b"), cluster("c")]));
    let first = look(&mut reader);
    assert_eq!((names(&first), &*first.version), (vec!["a", "b", "c"], "1"));
    assert_eq!(first.changes_since(None).added, ["a".into(), "b".into(), "c".into()]);
    // Another version of the same is no change, and is told.
    core.on(now, 0, of_version("2", &[cluster("a"), cluster("b"), cluster("c")]));
    let second = look(&mut reader);
    assert!(second.changes_since(Some(&first)).is_empty());
    let a = &second.resources["a"];
    assert_eq!((a.version.as_deref(), a.state), (Some("2"), ResourceState::Acked));
    assert!(Arc::ptr_eq(a.resource.as_ref().unwrap(), first.resources["a"].resource.as_ref().unwrap()));
    core.on(now, 0, of_version("3", &[cluster("a"), secured("b", "own", "roots"), cluster("d")]));
    let third = look(&mut reader);
    let changes = third.changes_since(Some(&second));
    // This client has no use for secrets, and rejects what needs one.
    let b = &third.resources["b"];
    assert_eq!(
        (b.state, b.version.as_deref(), b.rejected.as_deref()),
        (ResourceState::Nacked, Some("2"), Some("3"))
    );
    assert!(b.error.as_ref().unwrap().to_string().starts_with("Cluster b was rejected"), "{:?}", b.error);
    assert_eq!(
        changes,
        SetChanges { added: vec!["d".into()], changed: vec!["b".into()], removed: vec!["c".into()] }
    );
    core.command(now, [Command::Unwatch { id: 1 }]);
    assert!(matches!(core.federation.listing(CDS), Known::Pending));
}

#[test]
fn the_stream_is_read_on_when_everybody_has_looked_at_the_list() {
    let (mut core, now) = (core(), Instant::now());
    let (published, mut reader) = watching(&mut core, now);
    let other = published.reader();
    let out = core.on(now, 0, response(CDS, &[cluster("a")]));
    let outstanding = out.outstanding.expect("nobody has looked");
    look(&mut reader);
    assert!(!outstanding.is_over());
    drop(other);
    assert!(outstanding.is_over());
    core.on(now, 0, Input::Resumed);
    // The same again is no news, and holds up nothing.
    assert!(core.on(now, 0, response(CDS, &[cluster("a")])).outstanding.is_none());
    assert!(!reader.has_changed());
}

#[test]
fn a_list_stays_with_a_note_until_who_is_asked_now_has_one() {
    let (mut core, now) = (core_of(&["a:1", "b:1"]), Instant::now());
    let (_published, mut reader) = watching(&mut core, now);
    core.on(now, 0, of_version("1", &[cluster("x"), cluster("y")]));
    let first = look(&mut reader);
    assert_eq!((names(&first), &first.note), (vec!["x", "y"], &None));
    // The first cannot be reached, and something is not known.
    core.on(now, 0, Input::Closed("gone".into()));
    let (slot, _other) = Slot::new();
    core.command(now, [Command::WatchCluster { id: 2, cluster: "z".into(), slot }]);
    let later = now + Duration::from_secs(60);
    core.tick(later);
    core.on(later, 0, Input::Closed("refused".into()));
    let second = look(&mut reader);
    assert_eq!(names(&second), ["x", "y"]);
    let note = second.note.as_deref().unwrap();
    assert_eq!(note, "an earlier list of Clusters: b:1 has not said yet what there is");
    assert!(second.changes_since(Some(&first)).is_empty());
    // The second cannot list.
    core.on(later, 1, Input::Opened);
    let refused = testing::resource_error("*", 7, "not yours");
    let Input::Response(Response::Sotw(response)) = response(CDS, &[cluster("z")]) else { unreachable!() };
    let response = proto::DiscoveryResponse { resource_errors: vec![refused], ..response };
    core.on(later, 1, Input::Response(Response::Sotw(response)));
    let third = look(&mut reader);
    assert_eq!(names(&third), ["x", "y"], "nothing of the second is among it");
    let note = third.note.as_deref().unwrap();
    assert!(note.starts_with("an earlier list: Cluster * cannot be used: not yours"), "{note}");
    core.on(later, 1, of_version("2", &[cluster("z"), cluster("y")]));
    let last = look(&mut reader);
    assert_eq!((names(&last), &last.note), (vec!["y", "z"], &None));
}

#[test]
fn each_type_has_a_list_of_its_own_beside_targets() {
    let (mut core, now) = (core(), Instant::now());
    let (_published, mut reader) = watching(&mut core, now);
    let (slot, listeners) = Slot::new();
    let listeners = listeners.reader();
    let (target, published) = Slot::new();
    let config = published.reader();
    let watch = Command::WatchCluster { id: 3, cluster: "a".into(), slot: target };
    assert_eq!(
        asked(&core.command(now, [Command::WatchListeners { id: 2, slot }, watch])),
        [(CDS, 2), (LDS, 1)]
    );
    core.on(now, 0, response(CDS, &[cluster("a"), cluster("b")]));
    core.on(now, 0, response(LDS, &[listener("l", "r")]));
    core.on(now, 0, response(ResourceType::ClusterLoadAssignment, &[endpoints("a", 1)]));
    assert_eq!(names(&look(&mut reader)), ["a", "b"]);
    assert!(matches!(&*config.borrow(), Some(Ok(config)) if &*config.cluster.name == "a"));
    let all = listeners.borrow().clone().unwrap().unwrap();
    assert_eq!(all.resources.keys().map(|name| &**name).collect::<Vec<_>>(), ["l"]);
    // The wildcard goes, and what is named stays.
    let out = core.command(now, [Command::Unwatch { id: 1 }]);
    assert_eq!(asked(&out), [(CDS, 1)]);
    assert!(matches!(&*config.borrow(), Some(Ok(_))));
}

/// A route may name any cluster, and a program any target; no data path asks for everything.
#[test]
fn a_target_that_is_called_like_the_wildcard_is_refused_and_nobody_is_asked() {
    let (mut core, now) = (core(), Instant::now());
    let (slot, one) = Slot::new();
    let (other, two) = Slot::new();
    let (one, two) = (one.reader(), two.reader());
    let actions = core.command(
        now,
        [
            Command::WatchClient { id: 1, listener: "*".into(), authority: "t".into(), slot },
            Command::WatchCluster { id: 2, cluster: "*".into(), slot: other },
        ],
    );
    assert!(actions.io.is_empty());
    assert!(one.borrow().clone().unwrap().unwrap_err().to_string().contains("it names no resource"));
    assert!(two.borrow().clone().unwrap().unwrap_err().to_string().contains("it names no resource"));
    // Not even beside who means it.
    let (_published, mut reader) = {
        let (slot, published) = Slot::new();
        let reader = published.reader();
        core.command(now, [Command::WatchClusters { id: 3, slot }]);
        (published, reader)
    };
    core.on(now, 0, Input::Opened);
    core.on(now, 0, response(CDS, &[cluster("a")]));
    assert_eq!(names(&look(&mut reader)), ["a"]);
    assert_eq!(
        asked(&core.command(now, [Command::Unwatch { id: 3 }])),
        [(CDS, 0)],
        "who means it not is no watcher"
    );
    assert!(two.borrow().clone().unwrap().is_err());
    assert!(asked(&core.command(now, [Command::Unwatch { id: 1 }, Command::Unwatch { id: 2 }])).is_empty());
}
