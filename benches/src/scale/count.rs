//! What a stream of a large mesh costs its control plane, in allocations of the control plane's own thread, so that a
//! test can hold it. Counts, not times: they repeat.

use super::{
    Mesh,
    client::{Clients, Variant},
    control_plane::{Change, Local, service},
};
use crate::{Failure, Outcome};
use mesh_xds::name::ResourceType;
use std::{net::SocketAddr, thread};
use tokio::{
    runtime::Builder,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// Changes that are counted together.
const CHANGES: u32 = 10;

/// What each stream asks for: service 0, which changes, and others.
const SUBSCRIBED: usize = 50;

/// What was counted of one kind of streams.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Incremental streams; otherwise those of the state of the world.
    pub is_delta: bool,
    /// Bytes that an idle stream holds, with its part of the connection.
    pub held: f64,
    /// Allocations of a change of one endpoint, for each stream that follows it.
    pub change: f64,
}

/// Of so many streams over one connection to a mesh. What it calls must count this thread: allocations, and bytes that
/// are held more than before.
pub fn streams(
    mesh: Mesh,
    streams: usize,
    measure: impl Fn(&mut dyn FnMut()) -> (u64, i64),
) -> Outcome<Vec<Counted>> {
    [Variant::Delta, Variant::Sotw]
        .into_iter()
        .map(|variant| counted((mesh, variant), streams, &measure))
        .collect()
}

fn counted(
    (mesh, variant): (Mesh, Variant),
    streams: usize,
    measure: &impl Fn(&mut dyn FnMut()) -> (u64, i64),
) -> Outcome<Counted> {
    // A control plane of its own: of one that had streams before, nobody knows when it lets go of them.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut local = runtime.block_on(Local::start(mesh))?;
    let (steps, mut done) = unbounded_channel();
    let (go, going) = unbounded_channel();
    let address = local.address;
    // Clients have a thread of their own, which is not counted. It ends when nobody waits for it any more.
    thread::spawn(move || {
        if let Err(error) = clients(address, (mesh, variant), streams, &steps, going) {
            drop(steps.send(Err(error.to_string())));
        }
    });
    let mut step = || -> Outcome<usize> {
        let step = runtime.block_on(done.recv()).ok_or("the clients are gone")?;
        step.map_err(Failure::from)
    };
    // Compiles and encodes everything once, which is no stream's own.
    step()?;
    go.send(())?;
    let mut outcome = Ok(0);
    let (_, held) = measure(&mut || outcome = step());
    outcome?;
    let mut change = || {
        local.change(Change::Weight);
        match step()? {
            resources if resources == streams => Ok(()),
            resources => Err(Failure::from(format!("{resources} resources for {streams} streams"))),
        }
    };
    change()?;
    let mut outcome = Ok(());
    let (count, _) = measure(&mut || outcome = (0..CHANGES).try_for_each(|_| change()));
    outcome?;
    let each = streams as f64;
    Ok(Counted {
        is_delta: variant == Variant::Delta,
        held: held as f64 / each,
        change: count as f64 / f64::from(CHANGES) / each,
    })
}

/// Tells when one stream has everything, when all streams have what they follow, and of each change, when all have
/// that: how many resources they were sent.
fn clients(
    address: SocketAddr,
    (mesh, variant): (Mesh, Variant),
    streams: usize,
    steps: &UnboundedSender<Result<usize, String>>,
    mut going: UnboundedReceiver<()>,
) -> Outcome {
    let follows = |stream: usize| {
        let others = (0..SUBSCRIBED - 1).map(move |i| 1 + (stream * 7 + i) % (mesh.services - 1));
        std::iter::once(0).chain(others).collect()
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let _warm = Clients::connect(address, 1, 1, |_| (0..mesh.services).collect(), variant).await?;
        steps.send(Ok(0))?;
        going.recv().await;
        let mut clients = Clients::connect(address, 1, streams, follows, variant).await?;
        let mut resources = 0;
        loop {
            clients.expect(ResourceType::ClusterLoadAssignment, service(0));
            if steps.send(Ok(resources)).is_err() {
                return Ok(());
            }
            resources = tokio::select! {
                arrived = clients.all_have_it(streams) => arrived?.resources,
                () = steps.closed() => return Ok(()),
            };
        }
    })
}
