//! `cargo xtask bench`: what the mesh costs a call, or with `--scale` what a change costs in a large mesh, as the
//! Markdown of `docs/performance.md`.

use std::{
    error::Error,
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// What is measured stands between these lines of the document.
const BEGIN: &str = "<!-- measured: cargo xtask bench --write -->\n";
const BEGIN_SCALE: &str = "<!-- measured: cargo xtask bench --scale --write -->\n";
const END: &str = "<!-- end of measured -->\n";

/// Builds the benchmarks with optimisation, runs them and prints what they print; `write` also puts it into the
/// document.
pub fn run(root: &Path, quick: bool, scale: bool, write: bool) -> Result<(), Box<dyn Error>> {
    let options: &[&str] = if quick { &["--quick"] } else { &[] };
    let (begin, tables) = if scale {
        (BEGIN_SCALE, measure(root, "mesh-bench-scale", options)?)
    } else {
        let mut tables = measure(root, "mesh-bench-instructions", &[])?;
        tables += &measure(root, "mesh-bench-allocations", &[])?;
        tables += &measure(root, "mesh-bench-memory", &[])?;
        tables += &measure(root, "mesh-bench", options)?;
        (BEGIN, tables)
    };
    println!("{tables}");
    if write {
        let path = root.join("docs/performance.md");
        let text = fs::read_to_string(&path)?;
        let replaced = replaced(&text, begin, &tables).ok_or_else(|| {
            format!("{}: no line {} followed by {}", path.display(), begin.trim(), END.trim())
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
        let text = format!("a\n{BEGIN}old\n{END}b\n{BEGIN_SCALE}old\n{END}c\n");
        let calls = format!("a\n{BEGIN}\nnew\n{END}b\n{BEGIN_SCALE}old\n{END}c\n");
        let scale = format!("a\n{BEGIN}old\n{END}b\n{BEGIN_SCALE}\nnew\n{END}c\n");
        assert_eq!(replaced(&text, BEGIN, "new\n"), Some(calls));
        assert_eq!(replaced(&text, BEGIN_SCALE, "new\n"), Some(scale));
        assert_eq!(replaced("a\n", BEGIN, "new\n"), None);
    }
}
