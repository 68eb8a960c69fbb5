//! `mesh-server`: see [`mesh_server::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh_server::cli::main_from(std::env::args_os())
}
