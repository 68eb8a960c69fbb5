//! `mesh-bench-scale`: what a change costs in a large mesh, as Markdown. `cargo xtask bench --scale` runs it.
//!
//! A real control plane in a process of its own; in this one, thousands of ADS streams over a few connections.
//! They are bare: each asks for clusters and endpoints, answers what it is sent and counts it. One endpoint of a
//! service changes; measured are the processor time of the control plane, what its streams are sent, and the time
//! until the last stream that asked for that service has it.

use clap::{Parser, Subcommand};
use mesh_bench::{
    Outcome,
    process::exit_code,
    scale::{self, Mesh, Plan},
};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Measures what a change costs in a large mesh")]
struct Cli {
    /// A small mesh and a few changes: to see that it works, not to learn a number.
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// The control plane's process.
    #[command(hide = true)]
    Serve {
        /// How many services it has.
        services: usize,
        /// How many endpoints each of them has.
        endpoints: usize,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    exit_code(run(cli))
}

fn run(cli: Cli) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.role {
        Some(Role::Serve { services, endpoints }) => {
            runtime.block_on(scale::serve(Mesh { services, endpoints }))
        }
        None => runtime.block_on(measure(cli.quick)),
    }
}

async fn measure(quick: bool) -> Outcome {
    let (plan, sizes) = match quick {
        true => (Plan { streams: 50, connections: 2, subscribed: 10, followers: 10, rounds: 3 }, [20, 10]),
        false => (
            Plan { streams: 2_000, connections: 20, subscribed: 50, followers: 100, rounds: 30 },
            [1_000, 100],
        ),
    };
    scale::report(&plan, &sizes.map(|services| Mesh { services, endpoints: 10 })).await
}
