//! Everything of a type, over a connection and from the real service.

use super::*;
use crate::client::{ResourceSet, ResourceState, Watching};

/// What is gone is said to be at once.
fn hasty() -> AdsSettings {
    let mut settings = AdsSettings::default();
    settings.stream.removal_grace = Duration::ZERO;
    settings
}

/// Waits until a list is as wanted.
async fn until<R: Send + Sync + 'static>(
    watch: &mut Watching<ResourceSet<R>>,
    wanted: impl Fn(&ResourceSet<R>) -> bool,
) -> Arc<ResourceSet<R>> {
    loop {
        if let Some(Ok(set)) = &*watch.borrow_and_update()
            && wanted(set)
        {
            return set.clone();
        }
        watch.changed().await.unwrap();
    }
}

fn names<R>(set: &ResourceSet<R>) -> Vec<&str> {
    set.resources.keys().map(|name| &**name).collect()
}

#[tokio::test]
async fn everything_is_listed_followed_and_let_go_and_comes_back_with_the_control_plane() {
    for variant in BOTH {
        let (socket, address) = bind().await;
        let source = Source::new(&[listener("t", "r"), cluster("a"), cluster("b")]);
        let plane = Plane::serve(socket, &source, hasty());
        let client = client(address, variant);
        let (mut clusters, mut listeners) = (client.all_clusters(), client.all_listeners());
        let first = clusters.known().await.unwrap().unwrap();
        assert_eq!(names(&first), ["a", "b"], "{variant:?}");
        assert_eq!(names(&*listeners.known().await.unwrap().unwrap()), ["t"]);
        // A data path beside it is served as ever.
        let mut watch = client.subscribe_cluster("a");
        source.publish(&[cluster("a"), cluster("c"), endpoints("a", 1)]);
        watch.known().await.unwrap().unwrap();
        let second = until(&mut clusters, |set| set.resources.contains_key("c")).await;
        assert!(until(&mut listeners, |set| set.resources.is_empty()).await.note.is_none());
        let gone = until(&mut clusters, |set| !set.resources.contains_key("b")).await;
        assert_eq!(names(&gone), ["a", "c"]);
        assert_eq!(second.changes_since(Some(&first)).added, ["c".into()]);
        let status = client.status();
        let rows: Vec<_> = status.resources.iter().map(|one| format!("{} {}", one.kind, one.name)).collect();
        assert_eq!(rows, ["CDS *", "CDS a", "CDS c", "EDS a", "LDS *"], "{variant:?}");
        assert!(status.resources.iter().all(|one| one.state == ResourceState::Acked));
        let [stream] = plane.ads.streams().try_into().unwrap();
        let cds = stream.types.iter().find(|one| one.kind == "CDS").unwrap();
        assert!(cds.wildcard && cds.held == 2);

        // What goes while the control plane is away is gone when it is back; what stays is the same value.
        drop(plane);
        until(&mut clusters, |set| set.note.is_some()).await;
        source.publish(&[cluster("a"), endpoints("a", 1)]);
        let socket = TcpListener::bind(address).await.unwrap();
        let plane = Plane::serve(socket, &source, hasty());
        let back = until(&mut clusters, |set| set.note.is_none() && !set.resources.contains_key("c")).await;
        assert_eq!(names(&back), ["a"]);
        let value = |set: &ResourceSet<_>| set.resources["a"].resource.clone().unwrap();
        assert!(Arc::ptr_eq(&value(&back), &value(&first)));

        drop((clusters, listeners));
        while plane.ads.streams().iter().flat_map(|one| one.types.clone()).any(|one| one.wildcard) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let held = |one: &crate::client::ResourceStatus| format!("{} {}", one.kind, one.name);
        assert_eq!(client.status().resources.iter().map(held).collect::<Vec<_>>(), ["CDS a", "EDS a"]);
    }
}

#[tokio::test]
async fn a_list_says_why_there_is_none() {
    let (socket, address) = bind().await;
    drop(socket);
    let client = client(address, Variant::Delta);
    let error = client.all_clusters().known().await.unwrap().unwrap_err().to_string();
    assert!(error.starts_with("Cluster * is not known: control plane unreachable"), "{error}");
}
