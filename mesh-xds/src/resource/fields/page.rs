//! `docs/xds-support.md`: the tables as a page.

use super::{
    Message, Row, SECTIONS, State,
    grfcs::{GRFCS, Reach},
};
use crate::resource::{Feature, Support};
use std::fmt::Write;

/// The page, for a data path with these features.
pub fn page(support: Support) -> String {
    let mut out = String::from(
        "# What is supported of xDS\n\n\
         Made from the tables in `mesh-xds/src/resource/fields*` and from the features that `mesh-client` has; do \
         not edit it. A test fails when it is out of date, and\n\
         `UPDATE_DOCS=1 cargo test -p mesh-tests xds_support` writes it anew. Other tests set every field below in \
         a good resource and see that what is said of it is so.\n\n\
         - **yes**: read and carried out; a value that cannot be carried out is refused.\n\
         - **no**: the resource is refused (NACK), and the field is named.\n\
         - **no effect**: taken and without effect, as gRPC has it, for the reason given.\n\
         - **kept**: without effect on a gRPC data path, and kept for other readers such as Envoy.\n\
         - **fails**: the resource is taken, and the calls concerned fail with UNAVAILABLE and say why.\n\n\
         Regular expressions have RE2's syntax and meaning, in resources and in YAML: `{id}` and `\\Q…\\E` are taken, \
         `\\d`, `\\w`, `\\s` and `\\b` are ASCII, repetitions are of 1000 at most, `(?x)` and `\\Z` are refused. So \
         is `\\C`, which RE2 takes, and what would cost too much: an expression that is longer than 64 KiB, has more than 64 \
         groups inside each other or more than 2000 sets such as `\\pL`, or compiles to more than 16 MiB; and in one resource, \
         expressions that compile to more than 64 MiB together (each text once), or whose sets under `(?i)` have more than \
         4194304 characters together (a named set such as `\\pL` counts as 32768, a range as what is in it). What is not \
         UTF-8 is never matched.\n\n\
         Client status (CSDS), the configuration on disk and `meshctl` show what was understood of a resource, and not \
         the bytes that came: what has no effect may hold a key.\n\n",
    );
    features(&mut out, support);
    grfcs(&mut out, support);
    for section in SECTIONS {
        let _ = write!(out, "## {}\n\n", section.title);
        for message in section.messages {
            table(&mut out, message, support);
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn features(out: &mut String, support: Support) {
    out.push_str(
        "## Features of the data path\n\n\
         Beyond the core, which every field marked **yes** belongs to. All are parsed; a resource that needs one \
         that the data path lacks is treated as the tables below say.\n\n\
         | feature | in `mesh-client` |\n|---|---|\n",
    );
    for feature in Feature::ALL {
        let _ =
            writeln!(out, "| {} | {} |", feature.name(), if support.has(*feature) { "yes" } else { "no" });
    }
    out.push('\n');
}

fn grfcs(out: &mut String, support: Support) {
    out.push_str(
        "## gRFCs\n\n\
         `–`: nothing to do on that side.\n\n\
         | gRFC | about | client | server | control plane | remarks |\n|---|---|---|---|---|---|\n",
    );
    let reach = |reach: Reach| match reach {
        Reach::Whole => "yes",
        Reach::Part => "partly",
        Reach::None => "no",
        Reach::NotConcerned => "–",
        Reach::Needs(feature) if support.has(feature) => "yes",
        Reach::Needs(_) => "parsed",
    };
    for grfc in GRFCS {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            grfc.name,
            grfc.about,
            reach(grfc.client),
            reach(grfc.server),
            reach(grfc.control_plane),
            grfc.remark
        );
    }
    out.push('\n');
}

fn table(out: &mut String, message: &Message, support: Support) {
    let used = if message.used.is_empty() { String::new() } else { format!(", {}", message.used) };
    let _ =
        write!(out, "### `{}`{used}\n\n| fields | | by | remarks |\n|---|---|---|---|\n", (message.name)());
    for row in message.rows {
        let fields: Vec<_> = row.fields.split_whitespace().map(|field| format!("`{field}`")).collect();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            fields.join(", "),
            state(row, support),
            row.source,
            row.remark
        );
    }
    out.push('\n');
}

fn state(row: &Row, support: Support) -> String {
    match row.state {
        State::Supported => "yes".into(),
        State::Needs(feature) if support.has(feature) => format!("yes ({})", feature.name()),
        State::Needs(feature) => format!("needs {}", feature.name()),
        State::Carried => "kept".into(),
        State::Ignored => "no effect".into(),
        State::Rejected => "no".into(),
        State::Fails => "fails".into(),
    }
}
