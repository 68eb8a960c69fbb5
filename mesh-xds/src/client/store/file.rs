//! The file: its name, its form, and what is wrong with it.

use super::{Kept, Record, Stored};
use crate::{
    client::machine::{Key, Unparsable},
    name::{Name, ResourceType},
};
use bytes::Bytes;
use prost::Message;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};
use twox_hash::XxHash64;

/// Where the last known good configuration is kept, and for how long it is good.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheSettings {
    /// A directory, made if it is not there; several processes may share it.
    pub directory: PathBuf,
    /// What no control plane has stood by for longer is not used. Default 24 h.
    pub max_age: Duration,
    /// A larger file is neither written nor read. Default 256 MiB.
    pub max_bytes: u64,
}

impl CacheSettings {
    /// In this directory, with the defaults.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), max_age: Duration::from_secs(24 * 60 * 60), max_bytes: 256 << 20 }
    }
}

/// Form of the file. A reader takes its own only.
const FORMAT: &str = "mesh-xds last known good, format 1";

/// The clock of whoever wrote it may be a little ahead.
const SKEW: f64 = 60.0;

/// Whose configuration it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) struct Owner {
    pub(in crate::client) node: String,
    pub(in crate::client) servers: Vec<String>,
}

impl Owner {
    /// Its file.
    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        let text = format!("{}\n{}", self.node, self.servers.join("\n"));
        directory.join(format!("xds-{:016x}.cache", XxHash64::oneshot(0, text.as_bytes())))
    }
}

/// The content, after a line with the format and one with its hash.
#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(string, repeated, tag = "2")]
    servers: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    resources: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(bytes = "bytes", tag = "4")]
    body: Bytes,
    #[prost(string, tag = "5")]
    server: String,
    #[prost(double, tag = "6")]
    confirmed: f64,
}

pub(super) fn encode(owner: &Owner, records: &BTreeMap<Key, Record>) -> Vec<u8> {
    let entry = |((kind, name), record): (&Key, &Record)| Entry {
        type_url: kind.url().to_owned(),
        name: name.to_string(),
        version: record.version.to_string(),
        body: record.body.clone(),
        server: record.server.to_string(),
        confirmed: record.confirmed,
    };
    let file = File {
        node: owner.node.clone(),
        servers: owner.servers.clone(),
        // Nobody hands a secret over; none would be written.
        resources: records.iter().filter(|((kind, _), _)| kind.is_public()).map(entry).collect(),
    };
    seal(&file.encode_to_vec())
}

/// The content of a file, with what goes before it.
pub(super) fn seal(content: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{FORMAT}\n{:016x}\n", XxHash64::oneshot(0, content)).into_bytes();
    bytes.extend(content);
    bytes
}

pub(super) fn decode(owner: &Owner, bytes: &[u8]) -> Result<BTreeMap<Key, Record>, String> {
    let line = |bytes: &[u8]| -> Option<(String, usize)> {
        let end = bytes.iter().take(100).position(|byte| *byte == b'\n')?;
        Some((String::from_utf8_lossy(bytes.get(..end)?).into_owned(), end + 1))
    };
    let (format, start) = line(bytes).ok_or("it is not such a file, or cut off")?;
    if format != FORMAT {
        return Err(format!("its form is `{format}`, and this version reads `{FORMAT}`"));
    }
    let rest = bytes.get(start..).unwrap_or_default();
    let (hash, start) = line(rest).ok_or("it is cut off")?;
    let content = rest.get(start..).unwrap_or_default();
    if hash != format!("{:016x}", XxHash64::oneshot(0, content)) {
        return Err("it is damaged or cut off: its content does not have its hash".to_owned());
    }
    let file = File::decode(content).map_err(|error| format!("it cannot be decoded: {error}"))?;
    if (&file.node, &file.servers) != (&owner.node, &owner.servers) {
        return Err(format!("it is of node {} at {}", file.node, file.servers.join(", ")));
    }
    let record = |entry: Entry| {
        let kind = ResourceType::from_url(&entry.type_url).filter(|kind| kind.is_public())?;
        let record = Record {
            version: entry.version.into(),
            body: entry.body,
            server: entry.server.into(),
            confirmed: entry.confirmed,
        };
        Some(((kind, Name::from(entry.name)), record))
    };
    Ok(file.resources.into_iter().filter_map(record).collect())
}

/// Reads what is of use at `now`, in seconds since the epoch. `parse` is told who sent a resource. Blocks for one file.
pub(in crate::client) fn load<R>(
    settings: &CacheSettings,
    owner: &Owner,
    now: f64,
    parse: impl Fn(ResourceType, &Bytes, &str) -> Result<(Name, R), Unparsable>,
) -> Stored<R> {
    let path = owner.path(&settings.directory);
    let ignored =
        |why: &str| tracing::warn!(file = %path.display(), why, "a last known good configuration is ignored");
    let records = match read(&path, settings.max_bytes) {
        Ok(bytes) => decode(owner, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Stored::none(),
        Err(error) => Err(error.to_string()),
    };
    let records = match records {
        Ok(records) => records,
        Err(why) => {
            ignored(&why);
            return Stored::none();
        }
    };
    let (stored, faults) = revive(records, path.clone(), settings.max_age, now, parse);
    faults.iter().for_each(|why| ignored(why));
    stored
}

/// What is of use of these records, and what is wrong with the others.
pub(super) fn revive<R>(
    records: BTreeMap<Key, Record>,
    path: PathBuf,
    max_age: Duration,
    now: f64,
    parse: impl Fn(ResourceType, &Bytes, &str) -> Result<(Name, R), Unparsable>,
) -> (Stored<R>, Vec<String>) {
    let (mut entries, mut age) = (BTreeMap::new(), 0.0_f64);
    let (mut old, mut bad) = (0_usize, Vec::new());
    for ((kind, name), record) in records {
        let since = now - record.confirmed;
        // Also what is no number.
        if !(-SKEW..=max_age.as_secs_f64()).contains(&since) {
            old += 1;
            continue;
        }
        // As on a stream, a fault of the parser must not end the client.
        let parsed = catch_unwind(AssertUnwindSafe(|| parse(kind, &record.body, &record.server)));
        let Ok(parsed) = parsed else {
            bad.push(format!("{kind} {name}: the parser failed; this is a fault of this client"));
            continue;
        };
        match parsed {
            Ok((own, resource)) if own == name => {
                age = age.max(since);
                let Record { version, body, server, confirmed } = record;
                entries.insert((kind, name), Kept { resource, version, body, server, confirmed });
            }
            Ok((own, _)) => bad.push(format!("{kind} {name} calls itself {own}")),
            Err(error) => bad.push(format!("{kind} {name}: {}", error.why)),
        }
    }
    let mut faults = Vec::new();
    if old > 0 {
        faults.push(format!("{old} of its resources are older than {max_age:?}, or from the future"));
    }
    if !bad.is_empty() {
        faults.push(bad.join("; "));
    }
    (Stored { entries, path, age: age as u64 }, faults)
}

fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    // Looked at first: to open a pipe would wait for its other end.
    trusted(&fs::symlink_metadata(path)?)?;
    let file = fs::File::open(path)?;
    trusted(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("it is larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// Whether only this process's user can have written it. What others may write is no better than a control plane
/// that anybody can be.
fn trusted(metadata: &fs::Metadata) -> io::Result<()> {
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode();
        if mode & 0o022 != 0 {
            return Err(io::Error::other(format!("others may write it (mode {:03o})", mode & 0o777)));
        }
    }
    Ok(())
}

/// Writes it beside the old one and puts it in its place. Blocks.
pub(super) fn write(
    settings: &CacheSettings,
    owner: &Owner,
    records: &BTreeMap<Key, Record>,
) -> io::Result<()> {
    let bytes = encode(owner, records);
    if bytes.len() as u64 > settings.max_bytes {
        let why = format!("{} bytes are more than the limit of {}", bytes.len(), settings.max_bytes);
        return Err(io::Error::other(why));
    }
    let mut directory = fs::DirBuilder::new();
    directory.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        directory.mode(0o700);
    }
    directory.create(&settings.directory)?;
    let path = owner.path(&settings.directory);
    // Of this process alone, and never one that is there already: it could be a link to something else.
    let temporary = path.with_extension(format!("{}-{:08x}.tmp", std::process::id(), fastrand::u32(..)));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    clear(&settings.directory);
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&temporary, &path)).inspect_err(|_| {
        // What is half written is of no use; that it cannot be removed either is the lesser news.
        drop(fs::remove_file(&temporary));
    })
}

/// What is beside the files for longer than this was left by a process that ended while it wrote.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// Removes what processes left that ended while they wrote. What cannot be removed is tried again with the next write.
fn clear(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with("xds-") && name.ends_with(".tmp"));
        let modified = || entry.metadata().ok().filter(fs::Metadata::is_file)?.modified().ok();
        if is_ours
            && modified().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > ABANDONED)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!(file = %entry.path().display(), %error, "an abandoned file cannot be removed");
        }
    }
}

/// Reads a file with this content as its owner would, checks that what is read is written as the same, and
/// returns it.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::client) fn reread(content: &[u8]) -> Vec<(ResourceType, Bytes)> {
    let nobody = Owner { node: String::new(), servers: Vec::new() };
    assert!(decode(&nobody, content).is_err(), "what has no hash is believed");
    let Ok(File { node, servers, .. }) = File::decode(content) else { return Vec::new() };
    let owner = Owner { node, servers };
    let Ok(records) = decode(&owner, &seal(content)) else { return Vec::new() };
    let written = encode(&owner, &records);
    let again = decode(&owner, &written).map(|records| encode(&owner, &records));
    assert_eq!(again, Ok(written), "what is read is written as something else");
    records.into_iter().map(|((kind, _), record)| (kind, record.body)).collect()
}

/// The content of a file with these resources.
#[cfg(test)]
pub(in crate::client) fn content(resources: Vec<(ResourceType, Name, Bytes)>) -> Vec<u8> {
    let entry = |(kind, name, body): (ResourceType, Name, Bytes)| Entry {
        type_url: kind.url().to_owned(),
        name: name.to_string(),
        version: "1".to_owned(),
        body,
        server: "cp:1".to_owned(),
        confirmed: 1e9,
    };
    let resources = resources.into_iter().map(entry).collect();
    File { node: "me".to_owned(), servers: vec!["cp:1".to_owned()], resources }.encode_to_vec()
}
