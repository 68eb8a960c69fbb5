//! `cargo xtask record`: writes anew what other implementations say, which tests of mesh-xds read.
//!
//! What has changed is in the working tree afterwards, for a reader to judge; `cargo test -p mesh-xds --lib --
//! recorded verdicts` says whether it still is understood. How each was made: `tests/peers/README.md`.

use super::{home, install::Peers, process};
use std::{
    error::Error,
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest takes half a minute on an idle machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// Installs the peers that are missing, and runs every recorder of `tests/peers/python`.
pub fn record(root: &Path) -> Result<(), Box<dyn Error>> {
    let home = home(root)?;
    let peers = Peers::install(root, &home)?;
    for (script, arguments) in recorders(root) {
        println!("{script}");
        let log = home.join(script).with_extension("log");
        process::finish(process::without_proxy(peers.python(script).args(arguments)), &log, PATIENCE)?;
    }
    Ok(())
}

/// Each with what it is told; the verdicts last, which are on what others have written.
fn recorders(root: &Path) -> Vec<(&'static str, Vec<PathBuf>)> {
    let within = |path: &str| root.join(path);
    let resources = within("mesh-xds/src/resource/tests/recorded");
    vec![
        ("recorded.py", vec![resources.clone()]),
        ("recorded_envoy.py", vec![resources]),
        ("recorded_life.py", vec![within("mesh-xds/src/server/recorded"), within("proto/bookinfo.proto")]),
        ("recorded_verdicts.py", vec![within("mesh-xds"), within("mesh-xds/src/resource/tests/verdicts")]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs};

    #[test]
    fn every_recorder_is_run_on_what_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for path in recorders(root).into_iter().flat_map(|(_, arguments)| arguments) {
            assert!(path.exists(), "{}", path.display());
        }
        let scripts = fs::read_dir(root.join("tests/peers/python")).unwrap();
        let scripts = scripts.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let there: BTreeSet<String> = scripts.filter(|name| name.starts_with("recorded")).collect();
        let run: BTreeSet<String> =
            recorders(root).into_iter().map(|(script, _)| script.to_owned()).collect();
        assert_eq!(run, there);
    }
}
