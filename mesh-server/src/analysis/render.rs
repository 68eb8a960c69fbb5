//! Findings as a person reads them: in rustc's style, with the line of YAML underlined.

use super::finding::{Finding, Place, Position, Severity};
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use mesh_xds::printable::line as printable;

/// Renders one finding with its source line, related places and help; a few lines of text. Nothing that is quoted has an
/// ESC, so that those in it are colours.
pub fn render(finding: &Finding, colour: bool) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let title = level.primary_title(finding.message.as_str()).id(finding.code.id());
    let mut group = match &finding.place {
        Some(place) => with_place(Group::with_title(title), place, AnnotationKind::Primary, ""),
        None => Group::with_title(title),
    };
    for (place, text) in &finding.related {
        // A snippet of the same file would be folded into the first and lose its order.
        group = with_place(group, place, AnnotationKind::Context, text);
    }
    if let Some(object) = &finding.object {
        group = group.element(Level::NOTE.message(format!("in {}", printable(object))));
    }
    if let Some(help) = &finding.help {
        group = group.element(Level::HELP.message(printable(help)));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group]).to_string()
}

fn with_place<'a>(group: Group<'a>, place: &'a Place, kind: AnnotationKind, label: &'a str) -> Group<'a> {
    let line = place.file.line(place.position.line);
    let Some(line) = line else {
        return group.element(
            Origin::path(printable(place.file.path()))
                .line(place.position.line as usize)
                .char_column(place.position.column as usize),
        );
    };
    let annotation = kind.span(bytes(line, place.position));
    let annotation = if label.is_empty() { annotation } else { annotation.label(label) };
    group.element(
        Snippet::source(line)
            .line_start(place.position.line as usize)
            .path(printable(place.file.path()))
            .annotation(annotation),
    )
}

/// The byte range in `line` of the characters a position names.
fn bytes(line: &str, position: Position) -> std::ops::Range<usize> {
    let offset = |chars: usize| line.char_indices().nth(chars).map_or(line.len(), |(at, _)| at);
    let start = position.column.saturating_sub(1) as usize;
    let end = start + position.width.max(1) as usize;
    offset(start)..offset(end)
}
