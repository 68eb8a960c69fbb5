//! `mesh-bench`: what the mesh costs a call in time, as Markdown. `cargo xtask bench` runs it.
//!
//! Two settings. *One thread*: client and server on one current-thread runtime, one call at a time, so that
//! the processor time of the process is all that a call costs anywhere. *Two processes*: the server in a
//! process of its own; both with one thread, each on a processor of its own, or both with two threads that may run
//! anywhere; 1 to 64 callers on one connection. Nothing here decides a test: machines differ, and so do their days.

use clap::Parser;
use mesh_bench::{
    Outcome,
    arm::{Arm, Arms},
    compare::{Compared, Plan, measured, rounds, table},
    pin::pin,
    process::{Role, exit_code, runtime},
    server::{self, ServerProcess},
    stats::{paired, spread},
    stream::MESSAGES,
    window::{Kind, Load, Window},
    world::World,
};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Measures what the mesh costs a call")]
struct Cli {
    /// A few short windows: to see that it works, not to learn a number.
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    exit_code(match cli.role {
        Some(role) => role.run(),
        None => measure(Plan::new(cli.quick)),
    })
}

fn measure(plan: Plan) -> Outcome {
    in_one_thread(plan)?;
    between_processes(2, &[(Arm::LOADED, Load::unary(64, 64, plan.window))], plan)?;
    // Last: it stays on one processor.
    let (short, long) = (64, 16 << 10);
    let stream = |callers| Load { kind: Kind::Download, ..Load::unary(callers, short, plan.window) };
    let unary = |callers, payload| Load::unary(callers, payload, plan.window);
    let loads = [
        (Arm::LOADED, unary(1, short)),
        (Arm::LOADED, unary(16, short)),
        (Arm::LOADED, unary(64, short)),
        (Arm::CARRYING, unary(1, long)),
        (Arm::CARRYING, unary(16, long)),
        (Arm::CARRYING, unary(64, long)),
        (Arm::CARRYING, stream(1)),
        (Arm::CARRYING, stream(16)),
        (Arm::CARRYING, stream(64)),
    ];
    between_processes(1, &loads, plan)
}

fn in_one_thread(plan: Plan) -> Outcome {
    let world = World::start()?;
    let runtime = runtime(1)?;
    let kinds: Vec<Arm> = Arm::ALL.iter().copied().filter(|arm| *arm != Arm::Mesh1000).collect();
    let arms = runtime.block_on(async {
        let servers = server::serve(world.address()).await?;
        world.list(servers)?;
        Arms::connect(&kinds, world.address(), servers).await
    })?;
    let load = Load::unary(1, 64, plan.window);
    let results = rounds(&runtime, &kinds, load, plan, async |arm, load| arms.run(arm, load).await)?;
    println!("### Client and server on one thread: 64 bytes, one call at a time\n");
    println!("| | CPU ns/call | added to tonic | ratio | added to hyper |\n|---|---|---|---|---|");
    let raw = measured(&results, Arm::Raw)?.each(Window::cpu_per_call);
    for result in &results {
        let base = result.base(&results)?.each(Window::cpu_per_call);
        let cpu = result.each(Window::cpu_per_call);
        let added_to = |base: &[f64]| {
            let added = spread(paired(&cpu, base, |of, base| of - base));
            format!("{:+.0} [{:+.0} .. {:+.0}]", added.median, added.low, added.high)
        };
        let ratio = spread(paired(&cpu, &base, |of, base| of / base)).median;
        let to_raw = if result.arm.base() == Arm::Plain { added_to(&raw) } else { String::new() };
        println!(
            "| {} | {:.0} | {} | {ratio:.3} | {to_raw} |",
            result.arm.label(),
            spread(cpu.iter().copied()).median,
            added_to(&base),
        );
    }
    println!();
    Ok(())
}

fn between_processes(threads: usize, loads: &[(&[Arm], Load)], plan: Plan) -> Outcome {
    let world = World::start()?;
    let server = ServerProcess::start(world.address(), threads)?;
    world.list(server.addresses)?;
    let pinned = threads == 1 && pin(0);
    let runtime = runtime(threads)?;
    let arms = runtime.block_on(Arms::connect(Arm::LOADED, world.address(), server.addresses))?;
    let each = match (threads, pinned) {
        (1, true) => "one thread each, pinned".to_owned(),
        (1, false) => "one thread each".to_owned(),
        _ => format!("{threads} threads each"),
    };
    for &(kinds, load) in loads {
        let results = rounds(&runtime, kinds, load, plan, async |arm, load| arms.run(arm, load).await)?;
        let what = match load.kind {
            Kind::Unary => format!("{} bytes", load.payload),
            Kind::Download => format!("answers of {MESSAGES} messages of {} bytes", load.payload),
        };
        println!("### Two processes, {each}: {what}, {} in flight\n", load.callers);
        println!("{}", table(&results)?);
    }
    Ok(())
}
