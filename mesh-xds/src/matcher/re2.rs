//! RE2's syntax, read as RE2 reads it.
//!
//! gRPC and Envoy match with RE2, this crate with `regex`, whose syntax looks alike: it refuses `/v1/{id}` and `\Q.\E`,
//! which RE2 takes, and has another meaning for `\<`, `[a--b]`, `[a&&b]`, `[a[b]]`, `(?x)`, `\d` and `\b`. So an
//! expression is read here by RE2's rules, and written anew in a form of `regex` that leaves nothing to its defaults:
//! flags are resolved, and characters that could mean anything are written as numbers. What RE2 refuses is refused, and
//! so is `\C`, a byte that may be a part of a character. Which characters are letters is a matter of each one's version
//! of Unicode. The authority is RE2's page of syntax, and its parser where the page is silent.

mod class;
mod escape;

use std::fmt::Write;

/// As RE2: of one repetition, and of those that are inside each other together.
const MOST_COPIES: u32 = 1000;
/// Bytes of an expression.
const LONGEST: usize = 64 << 10;
/// Characters of sets that are looked up in their other cases, in all expressions that are counted together: that takes
/// time, a tenth of a microsecond each where nothing is optimized.
const MOST_FOLDED: u32 = 4 << 20;
/// Sets of Unicode in an expression: each takes kilobytes before any program is made. So many are more of a program
/// than may be.
const MOST_SETS: u32 = 2_000;
/// Groups inside each other, and repetitions of repetitions: the engine compiles what is inside by recursion, and has
/// the stack of a thread, 2 MiB.
pub(super) const MOST_OPEN: usize = 64;
/// Groups that capture: a substitution names no others.
pub(super) const MOST_KEPT: usize = 9;
/// As deep as the engine sees what is written of that many. Of a group: itself, alternatives, one of them, and a
/// repetition; and once for all what is around the whole, and the innermost set.
pub(super) const NEST_LIMIT: u32 = 4 * MOST_OPEN as u32 + 16;

/// An expression in the syntax of `regex`.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) text: String,
    /// As many as would capture something. The engine forgets those that stand in what is repeated 0 times.
    pub(super) groups: usize,
}

/// What becomes of groups that capture.
#[derive(Clone, Copy)]
pub(super) enum Groups {
    /// The first nine capture, and have the same numbers: a substitution names no others, and each one costs searches
    /// 32 bytes for each state of the program.
    Kept,
    /// They only group: nobody asks, and captures would cost.
    Dropped,
}

/// `expression` in the syntax of `regex`, or why RE2 would not take it. `folded` counts on, from one expression to the
/// next.
pub(super) fn translate(expression: &str, groups: Groups, folded: &mut u32) -> Result<Translated, String> {
    if expression.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    let translator = Translator {
        rest: expression,
        out: String::with_capacity(2 * expression.len()),
        flags: Flags::default(),
        groups: Vec::new(),
        last: None,
        copies: 1,
        kept: groups,
        captures: 0,
        wraps: 0,
        sets: 0,
        folded,
    };
    translator.run()
}

/// What `(?imsU)` switch on.
#[derive(Clone, Copy, Default)]
struct Flags {
    fold: bool,
    lines: bool,
    dot_all: bool,
    lazy: bool,
}

/// A group that is open.
struct Group {
    /// Where it begins in what is written.
    start: usize,
    /// Those that count again behind it.
    flags: Flags,
    /// Of what surrounds it.
    copies: u32,
}

/// What a repetition would repeat.
#[derive(Clone, Copy)]
struct Item {
    start: usize,
    /// How often the part of it that is repeated most is repeated.
    copies: u32,
    is_repeated: bool,
}

struct Translator<'e, 'f> {
    rest: &'e str,
    out: String,
    flags: Flags,
    groups: Vec<Group>,
    last: Option<Item>,
    /// The most of any item of this group so far.
    copies: u32,
    kept: Groups,
    /// Groups that capture so far.
    captures: usize,
    /// Repetitions that were put in a group to be repeated.
    wraps: usize,
    /// Sets of Unicode so far.
    sets: u32,
    /// Characters of sets under `(?i)` so far.
    folded: &'f mut u32,
}

impl<'e> Translator<'e, '_> {
    fn run(mut self) -> Result<Translated, String> {
        let mut after_repetition = false;
        while let Some(c) = self.rest.chars().next() {
            let counted = if c == '{' { counted(self.rest) } else { None };
            let is_repetition = matches!(c, '*' | '+' | '?') || counted.is_some();
            if is_repetition && after_repetition {
                return Err(format!("`{c}` repeats a repetition: put what is repeated in a group"));
            }
            after_repetition = is_repetition;
            match (c, counted) {
                (_, Some((least, most, rest))) => {
                    self.rest = rest;
                    self.repeat_counted(least, most)?;
                }
                ('*' | '+' | '?', None) => {
                    self.skip(c);
                    self.repeat(c.encode_utf8(&mut [0; 4]), 1)?;
                }
                ('(', None) => self.open()?,
                (')', None) => self.close()?,
                ('|', None) => {
                    self.skip(c);
                    self.out.push(c);
                    self.last = None;
                }
                ('^', None) => self.simple(c, if self.flags.lines { "(?m:^)" } else { r"\A" }),
                ('$', None) => self.simple(c, if self.flags.lines { "(?m:$)" } else { r"\z" }),
                ('.', None) => self.simple(c, if self.flags.dot_all { "(?s:.)" } else { "." }),
                ('[', None) => self.class()?,
                ('\\', None) => self.backslash()?,
                (_, None) => {
                    self.skip(c);
                    self.literal(u32::from(c));
                }
            }
        }
        if !self.groups.is_empty() {
            return Err("a `(` is not closed".to_owned());
        }
        Ok(Translated { text: self.out, groups: self.captures })
    }

    fn skip(&mut self, c: char) {
        self.rest = &self.rest[c.len_utf8()..];
    }

    fn simple(&mut self, c: char, text: &str) {
        self.skip(c);
        self.item(text);
    }

    /// Writes something that can be repeated.
    fn item(&mut self, text: &str) {
        self.last = Some(Item { start: self.out.len(), copies: 1, is_repeated: false });
        self.out.push_str(text);
    }

    /// Counts a set of Unicode.
    fn count_set(&mut self) -> Result<(), String> {
        self.sets += 1;
        if self.sets > MOST_SETS {
            return Err(format!("it has more than {MOST_SETS} sets such as `\\pL`"));
        }
        Ok(())
    }

    /// Writes a set that costs as much to fold as so many characters.
    fn set(&mut self, text: &str, width: u32) -> Result<(), String> {
        if self.flags.fold {
            *self.folded = self.folded.saturating_add(width);
            if *self.folded > MOST_FOLDED {
                return Err(format!(
                    "sets under `(?i)`, with those of expressions before it, have more than {MOST_FOLDED} characters"
                ));
            }
        }
        self.folded(text);
        Ok(())
    }

    /// Writes a set or a character, in whatever case if that is asked.
    fn folded(&mut self, text: &str) {
        if self.flags.fold { self.item(&format!("(?i:{text})")) } else { self.item(text) }
    }

    fn literal(&mut self, code: u32) {
        match char::from_u32(code) {
            None => self.item(class::NOTHING),
            Some(c) if c.is_ascii() && !c.is_ascii_alphanumeric() => self.item(&format!(r"\x{code:02X}")),
            Some(c) => self.folded(c.encode_utf8(&mut [0; 4])),
        }
    }

    fn repeat_counted(&mut self, least: u32, most: Option<u32>) -> Result<(), String> {
        if least > MOST_COPIES || most.is_some_and(|most| most > MOST_COPIES || most < least) {
            return Err(format!("a repetition must be of 0 to {MOST_COPIES}, the smaller number first"));
        }
        let text = match most {
            None => format!("{{{least},}}"),
            Some(most) if most == least => format!("{{{least}}}"),
            Some(most) => format!("{{{least},{most}}}"),
        };
        self.repeat(&text, most.unwrap_or(least))
    }

    fn repeat(&mut self, operator: &str, times: u32) -> Result<(), String> {
        let Some(item) = self.last else { return Err(format!("there is nothing before `{operator}`")) };
        // `a*(?i)*` repeats a repetition: flags are nothing that could be repeated.
        if item.is_repeated {
            self.wraps += 1;
            self.check_depth()?;
            self.out.insert_str(item.start, "(?:");
            self.out.push(')');
        }
        let copies = item.copies * times.max(1);
        if copies > MOST_COPIES {
            return Err(format!("repetitions inside each other are of more than {MOST_COPIES} together"));
        }
        self.out.push_str(operator);
        let is_lazy = self.rest.starts_with('?');
        if is_lazy {
            self.skip('?');
        }
        if is_lazy != self.flags.lazy {
            self.out.push('?');
        }
        self.last = Some(Item { copies, is_repeated: true, ..item });
        self.copies = self.copies.max(copies);
        Ok(())
    }

    fn check_depth(&self) -> Result<(), String> {
        if self.groups.len() + self.wraps > MOST_OPEN {
            return Err(format!("more than {MOST_OPEN} groups are inside each other"));
        }
        Ok(())
    }

    fn begin(&mut self, text: &str) -> Result<(), String> {
        self.groups.push(Group { start: self.out.len(), flags: self.flags, copies: self.copies });
        self.out.push_str(text);
        (self.last, self.copies) = (None, 1);
        self.check_depth()
    }

    fn begin_capture(&mut self) -> Result<(), String> {
        self.captures += 1;
        self.begin(match self.kept {
            Groups::Kept if self.captures <= MOST_KEPT => "(",
            Groups::Kept | Groups::Dropped => "(?:",
        })
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(group) = self.groups.pop() else { return Err("a `)` closes nothing".to_owned()) };
        self.skip(')');
        self.out.push(')');
        self.last = Some(Item { start: group.start, copies: self.copies, is_repeated: false });
        self.copies = self.copies.max(group.copies);
        self.flags = group.flags;
        Ok(())
    }

    fn open(&mut self) -> Result<(), String> {
        let Some(after) = self.rest.strip_prefix("(?") else {
            self.skip('(');
            return self.begin_capture();
        };
        if ["=", "!", "<=", "<!"].iter().any(|sign| after.starts_with(sign)) {
            return Err(
                "RE2 does not look ahead or behind: `(?=`, `(?!`, `(?<=` and `(?<!` are not in it".into()
            );
        }
        if let Some(after) = after.strip_prefix("P<").or_else(|| after.strip_prefix('<')) {
            return self.named(after);
        }
        self.flagged(after)
    }

    /// Groups are known by their number; the name only has to be one.
    fn named(&mut self, after: &'e str) -> Result<(), String> {
        let Some((name, rest)) = after.split_once('>') else {
            return Err("the name of a group does not end: `>` is missing".to_owned());
        };
        if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_alphanumeric()) {
            return Err(format!("`{name}` is not the name of a group: letters, digits and `_`"));
        }
        self.rest = rest;
        self.begin_capture()
    }

    /// `(?i)`, `(?i-s:`, `(?:`
    fn flagged(&mut self, after: &'e str) -> Result<(), String> {
        let mut flags = self.flags;
        let (mut on, mut is_sign_bare) = (true, false);
        for (at, c) in after.char_indices() {
            let flag = match c {
                'i' => &mut flags.fold,
                'm' => &mut flags.lines,
                's' => &mut flags.dot_all,
                'U' => &mut flags.lazy,
                '-' if on => {
                    (on, is_sign_bare) = (false, true);
                    continue;
                }
                ':' | ')' if !is_sign_bare => {
                    self.rest = &after[at + 1..];
                    if c == ':' {
                        self.begin("(?:")?;
                    }
                    self.flags = flags;
                    return Ok(());
                }
                _ => break,
            };
            (*flag, is_sign_bare) = (on, false);
        }
        let start: String = after.chars().take(8).collect();
        Err(format!("`(?{start}` begins no group of RE2: use `(?:`, `(?P<name>` or the flags i, m, s and U"))
    }
}

/// `{2}`, `{2,}`, `{2,4}`, and what follows. Any other `{` is a character.
fn counted(text: &str) -> Option<(u32, Option<u32>, &str)> {
    let (least, rest) = integer(text.strip_prefix('{')?)?;
    let Some(rest) = rest.strip_prefix(',') else {
        return Some((least, Some(least), rest.strip_prefix('}')?));
    };
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((least, None, rest));
    }
    let (most, rest) = integer(rest)?;
    Some((least, Some(most), rest.strip_prefix('}')?))
}

/// Without leading zeros, and of at most nine digits.
fn integer(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let is_plain = digits.len() <= 9 && (digits.len() == 1 || !digits.starts_with('0'));
    Some((digits.parse().ok().filter(|_| is_plain)?, rest))
}

/// Appends a character, by its number.
fn write_code(out: &mut String, code: u32) {
    // Writing to a string cannot fail.
    let _ = write!(out, r"\x{{{code:X}}}");
}

#[cfg(test)]
pub(super) mod tests;
