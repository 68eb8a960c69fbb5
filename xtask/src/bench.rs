//! `cargo xtask bench`: what the mesh costs a call, as the Markdown of `docs/performance.md`.

use std::{
    error::Error,
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// What is measured stands between these lines of the document.
const BEGIN: &str = "<!-- measured: cargo xtask bench --write -->\n";
const END: &str = "<!-- end of measured -->\n";

/// Builds the benchmarks with optimisation, runs them and prints what they print; `write` also puts it into the
/// document.
pub fn run(root: &Path, quick: bool, write: bool) -> Result<(), Box<dyn Error>> {
    let mut tables = measure(root, "mesh-bench-instructions", &[])?;
    tables += &measure(root, "mesh-bench-allocations", &[])?;
    tables += &measure(root, "mesh-bench-memory", &[])?;
    tables += &measure(root, "mesh-bench", if quick { &["--quick"] } else { &[] })?;
    println!("{tables}");
    if write {
        let path = root.join("docs/performance.md");
        let text = fs::read_to_string(&path)?;
        let replaced = replaced(&text, &tables).ok_or_else(|| {
            format!("{}: no line {} followed by {}", path.display(), BEGIN.trim(), END.trim())
        })?;
        fs::write(path, replaced)?;
    }
    Ok(())
}

fn measure(root: &Path, binary: &str, options: &[&str]) -> Result<String, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root)
        .args(["run", "--release", "--quiet", "--package", "mesh-bench", "--bin", binary, "--"])
        .args(options)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{binary}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn replaced(text: &str, tables: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{tables}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_measured_is_replaced() {
        let text = format!("a\n{BEGIN}old\n{END}b\n");
        assert_eq!(replaced(&text, "new\n"), Some(format!("a\n{BEGIN}\nnew\n{END}b\n")));
        assert_eq!(replaced("a\n", "new\n"), None);
    }
}
