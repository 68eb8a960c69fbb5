//! Regular expressions, compiled: each text once, and all of one resource within one bound.
//!
//! A few bytes can ask for megabytes (`.{1000}`), and whoever sends a resource chooses how many such are in it. So what
//! reads a resource has one [`Expressions`], and past its bound nothing more is compiled: the resource is refused, and
//! the process lives.

use super::{
    InvalidMatcher,
    re2::{self, Groups, Translated},
};
use crate::printable::start;
use regex_automata::{meta, util::syntax};
use std::{collections::HashMap, fmt, sync::Arc};

const MIB: usize = 1 << 20;
/// The program of one expression that reads forwards, which is the first to be made. There is a second one, backwards.
/// Both together take about a tenth more than this, as what is limited is counted while it is made, and larger then.
/// RE2's programs are smaller: what it takes with its 8 MiB can need more here, `[\p{L}\p{N}_ -]{1,255}` 12 MiB.
const MOST_OF_ONE: usize = 16 * MIB;
/// All that is kept of the expressions of one resource: programs of both directions, and what is made to begin faster.
/// While one of them is compiled it takes up to four times its share. What searches need, each thread of a program for
/// itself, is counted once where groups capture. Otherwise it is not: up to as much again, and what the automata
/// remember, at most 4 MiB.
const MOST_OF_ALL: usize = 64 * MIB;
/// What each one takes that the engine does not count.
const UNCOUNTED: usize = 8 << 10;

/// The expressions of one resource, or of one request.
#[derive(Default)]
pub(crate) struct Expressions {
    full: HashMap<Arc<str>, FullRegex>,
    anywhere: HashMap<Arc<str>, AnywhereRegex>,
    /// Bytes of those, and of what was made in vain.
    spent: usize,
    /// What the translation counts.
    folded: u32,
}

impl Expressions {
    /// Matches what is an expression as a whole.
    pub(crate) fn full(&mut self, expression: &str) -> Result<FullRegex, InvalidMatcher> {
        if let Some(known) = self.full.get(expression) {
            return Ok(known.clone());
        }
        let translated = self.translate(expression, Groups::Dropped)?;
        let program = self.compile(expression, &format!(r"\A(?:{})\z", translated.text), 0)?;
        let regex = FullRegex { source: expression.into(), program };
        self.full.insert(regex.source.clone(), regex.clone());
        Ok(regex)
    }

    /// Finds what is an expression.
    pub(crate) fn anywhere(&mut self, expression: &str) -> Result<AnywhereRegex, InvalidMatcher> {
        if let Some(known) = self.anywhere.get(expression) {
            return Ok(known.clone());
        }
        let Translated { text, groups } = self.translate(expression, Groups::Kept)?;
        // A search that captures remembers, for each state, both ends of each group, and that twice: 32 bytes a group.
        // A state takes about 64 bytes in the two programs.
        let halves = 1 + groups.min(re2::MOST_KEPT);
        let regex = AnywhereRegex { program: self.compile(expression, &text, halves)?, groups };
        self.anywhere.insert(expression.into(), regex.clone());
        Ok(regex)
    }

    fn translate(&mut self, expression: &str, groups: Groups) -> Result<Translated, InvalidMatcher> {
        re2::translate(expression, groups, &mut self.folded)
            .map_err(|reason| InvalidMatcher::Regex { expression: start(expression, 256).into(), reason })
    }

    /// A search takes as many halves of the program's memory.
    fn compile(
        &mut self,
        expression: &str,
        translated: &str,
        halves: usize,
    ) -> Result<Program, InvalidMatcher> {
        let said: Arc<str> = start(expression, 256).into();
        let costly = |reason| InvalidMatcher::Costly { expression: said.clone(), reason };
        let together = || {
            let most = MOST_OF_ALL / MIB;
            costly(format!(
                "with it, the expressions of one resource or request compile to more than {most} MiB"
            ))
        };
        let limit = MOST_OF_ONE.min(MOST_OF_ALL - self.spent);
        if limit == 0 {
            return Err(together());
        }
        let built = meta::Regex::builder()
            .configure(meta::Config::new().nfa_size_limit(Some(limit)))
            .syntax(syntax::Config::new().nest_limit(re2::NEST_LIMIT))
            .build(translated);
        let cost = match &built {
            Ok(regex) => regex.memory_usage() * (2 + halves) / 2 + UNCOUNTED + expression.len(),
            // It took as much before it was given up; many such must not take their time either.
            Err(error) if error.size_limit().is_some() => limit,
            Err(_) => 0,
        };
        let is_within = cost <= MOST_OF_ALL - self.spent;
        self.spent = (self.spent + cost).min(MOST_OF_ALL);
        match built {
            Ok(regex) if is_within => Ok(Program(Arc::new(regex))),
            Err(error) if error.size_limit() == Some(MOST_OF_ONE) => {
                Err(costly(format!("it compiles to more than {} MiB", MOST_OF_ONE / MIB)))
            }
            Err(error) if error.size_limit().is_none() => {
                let reason = "it cannot be compiled, which is a fault of this program".to_owned();
                Err(InvalidMatcher::Regex { expression: said, reason })
            }
            _ => Err(together()),
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
struct Program(Arc<meta::Regex>);

impl fmt::Debug for Program {
    /// Not all of its states.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.memory_usage())
    }
}

/// A regular expression that must match the whole input, in RE2's syntax and with its meaning, in linear time.
///
/// `.` and classes work on characters. Half of an expression is none: `foo)|bar(?:` does not compile. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FullRegex {
    source: Arc<str>,
    program: Program,
}

impl FullRegex {
    /// Compiles an expression.
    pub fn new(expression: &str) -> Result<Self, InvalidMatcher> {
        Expressions::default().full(expression)
    }

    /// Whether the whole of `input` matches.
    pub fn matches(&self, input: &str) -> bool {
        self.program.0.is_match(input)
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl PartialEq for FullRegex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for FullRegex {}

/// A regular expression of RE2's syntax, not anchored.
#[derive(Clone, Debug)]
pub(crate) struct AnywhereRegex {
    program: Program,
    groups: usize,
}

impl AnywhereRegex {
    /// How many of its groups capture something, the whole not counted.
    pub(crate) fn groups(&self) -> usize {
        self.groups
    }

    /// What it finds in `input`: the whole, and its groups.
    pub(crate) fn find_all<'r, 'i>(
        &'r self,
        input: &'i str,
    ) -> impl Iterator<Item = regex_automata::util::captures::Captures> + use<'r, 'i> {
        self.program.0.captures_iter(input)
    }
}

#[cfg(test)]
mod tests {
    use super::{re2::tests::holds, *};

    #[test]
    fn a_regex_matches_the_whole_input() {
        holds(&[
            ("/a|/b", &["/a", "/b"], &["/aX", "x/a", "/a\n"]),
            (
                r"/pkg\.Greeter/SayHello",
                &["/pkg.Greeter/SayHello"],
                &["/pkg.Greeter/SayHelloX", "x/pkg.Greeter/SayHello"],
            ),
            ("(?m)/a", &["/a"], &["x\n/a\ny"]),
            (".*", &["", "abc"], &["a\nb"]),
            ("(?i)/Foo", &["/fOO"], &["/foos"]),
            ("v[0-9]+", &["v12"], &["v12a", "v"]),
            (r"\d+", &["12"], &["٣"]),
            (r"[\w-]+", &["a-b_1"], &["é"]),
            (r"[\D]", &["٣", "x"], &["3"]),
            (r"[^\d\s]+", &["ab"], &["a b", "a1"]),
            (r"\[\d]", &["[7]"], &["7"]),
            ("/caf€/.*", &["/caf€/", "/caf€/List"], &["/cafe/List", "/caf\u{20}/List", "/caf€"]),
            ("/caf./List", &["/caf€/List", "/cafe/List"], &["/caf€€/List"]),
        ]);
    }

    #[test]
    fn an_expression_must_stand_on_its_own() {
        for expression in
            ["(unclosed", "foo)|bar(?:", "foo)(?:bar", ")(?:", "a)(?:b", "\\", r"\C", "a{100000}{1000}"]
        {
            assert!(FullRegex::new(expression).is_err(), "{expression}");
        }
    }

    fn measured<T>(work: impl FnOnce() -> T) -> (T, [usize; 2]) {
        let mut done = None;
        let counted = allocation_counter::measure(|| done = Some(work()));
        (
            done.unwrap(),
            [counted.bytes_current.unsigned_abs(), counted.bytes_max].map(|n| n.try_into().unwrap()),
        )
    }

    #[test]
    fn a_text_is_compiled_once() {
        let mut expressions = Expressions::default();
        let (all, [kept, _]) = measured(|| {
            let texts = [".{1000}".repeat(8), "a".into()].into_iter().cycle();
            texts.take(2_000).map(|text| expressions.full(&text).unwrap()).collect::<Vec<_>>()
        });
        assert!(
            all[1_998].matches(&"x".repeat(8_000)) && !all[1_998].matches("a") && all[1_999].matches("a")
        );
        assert!(kept < 10 * MIB, "{kept} bytes are kept");
    }

    #[test]
    fn all_expressions_together_are_within_one_bound() {
        let mut expressions = Expressions::default();
        let costly = |i: usize| format!("{}{i}", ".{1000}".repeat(16));
        let ((all, errors), [kept, most]) = measured(|| {
            let (all, errors): (Vec<_>, Vec<_>) =
                (0..1_000).map(|i| expressions.full(&costly(i))).partition(Result::is_ok);
            (all, errors)
        });
        assert_eq!((all.len(), errors.len()), (4, 996));
        let error = errors[995].clone().unwrap_err().to_string();
        assert!(error.contains("of one resource or request compile to more than 64 MiB"), "{error}");
        assert!(kept <= MOST_OF_ALL + MIB, "{kept} bytes are kept");
        assert!(most <= MOST_OF_ALL + 4 * MOST_OF_ONE, "{most} bytes at once");
        assert!(expressions.full(&costly(3)).is_ok(), "what is there is still had");
        assert!(expressions.anywhere("a").is_err());
    }

    /// Otherwise as many of them as a resource holds would take their time.
    #[test]
    fn what_is_compiled_in_vain_counts() {
        let mut expressions = Expressions::default();
        let errors: Vec<_> =
            (0..6).map(|i| expressions.full(&format!(r"\pL{{1000}}{i}")).unwrap_err().to_string()).collect();
        assert!(errors[0].contains("it compiles to more than 16 MiB"), "{errors:?}");
        assert!(errors[3].contains("it compiles to more than 16 MiB"), "{errors:?}");
        assert!(errors[4].contains("of one resource or request compile to more than 64 MiB"), "{errors:?}");
        assert_eq!(expressions.spent, MOST_OF_ALL);
    }

    #[test]
    fn what_is_counted_is_what_is_kept() {
        for expression in [
            "/v1/[a-z0-9-]+/(.*)",
            ".*",
            r"(\w+)/(\w+)/([^/]*)",
            ".{1000}",
            r"\pL{1,200}",
            &"(a)".repeat(5_000),
            &"abcdefgh|ijklmnop|".repeat(500),
        ] {
            for anchored in [true, false] {
                let mut expressions = Expressions::default();
                let (result, [kept, _]) = measured(|| match anchored {
                    true => expressions.full(expression).map(|_| 0),
                    false => expressions
                        .anywhere(expression)
                        .map(|regex| regex.program.0.memory_usage() * (1 + regex.groups().min(9)) / 2),
                });
                let spent = expressions.spent - result.unwrap();
                assert!(
                    kept <= spent + spent / 10 && spent <= kept + UNCOUNTED,
                    "{}: {kept} {spent}",
                    start(expression, 30)
                );
            }
        }
    }

    #[test]
    fn what_re2_takes_within_its_8_mib_is_taken() {
        for expression in [r"[\p{L}\p{N}_ -]{1,255}", r"\pL{1,200}"] {
            assert!(FullRegex::new(expression).unwrap().matches("ä"), "{expression}");
        }
    }

    #[test]
    fn a_search_takes_no_more_than_is_counted_for_its_groups() {
        for expression in ["(.?)".repeat(1_000), r"(a|b)?(\pL{1,20})(\pL*)(x?){100}".into()] {
            let mut expressions = Expressions::default();
            let regex = expressions.anywhere(&expression).unwrap();
            let input = "abä".repeat(200);
            let (found, [_, most]) = measured(|| regex.find_all(&input).count());
            assert!(found > 0);
            let spent = expressions.spent;
            assert!(most <= spent + 4 * MIB, "{most} {spent}");
        }
    }
}
