//! The repository's own tasks. `cargo xtask --help` lists them.

use xtask::{
    bench::{self, What},
    codegen, interop,
};

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of this repository")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure what the mesh costs a call, against plain tonic, and print the tables of docs/performance.md.
    Bench {
        /// A few short windows: to see that it works, not to learn a number.
        #[arg(long)]
        quick: bool,
        /// Measure instead what a change costs in a mesh of a thousand services.
        #[arg(long, conflicts_with = "peers")]
        scale: bool,
        /// Measure instead tonic-xds and Envoy beside our own arms, installing Envoy first.
        #[arg(long)]
        peers: bool,
        /// Put the tables into docs/performance.md.
        #[arg(long)]
        write: bool,
    },
    /// Compile proto/*.proto (no protoc needed) into the crates' src/proto directories.
    Codegen {
        /// Change nothing; fail when the committed code differs from what would be generated.
        #[arg(long)]
        check: bool,
    },
    /// Run our control plane and data plane against gRPC's C-core, grpc-js and Envoy, installing them first.
    Interop {
        /// Only the scenarios whose name contains this.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
    },
    /// Write anew what gRPC's C-core, grpc-js and Envoy say and tests of mesh-xds read, installing them first.
    Record,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Bench { quick, scale, peers, write } => {
            let what = match (scale, peers) {
                (true, _) => What::Scale,
                (_, true) => What::Peers,
                _ => What::Calls,
            };
            bench::run(&root(), what, quick, write).map(|()| true)
        }
        Task::Codegen { check } => codegen::run(&root(), check).map(|()| true),
        Task::Record => interop::record(&root()).map(|()| true),
        Task::Interop { only } => interop::run(&root(), only.as_deref()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root, wherever the task was started from.
fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}
