//! The command line of `mesh-server`, also for another binary that wants to be it ([`main_from`]).
//!
//! Standard output is for programs (`listening …`, `ready`), standard error for people. Whatever prevents
//! the start is one message there and a non-zero exit.

use crate::{
    App, Settings,
    app::Running,
    join::{Join, Security},
    log,
    model::{Config, Protocol, Service},
};
use clap::{Args, Parser, Subcommand};
use mesh_ca::spiffe_id::TrustDomain;
use mesh_xds::printable;
use std::{
    ffi::OsString,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

/// The control plane of the mesh: Istio's configuration in, xDS out, and the certificate authority.
#[derive(Debug, Parser)]
#[command(name = "mesh-server", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a directory of YAML.
    Run(Run),
    /// Serve on loopback without TLS, tokens or state: for trying things out.
    Dev(Dev),
}

#[derive(Debug, Args)]
struct Run {
    /// Directory of YAML: Istio's kinds, Kubernetes' Service and EndpointSlice. Watched.
    ///
    /// A broken object is reported and its last good version served. A file in which it cannot be told what
    /// is broken prevents the start, and later holds every change until it is corrected: it may be a policy.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// Directory for the root key, join tokens and known workloads; made on first use.
    #[arg(long, value_name = "DIR", default_value = "mesh-data")]
    data: PathBuf,
    /// ADS, CA and registration over TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15012")]
    xds: SocketAddr,
    /// ADS and CA in plaintext, for clients without certificates: servers register over TLS. `none` closes it.
    #[arg(long, value_name = "ADDRESS|none", default_value = "127.0.0.1:15010", value_parser = address_or_none)]
    xds_plaintext: AddressOrNone,
    /// Lifetime of certificates whose request names none: `24h`, `90s`.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    cert_ttl: Duration,
    /// A DNS name or address by which clients reach this server, for its certificate. May be repeated.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Dev {
    /// Directory of YAML; without it, a temporary one with an example.
    dir: Option<PathBuf>,
    /// ADS, CA and registration, in plaintext. On loopback only.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15010")]
    xds: SocketAddr,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Whose identities are issued and believed.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// Another name of the trust domain. May be repeated.
    #[arg(long = "trust-domain-alias", value_name = "NAME")]
    trust_domain_aliases: Vec<TrustDomain>,
    /// What follows `.svc.` in the names of services.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    domain: String,
    /// The namespace whose policies are for the whole mesh.
    #[arg(long, value_name = "NAME", default_value = "istio-system")]
    root_namespace: String,
    /// Health, metrics, debugging.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15014")]
    http: SocketAddr,
    /// How often clients report what their calls did, shown by /debug/load and /metrics; `none`: never.
    #[arg(long, value_name = "INTERVAL", default_value = "10s", value_parser = interval_or_none)]
    load_reports: IntervalOrNone,
    /// Clients are asked to connect again after this, give or take a tenth, so that they spread over replicas; `none`:
    /// never.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = interval_or_none)]
    max_connection_age: IntervalOrNone,
    /// Connections of clients at once; without it 20,000. Never more than this process may have files open.
    #[arg(long, value_name = "COUNT")]
    max_connections: Option<usize>,
    /// Bytes that each gRPC port keeps of what clients say of themselves and subscribe to; without it 3 GiB.
    #[arg(long, value_name = "BYTES")]
    max_kept_bytes: Option<usize>,
    /// Bytes of responses that connections of each gRPC port may hold for clients that do not read; without it 1 GiB.
    #[arg(long, value_name = "BYTES")]
    max_unsent_bytes: Option<usize>,
}

/// `none`, or an interval.
#[derive(Clone, Copy, Debug)]
struct IntervalOrNone(Option<Duration>);

fn interval_or_none(text: &str) -> Result<IntervalOrNone, String> {
    if text == "none" {
        return Ok(IntervalOrNone(None));
    }
    duration(text)
        .map(|interval| IntervalOrNone(Some(interval)))
        .map_err(|error| format!("{error}, or `none`"))
}

/// `none`, or an address.
#[derive(Clone, Copy, Debug)]
struct AddressOrNone(Option<SocketAddr>);

fn address_or_none(text: &str) -> Result<AddressOrNone, String> {
    if text == "none" {
        return Ok(AddressOrNone(None));
    }
    text.parse()
        .map(|address| AddressOrNone(Some(address)))
        .map_err(|error| format!("{error}: write `ip:port` or `none`"))
}

/// Reads `24h`, `90s`, `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    crate::model::duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("`{text}` is not a duration such as 24h, 90s or 1h30m"))
}

/// Runs `mesh-server` with these arguments, the program's name first, until it is told to stop.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures; clap knows which is which and where each belongs.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    log::to_stderr();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Run(run) => serve(run.settings(), None).await,
            Command::Dev(dev) => dev.serve().await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("mesh-server: {}", printable::except(message, &['\n']));
    ExitCode::FAILURE
}

impl Run {
    fn settings(self) -> Settings {
        let mut settings = Settings::run(self.config, Some(self.data), self.common.trust_domain.clone());
        settings.xds = Some(self.xds);
        settings.xds_plaintext = self.xds_plaintext.0;
        settings.certificate_lifetime = self.cert_ttl;
        settings.server_names = self.names;
        self.common.apply(settings)
    }
}

impl Common {
    fn apply(self, settings: Settings) -> Settings {
        let aliases = self.trust_domain_aliases.iter().map(ToString::to_string).collect();
        Settings {
            trust_domain_aliases: aliases,
            domain: self.domain,
            load_report_interval: self.load_reports.0,
            root_namespace: self.root_namespace,
            http: Some(self.http),
            max_connection_age: self.max_connection_age.0,
            max_connections: self.max_connections,
            max_kept_bytes: self.max_kept_bytes,
            max_unsent_bytes: self.max_unsent_bytes,
            ..settings
        }
    }
}

impl Dev {
    async fn serve(self) -> Result<(), String> {
        if !self.xds.ip().is_loopback() {
            return Err(format!(
                "--xds {}: `dev` believes whoever connects, so it listens on loopback only; use `mesh-server run`",
                self.xds
            ));
        }
        // Removed when the server ends.
        let temporary = tempfile::Builder::new().prefix("mesh-dev-").tempdir();
        let temporary = temporary.map_err(|error| format!("no temporary directory: {error}"))?;
        let config = match self.dir {
            Some(dir) => dir,
            None => example(temporary.path())
                .map_err(|error| format!("{}: {error}", temporary.path().display()))?,
        };
        let mut settings = Settings::dev(config, self.common.trust_domain.clone());
        settings.xds_plaintext = Some(self.xds);
        serve(self.common.apply(settings), Some(temporary.path())).await
    }
}

/// A directory with one service, for a first try.
fn example(dir: &Path) -> io::Result<PathBuf> {
    let config = dir.join("config");
    std::fs::create_dir(&config)?;
    std::fs::write(config.join("greeter.yaml"), EXAMPLE)?;
    Ok(config)
}

const EXAMPLE: &str = "\
# A service whose servers register themselves with the label `app: greeter`.
# Change this file, or add others: it is live.
apiVersion: v1
kind: Service
metadata:
  name: greeter
spec:
  selector: {app: greeter}
  ports:
  - {name: grpc, port: 50051}
";

/// Serves until a signal; `dev` holds the bootstrap that is printed.
async fn serve(settings: Settings, dev: Option<&Path>) -> Result<(), String> {
    let config = settings.config.clone();
    let mut running = App::start(settings).await.map_err(|error| error.to_string())?;
    report(&running);
    announce(&running, &config, dev).map_err(|error| format!("standard output: {error}"))?;
    tokio::select! {
        signal = end() => signal.map_err(|error| format!("signals: {error}"))?,
        () = running.failed() => return Err("a port has ended; see above".to_owned()),
    }
    tracing::info!("shutting down");
    running.shutdown().await;
    Ok(())
}

/// What is wrong with the files, for whoever starts it.
fn report(running: &Running) {
    for finding in running.publisher().current().findings.iter() {
        eprintln!("{}\n", printable::except(&crate::analysis::render(finding, false), &['\n']));
    }
}

/// Says where it listens, then `ready`, on standard output; in development also how to join.
fn announce(running: &Running, config: &Path, dev: Option<&Path>) -> io::Result<()> {
    let addresses = running.addresses();
    let mut out = io::stdout().lock();
    let ports =
        [("xds", addresses.xds), ("xds-plaintext", addresses.xds_plaintext), ("http", addresses.http)];
    for (name, address) in ports {
        if let Some(address) = address {
            writeln!(out, "listening {name} {address}")?;
        }
    }
    if let (Some(dir), Some(xds)) = (dev, addresses.xds_plaintext) {
        let join = Join::new(xds.to_string(), "dev", Security::Development);
        let bootstrap = join.bootstrap().map_err(io::Error::other)?;
        let path = dir.join("bootstrap.json");
        std::fs::write(&path, format!("{:#}\n", bootstrap.to_json()))?;
        let steps = first_steps(&running.publisher().current().model.config, xds, &path);
        writeln!(out, "\nconfiguration in {} (edit it: it is live)\n\n{steps}", config.display())?;
    }
    writeln!(out, "ready")?;
    out.flush()
}

/// How a program calls a service that there is, and how its servers join.
fn first_steps(config: &Config, xds: SocketAddr, bootstrap: &Path) -> String {
    let bootstrap = bootstrap.display();
    let is_called = |service: &&Arc<Service>| service.selector().is_some_and(|labels| !labels.is_empty());
    let services = || config.services().filter(|service| !service.ports.is_empty());
    let Some(service) = services().find(is_called).or_else(|| services().next()) else {
        return format!(
            "There is no service yet: write a Service into it. Programs find this control plane with\n\n    \
             export GRPC_XDS_BOOTSTRAP={bootstrap}\n"
        );
    };
    let host = &service.hostname;
    let own = format!(".default.svc.{}", config.settings().domain);
    let host = host.strip_suffix(&own).unwrap_or(host);
    let name = host.split('.').next().unwrap_or(host);
    let port = service.ports.iter().find(|port| port.protocol == Protocol::Grpc).or(service.ports.first());
    let port = port.map_or(0, |port| port.number);
    let mut steps = format!(
        "Paste into a program that calls the service `{host}`:\n\n    \
         let mesh = Mesh::from_env()?;\n    \
         let channel = mesh.channel(\"xds:///{host}:{port}\")?;\n    \
         let mut client = {}Client::new(channel);\n\n\
         and run it with\n\n    \
         export GRPC_XDS_BOOTSTRAP={bootstrap}\n",
        camel(name)
    );
    if let Some(labels) = service.selector().filter(|labels| !labels.is_empty()) {
        let namespace = match &*service.namespace {
            "default" => String::new(),
            namespace => format!(" --namespace {namespace}"),
        };
        let labels: String = labels.iter().map(|(key, value)| format!(" --label {key}={value}")).collect();
        steps += &format!(
            "\nA server joins with a bootstrap of its own:\n\n    \
             meshctl bootstrap --dev --server {xds} --workload {name}{namespace}{labels} > {name}.json\n"
        );
    }
    printable::except(&steps, &['\n']).into_owned()
}

/// `product-page` as the name of a type.
fn camel(name: &str) -> String {
    let words = name.split(|char: char| !char.is_ascii_alphanumeric());
    let capital = |word: &str| word.get(..1).unwrap_or_default().to_ascii_uppercase();
    words.map(|word| capital(word) + word.get(1..).unwrap_or_default()).collect()
}

/// Interrupt or termination.
async fn end() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

#[cfg(test)]
mod tests;
