//! Reading a directory of YAML: the only part of the source that touches files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// More than any configuration a person writes; a log file renamed to `.yaml` is not read.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// What a directory holds: the text of every YAML file, or why it cannot be read, by path relative
/// to the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) files: BTreeMap<String, Result<String, String>>,
}

/// Reads all `*.yaml` and `*.yml` below `root`. Names that begin with a dot are left out, which also
/// leaves out the `..data` of a mounted ConfigMap while its symbolic links are followed.
pub(crate) fn scan(root: &Path) -> io::Result<Scan> {
    // A file that is listed and then gone means that somebody is swapping them: look again.
    for _ in 0..3 {
        let mut scan = Scan::default();
        let mut seen = BTreeSet::new();
        if directory(root, root, &mut seen, &mut scan)? {
            return Ok(scan);
        }
    }
    let mut scan = Scan::default();
    directory(root, root, &mut BTreeSet::new(), &mut scan)?;
    Ok(scan)
}

/// False when a file vanished between listing and reading.
fn directory(root: &Path, path: &Path, seen: &mut BTreeSet<PathBuf>, scan: &mut Scan) -> io::Result<bool> {
    // Symbolic links may make a circle.
    if !seen.insert(fs::canonicalize(path)?) {
        return Ok(true);
    }
    let mut complete = true;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        let shown = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => match directory(root, &path, seen, scan) {
                Ok(all) => complete &= all,
                Err(error) => {
                    scan.files.insert(shown, Err(error.to_string()));
                }
            },
            Ok(metadata) if is_yaml(&path) => match read(&path, metadata.len()) {
                Ok(text) => drop(scan.files.insert(shown, Ok(text))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => complete = false,
                Err(error) => drop(scan.files.insert(shown, Err(error.to_string()))),
            },
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => complete &= !is_yaml(&path),
            Err(error) if is_yaml(&path) => drop(scan.files.insert(shown, Err(error.to_string()))),
            Err(_) => {}
        }
    }
    Ok(complete)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn read(path: &Path, length: u64) -> io::Result<String> {
    if length > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("{length} bytes are more than {MAX_FILE_BYTES}")));
    }
    fs::read_to_string(path)
}
