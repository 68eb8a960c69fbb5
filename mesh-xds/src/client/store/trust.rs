//! Whose a file is. One that others can have written is no better than a control plane that anybody can be.
//!
//! A file counts if it is ours or root's, who can do anything to us anyway. The directory is looked at as well: who
//! may rename its files can bring back what we wrote before. What is above it is not: whatever is put in its place
//! has to be ours again. Where files have no owner and no mode, everything counts.

use std::{fs, io, path::Path};

const ROOT: u32 = 0;
/// Write permission of the group, and of everybody.
const OTHERS_WRITE: u32 = 0o022;
/// In a directory of this mode only the owner of a file may rename or remove it, and the owner of the directory.
const STICKY: u32 = 0o1000;

/// Tells who owns what this process makes; asked only about what is not root's.
pub(super) type Ours<'a> = &'a dyn Fn() -> io::Result<u32>;

/// Owner and mode.
#[cfg(unix)]
fn rights(metadata: &fs::Metadata) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    (metadata.uid(), metadata.mode())
}

#[cfg(not(unix))]
fn rights(_: &fs::Metadata) -> (u32, u32) {
    (ROOT, 0)
}

/// Who owns what this process makes in a directory. The file system is asked, since it may know users by other
/// numbers than the process.
pub(super) fn ours(directory: &Path) -> io::Result<u32> {
    let probe = directory.join(format!("xds-{}-{:08x}.tmp", std::process::id(), fastrand::u32(..)));
    let file = create(&probe).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("whose it is cannot be told, since nothing can be made beside it: {error}"),
        )
    })?;
    let owner = file.metadata().map(|metadata| rights(&metadata).0);
    fs::remove_file(&probe)?;
    owner
}

/// A new file that only its owner may read and write; never one that is there, which could be a link.
pub(super) fn create(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

/// Whether nobody else can have written a file.
pub(super) fn file(metadata: &fs::Metadata, ours: Ours<'_>) -> io::Result<()> {
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let (owner, mode) = rights(metadata);
    owned(owner, ours)?;
    if mode & OTHERS_WRITE != 0 {
        return Err(io::Error::other(format!("others may write it (mode {:03o})", mode & 0o777)));
    }
    Ok(())
}

/// Whether nobody else can rename or remove our files in a directory.
pub(super) fn directory(path: &Path, ours: Ours<'_>) -> io::Result<()> {
    let (owner, mode) = rights(&fs::metadata(path)?);
    let told = |why: String| io::Error::other(format!("its directory {}: {why}", path.display()));
    owned(owner, ours).map_err(|error| told(error.to_string()))?;
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        return Err(told(format!(
            "others may rename its files (mode {:03o}); name a directory in it that is not there yet, which is made \
             for this user alone, or take the permission away",
            mode & 0o777
        )));
    }
    Ok(())
}

fn owned(owner: u32, ours: Ours<'_>) -> io::Result<()> {
    if owner == ROOT {
        return Ok(());
    }
    let ours = ours()?;
    if owner != ours {
        return Err(io::Error::other(format!(
            "it belongs to user {owner}, and not to {ours} as this process does"
        )));
    }
    Ok(())
}
