//! `mesh-bench-memory`: what a long upload costs a client in memory, as Markdown: 1 GiB in messages of 64 KiB, each
//! arm in a process of its own. Needs Linux, whose `/proc` says how much a process has. `cargo xtask bench` runs it.

use mesh_bench::{
    Outcome,
    arm::{Arm, Arms},
    compare::Compared,
    server::{self, Addresses, ServerProcess},
    world::World,
};
use std::{env, fs, net::SocketAddr, process::Command};
use tokio::runtime::{Builder, Runtime};

const MESSAGE: usize = 64 << 10;
const MESSAGES: usize = (1 << 30) / MESSAGE;

fn main() -> Outcome {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        [] => table(),
        ["serve", control_plane, _one] => runtime()?.block_on(server::process(control_plane.parse()?)),
        ["client", arm, control_plane, plain, tls] => {
            let addresses = Addresses { plain: plain.parse()?, tls: tls.parse()? };
            client(arm, control_plane.parse()?, addresses)
        }
        _ => Err("it takes no arguments".into()),
    }
}

fn runtime() -> Outcome<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn table() -> Outcome {
    let world = World::start()?;
    let server = ServerProcess::start(world.address(), 1)?;
    world.list(server.addresses)?;
    println!("### Memory of a client that sends 1 GiB in one call\n");
    println!("| | resident before, KiB | most meanwhile, KiB | more |\n|---|---|---|---|");
    for arm in [Arm::Plain, Arm::Again, Arm::Raw, Arm::Mesh, Arm::MeshRetry] {
        let output = Command::new(env::current_exe()?)
            .args(["client", arm.label(), &world.address().to_string()])
            .args([server.addresses.plain.to_string(), server.addresses.tls.to_string()])
            .output()?;
        if !output.status.success() {
            return Err(format!("{}: {}", arm.label(), String::from_utf8_lossy(&output.stderr)).into());
        }
        let text = String::from_utf8(output.stdout)?;
        let (before, most) = text.trim().split_once(' ').ok_or("the client said nothing")?;
        let (before, most): (u64, u64) = (before.parse()?, most.parse()?);
        println!("| {} | {before} | {most} | {} |", arm.label(), most.saturating_sub(before));
    }
    println!();
    Ok(())
}

/// Uploads, and prints what it had before and at most.
fn client(arm: &str, control_plane: SocketAddr, servers: Addresses) -> Outcome {
    let arm = Arm::ALL.iter().copied().find(|one| one.label() == arm).ok_or("no such arm")?;
    let runtime = runtime()?;
    let arms = runtime.block_on(Arms::connect(&[arm], control_plane, servers))?;
    // The high-water mark begins anew.
    fs::write("/proc/self/clear_refs", "5")?;
    let before = resident("VmRSS:")?;
    let arrived = runtime.block_on(arms.upload(arm, MESSAGE, MESSAGES))?;
    if arrived != MESSAGE * MESSAGES {
        return Err(format!("{arrived} bytes arrived").into());
    }
    println!("{before} {}", resident("VmHWM:")?);
    Ok(())
}

/// In KiB.
fn resident(key: &str) -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
