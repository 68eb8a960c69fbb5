//! Bookinfo over the mesh: starts the control plane and the application as separate processes, changes
//! the mesh's YAML while traffic flows, and reports what it observed.
//!
//! The same binary is every process of the mesh: `bookinfo mesh-server …` is the control plane,
//! `bookinfo service …` one of the application's services. See `bookinfo --help`.

mod call;
mod http_get;
mod identity;
mod load;
mod process;
mod report;
mod scenario;
mod service;
mod stranger;
mod world;
mod yaml;

use clap::{Parser, Subcommand};
use report::Report;
use std::{error::Error, io::IsTerminal, process::ExitCode};
use world::World;

/// Runs Istio's documented traffic, resilience and security tasks against a live mesh on loopback.
#[derive(Parser)]
#[command(name = "bookinfo", version)]
struct Cli {
    #[command(subcommand)]
    process: Option<Process>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Leave the mesh up when the scenarios are done, and print how to talk to it.
    #[arg(long)]
    keep_running: bool,
    /// Run only the scenarios whose name contains this. May be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Print the names of the scenarios.
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand)]
enum Process {
    /// One service of the application; started by the runner.
    #[command(hide = true)]
    Service(service::ServiceArgs),
    /// Call a service of a running mesh and count the answers.
    Call(call::CallArgs),
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let _program = args.next();
    if args.next().is_some_and(|first| first == "mesh-server") {
        return mesh_server::cli::main_from(std::env::args_os().skip(1));
    }
    let cli = Cli::parse();
    init_log();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(run(cli)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(error.as_ref()),
    }
}

fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

fn fail(error: &dyn Error) -> ExitCode {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  caused by: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

/// False: an observation contradicted the configuration.
async fn run(cli: Cli) -> Result<bool, Box<dyn Error>> {
    match cli.process {
        Some(Process::Service(args)) => return service::run(args).await.map(|()| true),
        Some(Process::Call(args)) => return call::run(args).await.map(|()| true),
        None => {}
    }
    let chosen = scenario::chosen(&cli.only);
    if cli.list {
        for scenario in &chosen {
            println!("{}", scenario.name);
        }
        return Ok(true);
    }
    if chosen.is_empty() {
        return Err(format!("no scenario is called like {:?}: see `bookinfo --list`", cli.only).into());
    }
    let mut report = Report::new(chosen.len(), cli.json || !std::io::stderr().is_terminal());
    report.step("starting the mesh");
    let mut world = World::start().await?;
    for scenario in chosen {
        report.begin(scenario.name);
        report.end(scenario.run(&mut world).await);
    }
    let ok = report.finish(cli.json);
    if cli.keep_running {
        world.keep_running(cli.json).await?;
    }
    world.stop().await;
    Ok(ok)
}
