//! How it is told.

use super::*;

fn row(kind: &'static str, name: &str, version: Option<&str>, error: Option<&str>) -> Row {
    Row {
        kind,
        name: name.into(),
        version: version.map(Into::into),
        state: if error.is_some() { ResourceState::Nacked } else { ResourceState::Acked },
        error: error.map(str::to_owned),
        rejected_version: error.map(|_| "v9".into()),
    }
}

#[test]
fn each_resource_is_a_row_and_what_is_wrong_comes_below() {
    let mut told = Inventoried {
        server: "cp:1".into(),
        node: "me".into(),
        types: vec!["CDS", "LDS"],
        resources: vec![
            row("CDS", "one", Some("v1"), None),
            row("CDS", "two", None, Some("was rejected: tls_context: bad")),
        ],
        notes: vec!["the control plane is away".to_owned()],
    };
    assert_eq!(
        told.to_string(),
        "TYPE  STATE   VERSION  NAME\n\
         CDS   ACKED   v1       one\n\
         CDS   NACKED  -        two\n\
         2 CDS, 0 LDS from cp:1 for me\n\n\
         CDS two of version v9\n  was rejected: tls_context: bad\n\n\
         the control plane is away\n"
    );
    assert!(!told.is_sound());
    told.notes.clear();
    told.resources.truncate(1);
    assert!(told.is_sound());
}

#[test]
fn each_event_is_a_line_and_an_object() {
    let cases = [
        (
            Event::Added(row("CDS", "one", Some("v1"), None)),
            "+ CDS ACKED v1 one",
            r#"{"event":"added","type":"CDS","name":"one","version":"v1","state":"ACKED"}"#,
        ),
        (
            Event::Changed(row("LDS", "one", None, Some("was rejected"))),
            "~ LDS NACKED - one\n  was rejected",
            r#"{"event":"changed","type":"LDS","name":"one","version":null,"state":"NACKED","error":"was rejected","rejected_version":"v9"}"#,
        ),
        (
            Event::Removed { kind: "CDS", name: "one".into() },
            "- CDS one",
            r#"{"event":"removed","type":"CDS","name":"one"}"#,
        ),
        (
            Event::Trouble { kind: "CDS", error: "away".into() },
            "! CDS away",
            r#"{"event":"trouble","type":"CDS","error":"away"}"#,
        ),
        (
            Event::Recovered { kind: "CDS" },
            "! CDS is up to date again",
            r#"{"event":"recovered","type":"CDS"}"#,
        ),
    ];
    for (event, text, json) in cases {
        assert_eq!(event.to_string(), text);
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
    }
}

/// Begins lines, drives a terminal, and turns what is read.
const HOSTILE: &str = "x\nCDS  ACKED  v1  forged\r\u{1b}[2J\u{9b}2J\u{202e}\u{2028}y";
const ESCAPED: &str = r"x\nCDS  ACKED  v1  forged\r\u{1b}[2J\u{9b}2J\u{202e}\u{2028}y";

#[test]
fn what_the_control_plane_said_begins_no_line_and_drives_no_terminal() {
    let bad = || Row {
        rejected_version: Some(HOSTILE.into()),
        ..row("CDS", HOSTILE, Some(HOSTILE), Some(HOSTILE))
    };
    let told = Inventoried {
        server: HOSTILE.into(),
        node: HOSTILE.into(),
        types: vec!["CDS"],
        resources: vec![bad(), row("CDS", "one", Some("v1"), None)],
        notes: vec![HOSTILE.to_owned()],
    };
    let width = ESCAPED.len();
    assert_eq!(
        told.to_string(),
        format!(
            "TYPE  STATE   {:width$}  NAME\n\
             CDS   NACKED  {ESCAPED}  {ESCAPED}\n\
             CDS   ACKED   {:width$}  one\n\
             2 CDS from {ESCAPED} for {ESCAPED}\n\n\
             CDS {ESCAPED} of version {ESCAPED}\n  {ESCAPED}\n\n\
             {ESCAPED}\n",
            "VERSION", "v1"
        )
    );
    for (event, text) in [
        (Event::Changed(bad()), format!("~ CDS NACKED {ESCAPED} {ESCAPED}\n  {ESCAPED}")),
        (Event::Removed { kind: "CDS", name: HOSTILE.into() }, format!("- CDS {ESCAPED}")),
        (Event::Trouble { kind: "CDS", error: HOSTILE.into() }, format!("! CDS {ESCAPED}")),
    ] {
        assert_eq!(event.to_string(), text);
    }
}
