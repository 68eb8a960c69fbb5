//! A `mesh-server run` of its own for each scenario, and what `meshctl` makes for its members.

use super::{
    Lab, Outcome, ports,
    process::{self, PATIENCE, Process},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Between two looks at something that changes by itself.
const PAUSE: Duration = Duration::from_millis(20);
/// A client acknowledges within this. Less than the 15 s after which an Envoy goes on without what it misses.
const PROMPTLY: Duration = Duration::from_secs(10);

pub(super) struct ControlPlane {
    // Dropped, and with it ended, before its directory goes.
    _process: Process,
    dir: TempDir,
    meshctl: PathBuf,
    logs: PathBuf,
    xds: u16,
    pub(super) xds_plaintext: u16,
    http: u16,
}

/// A workload as `meshctl bootstrap` is told of it. Its service account has its name.
pub(super) struct Member<'a> {
    pub(super) name: &'a str,
    pub(super) labels: &'a [(&'a str, &'a str)],
}

/// How a member reaches the control plane, and where its certificates come from.
pub(super) enum Security {
    /// Plaintext, no certificates.
    None,
    /// TLS, and certificates of `meshctl cert issue`.
    Files,
    /// Certificates for the data plane only: grpc-js has no TLS towards the control plane.
    PlaintextWithFiles,
    /// TLS, and certificates from the CA by a token of `meshctl token create`.
    Token,
}

impl ControlPlane {
    /// Starts one that serves these files.
    pub(super) fn start(lab: &Lab, files: &[(&str, String)]) -> Outcome<Self> {
        let dir = tempfile::Builder::new().prefix("mesh-interop-").tempdir()?;
        let config = dir.path().join("config");
        fs::create_dir(&config)?;
        for (name, text) in files {
            fs::write(config.join(name), text)?;
        }
        process::finish(
            Command::new(&lab.binaries.meshctl).arg("analyze").arg(&config),
            &lab.logs.join("analyze.log"),
            PATIENCE,
        )?;
        let (xds, xds_plaintext, http) = (ports::free()?, ports::free()?, ports::free()?);
        let mut command = Command::new(&lab.binaries.mesh_server);
        command.arg("run").arg("--config").arg(&config).arg("--data").arg(dir.path().join("data"));
        for (option, port) in [("--xds", xds), ("--xds-plaintext", xds_plaintext), ("--http", http)] {
            command.arg(option).arg(format!("127.0.0.1:{port}"));
        }
        let mut process = Process::start("mesh-server", &mut command, &lab.logs)?;
        process.line("ready")?;
        let (meshctl, logs) = (lab.binaries.meshctl.clone(), lab.logs.clone());
        Ok(Self { _process: process, dir, meshctl, logs, xds, xds_plaintext, http })
    }

    /// Writes a file of the configuration and waits until it is served.
    pub(super) fn apply(&self, name: &str, text: &str) -> Outcome {
        let before = self.revision()?;
        let config = self.dir.path().join("config");
        let staged = self.dir.path().join(name);
        fs::write(&staged, text)?;
        fs::rename(&staged, config.join(name))?;
        self.changed(&before)
    }

    /// Removes a file of the configuration and waits until that is served.
    pub(super) fn remove(&self, name: &str) -> Outcome {
        let before = self.revision()?;
        fs::remove_file(self.dir.path().join("config").join(name))?;
        self.changed(&before)
    }

    fn changed(&self, before: &Value) -> Outcome {
        let until = Instant::now() + PATIENCE;
        while self.revision()? == *before {
            if Instant::now() > until {
                return Err(format!("mesh-server did not take it: {}", self.get("/debug/findings")?).into());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn revision(&self) -> Outcome<Value> {
        Ok(self.get("/debug/syncz")?["config_revision"].take())
    }

    /// The client of this name is connected, has acknowledged what is served now, and has rejected nothing
    /// since it came.
    pub(super) fn acknowledged(&self, member: &str) -> Outcome {
        let until = Instant::now() + PROMPTLY;
        loop {
            let mut status = self.get("/debug/syncz")?;
            let streams = status["streams"].take();
            let own: Vec<&Value> = streams
                .as_array()
                .into_iter()
                .flatten()
                .filter(|stream| stream["cluster"] == format!("{member}.default"))
                .collect();
            let nacks: Vec<String> = own
                .iter()
                .flat_map(|stream| stream["types"].as_array())
                .flatten()
                .filter(|kind| !kind["last_nack"].is_null())
                .map(|kind| format!("{}: {}", kind["type"], kind["last_nack"]["text"]))
                .collect();
            if !nacks.is_empty() {
                return Err(format!("expected no rejection, got {}", nacks.join("; ")).into());
            }
            if !own.is_empty() && own.iter().all(|stream| stream["synced"] == json!(true)) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("expected {member} to acknowledge what is served, got {own:?}").into());
            }
            thread::sleep(PAUSE);
        }
    }

    /// The bootstrap of a member, made by `meshctl`.
    pub(super) fn bootstrap(&self, member: &Member<'_>, security: &Security) -> Outcome<PathBuf> {
        let dir = self.dir.path().join(member.name);
        fs::create_dir_all(&dir)?;
        let path = |name: &str| dir.join(name);
        let mut command = Command::new(&self.meshctl);
        command.args(["bootstrap", "--workload", member.name, "--service-account", member.name]);
        for (key, value) in member.labels {
            command.arg("--label").arg(format!("{key}={value}"));
        }
        let port = match security {
            Security::None | Security::PlaintextWithFiles => {
                command.arg("--plaintext");
                self.xds_plaintext
            }
            Security::Files | Security::Token => self.xds,
        };
        command.arg("--server").arg(format!("127.0.0.1:{port}"));
        match security {
            Security::None => {}
            Security::Files | Security::PlaintextWithFiles => {
                self.certificate(member.name)?;
                command.arg("--ca-file").arg(path("root-cert.pem"));
                command.arg("--cert-file").arg(path("cert-chain.pem"));
                command.arg("--key-file").arg(path("key.pem"));
            }
            Security::Token => {
                let mut create = Command::new(&self.meshctl);
                create.args(["token", "create", "--namespace", "default"]);
                create.args(["--service-account", member.name]).arg("--data").arg(self.data());
                fs::write(path("token"), output(&mut create)?)?;
                command.arg("--ca-file").arg(self.data().join("ca/root-cert.pem"));
                command.arg("--token-file").arg(path("token"));
            }
        }
        let bootstrap = path("bootstrap.json");
        fs::write(&bootstrap, output(&mut command)?)?;
        Ok(bootstrap)
    }

    /// `cert-chain.pem`, `key.pem` and `root-cert.pem` of a service account, in the directory returned.
    pub(super) fn certificate(&self, account: &str) -> Outcome<PathBuf> {
        let dir = self.dir.path().join(account);
        let mut issue = Command::new(&self.meshctl);
        issue.args(["cert", "issue", "--namespace", "default", "--service-account", account]);
        issue.arg("--data").arg(self.data()).arg("--out").arg(&dir);
        process::finish(&mut issue, &self.logs.join(format!("cert-{account}.log")), PATIENCE)?;
        Ok(dir)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where scenarios keep files of their own.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// One GET over HTTP/1.1; the server is ours.
    fn get(&self, path: &str) -> Outcome<Value> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.http))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        write!(connection, "GET {path} HTTP/1.1\r\nhost: interop\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("mesh-server's answer is not HTTP")?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(format!("GET {path}: {head}").into());
        }
        Ok(serde_json::from_str(body)?)
    }
}

fn output(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
