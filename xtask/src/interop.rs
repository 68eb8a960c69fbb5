//! `cargo xtask interop`: our control plane and our data plane against other implementations of gRPC, xDS
//! and the proxy: gRPC's C-core, grpc-js, Envoy. All are real processes over TCP and TLS.
//!
//! One line for each check, then `N passed, N failed`. What each proves: `tests/peers/README.md`.

mod binaries;
mod checks;
mod control_plane;
mod csds;
mod front;
mod install;
mod peer;
mod ports;
mod process;
mod record;
mod report;
mod tally;
mod yaml;

use binaries::Binaries;
pub(crate) use install::Envoy;
use install::Peers;
pub use record::record;
use report::Report;
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

/// Why something could not be done, or what was seen instead of what was expected.
type Failure = Box<dyn Error>;
type Outcome<T = ()> = Result<T, Failure>;

/// What a scenario works with.
struct Lab {
    peers: Peers,
    binaries: Binaries,
    /// Logs of this scenario's processes.
    logs: PathBuf,
}

/// Installs what is missing, builds, and runs every scenario whose name contains `only`. False: some
/// check failed.
pub fn run(root: &Path, only: Option<&str>) -> Result<bool, Box<dyn Error>> {
    let chosen: Vec<_> =
        checks::ALL.iter().filter(|scenario| only.is_none_or(|only| scenario.name.contains(only))).collect();
    if chosen.is_empty() {
        let names: Vec<_> = checks::ALL.iter().map(|scenario| scenario.name).collect();
        return Err(format!("--only {}: there are {}", only.unwrap_or_default(), names.join(", ")).into());
    }
    let home = home(root)?;
    let logs = home.join("logs");
    let mut lab = Lab {
        binaries: Binaries::build(root, &home.join("bin"))?,
        peers: Peers::install(root, &home)?,
        logs: logs.clone(),
    };

    let mut report = Report::default();
    for scenario in chosen {
        lab.logs = logs.join(scenario.name);
        match fs::remove_dir_all(&lab.logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&lab.logs)?,
        }
        report.begin(scenario.name, &lab.logs);
        let outcome = (scenario.run)(&lab, &mut report);
        report.end(outcome);
    }
    Ok(report.finish())
}

/// Where the peers are installed.
fn home(root: &Path) -> Outcome<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(std::path::absolute(target)?.join("interop"))
}
