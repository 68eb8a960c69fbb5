//! What the processes of the measuring programs have in common: the part each plays, its threads, and how it ends.

use crate::{Outcome, pin::pin, server};
use clap::Subcommand;
use std::{net::SocketAddr, process::ExitCode};
use tokio::runtime::{Builder, Runtime};

/// Another part than that of measuring.
#[derive(Subcommand)]
pub enum Role {
    /// The server's process.
    #[command(hide = true)]
    Serve {
        /// Where the control plane listens.
        control_plane: SocketAddr,
        /// Of the server.
        threads: usize,
    },
}

impl Role {
    /// Plays it until it is over.
    pub fn run(self) -> Outcome {
        let Self::Serve { control_plane, threads } = self;
        // The other one is the client's.
        let _ = threads == 1 && pin(1);
        runtime(threads)?.block_on(server::process(control_plane))
    }
}

/// A runtime of so many threads.
pub fn runtime(threads: usize) -> Outcome<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    // One thread has no workers.
    Ok(builder.worker_threads(threads).enable_all().build()?)
}

/// How the process ends; an error is printed.
pub fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
