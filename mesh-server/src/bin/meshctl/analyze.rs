//! `meshctl analyze`: the server's analysis, offline.

use crate::{
    Outcome,
    output::{show, show_coloured, show_value},
};
use clap::{Args, ValueEnum};
use mesh_server::{
    analysis::{Severity, render},
    model::MeshSettings,
    source,
};
use serde_json::json;
use std::{io::IsTerminal, path::PathBuf, process::ExitCode, sync::Arc};

/// Check a directory of YAML as `mesh-server` would.
///
/// Exits with 1 when something is at least as bad as `--fail-on`, and with 2 when it cannot look.
#[derive(Debug, Args)]
pub(crate) struct Analyze {
    /// Directory of YAML.
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// What counts as failure.
    #[arg(long, value_enum, default_value = "error")]
    fail_on: FailOn,
    /// What follows `.svc.` in the names of services.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    domain: String,
    /// The namespace whose policies are for the whole mesh.
    #[arg(long, value_name = "NAME", default_value = "istio-system")]
    root_namespace: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOn {
    Error,
    Warning,
    Info,
}

impl Analyze {
    pub(crate) fn run(self) -> Outcome {
        let settings = MeshSettings { domain: self.domain, root_namespace: self.root_namespace };
        let loaded = source::load(&self.dir, Arc::new(settings))?;
        let count = |severity| loaded.findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings, infos) =
            (count(Severity::Error), count(Severity::Warning), count(Severity::Info));
        if self.json {
            let all = json!({
                "revision": loaded.revision,
                "objects": loaded.config.objects().len(),
                "findings": loaded.findings,
            });
            show_value(&all)?;
        } else {
            let colour = std::io::stdout().is_terminal();
            for finding in &loaded.findings {
                let text = format!("{}\n\n", render(finding, colour));
                if colour { show_coloured(&text)? } else { show(&text)? }
            }
            let objects = loaded.config.objects().len();
            show(&format!("{objects} objects: {errors} errors, {warnings} warnings, {infos} remarks\n"))?;
        }
        let failures = match self.fail_on {
            FailOn::Error => errors,
            FailOn::Warning => errors + warnings,
            FailOn::Info => errors + warnings + infos,
        };
        Ok(if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
