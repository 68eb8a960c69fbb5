//! Text that somebody else said, fit to be shown to people: nothing in it moves a terminal's cursor, turns the order of
//! what is read, or begins a line.
//!
//! Names, versions and errors of a control plane, and what clients say of themselves, are somebody else's words: printed
//! as they come they could forge a row of a table, or drive the terminal that shows it. What is escaped are the control
//! characters of ASCII and of Latin-1 (C0, DEL, C1), the line separators U+2028 and U+2029, and what Unicode calls
//! bidirectional controls. Backslashes are not: what is shown is for people, and does not tell an escape from the same
//! characters said.

use std::{borrow::Cow, fmt::Write};

/// One line: what would drive a terminal stands escaped as in Rust (`\n`, `\u{1b}`).
pub fn line(text: &str) -> Cow<'_, str> {
    except(text, &[])
}

/// As [`line()`], but these characters stay: `\n` of a text whose lines are our own.
pub fn except<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    escaped(text, |char| drives(char) && !kept.contains(&char), |out, char| out.extend(char.escape_default()))
}

/// JSON that is the same and can be shown. JSON escapes the controls of ASCII in strings but DEL, and leaves the others,
/// which can stand in its strings only.
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |char| drives(char) && char != '\n',
        |out, char| match char {
            // Between values.
            '\t' | '\r' => out.push(' '),
            // Infallible; and none has more than four digits.
            char => drop(write!(out, "\\u{:04x}", u32::from(char))),
        },
    )
}

fn escaped(text: &str, bad: impl Fn(char) -> bool, escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.contains(&bad) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if bad(char) { escape(&mut out, char) } else { out.push(char) }
    }
    out.into()
}

fn drives(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// As much of the beginning as `limit` bytes hold.
pub(crate) fn start(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// `text`, cut to `limit` bytes.
pub(crate) fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit { text.to_owned() } else { format!("{}…", start(text, limit)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every character that must not come through, and its neighbours, which do.
    fn hostile() -> impl Iterator<Item = char> {
        ('\0'..='\u{1f}')
            .chain('\u{7f}'..='\u{9f}')
            .chain(['\u{61c}', '\u{200e}', '\u{200f}'])
            .chain('\u{2028}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
    }

    #[test]
    fn no_control_character_comes_through_and_nothing_else_changes() {
        for char in hostile() {
            let text = format!("a{char}b");
            assert!(!line(&text).contains(char), "{char:?}");
            assert!(json(&text).contains(char) == (char == '\n'), "{char:?}");
            assert_eq!(except(&text, &[char]), text);
        }
        for text in [
            "",
            "outbound|80||a.b",
            "Größe 🦀 a\\b",
            " ~\u{a0}\u{ad}\u{200d}\u{2027}\u{202f}\u{2065}\u{206a}",
        ] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text), "{text:?}");
            assert!(matches!(json(text), Cow::Borrowed(same) if same == text), "{text:?}");
        }
        assert_eq!(line("a\nb\r\t\u{1b}[2J\u{9b}\u{202e}"), r"a\nb\r\t\u{1b}[2J\u{9b}\u{202e}");
        assert_eq!(except("a\nb\u{1b}", &['\n']), "a\nb\\u{1b}");
    }

    #[test]
    fn json_stays_what_it_says() {
        let said: String = hostile().collect();
        let value = serde_json::json!({ &said: [said, 1] });
        let text = format!("{value:#}\r\n\t");
        let shown = json(&text);
        assert!(hostile().all(|char| char == '\n' || !shown.contains(char)), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
