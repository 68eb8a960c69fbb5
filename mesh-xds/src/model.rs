//! Client and server machines joined in memory, under random sequences of events, against a model.
//!
//! Each sequence runs over a state-of-the-world stream and over a delta stream at once. Whatever happens, when
//! it ends and everything is delivered:
//!
//! - the client knows exactly what the server has for it, over both streams the same;
//! - what is rejected was never acknowledged, and a good resource was never lost to a bad one;
//! - no type ever had two responses outstanding, and nothing queued up;
//! - nothing was added before what it may depend on, and nothing removed within its grace;
//! - nothing was used beyond its time to live, and nothing given up before;
//! - [`Outputs::changed`](crate::client::Outputs) named everything that changed.
//!
//! `MESH_MODEL_CASES` runs more of them, `MESH_MODEL_SEED` begins with another.

pub(crate) mod event;
pub(crate) mod lives;
mod order;
pub(crate) mod scripts;
pub(crate) mod server;
pub(crate) mod transport;
mod wildcard;
pub(crate) mod world;

use crate::server::Variant;
use event::{Event, Setup};
use scripts::{Script, explore, fail};
use world::World;

/// Runs one script over both variants.
fn run(setup: &Setup, events: &[Event]) {
    let mut worlds = [Variant::Sotw, Variant::Delta].map(|variant| World::new(variant, setup));
    for event in events {
        for world in &mut worlds {
            world.happen(event);
            if setup.lockstep {
                world.come_to_rest(false);
            }
        }
        if setup.lockstep {
            compare(&worlds);
        }
    }
    for world in &mut worlds {
        world.come_to_rest(true);
        world.check();
    }
    if setup.lockstep {
        compare(&worlds);
    }
}

/// With everything delivered after each event, the variants cannot be told apart. (While the server is away they
/// can: by when they try again.)
fn compare([sotw, delta]: &[World; 2]) {
    // A complete response renews the times to live of all that it repeats.
    if !sotw.server_is_up() || sotw.has_lives() {
        return;
    }
    let (sotw, delta) = (sotw.seen(), delta.seen());
    if sotw != delta {
        fail(format!("state of the world: {sotw:?}\ndelta: {delta:?}"));
    }
}

/// The life of one seed in one variant, written down for the fuzzer: of the client, and of each stream of a server.
pub(crate) fn taped(seed: u64, variant: Variant) -> [Vec<Vec<u8>>; 2] {
    let Script { setup, events } = Script::random(&mut fastrand::Rng::with_seed(seed));
    let mut world = World::new(variant, &setup);
    world.begin_tape();
    for event in &events {
        world.happen(event);
    }
    world.come_to_rest(true);
    world.tape.take().unwrap().end()
}

#[test]
fn client_and_server_converge_whatever_happens() {
    explore(100_000, Script::random, |script| run(&script.setup, &script.events));
}
