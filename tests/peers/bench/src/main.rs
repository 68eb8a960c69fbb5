//! `mesh-peers-bench`: our arms beside tonic-xds and Envoy as a sidecar, as Markdown: the same generated client, the
//! same load, the same server, windows that alternate. `cargo xtask bench --peers` installs what it needs and runs it.

mod arm;
mod certificates;
mod envoy;
mod xds;

use arm::{Arm, Arms};
use clap::Parser;
use envoy::Sidecars;
use mesh_bench::{
    Outcome,
    compare::{Plan, rounds, table},
    process::{Role, exit_code, runtime},
    server::ServerProcess,
    stream::MESSAGES,
    window::{Kind, Load},
    world::World,
};
use std::{path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(about = "Measures our arms beside tonic-xds and Envoy")]
struct Cli {
    /// A few short windows: to see that it works, not to learn a number.
    #[arg(long)]
    quick: bool,
    /// The Envoy to be measured.
    #[arg(long, value_name = "PROGRAM", default_value = "envoy")]
    envoy: PathBuf,
    #[command(subcommand)]
    role: Option<Role>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    exit_code(match cli.role {
        Some(role) => role.run(),
        None => measure(&cli.envoy, Plan::new(cli.quick)),
    })
}

fn measure(envoy: &std::path::Path, plan: Plan) -> Outcome {
    let unary = |callers, payload| Load::unary(callers, payload, plan.window);
    between_processes(2, envoy, &[unary(64, 64)], plan)?;
    // Last: it stays on one processor.
    let stream = Load { kind: Kind::Download, ..unary(16, 64) };
    let loads = [unary(1, 64), unary(16, 64), unary(64, 64), unary(16, 16 << 10), stream];
    between_processes(1, envoy, &loads, plan)
}

fn between_processes(threads: usize, envoy: &std::path::Path, loads: &[Load], plan: Plan) -> Outcome {
    let world = World::start()?;
    let server = ServerProcess::start(world.address(), threads)?;
    world.list(server.addresses)?;
    let (sidecars, pinned) = Sidecars::start(envoy, server.addresses.plain, threads)?;
    let runtime = runtime(threads)?;
    let arms = runtime.block_on(Arms::connect(world.address(), server.addresses, sidecars))?;
    let each = match (threads, pinned) {
        (1, true) => "one thread each, pinned".to_owned(),
        (1, false) => "one thread each".to_owned(),
        _ => format!("{threads} threads each"),
    };
    for &load in loads {
        let results = rounds(&runtime, Arm::ALL, load, plan, async |arm, load| arms.run(arm, load).await)?;
        let what = match load.kind {
            Kind::Unary => format!("{} bytes", load.payload),
            Kind::Download => format!("answers of {MESSAGES} messages of {} bytes", load.payload),
        };
        println!("### Beside peers, {each}: {what}, {} in flight\n", load.callers);
        println!("{}", table(&results)?);
    }
    Ok(())
}
