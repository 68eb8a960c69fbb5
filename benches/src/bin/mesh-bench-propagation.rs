//! `mesh-bench-propagation`: how long until every member of a mesh has a change, measured at the members.
//!
//! A real control plane and eight members in one process, over loopback. Each change is timed from its cause
//! (the rename that puts a file in place; the registration of a server) until the last member's route table or
//! cluster shows it. Members are looked at every half millisecond.

use mesh_bench::Outcome;
use mesh_client::Mesh;
use mesh_server::{
    App, Settings,
    join::{Join, Security},
};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};
use tonic::transport::Server;

const MEMBERS: usize = 8;
const ROUNDS: u32 = 20;
const TARGET: &str = "probe:9080";
const CLUSTER: &str = "outbound|9080||probe.default.svc.cluster.local";

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: probe}
spec:
  selector: {app: probe}
  ports: [{name: grpc, port: 9080}]
";

#[tokio::main]
async fn main() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("probe.yaml"), SERVICE)?;
    let mut settings = Settings::dev(dir.path(), "cluster.local".parse()?);
    settings.xds_plaintext = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    settings.http = None;
    let running = App::start(settings).await?;
    let xds = running.addresses().xds_plaintext.ok_or("the control plane does not listen")?;

    let mut members = Vec::new();
    let mut channels = Vec::new();
    for i in 0..MEMBERS {
        let member = member(xds, &format!("member-{i}"), "member")?;
        // A target is followed while somebody has a channel to it.
        channels.push(member.channel(TARGET)?);
        members.push(member);
    }
    until(&members, |member| routes(member) > 0).await?;

    let mut edits = Vec::new();
    for round in 1..=ROUNDS {
        // One route more each time: the number of routes tells the change.
        let begun = edit(dir.path(), round)?;
        until(&members, |member| routes(member) == round as usize + 1).await?;
        edits.push(begun.elapsed());
    }
    report("a YAML edit", edits);

    let mut endpoints = Vec::new();
    let mut servers = Vec::new();
    for round in 1..=ROUNDS {
        let mesh = member(xds, &format!("probe-{round}"), "probe")?;
        let begun = Instant::now();
        let server = mesh.server(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let router = Server::builder().layer(server.layer()).add_routes(tonic::service::Routes::default());
        tokio::spawn(router.serve_with_incoming_shutdown(server.incoming(), server.drained()));
        until(&members, |member| known(member) == round as usize).await?;
        endpoints.push(begun.elapsed());
        servers.push((mesh, server));
    }
    report("a server's registration", endpoints);
    running.shutdown().await;
    Ok(())
}

fn member(xds: SocketAddr, workload: &str, app: &str) -> Outcome<Mesh> {
    let mut join = Join::new(xds.to_string(), workload, Security::Development);
    join.labels.insert("app".into(), app.into());
    Ok(Mesh::builder().bootstrap(join.bootstrap()?).build()?)
}

/// Puts a VirtualService with `extra` routes before the last one in place; when that was done.
fn edit(dir: &Path, extra: u32) -> Outcome<Instant> {
    let mut yaml = String::from(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: probe}\nspec:\n  \
         hosts: [probe]\n  http:\n",
    );
    for i in 0..extra {
        yaml += &format!(
            "  - match: [{{uri: {{exact: /probe.Probe/M{i}}}}}]\n    route: [{{destination: {{host: probe}}}}]\n"
        );
    }
    yaml += "  - route: [{destination: {host: probe}}]\n";
    let staged = dir.join(".staged");
    fs::write(&staged, yaml)?;
    let begun = Instant::now();
    fs::rename(&staged, dir.join("routes.yaml"))?;
    Ok(begun)
}

fn routes(member: &Mesh) -> usize {
    member.status().targets.get(TARGET).map_or(0, |target| target.routes)
}

fn known(member: &Mesh) -> usize {
    member.status().clusters.get(CLUSTER).map_or(0, |cluster| cluster.endpoints)
}

async fn until(members: &[Mesh], there: impl Fn(&Mesh) -> bool) -> Outcome {
    let begun = Instant::now();
    while !members.iter().all(&there) {
        if begun.elapsed() > Duration::from_secs(10) {
            return Err("a change did not arrive within 10 s".into());
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    Ok(())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    println!(
        "| {what}, until the last of {MEMBERS} members has it | {:.1} | {:.1} | {:.1} |",
        ms(times.first()),
        ms(times.get(times.len() / 2)),
        ms(times.last())
    );
}
