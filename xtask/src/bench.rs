//! `cargo xtask bench`: what the mesh costs a call, or what a change costs in a large mesh (`--scale`), or what peers
//! cost a call (`--peers`), as the Markdown of `docs/performance.md`.

mod targets;

use crate::interop::Envoy;
use std::{
    error::Error,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Ends what was measured or made.
const END: &str = "<!-- end of measured -->\n";
/// What is made of the rest of the document.
const BEGIN_TARGETS: &str = "<!-- made of the tables below: cargo xtask bench --write -->\n";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// What the mesh costs a call.
    Calls,
    /// What a change costs in a large mesh.
    Scale,
    /// What tonic-xds and Envoy cost a call.
    Peers,
}

impl What {
    /// The line of the document behind which it stands.
    fn begin(self) -> &'static str {
        match self {
            Self::Calls => "<!-- measured: cargo xtask bench --write -->\n",
            Self::Scale => "<!-- measured: cargo xtask bench --scale --write -->\n",
            Self::Peers => "<!-- measured: cargo xtask bench --peers --write -->\n",
        }
    }
}

/// Builds the benchmarks with optimisation, runs them and prints what they print; `write` also puts it into the
/// document, and the table of targets beside.
pub fn run(root: &Path, what: What, quick: bool, write: bool) -> Result<(), Box<dyn Error>> {
    let options: &[&str] = if quick { &["--quick"] } else { &[] };
    let tables = match what {
        What::Calls => {
            let mut tables = measure(root, "mesh-bench-instructions", &[])?;
            tables += &measure(root, "mesh-bench-allocations", &[])?;
            tables += &measure(root, "mesh-bench-memory", &[])?;
            tables + &measure(root, "mesh-bench", options)?
        }
        What::Scale => measure(root, "mesh-bench-scale", options)?,
        What::Peers => peers(root, options)?,
    };
    println!("{tables}");
    if write {
        let path = root.join("docs/performance.md");
        let text = fs::read_to_string(&path)?;
        let missing =
            |begin: &str| format!("{}: no line {} followed by {}", path.display(), begin.trim(), END.trim());
        let text = replaced(&text, what.begin(), &tables).ok_or_else(|| missing(what.begin()))?;
        let table = targets::table(&text);
        let text = replaced(&text, BEGIN_TARGETS, &table).ok_or_else(|| missing(BEGIN_TARGETS))?;
        fs::write(path, text)?;
    }
    Ok(())
}

fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["run", "--release", "--quiet"]);
    cargo
}

fn measure(root: &Path, binary: &str, options: &[&str]) -> Result<String, Box<dyn Error>> {
    let mut command = cargo(root);
    command.args(["--package", "mesh-bench", "--bin", binary, "--"]).args(options);
    output(command, binary)
}

/// The crate of the peers is outside the workspace: nobody builds it who does not ask for it.
fn peers(root: &Path, options: &[&str]) -> Result<String, Box<dyn Error>> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let target = std::path::absolute(target)?;
    let envoy = Envoy::install(root, &target.join("interop"))
        .map_err(|error| format!("Envoy cannot be installed, so nothing was measured: {error}"))?;
    let mut command = cargo(root);
    command.args(["--manifest-path", "tests/peers/bench/Cargo.toml", "--target-dir"]).arg(target);
    command.args([OsString::from("--"), "--envoy".into(), envoy.program().into()]).args(options);
    output(command, "mesh-peers-bench")
}

fn output(mut command: Command, what: &str) -> Result<String, Box<dyn Error>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{what}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn replaced(text: &str, begin: &str, tables: &str) -> Option<String> {
    let (before, rest) = text.split_once(begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n{tables}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_measured_is_replaced() {
        let [calls, scale, peers] = [What::Calls, What::Scale, What::Peers].map(What::begin);
        let text = format!("a\n{calls}old\n{END}b\n{scale}old\n{END}c\n");
        let new_calls = format!("a\n{calls}\nnew\n{END}b\n{scale}old\n{END}c\n");
        let new_scale = format!("a\n{calls}old\n{END}b\n{scale}\nnew\n{END}c\n");
        assert_eq!(replaced(&text, calls, "new\n"), Some(new_calls));
        assert_eq!(replaced(&text, scale, "new\n"), Some(new_scale));
        assert_eq!(replaced(&text, peers, "new\n"), None);
    }

    fn document() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/performance.md")
    }

    /// `UPDATE_DOCS=1` writes it anew, of what is in the document already.
    #[test]
    fn the_targets_are_those_of_the_tables_below() {
        let text = fs::read_to_string(document()).unwrap();
        let made = replaced(&text, BEGIN_TARGETS, &targets::table(&text)).unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(document(), &made).unwrap();
        } else {
            assert!(made == text, "docs/performance.md is old: UPDATE_DOCS=1 cargo test -p xtask targets");
        }
    }

    #[test]
    fn the_document_has_a_place_for_everything() {
        let text = fs::read_to_string(document()).unwrap();
        for begin in [What::Calls.begin(), What::Scale.begin(), What::Peers.begin(), BEGIN_TARGETS] {
            assert!(replaced(&text, begin, "").is_some(), "{begin}");
        }
    }
}
