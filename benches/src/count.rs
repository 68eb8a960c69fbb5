//! Allocations for each call: client and server on one thread, so that everything a call allocates is
//! counted, and the difference between two arms is the client's. A count, not a timing: it repeats.

use crate::{
    Outcome,
    arm::{Arm, Arms},
    server,
    window::{Kind, Length, Load},
    world::World,
};
use tokio::runtime::{Builder, Runtime};

/// Enough to make what happens once in a while vanish.
const CALLS: u64 = 2_000;
/// Of an upload: a gigabyte.
const MESSAGE: usize = 64 << 10;
const MESSAGES: usize = (1 << 30) / MESSAGE;

/// What a call allocates through one arm, at both ends.
#[derive(Clone, Copy, Debug)]
pub struct Allocations {
    /// The arm.
    pub arm: Arm,
    /// How often.
    pub count: f64,
    /// How much.
    pub bytes: f64,
}

/// Of one upload of a gigabyte in messages of 64 KiB through each of these arms: what `measure` says of it.
pub fn upload(arms: &[Arm], measure: impl Fn(&mut dyn FnMut()) -> u64) -> Outcome<Vec<(Arm, u64)>> {
    let (runtime, connected, _world) = connected(arms)?;
    let mut results = Vec::new();
    for &arm in arms {
        let upload = |messages| runtime.block_on(connected.upload(arm, MESSAGE, messages));
        upload(100)?;
        let mut arrived = Ok(0);
        let seen = measure(&mut || arrived = upload(MESSAGES));
        if arrived? != MESSAGE * MESSAGES {
            return Err("not every byte arrived".into());
        }
        results.push((arm, seen));
    }
    Ok(results)
}

/// Arms, and the server that they call, on one runtime.
fn connected(arms: &[Arm]) -> Outcome<(Runtime, Arms, World)> {
    let world = World::start()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let connected = runtime.block_on(async {
        let servers = server::serve(world.address()).await?;
        world.list(servers)?;
        Arms::connect(arms, world.address(), servers).await
    })?;
    Ok((runtime, connected, world))
}

/// Of one call of 64 bytes through each of these arms. What it calls must count the allocations of this thread.
pub fn allocations(
    arms: &[Arm],
    measure: impl Fn(&mut dyn FnMut()) -> (u64, u64),
) -> Outcome<Vec<Allocations>> {
    let (runtime, connected, _world) = connected(arms)?;
    let load = Load { kind: Kind::Unary, callers: 1, payload: 64, length: Length::Calls(CALLS) };
    let mut results = Vec::new();
    for &arm in arms {
        runtime.block_on(connected.run(arm, load))?;
        let mut outcome = Ok(());
        let (count, bytes) = measure(&mut || outcome = runtime.block_on(connected.run(arm, load)).map(drop));
        outcome?;
        let each = |total: u64| total as f64 / CALLS as f64;
        results.push(Allocations { arm, count: each(count), bytes: each(bytes) });
    }
    Ok(results)
}
