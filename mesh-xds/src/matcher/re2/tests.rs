//! RE2's page of syntax as a table; what it leaves open was compared with RE2 itself.

use super::{Groups, MOST_OPEN, translate};
use crate::matcher::{Expressions, FullRegex};

/// An expression, what the whole of it matches, and what it does not.
pub(in crate::matcher) type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

pub(in crate::matcher) fn holds(rows: &[Row]) {
    for (expression, matching, others) in rows {
        let regex = FullRegex::new(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        for input in *matching {
            assert!(regex.matches(input), "{expression} should match {input:?}");
        }
        for input in *others {
            assert!(!regex.matches(input), "{expression} should not match {input:?}");
        }
    }
}

#[test]
fn braces_that_count_nothing_are_characters() {
    holds(&[
        ("/v1/{id}", &["/v1/{id}"], &["/v1/id"]),
        ("a{", &["a{"], &["a"]),
        ("a{,2}", &["a{,2}"], &["a", "aa"]),
        ("a{01}", &["a{01}"], &["a"]),
        ("a{1 }", &["a{1 }"], &["a"]),
        (r"a\b{start}", &["a{start}"], &["a"]),
        ("a{1,b}", &["a{1,b}"], &["a"]),
        ("a{1000000000}", &["a{1000000000}"], &["a"]),
        ("}]", &["}]"], &["]"]),
        ("a{2}", &["aa"], &["a", "aaa", "a{2}"]),
        ("a{2,}", &["aa", "aaa"], &["a"]),
        ("a{0,1}?b", &["b", "ab"], &["aab"]),
    ]);
}

#[test]
fn classes_are_flat_lists_of_characters() {
    holds(&[
        ("[[]", &["["], &["[["]),
        ("[a[b]]", &["a]", "[]", "b]"], &["a", "b"]),
        ("[a-z&&x]", &["a", "x", "&"], &["&&"]),
        ("[a~~b]", &["a", "~", "b"], &["c"]),
        ("[!--]", &["!", "+", "-"], &["."]),
        ("[a-]", &["a", "-"], &["b"]),
        ("[]a]", &["]", "a"], &["]a"]),
        ("[^]a]", &["b", "\n"], &["]", "a"]),
        ("[a-c-e]", &["b", "-", "e"], &["d"]),
        (r"[\d-a]", &["1", "-", "a"], &["\\", "b"]),
        (r"[^\D]", &["1"], &["a"]),
        ("[.*$^]", &[".", "*", "$", "^"], &["a"]),
        ("[:alpha:]", &["a", ":", "l"], &["b"]),
        ("[[:alpha:]_]", &["b", "_"], &["é", "1", ":"]),
        ("[[:^alpha:]]", &["é", "1"], &["b"]),
        ("[[:word:][:blank:]]", &["_", "\t"], &["\n"]),
        ("[[:alpha]", &["[", ":", "a"], &["b", "]"]),
        (r"[\x{D000}-\x{DFFF}]", &["\u{D7FF}"], &["\u{E000}"]),
        (r"[^\x{D800}]", &["a"], &[""]),
    ]);
}

#[test]
fn what_perl_calls_a_class_is_ascii_and_what_unicode_calls_one_is_not() {
    holds(&[
        (r"\d+", &["12"], &["٣"]),
        (r"\D", &["٣", "\n"], &["1"]),
        (r"[\w-]+", &["a-b_1"], &["é"]),
        (r"\s", &[" ", "\t", "\x0C"], &["\x0B", "\u{A0}"]),
        (r"é\b.*", &[], &["é", "é x"]),
        (r"é\Bü", &["éü"], &[]),
        (r"a\b.b", &["a b"], &["aéé"]),
        (r"\pN\p{Lu}", &["٣É", "1A"], &["aa"]),
        (r"\p{Greek}\P{Greek}\p{^Greek}", &["σaa"], &["aaa"]),
        (r"[\pL\d]", &["é", "1"], &["٣"]),
        (r"\p{Any}", &["\n"], &[""]),
        // Without what is not assigned.
        (r"\pC", &["\0", "\u{E000}"], &["\u{378}", "a"]),
    ]);
}

#[test]
fn escapes_and_quotations() {
    holds(&[
        (r"\a\f\t\n\r\v", &["\x07\x0C\t\n\r\x0B"], &[]),
        (r"\123\12\0\08", &["S\n\0\x008"], &[]),
        (r"\x7F\x{10FFFF}\x{00000041}", &["\x7F\u{10FFFF}A"], &[]),
        (r"\x{D800}?", &[""], &["a"]),
        (r"\<\>\-\_\#\&\~\ \/", &["<>-_#&~ /"], &[]),
        (r"\Qa.{2}[\E+", &["a.{2}[", "a.{2}[[["], &["ab{2}[", "a.{2}[a.{2}["]),
        (r"\Qa.b", &["a.b"], &["axb"]),
        (r"a\Q\E*", &["", "aa"], &["b"]),
        (r"a*\Q\E*", &["", "aa"], &["b"]),
    ]);
}

#[test]
fn flags_last_until_their_group_ends() {
    holds(&[
        ("a(?i)b|c", &["ab", "aB", "C"], &["Ab"]),
        ("((?i)a|b)c", &["Ac", "Bc"], &["AC"]),
        ("(?i:a)b", &["Ab"], &["AB"]),
        ("(?i)a(?-i)b", &["Ab"], &["aB"]),
        ("(?i)[a-c]k", &["BK", "b\u{212A}"], &["dk"]),
        (r"(?i)\w", &["\u{212A}", "ſ"], &["é"]),
        (r"(?i)\W", &["é"], &["\u{212A}"]),
        ("(?i)[^k]", &["a"], &["K", "\u{212A}"]),
        ("(?)a(?i-s:B)", &["ab"], &["AB"]),
        (".", &["a", "€"], &["\n"]),
        ("(?s).", &["\n"], &[]),
        ("(?s-s).", &[], &["\n"]),
        ("^a$", &["a"], &["a\n"]),
        ("(?m)^a$", &["a"], &["a\n", "x\na\ny"]),
        ("(?m)a$\n^b", &["a\nb"], &["ab"]),
        (r"\Aa\z", &["a"], &["a\n"]),
        ("(?U)a+?b", &["aab"], &["b"]),
        ("a(?i)*", &["", "aa"], &["A"]),
        ("a+(?i)?", &["", "aa"], &["A"]),
    ]);
}

#[test]
fn groups_have_names_and_alternatives_may_be_empty() {
    holds(&[
        ("(?P<n>a)(?<m_é>b)(?:c)", &["abc"], &["ab"]),
        ("(?P<n>a)|(?P<n>b)", &["a", "b"], &["ab"]),
        ("(|a)b|", &["", "b", "ab"], &["a"]),
        ("()*^*$*", &[""], &["a"]),
    ]);
}

#[test]
fn counts_are_bounded_as_in_re2() {
    for expression in ["a{1000}", "(a{100}){10}", "((a{10}){10}){10}", "(a{2,}){500}", "((a{1000}){1})*"] {
        assert!(FullRegex::new(expression).is_ok(), "{expression}");
    }
    for expression in
        ["a{1001}", "a{0,1001}", "(a{100}){11}", "((a{10}){10}){11}", "(a{2,}|b){501}", "a{2,1}"]
    {
        let error = FullRegex::new(expression).unwrap_err().to_string();
        assert!(error.contains("1000"), "{error}");
    }
}

#[test]
fn what_re2_refuses_is_refused_with_a_reason() {
    let rows = [
        (r"\C", "a single byte, is not supported"),
        (r"\Z", r"`\Z` is not an escape of RE2"),
        (r"\u{61}", r"`\u` is not an escape of RE2"),
        (r"\é", r"`\é` is not an escape of RE2"),
        (r"\8", r"`\8` is not an escape of RE2"),
        (r"(a)\1", "does not look back"),
        ("a\\", r"ends with a `\`"),
        (r"\x", "two hexadecimal digits"),
        (r"\x4", "two hexadecimal digits"),
        (r"\xé1", "two hexadecimal digits"),
        (r"\x{}", "two hexadecimal digits"),
        (r"\x{+1}", "two hexadecimal digits"),
        (r"\x{110000}", "up to 10FFFF"),
        (r"\x{100000041}", "up to 10FFFF"),
        ("(?x)a", "`(?x)a` begins no group of RE2"),
        ("(?R)", "begins no group"),
        ("(?#c)a", "begins no group"),
        ("(?P=n)", "begins no group"),
        ("(?'n'a)", "begins no group"),
        ("(?-)a", "begins no group"),
        ("(?i-:a)", "begins no group"),
        ("(?i", "begins no group"),
        ("(?=a)", "look ahead or behind"),
        ("(?<!a)b", "look ahead or behind"),
        ("(?P<n", "does not end"),
        ("(?<a-b>a)", "`a-b` is not the name of a group"),
        ("(?<>a)", "is not the name of a group"),
        ("(a", "a `(` is not closed"),
        ("a)", "a `)` closes nothing"),
        ("foo)|bar(?:", "a `)` closes nothing"),
        ("*a", "nothing before `*`"),
        ("(?i)*", "nothing before `*`"),
        ("|{2}", "nothing before `{2}`"),
        ("a**", "repeats a repetition"),
        ("a*+", "repeats a repetition"),
        ("a{2}{3}", "repeats a repetition"),
        ("a???", "repeats a repetition"),
        ("[a", "a `[` is not closed"),
        ("[]", "a `[` is not closed"),
        ("[a-", "a `[` is not closed"),
        ("[b-a]", "`b-a` is a range without a character"),
        ("[a--b]", "`a--` is a range without a character"),
        (r"[\b]", r"`\b` is not an escape"),
        (r"[a-\d]", r"`\d` is not an escape"),
        ("[[:foo:]]", "`[:foo:]` is not a class"),
        (r"\p{Grek}", "`Grek` is not a category or script"),
        (r"\p{greek}", "`greek` is not a category or script"),
        (r"\p{Alphabetic}", "is not a category or script"),
        (r"\p{Cn}", "is not a category or script"),
        (r"[\p{L]", r"a `\p{` is not closed"),
        (r"\p", "`` is not a category or script"),
    ];
    for (expression, reason) in rows {
        let Err(error) = FullRegex::new(expression) else { panic!("{expression} is accepted") };
        assert!(error.to_string().contains(reason), "{expression}: {error}");
    }
}

#[test]
fn what_would_cost_too_much_is_refused_with_a_reason() {
    let rows = [
        (r"\pL{1000}".into(), "compiles to more than 16 MiB"),
        ("a".repeat(70_000), "longer than 65536 bytes"),
        (format!("(?i){}", "[!-\u{10FFFF}]".repeat(5)), "more than 4194304 characters"),
        (format!("(?i){}", r"[\x{1}-\x{10FFFF}]".repeat(100)), "more than 4194304 characters"),
        (r"\pL".repeat(2_001), r"more than 2000 sets such as `\pL`"),
    ];
    for (expression, reason) in rows {
        let error = FullRegex::new(&expression).unwrap_err().to_string();
        assert!(error.contains(reason) && error.len() < 500, "{reason}: {error}");
    }
}

#[test]
fn a_named_set_costs_little_under_i() {
    for (set, one) in [(r"\pL", "ä"), (r"\PL", "1"), (r"[a\pL]", "A"), (r"[^!\PN]", "٣"), (r"\W", "ä")] {
        let regex = FullRegex::new(&format!("(?i){}", set.repeat(100)));
        assert!(regex.unwrap().matches(&one.repeat(100)), "{set}");
    }
    // In all expressions of a resource.
    let mut expressions = Expressions::default();
    let mut wide = |i: usize| expressions.full(&format!("(?i)[!-\u{10FFFF}]{i}"));
    for i in 0..3 {
        wide(i).unwrap();
    }
    let error = wide(3).unwrap_err().to_string();
    assert!(error.contains("with those of expressions before it, have more than 4194304"), "{error}");
}

#[test]
fn many_sets_take_little_memory_before_they_are_refused() {
    for expression in [r"\pL".repeat(20_000), r"(?:\pL){0}".repeat(6_000), r"\pL|".repeat(15_000)] {
        let counted = allocation_counter::measure(|| assert!(FullRegex::new(&expression).is_err()));
        assert!(counted.bytes_max < 4 << 20, "{} bytes", counted.bytes_max);
    }
}

/// Of a kind that the engine sees as deep as it can be.
fn deep(depth: usize) -> String {
    format!(r"{}(?i)[a\pL]+|[^a\pL]{}", "(a|(?i)bc".repeat(depth), ")?|x".repeat(depth))
}

#[test]
fn groups_are_inside_each_other_as_deep_as_is_said() {
    // Three quarters of the stack that threads have. Nothing is recursive in what translates, and much in what
    // compiles: where nothing is optimized it takes 20 KiB for each group of this kind.
    let run = || {
        for depth in [1, MOST_OPEN] {
            let regex = FullRegex::new(&deep(depth)).unwrap();
            assert!(regex.matches(&format!("{}aä", "bC".repeat(depth))) && !regex.matches("1a"), "{depth}");
            drop(regex);
            assert!(Expressions::default().anywhere(&deep(depth)).is_ok());
        }
    };
    std::thread::Builder::new().stack_size(1536 << 10).spawn(run).unwrap().join().unwrap();
    let wrapped = |wraps| format!("a*{}", "(?i)*".repeat(wraps));
    assert!(FullRegex::new(&wrapped(MOST_OPEN)).unwrap().matches("aaa"));
    for expression in [deep(MOST_OPEN + 1), deep(2_000), wrapped(MOST_OPEN + 1), wrapped(10_000)] {
        let error = FullRegex::new(&expression).unwrap_err().to_string();
        assert!(error.contains("more than 64 groups are inside each other"), "{error}");
    }
}

#[test]
fn groups_are_counted_whatever_becomes_of_them() {
    let groups = |expression| translate(expression, Groups::Kept, &mut 0).unwrap().groups;
    assert_eq!(groups(r"(a)(?:b)(?P<n>c)(?i:d)\(|[(]"), 2);
    assert_eq!(groups("((a){0}(b))"), 3);
    let eleven = translate(&"(a)".repeat(11), Groups::Kept, &mut 0).unwrap();
    assert_eq!((eleven.groups, eleven.text), (11, format!("{}(?:a)(?:a)", "(a)".repeat(9))));
    assert_eq!(translate("(a)(?<n>b)", Groups::Dropped, &mut 0).unwrap().text, "(?:a)(?:b)");
}

#[test]
fn a_set_is_written_once_however_often_it_is_said() {
    let written = |expression: &str| translate(expression, Groups::Kept, &mut 0).unwrap().text;
    let rows = [
        (format!("(?i)[{}]", r"\pL".repeat(1_000)), r"(?i:[[\p{gc=L}]])"),
        (format!("(?i)[{}]", r"\x{0}-\x{10FFFF}".repeat(1_000)), "(?s:.)"),
        (r"(?i)[^\x{0}-\x{D7FF}\x{E000}-\x{10FFFF}]".into(), r"[^\x{0}-\x{10FFFF}]"),
        (r"(?i)\p{Cs}|[\p{Cs}]|[^\p{Cs}]|\P{Any}".into(), ""),
    ];
    for (expression, expected) in &rows[..3] {
        assert_eq!(written(expression), *expected);
    }
    let none = r"[^\x{0}-\x{10FFFF}]";
    assert_eq!(written(&rows[3].0), format!("{none}|{none}|(?s:.)|{none}"));
    assert_eq!(written("[a-b\\d]"), r"[[\x{61}-\x{62}][0-9]]");
    assert_eq!(written("[b-ca-bz]"), r"[\x{61}-\x{63}\x{7A}-\x{7A}]");
    // What is folded is what is in the set: nothing else may be added to it.
    assert!(FullRegex::new(&format!("(?i){}", "[a]".repeat(1_000))).unwrap().matches(&"aA".repeat(500)));
}

#[test]
fn every_category_and_script_is_known_to_the_engine() {
    for name in super::class::NAMES.iter().flat_map(|names| names.iter()) {
        let regex = FullRegex::new(&format!(r"\p{{{name}}}|\P{{{name}}}"));
        assert!(regex.unwrap().matches("a"), "{name}");
    }
}

proptest::proptest! {
    /// Whatever is accepted compiles: only its size is the engine's to refuse.
    #[test]
    fn whatever_is_translated_compiles(expression in r"[ab\[\](){}|*+?^$\\.:=<>PidQEpLNCsmU0-9,-]{0,16}") {
        let depth = format!("{expression:?}");
        if let Err(error) = FullRegex::new(&expression) {
            let error = error.to_string();
            proptest::prop_assert!(!error.contains("fault of this program"), "{depth}: {error}");
        }
    }
}
