//! The bootstrap's JSON, both ways. Errors name the place: `xds_servers[0].channel_creds`.

use super::{
    Authority, Bootstrap, CallCredentials, CertificateProvider, ChannelCredentials, FileWatcher, MeshCa,
    Node, PLACEHOLDER, ServerConfig,
};
use crate::{name::XDSTP, resource::Locality};
use serde_json::{Map, Value, json};
use std::{path::PathBuf, time::Duration};

const DEFAULT_REFRESH: Duration = Duration::from_secs(600);

type Parsed<T> = Result<T, String>;

/// Parses a bootstrap; the error says where and why.
pub fn parse(text: &str) -> Parsed<Bootstrap> {
    let root: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let root = At { value: &root, path: String::new() };
    root.object()?;
    let servers = root.list("xds_servers")?;
    if servers.is_empty() {
        return Err("xds_servers is missing or empty: name at least one control plane, for example \
                    {\"server_uri\": \"127.0.0.1:15012\", \"channel_creds\": [{\"type\": \"insecure\"}]}"
            .into());
    }
    let mut authorities = std::collections::BTreeMap::new();
    for (name, entry) in root.entries("authorities")? {
        authorities.insert(name.as_str().into(), authority(name, &entry)?);
    }
    let node = root.optional("node", node)?.unwrap_or_default();
    let mut certificate_providers = std::collections::BTreeMap::new();
    for (name, provider) in root.entries("certificate_providers")? {
        if let Some(provider) = certificate_provider(&provider)? {
            certificate_providers.insert(name.as_str().into(), provider);
        }
    }
    let client_listener_template = root.text("client_default_listener_resource_name_template")?;
    Ok(Bootstrap {
        servers: servers.iter().map(server).collect::<Parsed<_>>()?,
        authorities,
        node,
        certificate_providers,
        client_listener_template: client_listener_template.unwrap_or_else(|| PLACEHOLDER.into()),
        server_listener_template: root.text("server_listener_resource_name_template")?,
    })
}

fn authority(name: &str, at: &At<'_>) -> Parsed<Authority> {
    at.object()?;
    let mut authority = Authority::new(name);
    let key = "client_listener_resource_name_template";
    if let Some(template) = at.text(key)? {
        let prefix = format!("{XDSTP}//{name}/");
        if !template.starts_with(&prefix) {
            return Err(format!("{}: `{template}` must start with `{prefix}`", at.at(key)));
        }
        authority.client_listener_template = template;
    }
    authority.servers = at.list("xds_servers")?.iter().map(server).collect::<Parsed<_>>()?;
    authority.fallback_on_reachability_only = at.flag("fallback_on_reachability_only")?;
    Ok(authority)
}

fn server(at: &At<'_>) -> Parsed<ServerConfig> {
    let uri = at.required_text("server_uri")?;
    let offered = at.list("channel_creds")?;
    let mut credentials = None;
    let mut others = Vec::new();
    for entry in &offered {
        if credentials.is_none() {
            let kind = entry.required_text("type")?;
            credentials = match kind.as_str() {
                "insecure" => Some(ChannelCredentials::Insecure),
                "tls" => Some(tls(&entry.child("config"))?),
                _ => None,
            };
            others.push(kind);
        }
    }
    let credentials = credentials.ok_or_else(|| {
        let found =
            if others.is_empty() { "there are none".into() } else { format!("found {}", others.join(", ")) };
        format!(
            "{}: none of its entries has a supported type ({found}): use `insecure` or `tls`",
            at.at("channel_creds")
        )
    })?;
    let mut server =
        ServerConfig::new(&uri, credentials).map_err(|error| format!("{}: {error}", at.at("server_uri")))?;
    for entry in at.list("call_creds")? {
        // Others of gRPC's are skipped: a control plane that needs one says so.
        if entry.required_text("type")? == "jwt_token_file" {
            let file = entry.child("config").required_text("jwt_token_file")?;
            server.call_credentials.push(CallCredentials::JwtTokenFile(file.into()));
        }
    }
    if !server.call_credentials.is_empty() && server.credentials == ChannelCredentials::Insecure {
        return Err(format!(
            "{}: a token is sent over an encrypted connection only (gRFC A97), and channel_creds is `insecure`",
            at.at("call_creds")
        ));
    }
    for feature in at.list("server_features")? {
        if let Value::String(name) = feature.value {
            server.features.enable(name);
        }
    }
    Ok(server)
}

fn tls(at: &At<'_>) -> Parsed<ChannelCredentials> {
    Ok(ChannelCredentials::Tls {
        ca_certificate_file: at.text("ca_certificate_file")?.map(PathBuf::from),
        spiffe_trust_bundle_map_file: at.text("spiffe_trust_bundle_map_file")?.map(PathBuf::from),
        identity: identity_files(at)?,
        refresh_interval: at.duration("refresh_interval")?.unwrap_or(DEFAULT_REFRESH),
    })
}

fn identity_files(at: &At<'_>) -> Parsed<Option<(PathBuf, PathBuf)>> {
    match (at.text("certificate_file")?, at.text("private_key_file")?) {
        (Some(certificate), Some(key)) => Ok(Some((certificate.into(), key.into()))),
        (None, None) => Ok(None),
        _ => Err(format!("{}: certificate_file and private_key_file go together", at.path)),
    }
}

fn node(at: &At<'_>) -> Parsed<Node> {
    let text = |key| Ok::<_, String>(at.text(key)?.unwrap_or_default());
    let metadata = match at.child("metadata").value {
        Value::Null => Map::new(),
        Value::Object(metadata) => metadata.clone(),
        _ => return Err(format!("{}: must be an object", at.at("metadata"))),
    };
    let locality = at.child("locality");
    let part = |key| Ok::<_, String>(locality.text(key)?.unwrap_or_default().into());
    Ok(Node {
        id: text("id")?,
        cluster: text("cluster")?,
        metadata,
        locality: Locality { region: part("region")?, zone: part("zone")?, sub_zone: part("sub_zone")? },
    })
}

/// None: a plug-in that this version does not have; a resource that names the instance is then rejected.
fn certificate_provider(at: &At<'_>) -> Parsed<Option<CertificateProvider>> {
    let plugin = at.required_text("plugin_name")?;
    let config = at.child("config");
    let parsed = certificate_provider_config(&plugin, config.value);
    parsed.map_err(|reason| format!("{}: {reason}", config.path))
}

/// Parses the configuration of one certificate provider; `None` for an unknown plug-in.
pub fn certificate_provider_config(plugin: &str, config: &Value) -> Parsed<Option<CertificateProvider>> {
    let at = At { value: config, path: String::new() };
    match plugin {
        "file_watcher" => file_watcher(&at).map(CertificateProvider::FileWatcher).map(Some),
        "mesh_ca" => mesh_ca(&at).map(CertificateProvider::MeshCa).map(Some),
        _ => Ok(None),
    }
}

fn file_watcher(at: &At<'_>) -> Parsed<FileWatcher> {
    let files = FileWatcher {
        identity: identity_files(at)?,
        ca_certificate_file: at.text("ca_certificate_file")?.map(PathBuf::from),
        crl_file: at.text("crl_file")?.map(PathBuf::from),
        spiffe_trust_bundle_map_file: at.text("spiffe_trust_bundle_map_file")?.map(PathBuf::from),
        refresh_interval: at.duration("refresh_interval")?.unwrap_or(DEFAULT_REFRESH),
    };
    let roots = files.ca_certificate_file.is_some() || files.spiffe_trust_bundle_map_file.is_some();
    if files.identity.is_none() && !roots {
        return Err("file_watcher names no file: set certificate_file and private_key_file, and \
                    ca_certificate_file or spiffe_trust_bundle_map_file"
            .into());
    }
    Ok(files)
}

fn mesh_ca(at: &At<'_>) -> Parsed<MeshCa> {
    let plaintext = at.flag("plaintext")?;
    let ca_certificate_file = at.text("ca_certificate_file")?.map(PathBuf::from);
    if ca_certificate_file.is_none() && !plaintext {
        return Err("mesh_ca needs ca_certificate_file, to know the CA by".into());
    }
    Ok(MeshCa {
        server_uri: at.text("server_uri")?,
        ca_certificate_file,
        server_id: at.text("server_id")?,
        token_file: at.text("token_file")?.map(PathBuf::from),
        namespace: at.required_text("namespace")?,
        service_account: at.required_text("service_account")?,
        lifetime: at.duration("lifetime")?,
        plaintext,
    })
}

/// A value and its place.
struct At<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> At<'a> {
    fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    fn child(&self, key: &str) -> At<'a> {
        At { value: self.value.get(key).unwrap_or(&Value::Null), path: self.at(key) }
    }

    fn object(&self) -> Parsed<()> {
        if self.value.is_object() { Ok(()) } else { Err(format!("{} must be an object", self.path)) }
    }

    fn optional<T>(&self, key: &str, parse: impl Fn(&At<'a>) -> Parsed<T>) -> Parsed<Option<T>> {
        let child = self.child(key);
        if child.value.is_null() {
            return Ok(None);
        }
        child.object()?;
        parse(&child).map(Some)
    }

    fn text(&self, key: &str) -> Parsed<Option<String>> {
        match self.child(key).value {
            Value::Null => Ok(None),
            Value::String(text) if text.is_empty() => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(format!("{} must be a string", self.at(key))),
        }
    }

    fn flag(&self, key: &str) -> Parsed<bool> {
        match self.child(key).value {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            _ => Err(format!("{} must be true or false", self.at(key))),
        }
    }

    fn required_text(&self, key: &str) -> Parsed<String> {
        self.text(key)?.ok_or_else(|| format!("{} is missing", self.at(key)))
    }

    fn list(&self, key: &str) -> Parsed<Vec<At<'a>>> {
        let path = self.at(key);
        match self.child(key).value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => {
                let at = |(i, value)| At { value, path: format!("{path}[{i}]") };
                Ok(items.iter().enumerate().map(at).collect())
            }
            _ => Err(format!("{path} must be a list")),
        }
    }

    fn entries(&self, key: &str) -> Parsed<Vec<(&'a String, At<'a>)>> {
        let path = self.at(key);
        match self.child(key).value {
            Value::Null => Ok(Vec::new()),
            Value::Object(entries) => {
                let at = |(name, value)| (name, At { value, path: format!("{path}.{name}") });
                Ok(entries.iter().map(at).collect())
            }
            _ => Err(format!("{path} must be an object")),
        }
    }

    /// protobuf's JSON form: `600s`, `1.5s`.
    fn duration(&self, key: &str) -> Parsed<Option<Duration>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let seconds = text.strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
        let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match duration.filter(|duration| !duration.is_zero()) {
            Some(duration) => Ok(Some(duration)),
            None => Err(format!("{}: `{text}` is not a duration like \"600s\"", self.at(key))),
        }
    }
}

/// The JSON of a bootstrap; [`parse`] gives it back.
pub(super) fn print(bootstrap: &Bootstrap) -> Value {
    let Bootstrap {
        servers,
        authorities,
        node,
        certificate_providers,
        client_listener_template,
        server_listener_template,
    } = bootstrap;
    let mut root = json!({
        "xds_servers": servers.iter().map(print_server).collect::<Vec<_>>(),
        "node": {
            "id": node.id,
            "cluster": node.cluster,
            "metadata": node.metadata,
            "locality": {
                "region": &*node.locality.region,
                "zone": &*node.locality.zone,
                "sub_zone": &*node.locality.sub_zone,
            },
        },
    });
    if !authorities.is_empty() {
        root["authorities"] = authorities
            .iter()
            .map(|(name, one)| (name.to_string(), print_authority(one)))
            .collect::<Map<_, _>>()
            .into();
    }
    if !certificate_providers.is_empty() {
        root["certificate_providers"] = certificate_providers
            .iter()
            .filter_map(|(name, provider)| Some((name.to_string(), print_provider(provider)?)))
            .collect::<Map<_, _>>()
            .into();
    }
    if client_listener_template != PLACEHOLDER {
        root["client_default_listener_resource_name_template"] = json!(client_listener_template);
    }
    if let Some(template) = server_listener_template {
        root["server_listener_resource_name_template"] = json!(template);
    }
    root
}

fn print_authority(authority: &Authority) -> Value {
    let Authority { client_listener_template, servers, fallback_on_reachability_only } = authority;
    let mut printed = json!({"client_listener_resource_name_template": client_listener_template});
    if !servers.is_empty() {
        printed["xds_servers"] = servers.iter().map(print_server).collect();
    }
    if *fallback_on_reachability_only {
        printed["fallback_on_reachability_only"] = json!(true);
    }
    printed
}

fn print_server(server: &ServerConfig) -> Value {
    let credentials = match &server.credentials {
        ChannelCredentials::Insecure => json!({"type": "insecure"}),
        ChannelCredentials::Tls {
            ca_certificate_file,
            spiffe_trust_bundle_map_file,
            identity,
            refresh_interval,
        } => {
            let mut config = json!({"refresh_interval": seconds(*refresh_interval)});
            print_files(&mut config, identity.as_ref(), ca_certificate_file.as_ref());
            print_bundles(&mut config, spiffe_trust_bundle_map_file.as_ref());
            json!({"type": "tls", "config": config})
        }
    };
    let mut features = vec!["xds_v3"];
    features.extend(server.features.names());
    let mut printed =
        json!({"server_uri": server.address, "channel_creds": [credentials], "server_features": features});
    if !server.call_credentials.is_empty() {
        let print = |CallCredentials::JwtTokenFile(file): &CallCredentials| json!({"type": "jwt_token_file", "config": {"jwt_token_file": file}});
        printed["call_creds"] = server.call_credentials.iter().map(print).collect();
    }
    printed
}

fn print_provider(provider: &CertificateProvider) -> Option<Value> {
    Some(match provider {
        CertificateProvider::Given => return None,
        CertificateProvider::FileWatcher(files) => {
            let mut config = json!({"refresh_interval": seconds(files.refresh_interval)});
            print_files(&mut config, files.identity.as_ref(), files.ca_certificate_file.as_ref());
            if let Some(lists) = &files.crl_file {
                config["crl_file"] = json!(lists);
            }
            print_bundles(&mut config, files.spiffe_trust_bundle_map_file.as_ref());
            json!({"plugin_name": "file_watcher", "config": config})
        }
        CertificateProvider::MeshCa(ca) => {
            let mut config = json!({"namespace": ca.namespace, "service_account": ca.service_account});
            print_files(&mut config, None, ca.ca_certificate_file.as_ref());
            let optional = [
                ("server_uri", ca.server_uri.clone()),
                ("server_id", ca.server_id.clone()),
                ("token_file", ca.token_file.as_ref().map(|path| path.to_string_lossy().into_owned())),
                ("lifetime", ca.lifetime.map(seconds)),
            ];
            for (key, value) in optional {
                if let Some(value) = value {
                    config[key] = json!(value);
                }
            }
            if ca.plaintext {
                config["plaintext"] = json!(true);
            }
            json!({"plugin_name": "mesh_ca", "config": config})
        }
    })
}

fn print_bundles(config: &mut Value, map: Option<&PathBuf>) {
    if let Some(map) = map {
        config["spiffe_trust_bundle_map_file"] = json!(map);
    }
}

fn print_files(config: &mut Value, identity: Option<&(PathBuf, PathBuf)>, roots: Option<&PathBuf>) {
    if let Some((certificate, key)) = identity {
        config["certificate_file"] = json!(certificate);
        config["private_key_file"] = json!(key);
    }
    if let Some(roots) = roots {
        config["ca_certificate_file"] = json!(roots);
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// `google.protobuf.Struct` of a JSON object.
pub(super) fn to_struct(object: &Map<String, Value>) -> prost_types::Struct {
    prost_types::Struct { fields: object.iter().map(|(key, value)| (key.clone(), to_value(value))).collect() }
}

fn to_value(value: &Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => {
            Kind::ListValue(prost_types::ListValue { values: items.iter().map(to_value).collect() })
        }
        Value::Object(object) => Kind::StructValue(to_struct(object)),
    };
    prost_types::Value { kind: Some(kind) }
}
