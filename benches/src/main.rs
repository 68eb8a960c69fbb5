//! `mesh-bench`: what the mesh costs a call in time, as Markdown. `cargo xtask bench` runs it.
//!
//! Two settings. *One thread*: client and server on one current-thread runtime, one call at a time, so that
//! the processor time of the process is all that a call costs anywhere. *Two processes*: the server in a
//! process of its own, both with one thread or with two, 1 to 64 callers on one connection. Nothing here decides a test:
//! machines differ, and so do their days.

use clap::{Parser, Subcommand};
use mesh_bench::{
    Outcome,
    arm::{Arm, Arms},
    server::{self, ServerProcess},
    stats::{paired, quantile, spread},
    stream::MESSAGES,
    window::{Kind, Length, Load, Window},
    world::World,
};
use std::{net::SocketAddr, process::ExitCode, time::Duration};
use tokio::runtime::{Builder, Runtime};

#[derive(Parser)]
#[command(about = "Measures what the mesh costs a call")]
struct Cli {
    /// A few short windows: to see that it works, not to learn a number.
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// The server's process.
    #[command(hide = true)]
    Serve {
        /// Where the control plane listens.
        control_plane: SocketAddr,
        /// Of the server.
        threads: usize,
    },
}

/// How much is measured.
struct Plan {
    rounds: usize,
    window: Duration,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.role {
        Some(Role::Serve { control_plane, threads }) => {
            runtime(threads).and_then(|runtime| runtime.block_on(server::process(control_plane)))
        }
        None => measure(cli.quick),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime(threads: usize) -> Outcome<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    // One thread has no workers.
    Ok(builder.worker_threads(threads).enable_all().build()?)
}

fn measure(quick: bool) -> Outcome {
    let plan = match quick {
        true => Plan { rounds: 3, window: Duration::from_millis(50) },
        false => Plan { rounds: 11, window: Duration::from_millis(250) },
    };
    in_one_thread(&plan)?;
    between_processes(1, &[(64, 1), (64, 16), (64, 64), (16 << 10, 1), (16 << 10, 64)], &plan)?;
    between_processes(2, &[(64, 64)], &plan)
}

fn in_one_thread(plan: &Plan) -> Outcome {
    let world = World::start()?;
    let runtime = runtime(1)?;
    let kinds: Vec<Arm> = Arm::ALL.iter().copied().filter(|arm| *arm != Arm::Mesh1000).collect();
    let arms = runtime.block_on(async {
        let servers = server::serve(world.address()).await?;
        world.list(servers)?;
        Arms::connect(&kinds, world.address(), servers).await
    })?;
    let results = rounds(&runtime, &arms, &kinds, unary(1, 64, plan), plan)?;
    println!("### Client and server on one thread: 64 bytes, one call at a time\n");
    println!("| | CPU ns/call | added by it | ratio |\n|---|---|---|---|");
    for result in &results {
        let base = base(&results, result)?;
        let cpu = result.each(Window::cpu_per_call);
        let base = base.each(Window::cpu_per_call);
        let added = spread(paired(&cpu, &base, |of, base| of - base));
        let ratio = spread(paired(&cpu, &base, |of, base| of / base));
        println!(
            "| {} | {:.0} | {:+.0} [{:+.0} .. {:+.0}] | {:.3} |",
            result.arm.label(),
            spread(cpu).median,
            added.median,
            added.low,
            added.high,
            ratio.median
        );
    }
    println!();
    Ok(())
}

fn unary(callers: u32, payload: usize, plan: &Plan) -> Load {
    Load { kind: Kind::Unary, callers, payload, length: Length::Time(plan.window) }
}

fn between_processes(threads: usize, loads: &[(usize, u32)], plan: &Plan) -> Outcome {
    let world = World::start()?;
    let server = ServerProcess::start(world.address(), threads)?;
    world.list(server.addresses)?;
    let runtime = runtime(threads)?;
    let arms = runtime.block_on(Arms::connect(Arm::LOADED, world.address(), server.addresses))?;
    let each = if threads == 1 { "one thread each".to_owned() } else { format!("{threads} threads each") };
    for &(payload, callers) in loads {
        let results = rounds(&runtime, &arms, Arm::LOADED, unary(callers, payload, plan), plan)?;
        println!("### Two processes, {each}: {payload} bytes, {callers} in flight\n");
        table(&results)?;
    }
    if threads == 1 {
        let load = Load { kind: Kind::Download, ..unary(16, 64, plan) };
        let results = rounds(&runtime, &arms, Arm::LOADED, load, plan)?;
        println!("### Two processes, {each}: answers of {MESSAGES} messages of 64 bytes, 16 in flight\n");
        table(&results)?;
    }
    Ok(())
}

fn table(results: &[Measured]) -> Outcome {
    println!("| | calls/s | ratio | p50 µs | p99 µs | client CPU µs/call | ratio |");
    println!("|---|---|---|---|---|---|---|");
    for result in results {
        row(result, base(results, result)?);
    }
    println!();
    Ok(())
}

fn row(result: &Measured, base: &Measured) {
    let ratio = |value: fn(&Window) -> f64| {
        let (of, base) = (result.each(value), base.each(value));
        let ratio = spread(paired(&of, &base, |of, base| of / base));
        format!("{:.3} [{:.3} .. {:.3}]", ratio.median, ratio.low, ratio.high)
    };
    let median = |value: fn(&Window) -> f64| spread(result.each(value)).median;
    println!(
        "| {} | {:.0} | {} | {:.1} | {:.1} | {:.2} | {} |",
        result.arm.label(),
        median(Window::throughput),
        ratio(Window::throughput),
        median(|window| latency(window, 0.5)),
        median(|window| latency(window, 0.99)),
        median(Window::cpu_per_call) / 1e3,
        ratio(Window::cpu_per_call),
    );
}

/// In microseconds.
fn latency(window: &Window, share: f64) -> f64 {
    quantile(&window.latencies, share).map_or(f64::NAN, |nanoseconds| nanoseconds as f64 / 1e3)
}

/// An arm's windows, one for each round.
struct Measured {
    arm: Arm,
    windows: Vec<Window>,
}

impl Measured {
    fn each(&self, value: impl Fn(&Window) -> f64) -> Vec<f64> {
        self.windows.iter().map(value).collect()
    }
}

fn base<'a>(all: &'a [Measured], of: &Measured) -> Outcome<&'a Measured> {
    Ok(all.iter().find(|one| one.arm == of.arm.base()).ok_or("the arm to compare with is missing")?)
}

/// Every arm once a round, each round beginning with another arm; a round before the first warms up.
fn rounds(runtime: &Runtime, arms: &Arms, kinds: &[Arm], load: Load, plan: &Plan) -> Outcome<Vec<Measured>> {
    let mut results: Vec<_> = kinds.iter().map(|&arm| Measured { arm, windows: Vec::new() }).collect();
    for round in 0..=plan.rounds {
        eprintln!("{load:?}: round {round} of {}", plan.rounds);
        let begin = round % results.len();
        let (before, after) = results.split_at_mut(begin);
        for result in after.iter_mut().chain(before) {
            let window = runtime.block_on(arms.run(result.arm, load))?;
            if round > 0 {
                result.windows.push(window);
            }
        }
    }
    Ok(results)
}
