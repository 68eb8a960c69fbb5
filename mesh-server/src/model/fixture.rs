//! What the tests of the model have in common: YAML in, a model out.

use std::sync::Arc;

use super::{Config, MeshSettings, Model, ParsedFile, Workloads, parse};
use crate::analysis::Severity;
use crate::source::SourceFile;

/// Reads one text.
pub(crate) fn parsed(yaml: &str) -> ParsedFile {
    parse(&Arc::new(SourceFile::new("mesh.yaml", yaml)), &Arc::default())
}

/// A configuration from text that has no errors.
pub(crate) fn config(yaml: &str) -> Arc<Config> {
    let parsed = parsed(yaml);
    let errors: Vec<_> =
        parsed.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "the fixture has errors: {errors:#?}");
    Arc::new(Config::new(Arc::new(MeshSettings::default()), parsed.objects))
}

/// A model without registered workloads.
pub(crate) fn model(yaml: &str) -> Model {
    Model { config: config(yaml), workloads: Arc::new(Workloads::default()) }
}

/// `code severity line:column message` of each finding.
pub(crate) fn lines(parsed: &ParsedFile) -> Vec<String> {
    parsed
        .findings
        .iter()
        .map(|finding| {
            let at = finding.place.as_ref().map(|place| place.position).unwrap_or_default();
            format!("{} {} {}:{} {}", finding.code, finding.severity, at.line, at.column, finding.message)
        })
        .collect()
}

/// Reads a text and compares all its findings.
pub(crate) fn assert_findings(yaml: &str, expected: &[&str]) {
    let found = lines(&parsed(yaml));
    assert_eq!(found, expected, "\n{yaml}");
}

/// An object of a kind with a spec, which begins at line 5 in column 3.
pub(crate) fn object(kind: &str, spec: &str) -> String {
    let group = match kind {
        "PeerAuthentication" | "AuthorizationPolicy" => "security.istio.io",
        _ => "networking.istio.io",
    };
    let mut text =
        format!("apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec:\n");
    for line in spec.trim_matches('\n').lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Each case is a spec and how one of its findings begins; every finding's place must hold.
pub(crate) fn assert_refused(kind: &str, cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (spec, expected) in cases {
        let parsed = parsed(&object(kind, spec));
        let found = lines(&parsed);
        if !found.iter().any(|line| line.starts_with(&format!("IST0106 error {expected}"))) {
            wrong.push(format!("expected {expected:?}\nfound {found:#?}\n{spec}"));
        }
        if !parsed.objects.is_empty() {
            wrong.push(format!("not refused:\n{spec}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
