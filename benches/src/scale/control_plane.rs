//! A control plane with a large mesh, in a process of its own, and the handle of it.
//!
//! The handle writes a word a line to its standard input and reads a line for each. Moments are of the machine's
//! monotonic clock, which both processes see.

use super::Mesh;
use crate::{Failure, Outcome};
use mesh_server::{App, Running, Settings, model::RegisteredWorkload};
use rustix::time::{ClockId, clock_gettime};
use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// What changes, of one endpoint of service 0.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// Its weight: endpoints are sent again.
    Weight,
    /// Its service account: the cluster, which names those whom clients may meet, is sent again.
    Account,
}

/// A clock's time.
pub(super) fn time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// The name of a service.
fn name(service: usize) -> String {
    format!("s{service}")
}

/// The name of its cluster, and of its endpoints.
pub(super) fn service(service: usize) -> String {
    format!("outbound|9080||{}.default.svc.cluster.local", name(service))
}

fn workload(service: usize, endpoint: usize) -> RegisteredWorkload {
    let number = u32::try_from(service * 100 + endpoint).unwrap_or_default();
    let address = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    let label = |key: &str, value: String| (key.to_owned(), value);
    RegisteredWorkload {
        name: format!("{}-{address}", name(service)),
        namespace: "default".to_owned(),
        service_account: name(service),
        address,
        ports: [(String::new(), 9080)].into(),
        labels: [
            label("app", name(service)),
            label("version", format!("v{}", endpoint % 2)),
            label("security.istio.io/tlsMode", "istio".to_owned()),
        ]
        .into(),
        locality: Default::default(),
        weight: 1,
        health: Default::default(),
        group: None,
    }
}

/// A control plane that runs in this process, and the directory that it reads.
pub(super) struct Local {
    pub(super) running: Running,
    pub(super) address: SocketAddr,
    /// Of service 0: what changes.
    changed: RegisteredWorkload,
    _dir: tempfile::TempDir,
}

impl Local {
    pub(super) async fn start(mesh: Mesh) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let mut yaml = String::new();
        for service in 0..mesh.services {
            let name = name(service);
            writeln!(
                yaml,
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {{app: {name}}}\n  \
                 ports: [{{name: grpc, port: 9080}}]\n---"
            )?;
        }
        fs::write(dir.path().join("services.yaml"), yaml)?;
        let mut settings = Settings::dev(dir.path(), "cluster.local".parse()?);
        settings.xds_plaintext = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        settings.http = None;
        let running = App::start(settings).await?;
        for service in 0..mesh.services {
            for endpoint in 0..mesh.endpoints {
                running.publisher().add_workload(workload(service, endpoint));
            }
        }
        let address = running.addresses().xds_plaintext.ok_or("the control plane does not listen")?;
        Ok(Self { running, address, changed: workload(0, 0), _dir: dir })
    }

    pub(super) fn change(&mut self, change: Change) {
        match change {
            Change::Weight => self.changed.weight = self.changed.weight % 1000 + 1,
            Change::Account => self.changed.service_account.push('x'),
        }
        self.running.publisher().add_workload(self.changed.clone());
    }
}

/// The process: prints where it serves, then does what it is told until there is nobody to tell it anything.
pub async fn serve(mesh: Mesh) -> Outcome {
    let mut local = Local::start(mesh).await?;
    println!("{}", local.address);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let change = match line.as_str() {
            "usage" => {
                println!("{} {}", time(ClockId::ProcessCPUTime).as_nanos(), resident()?);
                continue;
            }
            "Weight" => Change::Weight,
            "Account" => Change::Account,
            other => return Err(format!("{other:?} is no command").into()),
        };
        let begun = time(ClockId::Monotonic);
        local.change(change);
        println!("{}", begun.as_nanos());
    }
    local.running.shutdown().await;
    Ok(())
}

/// Bytes of this process that are in memory.
fn resident() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS in /proc/self/status")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// What the process used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) memory: u64,
}

/// The handle; the process ends with it.
pub(super) struct ControlPlane {
    pub(super) address: SocketAddr,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl ControlPlane {
    pub(super) async fn start(mesh: Mesh) -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", &mesh.services.to_string(), &mesh.endpoints.to_string()])
            .env("RUST_LOG", "off")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let missing = || Failure::from("the control plane has no pipes");
        let commands = process.stdin.take().ok_or_else(missing)?;
        let mut answers = BufReader::new(process.stdout.take().ok_or_else(missing)?).lines();
        let address = answers.next_line().await?.ok_or("the control plane did not start")?.parse()?;
        Ok(Self { address, commands, answers, _process: process })
    }

    pub(super) async fn usage(&mut self) -> Outcome<Usage> {
        let answer = self.ask("usage").await?;
        let (cpu, memory) = answer.split_once(' ').ok_or("an answer is cut short")?;
        Ok(Usage { cpu: Duration::from_nanos(cpu.parse()?), memory: memory.parse()? })
    }

    /// Makes a change; when it was made.
    pub(super) async fn change(&mut self, change: Change) -> Outcome<Duration> {
        Ok(Duration::from_nanos(self.ask(&format!("{change:?}")).await?.parse()?))
    }

    async fn ask(&mut self, command: &str) -> Outcome<String> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await?;
        Ok(self.answers.next_line().await?.ok_or("the control plane ended")?)
    }
}
