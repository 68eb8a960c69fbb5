//! `meshctl explain`: why a call goes where it goes. From a directory of YAML, or from a process that runs.

use crate::{
    Outcome,
    output::{say, show, show_value},
};
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use mesh_server::{
    analysis::Severity,
    compile::Mesh,
    explain::{self, Caller, Source},
    model::{Labels, Locality, MeshSettings, Model, Workloads},
    proto::explain::{ExplainRequest, Header, explain_client::ExplainClient},
    source,
};
use mesh_xds::{matcher::Headers, resource};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

/// A process that does not answer by then does not work.
const PATIENCE: Duration = Duration::from_secs(10);

/// Say why a call goes where it goes.
///
/// Shows the virtual host, every route with the first condition that it fails by, where the call goes, every
/// setting that is in force with the line that set it, and every endpoint. Exits with 1 when the call would fail
/// before it has an endpoint, and with 2 when it cannot look.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  meshctl explain --config mesh/ --from productpage --to reviews:9080 \
                        --path /bookinfo.v1.Reviews/GetReviews -H end-user=jason")]
pub(crate) struct Explain {
    /// Directory of YAML, as `mesh-server --config` has it.
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// A process that serves `mesh.explain_service()` (`127.0.0.1:9090`): the answer is from its state at this
    /// moment, with connections and ejections. It must have a channel to --to.
    #[arg(
        long,
        value_name = "ADDRESS",
        conflicts_with_all = ["config", "from", "namespace", "labels", "locality", "domain", "root_namespace", "trust_domain"]
    )]
    at: Option<SocketAddr>,
    /// Who calls: a WorkloadEntry, WorkloadGroup or Service, `name` or `namespace/name`. Its labels and its
    /// namespace decide which configuration it gets.
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// The caller's namespace. Default: that of --from, else `default`.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// A label of the caller: `app=productpage`. May be repeated; beats those of --from.
    #[arg(long = "label", alias = "labels", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Where the caller runs: `region/zone/sub_zone`.
    #[arg(long, value_name = "LOCALITY")]
    locality: Option<String>,
    /// What is called: `reviews:9080`.
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// The method: `/package.Service/Method`, with a query if routes ask for one.
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,
    /// A header of the call: `end-user=jason` or `end-user: jason`. May be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Print JSON: the fields of `mesh_xds::explain::Explanation`.
    #[arg(long)]
    json: bool,
    /// What follows `.svc.` in the names of services.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    domain: String,
    /// The namespace whose policies are for the whole mesh.
    #[arg(long, value_name = "NAME", default_value = "istio-system")]
    root_namespace: String,
    /// The mesh's trust domain.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: String,
}

impl Explain {
    pub(crate) fn run(self) -> Outcome {
        let uri = path(&self.path)?;
        match (&self.config, self.at) {
            (Some(config), _) => self.offline(config, &uri),
            (None, Some(at)) => self.live(at),
            (None, None) => {
                Err("give --config DIR (what is written) or --at ADDRESS (a process that runs)".into())
            }
        }
    }

    fn target(&self) -> &str {
        self.to.strip_prefix("xds:///").unwrap_or(&self.to)
    }

    /// Asks the process that would make the call.
    fn live(&self, at: SocketAddr) -> Outcome {
        let header = |(name, value): &(HeaderName, HeaderValue)| Header {
            name: name.to_string(),
            value: value.as_bytes().to_vec(),
        };
        let request = ExplainRequest {
            target: self.target().to_owned(),
            path: self.path.clone(),
            headers: self.headers.iter().map(header).collect(),
        };
        let asking = async {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{at}"))?;
            let channel =
                endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await.map_err(|error| {
                    let cause = std::error::Error::source(&error)
                        .map(|cause| format!(": {cause}"))
                        .unwrap_or_default();
                    format!(
                        "--at: {at}: {error}{cause}; does the program serve `mesh.explain_service()` there?"
                    )
                })?;
            let answer = ExplainClient::new(channel).explain(request).await;
            let answer = answer.map_err(|status| match status.code() {
                tonic::Code::Unimplemented => {
                    format!("--at: {at}: a gRPC server, but it does not serve `mesh.explain_service()`")
                }
                _ => format!("--at: {at}: {}", status.message()),
            })?;
            Ok::<_, Box<dyn std::error::Error>>(answer.into_inner())
        };
        let answer = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(asking)?;
        if self.json {
            // As readable as offline, and surely JSON.
            show_value(&serde_json::from_str::<serde_json::Value>(&answer.json)?)?;
        } else {
            show(&answer.text)?;
        }
        Ok(if answer.routed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn offline(&self, directory: &Path, uri: &Uri) -> Outcome {
        let target = self.target();
        let settings =
            MeshSettings { domain: self.domain.clone(), root_namespace: self.root_namespace.clone() };
        let loaded = source::load(directory, Arc::new(settings))?;
        let errors = loaded.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        if errors > 0 {
            say(&format!(
                "meshctl: {errors} errors in {}: what is wrong is left out (see `meshctl analyze {0}`)",
                directory.display()
            ));
        }
        let caller = self.caller(&loaded.config)?;
        if let Some(why) = explain::unknown_target(&loaded.config, &caller.namespace, target) {
            return Err(format!("--to: {why}").into());
        }
        let model = Model { config: loaded.config, workloads: Arc::new(Workloads::default()) };
        let mesh = Mesh {
            trust_domain: self.trust_domain.clone(),
            trust_domain_aliases: Vec::new(),
            load_reports: false,
        };
        let map: HeaderMap = self.headers.iter().cloned().collect();
        let request = Headers { map: &map, authority: target, path: uri.path(), scheme: "http" };
        let name = format!("directory {}", directory.display());
        let source = Source { name: &name, revision: &loaded.revision };
        let explanation = explain::explain(&model, &mesh, &caller, &request, uri.query(), source);
        if self.json {
            show_value(&explanation)?;
        } else {
            show(&explanation.to_string())?;
        }
        Ok(if explanation.is_routed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn caller(&self, config: &mesh_server::model::Config) -> Result<Caller, String> {
        let mut caller = match &self.from {
            None => Caller::default(),
            Some(from) => {
                let namespace = self.namespace.as_deref().unwrap_or("default");
                let name = if from.contains('/') { from.clone() } else { format!("{namespace}/{from}") };
                let mut known = explain::callers(config);
                match known.remove(&name) {
                    Some(caller) => caller,
                    // Whoever is not in the YAML can still be described.
                    None if !self.labels.is_empty() => Caller {
                        namespace: name.split('/').next().unwrap_or_default().to_owned(),
                        ..Caller::default()
                    },
                    None => {
                        let names: Vec<&str> = known.keys().map(String::as_str).collect();
                        let meant = explain::closest(&name, &names);
                        return Err(format!(
                            "--from: no WorkloadEntry, WorkloadGroup or Service is called {name}: {meant}. \
                             For one that is not in the YAML give its --label"
                        ));
                    }
                }
            }
        };
        if let Some(namespace) = &self.namespace {
            caller.namespace.clone_from(namespace);
        }
        if caller.namespace.is_empty() {
            caller.namespace = "default".to_owned();
        }
        caller.labels.extend(self.labels.iter().cloned().collect::<Labels>());
        if let Some(locality) = &self.locality {
            let Locality { region, zone, sub_zone } = Locality::parse(locality);
            caller.locality =
                resource::Locality { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() };
        }
        Ok(caller)
    }
}

fn path(text: &str) -> Result<Uri, String> {
    let help = "write it as gRPC sends it: /bookinfo.v1.Reviews/GetReviews";
    if !text.starts_with('/') {
        return Err(format!("--path: {text:?} does not begin with `/`: {help}"));
    }
    text.parse::<Uri>().map_err(|error| format!("--path: {text:?}: {error}; {help}"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    // Whichever comes first: values may hold the other.
    let at = text.get(1..).and_then(|rest| rest.find(['=', ':'])).map(|at| at + 1);
    let Some((name, value)) = at.and_then(|at| Some((text.get(..at)?, text.get(at + 1..)?))) else {
        return Err("a header is NAME=VALUE or NAME: VALUE".to_owned());
    };
    if name.starts_with(':') {
        return Err(format!("{name} is not a header of its own: it follows from --to and --path"));
    }
    let name = HeaderName::from_bytes(name.trim().to_ascii_lowercase().as_bytes())
        .map_err(|_| format!("{name:?} is not a header name"))?;
    let value =
        HeaderValue::from_str(value.trim()).map_err(|_| format!("{value:?} is not a header value"))?;
    Ok((name, value))
}
