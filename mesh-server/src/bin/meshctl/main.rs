//! `meshctl`: what an operator of the mesh asks and makes. Works on files, on the HTTP port of a running `mesh-server`,
//! and as a client of any control plane; never changes what is served.

mod analyze;
mod bootstrap;
mod explain;
mod identity;
mod output;
mod proxy_status;
mod resources;

use clap::{Parser, Subcommand};
use std::{error::Error, process::ExitCode};

/// What every command ends with: an exit code, or why it could not do its work.
type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Asks and prepares a mesh.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What each does, its arguments say.
#[derive(Debug, Subcommand)]
enum Command {
    Bootstrap(bootstrap::Bootstrap),
    Analyze(analyze::Analyze),
    Explain(explain::Explain),
    ProxyStatus(proxy_status::ProxyStatus),
    Resources(resources::Resources),
    /// Make join tokens.
    #[command(subcommand)]
    Token(identity::Token),
    /// Make certificates by hand, for programs that read them from files.
    #[command(subcommand)]
    Cert(identity::Cert),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bootstrap(command) => command.run(),
        Command::Analyze(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::ProxyStatus(command) => command.run(),
        Command::Resources(command) => command.run(),
        Command::Token(command) => command.run(),
        Command::Cert(command) => command.run(),
    };
    outcome.unwrap_or_else(|error| {
        output::say(&format!("meshctl: {error}"));
        ExitCode::from(2)
    })
}
