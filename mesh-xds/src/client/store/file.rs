//! The file: its name, its form, and what is wrong with it.

use super::{Kept, News, Record, Stored, trust};
use crate::{
    client::machine::{Key, Unparsable},
    name::{Name, ResourceType},
};
use bytes::Bytes;
use prost::Message;
use std::{
    collections::BTreeMap,
    fs::{self, TryLockError},
    io::{self, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use twox_hash::XxHash64;

/// Where the last known good configuration is kept, and for how long it is good.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheSettings {
    /// A directory, made for this user alone if it is not there. Several processes may share it, and of one node and
    /// the same control planes also the file: each adds what it is told. On Unix the directory and the file must be
    /// this user's or root's, and nobody else may write the file, nor the directory, unless it is sticky as `/tmp`.
    pub directory: PathBuf,
    /// What no control plane had stood by for longer when the process begins is not used. What is used then stays in use
    /// for as long as nobody answers, as configuration that was received does. Default 24 h.
    pub max_age: Duration,
    /// A larger file is neither written nor read; what other processes added is left out first. Default 256 MiB.
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

fn entry(((kind, name), record): (&Key, &Record)) -> Entry {
    Entry {
        type_url: kind.url().to_owned(),
        name: name.to_string(),
        version: record.version.to_string(),
        body: record.body.clone(),
        server: record.server.to_string(),
        confirmed: record.confirmed,
    }
}

pub(super) fn encode(owner: &Owner, records: &BTreeMap<Key, Record>) -> Vec<u8> {
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
    let records = match records(settings, owner, &path) {
        Ok(Some(records)) => records,
        Ok(None) => return Stored::none(),
        Err(why) => {
            ignored(&why);
            return Stored::none();
        }
    };
    let (stored, faults) = revive(records, path.clone(), settings.max_age, now, parse);
    faults.iter().for_each(|why| ignored(why));
    stored
}

/// What is in the file; `None`: there is none.
fn records(
    settings: &CacheSettings,
    owner: &Owner,
    path: &Path,
) -> Result<Option<BTreeMap<Key, Record>>, String> {
    let ours = || trust::ours(&settings.directory);
    match read(path, settings.max_bytes, &ours).and_then(|bytes| {
        trust::directory(&settings.directory, &ours)?;
        Ok(bytes)
    }) {
        Ok(bytes) => decode(owner, &bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a control plane has stood by it lately.
pub(super) fn is_usable(record: &Record, now: f64, max_age: Duration) -> bool {
    // What is no number is in no range.
    (-SKEW..=max_age.as_secs_f64()).contains(&(now - record.confirmed))
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
        if !is_usable(&record, now, max_age) {
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
                age = age.max(now - record.confirmed);
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

pub(super) fn read(path: &Path, max_bytes: u64, ours: trust::Ours<'_>) -> io::Result<Vec<u8>> {
    // Looked at first: to open a pipe would wait for its other end.
    trust::file(&fs::symlink_metadata(path)?, ours)?;
    let file = fs::File::open(path)?;
    trust::file(&file.metadata()?, ours)?;
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("it is larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// Adds what control planes said to what is on disk at `now`, and returns all of it. Other processes that write the
/// same file wait meanwhile. Blocks.
pub(super) fn update(
    settings: &CacheSettings,
    owner: &Owner,
    news: &News,
    now: f64,
) -> io::Result<BTreeMap<Key, Record>> {
    let path = owner.path(&settings.directory);
    if news.is_empty() && !path.try_exists()? {
        return Ok(BTreeMap::new());
    }
    let mut directory = fs::DirBuilder::new();
    directory.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        directory.mode(0o700);
    }
    directory.create(&settings.directory)?;
    let ours = || trust::ours(&settings.directory);
    trust::directory(&settings.directory, &ours)?;
    // Until it is dropped.
    let _turn = turn(&path, &ours)?;
    // What cannot be believed is replaced.
    let there = records(settings, owner, &path).ok().flatten().unwrap_or_default();
    let mut merged = news.onto(there, now, settings.max_age);
    let bytes = encode(owner, &merged);
    let excess = (bytes.len() as u64).saturating_sub(settings.max_bytes);
    let bytes = if excess > 0 && shrink(&mut merged, news, excess) { encode(owner, &merged) } else { bytes };
    if bytes.len() as u64 > settings.max_bytes {
        let why = format!("{} bytes are more than the limit of {}", bytes.len(), settings.max_bytes);
        return Err(io::Error::other(why));
    }
    // Of this process alone.
    let temporary = path.with_extension(format!("{}-{:08x}.tmp", std::process::id(), fastrand::u32(..)));
    clear(&settings.directory);
    let written = trust::create(&temporary).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&temporary, &path)).inspect_err(|_| {
        // What is half written is of no use; that it cannot be removed either is the lesser news.
        drop(fs::remove_file(&temporary));
    })?;
    Ok(merged)
}

/// Leaves out so many bytes of what this process was not told itself, the longest unconfirmed first. Says whether
/// anything was.
fn shrink(records: &mut BTreeMap<Key, Record>, news: &News, excess: u64) -> bool {
    let size = |one| entry(one).encoded_len() as u64;
    let others = records.iter().filter(|(key, _)| !news.mentions(key));
    let mut others: Vec<_> = others.map(|one| (one.1.confirmed, one.0.clone(), size(one))).collect();
    others.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut gone = 0;
    for (_, key, size) in others {
        if gone >= excess {
            break;
        }
        gone += size;
        records.remove(&key);
    }
    gone > 0
}

/// How long a process waits for others that write the same file.
const PATIENCE: Duration = Duration::from_secs(5);

/// One process at a time has the file beside `path` locked; it stays when its process ends, and the lock does not.
fn turn(path: &Path, ours: trust::Ours<'_>) -> io::Result<fs::File> {
    let path = path.with_extension("lock");
    let told = |why: String| io::Error::other(format!("{}: {why}", path.display()));
    let file = match trust::create(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Who else holds it could keep it for ever.
            let checked = fs::symlink_metadata(&path).and_then(|metadata| trust::file(&metadata, ours));
            checked.and_then(|()| fs::OpenOptions::new().write(true).open(&path))
        }
        made => made,
    };
    let file = file.map_err(|error| told(error.to_string()))?;
    let until = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(told(format!("another process has it locked for longer than {PATIENCE:?}")));
            }
            Err(TryLockError::Error(error)) => return Err(told(format!("cannot be locked: {error}"))),
        }
    }
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
