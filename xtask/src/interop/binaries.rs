//! Our own programs, built as anybody's `cargo build` would.

use super::Outcome;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub(super) struct Binaries {
    pub(super) mesh_server: PathBuf,
    pub(super) meshctl: PathBuf,
    pub(super) mesh_peer: PathBuf,
}

impl Binaries {
    /// Builds them and copies them to `into`, so that a build which goes on meanwhile changes nothing.
    pub(super) fn build(root: &Path, into: &Path) -> Outcome<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let output = Command::new(cargo)
            .current_dir(root)
            .args(["build", "--quiet", "--message-format=json-render-diagnostics"])
            .args(["-p", "mesh-server", "--bin", "mesh-server", "--bin", "meshctl"])
            .args(["-p", "mesh-tests", "--bin", "mesh-peer"])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("cargo build: {}", output.status).into());
        }
        let messages = String::from_utf8(output.stdout)?;
        fs::create_dir_all(into)?;
        let take = |name: &str| -> Outcome<PathBuf> {
            let built = executable(&messages, name).ok_or_else(|| format!("cargo built no {name}"))?;
            let path = into.join(name);
            // A copy over a program that still runs would be refused; a new file is not.
            let staged = into.join(format!("{name}.new"));
            fs::copy(built, &staged)?;
            fs::rename(&staged, &path)?;
            Ok(path)
        };
        Ok(Self {
            mesh_server: take("mesh-server")?,
            meshctl: take("meshctl")?,
            mesh_peer: take("mesh-peer")?,
        })
    }
}

/// Where cargo says it put a program.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str()?;
        (message["target"]["name"] == name).then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_what_cargo_says() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"mesh-server"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"mesh-server"},"executable":"/t/mesh-server"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "mesh-server"), Some("/t/mesh-server".into()));
        assert_eq!(executable(messages, "meshctl"), None);
    }
}
