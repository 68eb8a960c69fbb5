//! From what a directory holds to what is served: the last good version of everything that is
//! broken, and nothing lost that nobody deleted.
//!
//! Sans-IO: scans in, [`Loaded`] out. Rules:
//! - An object that is refused keeps its last good version from the same file.
//! - A file (or a document) of which nobody can say what it is keeps everything it held.
//! - What cannot be named and stands for nothing known may be any object, a security policy too: the
//!   whole change is held until everything can be named. At the start there is nothing to hold on to,
//!   which [`Loaded::incomplete`] tells.
//! - A deleted file or document deletes its objects; deleting the last object of all is held until
//!   it is confirmed.
//! - A security policy that is refused and has no last good version is served as a denial.
//! - A DestinationRule that is refused and asks for TLS makes its calls fail, unless its last good version has TLS
//!   wherever it asks for it.
//! - What stands in does so until the object can be read again, or is known to be deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::Arc;

use super::scan::Scan;
use super::{Loaded, SourceFile};
use crate::analysis::{Code, Finding, Place, Position, Severity, analyze};
use crate::model::{Config, MeshSettings, Model, Object, ObjectId, ParsedFile, Workloads, parse};

/// What every file last said, and what of it is served.
pub(crate) struct LastGood {
    settings: Arc<MeshSettings>,
    files: BTreeMap<String, FileState>,
    revision: String,
    held: Option<Held>,
}

/// A scan that is not served.
struct Held {
    scan: Scan,
    why: Hold,
}

/// Why a scan is not served.
enum Hold {
    /// It would delete everything.
    Deletion,
    /// Something in it cannot be named. What there is to say about its files, and which they are.
    Blind { findings: Vec<Finding>, files: Vec<String> },
}

/// One file.
#[derive(Clone, Default)]
struct FileState {
    /// `Err` while it cannot be read.
    text: Option<Result<String, String>>,
    objects: Vec<Served>,
    findings: Vec<Finding>,
    /// Hosts that it would define if it were not refused, and why it is.
    unserved: Vec<(String, Arc<str>)>,
    /// True while something in it cannot be named and nothing it held before is known.
    blind: bool,
}

/// One object, and why it is served. In the order of preference when several files define it.
#[derive(Clone)]
struct Served {
    standing: Standing,
    object: Object,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// As written now.
    Fresh,
    /// As written before: what is written now is refused.
    Kept,
    /// What is written now is refused, and there is nothing to fall back on.
    StandIn,
    /// As written before, and not served: a stand-in goes before it.
    PassedOver,
}

impl Served {
    /// Whether it is served instead of another definition of the same object. A version of before never takes the place
    /// of a stand-in that asks for more TLS than it has: that is in another file, where it says nothing of this.
    fn goes_before(&self, first: &Self) -> bool {
        let lacks = |kept: &Self, stand_in: &Self| match (&kept.object, &stand_in.object) {
            (Object::DestinationRule(kept), Object::DestinationRule(stand_in)) => !kept.secures(stand_in),
            _ => false,
        };
        match (self.standing, first.standing) {
            (Standing::Kept, Standing::StandIn) => !lacks(self, first),
            (Standing::StandIn, Standing::Kept) => lacks(first, self),
            (own, other) => own < other,
        }
    }

    /// While nobody can say what is written now.
    fn unchanged(self) -> Self {
        let standing = match self.standing {
            Standing::Fresh => Standing::Kept,
            other => other,
        };
        Self { standing, ..self }
    }
}

impl LastGood {
    pub(crate) fn new(settings: Arc<MeshSettings>) -> Self {
        Self { settings, files: BTreeMap::new(), revision: String::new(), held: None }
    }

    /// True when some file lost all its text: it may be in the middle of being written.
    pub(crate) fn looks_unfinished(&self, scan: &Scan) -> bool {
        scan.files.iter().any(|(path, text)| {
            let was = self.files.get(path).and_then(|file| file.text.as_ref());
            matches!(text, Ok(text) if text.is_empty()) && matches!(was, Some(Ok(was)) if !was.is_empty())
        })
    }

    /// Takes a scan; `None` when nothing changed.
    pub(crate) fn apply(&mut self, scan: Scan) -> Option<Loaded> {
        let unchanged = scan.files.len() == self.files.len()
            && scan.files.iter().all(|(path, text)| {
                self.files.get(path).is_some_and(|file| file.text.as_ref() == Some(text))
            });
        let same_hold = self.held.as_ref().is_some_and(|held| held.scan == scan);
        if same_hold || unchanged && self.held.is_none() && !self.revision.is_empty() {
            return None;
        }
        let next = self.next(&scan);
        let blind = blind(&next);
        if !self.revision.is_empty() && self::blind(&self.files).is_empty() && !blind.is_empty() {
            let findings = next.into_values().flat_map(|file| file.findings).collect();
            self.held = Some(Held { scan, why: Hold::Blind { findings, files: blind } });
            return Some(self.loaded());
        }
        let had = self.files.values().any(|file| !file.objects.is_empty());
        let has = next.values().any(|file| !file.objects.is_empty());
        if had && !has {
            self.held = Some(Held { scan, why: Hold::Deletion });
            return Some(self.loaded());
        }
        self.accept(next, &scan);
        Some(self.loaded())
    }

    /// Lets a held deletion happen; `None` when nothing is held.
    pub(crate) fn confirm(&mut self) -> Option<Loaded> {
        let Held { scan, .. } = self.held.take_if(|held| matches!(held.why, Hold::Deletion))?;
        let next = self.next(&scan);
        self.accept(next, &scan);
        Some(self.loaded())
    }

    fn accept(&mut self, next: BTreeMap<String, FileState>, scan: &Scan) {
        self.held = None;
        self.files = next;
        self.revision = revision(scan);
    }

    fn next(&self, scan: &Scan) -> BTreeMap<String, FileState> {
        scan.files
            .iter()
            .map(|(path, text)| {
                let before = self.files.get(path);
                let next = match before {
                    Some(before) if before.text.as_ref() == Some(text) => before.clone(),
                    _ => self.read(path, text, before),
                };
                (path.clone(), next)
            })
            .collect()
    }

    fn read(&self, path: &str, text: &Result<String, String>, before: Option<&FileState>) -> FileState {
        let had: &[Served] = before.map_or(&[], |file| &file.objects);
        // Blind once is blind until everything can be named: what was kept meanwhile is not all.
        let unknown = before.is_none_or(|file| file.blind || file.objects.is_empty());
        match text {
            Ok(content) => {
                let file = Arc::new(SourceFile::new(path, content.as_str()));
                let parsed = parse(&file, &self.settings);
                let blind = parsed.unidentified && unknown;
                let unserved = unserved(&parsed, had);
                let (objects, findings) = fall_back(parsed, had, &file);
                FileState { text: Some(text.clone()), objects, findings, unserved, blind }
            }
            Err(error) => {
                let objects: Vec<Served> = had.iter().cloned().map(Served::unchanged).collect();
                let kept = objects.iter().filter(|served| served.standing == Standing::Kept).count();
                let message = format!("{path} cannot be read: {error}");
                let mut finding = Finding::new(Code::Unreadable, Severity::Error, message);
                if kept > 0 {
                    finding = finding.with_help(format!("its {kept} objects are served as last read"));
                }
                let unserved = before.map(|file| file.unserved.clone()).unwrap_or_default();
                FileState {
                    text: Some(text.clone()),
                    objects,
                    findings: vec![finding],
                    unserved,
                    blind: unknown,
                }
            }
        }
    }

    /// What is served now, with everything there is to say about it.
    fn loaded(&self) -> Loaded {
        let of_files = || self.files.values().flat_map(|file| file.findings.iter().cloned()).collect();
        let held = |message| Finding::new(Code::ChangeHeld, Severity::Error, message);
        let mut incomplete = !blind(&self.files).is_empty();
        let mut findings: Vec<Finding> = match self.held.as_ref().map(|held| &held.why) {
            None => of_files(),
            Some(Hold::Deletion) => {
                let count: usize = self.files.values().map(|file| file.objects.len()).sum();
                let mut findings: Vec<Finding> = of_files();
                findings.push(
                    held(format!("the change would delete all {count} objects of the mesh: held"))
                        .with_help("put a file back, or confirm the deletion"),
                );
                findings
            }
            Some(Hold::Blind { findings, files }) => {
                incomplete = true;
                let mut findings = findings.clone();
                findings.push(
                    held(format!(
                        "{} may hold any object, a security policy too: every change is held, and what was \
                         served before still is",
                        files.join(", ")
                    ))
                    .with_help("correct what cannot be read there, or remove it"),
                );
                findings
            }
        };
        let objects = self.choose(&mut findings);
        let unserved = self.files.values().flat_map(|file| file.unserved.iter().cloned());
        let config = Arc::new(Config::new(self.settings.clone(), objects).with_unserved(unserved));
        let model = Model { config: config.clone(), workloads: Arc::new(Workloads::default()) };
        findings.extend(analyze(&model));
        sort(&mut findings);
        Loaded { config, findings, incomplete, revision: self.revision.clone() }
    }

    /// Of several definitions of one object: what is written now, before what was; then by path.
    fn choose(&self, findings: &mut Vec<Finding>) -> Vec<Object> {
        let mut chosen: BTreeMap<&ObjectId, &Served> = BTreeMap::new();
        let served = self.files.values().flat_map(|file| &file.objects);
        for served in served.filter(|served| served.standing != Standing::PassedOver) {
            let id = &served.object.origin().id;
            match chosen.get_mut(id) {
                None => drop(chosen.insert(id, served)),
                Some(first) if served.goes_before(first) => *first = served,
                Some(first) if served.standing == Standing::Fresh => {
                    let place = first.object.origin().place();
                    findings.push(
                        Finding::new(
                            Code::DuplicateObject,
                            Severity::Error,
                            format!("{id} is defined twice"),
                        )
                        .at(served.object.origin().place())
                        .about(id)
                        .with_help(format!("the definition at {place} is used, this one is ignored"))
                        .with_related(place, "first defined here"),
                    );
                }
                Some(_) => {}
            }
        }
        chosen.into_values().map(|served| served.object.clone()).collect()
    }
}

/// The hosts that a file defines by nothing but what is refused, and has no last good version.
fn unserved(parsed: &ParsedFile, had: &[Served]) -> Vec<(String, Arc<str>)> {
    let has_good = |id: &ObjectId| {
        let fresh = parsed.objects.iter().any(|object| object.origin().id == *id);
        fresh || had.iter().any(|served| served.object.origin().id == *id)
    };
    let lost = parsed.refused.iter().filter(|refused| !has_good(&refused.origin.id));
    lost.flat_map(|one| one.hosts.iter().map(|host| (host.clone(), one.reason.clone()))).collect()
}

/// Adds to what a file says what it said before, where it has to be.
fn fall_back(parsed: ParsedFile, had: &[Served], file: &Arc<SourceFile>) -> (Vec<Served>, Vec<Finding>) {
    let mut findings = parsed.findings;
    let fresh: BTreeSet<ObjectId> = parsed.objects.iter().map(|object| object.origin().id.clone()).collect();
    let mut served: Vec<Served> =
        parsed.objects.into_iter().map(|object| Served { standing: Standing::Fresh, object }).collect();
    let mut kept = Vec::new();
    for was in had {
        let id = &was.object.origin().id;
        if fresh.contains(id) {
            continue;
        }
        let standing = match parsed.refused.iter().find(|refused| refused.origin.id == *id) {
            None if !parsed.unidentified => continue,
            None => was.clone().unchanged().standing,
            Some(_) if was.standing == Standing::StandIn => continue,
            Some(refused) if refused.keeps(&was.object) => Standing::Kept,
            Some(_) => Standing::PassedOver,
        };
        if standing == Standing::Kept {
            kept.push(id.clone());
        }
        served.push(Served { standing, object: was.object.clone() });
    }
    if !kept.is_empty() {
        let names: Vec<String> = kept.iter().map(ToString::to_string).collect();
        let message = format!("the last good version is still served of: {}", names.join(", "));
        let position = Position { line: 1, column: 1, width: 1 };
        findings.push(
            Finding::new(Code::LastGoodKept, Severity::Warning, message)
                .at(Place { file: file.clone(), position }),
        );
    }
    for refused in &parsed.refused {
        let id = &refused.origin.id;
        let Some(object) = refused.stand_in.clone().filter(|_| !kept.contains(id) && !fresh.contains(id))
        else {
            continue;
        };
        findings.push(failed_closed(&object));
        served.push(Served { standing: Standing::StandIn, object });
    }
    (served, findings)
}

fn failed_closed(stand_in: &Object) -> Finding {
    let origin = stand_in.origin();
    let id = &origin.id;
    let (message, help) = match stand_in {
        Object::DestinationRule(rule) => (
            format!(
                "{id} is refused and asks for TLS, which no last good version has: calls to {} fail, instead of \
                 going out in plaintext",
                rule.host.value
            ),
            "correct the rule, or delete it",
        ),
        _ => (
            format!(
                "{id} is refused and has no last good version: its workloads refuse what it might refuse"
            ),
            "correct the policy, or delete it",
        ),
    };
    Finding::new(Code::FailedClosed, Severity::Error, message).at(origin.place()).about(id).with_help(help)
}

/// The files in which something cannot be named and nothing is known to stand for it.
fn blind(files: &BTreeMap<String, FileState>) -> Vec<String> {
    files.iter().filter(|(_, file)| file.blind).map(|(path, _)| path.clone()).collect()
}

/// Errors first, then by place.
fn sort(findings: &mut [Finding]) {
    let place = |finding: &Finding| {
        finding.place.as_ref().map(|place| (place.file.path().to_owned(), place.position))
    };
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| place(a).cmp(&place(b))));
}

fn revision(scan: &Scan) -> String {
    let mut hash = twox_hash::XxHash64::with_seed(0);
    for (path, text) in &scan.files {
        // Lengths keep neighbours apart.
        let text = text.as_deref().unwrap_or_default();
        hash.write_usize(path.len());
        hash.write(path.as_bytes());
        hash.write_usize(text.len());
        hash.write(text.as_bytes());
    }
    format!("{:016x}", hash.finish())
}

#[cfg(test)]
mod tests;
