//! A large mesh: its control plane, its clients, and what a change costs there.

mod client;
mod control_plane;
mod count;

use crate::{
    Outcome,
    stats::{quantile, spread},
};
use client::{Clients, Variant};
pub use control_plane::serve;
use control_plane::{Change, ControlPlane};
pub use count::{Counted, streams as counted_streams};
use mesh_xds::{
    name::ResourceType,
    resource::{AnyResource, ParseContext, Support},
};
use std::time::{Duration, Instant};

/// Long enough for the streams that are not concerned to have looked at a change.
const SETTLE: Duration = Duration::from_millis(100);

/// The size of a mesh.
#[derive(Clone, Copy, Debug)]
pub struct Mesh {
    /// Services.
    pub services: usize,
    /// Endpoints of each.
    pub endpoints: usize,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// ADS streams.
    pub streams: usize,
    /// Connections that they share.
    pub connections: usize,
    /// Services that each asks for.
    pub subscribed: usize,
    /// Streams that ask for the service that changes.
    pub followers: usize,
    /// Changes of each kind.
    pub rounds: usize,
}

/// What a kind of change cost, one value a round.
#[derive(Default)]
struct Costs {
    cpu_ms: Vec<f64>,
    bytes: Vec<f64>,
    resources: Vec<f64>,
    last_ms: Vec<f64>,
}

/// Measures and prints.
pub async fn report(plan: &Plan, meshes: &[Mesh]) -> Outcome {
    println!(
        "### A change in a large mesh: {} streams over {} connections, each following {} services, {} of them the \
         one that changes\n",
        plan.streams, plan.connections, plan.subscribed, plan.followers
    );
    println!(
        "| services × endpoints | streams | what changes | control plane CPU ms | bytes to each follower | resources \
         in them | until the last follower has it: median ms | most ms | memory of an idle stream KiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for mesh in meshes {
        for variant in [Variant::Delta, Variant::Sotw] {
            measure(plan, *mesh, variant).await?;
        }
    }
    println!();
    let mesh = *meshes.first().ok_or("no mesh")?;
    parsing(plan, mesh).await
}

async fn measure(plan: &Plan, mesh: Mesh, variant: Variant) -> Outcome {
    eprintln!("{} services, {variant:?}", mesh.services);
    let mut control_plane = ControlPlane::start(mesh).await?;
    // Compiles and encodes everything once, which is no stream's own.
    let warm =
        Clients::connect(control_plane.address, 1, 1, |_| (0..mesh.services).collect(), variant).await?;
    let follows = |stream: usize| follows(plan, mesh, stream);
    let before = control_plane.usage().await?;
    let mut clients =
        Clients::connect(control_plane.address, plan.connections, plan.streams, follows, variant).await?;
    tokio::time::sleep(SETTLE).await;
    let memory = control_plane.usage().await?.memory.saturating_sub(before.memory);
    drop(warm);
    let idle = memory as f64 / 1024.0 / plan.streams as f64;
    for (what, change, kind) in [
        ("an endpoint's weight", Change::Weight, ResourceType::ClusterLoadAssignment),
        ("a cluster's identities", Change::Account, ResourceType::Cluster),
    ] {
        let mut costs = Costs::default();
        for round in 0..=plan.rounds {
            let before = control_plane.usage().await?.cpu;
            clients.expect(kind, control_plane::service(0));
            let begun = control_plane.change(change).await?;
            let arrived = clients.all_have_it(plan.followers).await?;
            tokio::time::sleep(SETTLE).await;
            let cpu = control_plane.usage().await?.cpu - before;
            // The first change of a kind warms up.
            if round > 0 {
                costs.cpu_ms.push(cpu.as_secs_f64() * 1e3);
                costs.last_ms.push(arrived.last.saturating_sub(begun).as_secs_f64() * 1e3);
                costs.bytes.push(arrived.bytes as f64 / plan.followers as f64);
                costs.resources.push(arrived.resources as f64 / plan.followers as f64);
            }
        }
        costs.last_ms.sort_by(f64::total_cmp);
        println!(
            "| {} × {} | {variant:?} | {what} | {:.1} | {:.0} | {:.1} | {:.1} | {:.1} | {idle:.1} |",
            mesh.services,
            mesh.endpoints,
            spread(costs.cpu_ms).median,
            spread(costs.bytes).median,
            spread(costs.resources).median,
            quantile(&costs.last_ms, 0.5).unwrap_or(f64::NAN),
            quantile(&costs.last_ms, 1.0).unwrap_or(f64::NAN),
        );
    }
    Ok(())
}

/// The services of a stream: service 0 for the followers, and others, spread over all.
fn follows(plan: &Plan, mesh: Mesh, stream: usize) -> Vec<usize> {
    let others = mesh.services - 1;
    let first = usize::from(stream < plan.followers);
    let mut services = if first == 1 { vec![0] } else { Vec::new() };
    services.extend((0..plan.subscribed.min(others) - first).map(|i| 1 + (stream * 7 + i) % others));
    services
}

/// What it costs a client to read a whole mesh.
async fn parsing(plan: &Plan, mesh: Mesh) -> Outcome {
    let control_plane = ControlPlane::start(mesh).await?;
    let clients =
        Clients::connect(control_plane.address, 1, 1, |_| (0..mesh.services).collect(), Variant::Delta)
            .await?;
    let context = ParseContext {
        certificate_providers: ["default".into()].into(),
        support: Support::all(),
        ..ParseContext::default()
    };
    println!("### Reading {} clusters with {} endpoints each\n", mesh.services, mesh.endpoints);
    println!("| | bytes | ms | µs each |\n|---|---|---|---|");
    for (what, kind) in
        [("clusters", ResourceType::Cluster), ("endpoints", ResourceType::ClusterLoadAssignment)]
    {
        let bodies = clients.bodies(kind);
        let bytes: usize = bodies.iter().map(bytes::Bytes::len).sum();
        let mut times = Vec::new();
        for _ in 0..plan.rounds {
            let begun = Instant::now();
            for body in &bodies {
                let read = AnyResource::parse(kind, body, &context);
                drop(read.map_err(|error| error.rejected.to_string())?);
            }
            times.push(begun.elapsed().as_secs_f64());
        }
        let time = spread(times).median;
        println!("| {what} | {bytes} | {:.2} | {:.2} |", time * 1e3, time * 1e6 / bodies.len() as f64);
    }
    println!();
    Ok(())
}
