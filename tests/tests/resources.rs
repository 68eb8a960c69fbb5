//! What a control plane serves, as `meshctl resources` lists it: against a real one.

use crate::joining::{control_plane, loopback};
use mesh_server::{
    join::{Join, Security},
    resources::{Event, Inventory},
};
use mesh_xds::name::ResourceType::{Cluster, ClusterLoadAssignment, Listener};
use std::{net::SocketAddr, time::Duration};
use tempfile::TempDir;

const GREETER: &str = "outbound|50051||greeter.default.svc.cluster.local";
const OTHER: &str = "outbound|1||other.default.svc.cluster.local";

fn bootstrap(server: SocketAddr, delta: bool) -> mesh_xds::bootstrap::Bootstrap {
    let mut join = Join::new(server.to_string(), "meshctl", Security::Development);
    join.delta = delta;
    join.bootstrap().unwrap()
}

/// Events as they are printed, without versions.
async fn next(inventory: &mut Inventory) -> Vec<String> {
    let events = tokio::time::timeout(Duration::from_secs(30), inventory.changed()).await;
    let events = events.expect("something changes").expect("the runtime runs");
    let plain = |event: &Event| match event {
        Event::Added(row) => format!("+ {} {:?} {}", row.kind, row.state, row.name),
        Event::Changed(row) => format!("~ {} {:?} {}", row.kind, row.state, row.name),
        other => other.to_string(),
    };
    events.iter().map(plain).collect()
}

/// Everything up to an event.
async fn until(inventory: &mut Inventory, wanted: &str) -> Vec<String> {
    let mut all = Vec::new();
    while !all.iter().any(|event: &String| event.starts_with(wanted)) {
        all.extend(next(inventory).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cluster_and_listener_of_a_node_is_listed_with_its_version_and_state() {
    for delta in [true, false] {
        let dir = TempDir::new().unwrap();
        let running = control_plane(dir.path(), loopback()).await;
        let server = running.addresses().xds_plaintext.unwrap();
        let types = [Cluster, Listener, ClusterLoadAssignment];
        let found = Inventory::start(&bootstrap(server, delta), &types).inventoried().await.unwrap();
        assert_eq!(
            (&*found.server, found.types.as_slice()),
            (server.to_string().as_str(), &["CDS", "LDS"][..])
        );
        assert!(found.is_sound(), "{found}");
        let cluster = found.resources.iter().find(|row| &*row.name == GREETER).expect("its cluster");
        assert!(cluster.kind == "CDS" && cluster.version.as_ref().is_some_and(|version| !version.is_empty()));
        assert!(
            found.resources.iter().any(|row| row.kind == "LDS" && row.name.starts_with("greeter")),
            "{found}"
        );
        let text = found.to_string();
        assert!(text.starts_with("TYPE  STATE") && text.contains(GREETER), "{text}");

        // One type alone.
        let found = Inventory::start(&bootstrap(server, delta), &[Listener]).inventoried().await.unwrap();
        assert!(found.types == ["LDS"] && found.resources.iter().all(|row| row.kind == "LDS"));
        running.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_followed_as_files_change_and_over_the_end_of_the_control_plane() {
    for delta in [true, false] {
        let dir = TempDir::new().unwrap();
        let running = control_plane(dir.path(), loopback()).await;
        let server = running.addresses().xds_plaintext.unwrap();
        let mut inventory = Inventory::start(&bootstrap(server, delta), &[Cluster]);
        assert!(next(&mut inventory).await.contains(&format!("+ CDS Acked {GREETER}")));
        let other = dir.path().join("other.yaml");
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {ports: [{name: grpc, port: 1}]}\n";
        std::fs::write(&other, service).unwrap();
        let events = until(&mut inventory, "+ CDS").await;
        assert_eq!(events, [format!("+ CDS Acked {OTHER}")], "nothing else changed");
        // Gone while the control plane is away.
        running.shutdown().await;
        until(&mut inventory, "! CDS Cluster * is not known: control plane unreachable").await;
        std::fs::remove_file(&other).unwrap();
        let running = control_plane(dir.path(), server).await;
        let events = until(&mut inventory, &format!("- CDS {OTHER}")).await;
        assert!(!events.iter().any(|event| event.contains(GREETER)), "what stayed is no event: {events:?}");
        running.shutdown().await;
    }
}

#[tokio::test]
async fn a_control_plane_that_is_not_there_is_named() {
    let nobody = std::net::TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let error = Inventory::start(&bootstrap(nobody, true), &[Cluster]).inventoried().await.unwrap_err();
    assert!(error.contains(&nobody.to_string()) && error.contains("refused"), "{error}");
}
