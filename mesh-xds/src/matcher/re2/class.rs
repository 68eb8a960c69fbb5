//! Sets of characters: `[a-z]`, `\d`, `\pL`, `[[:alpha:]]`.

use super::{Translator, escape, write_code};
use std::collections::BTreeSet;

/// A set without a character in it.
pub(super) const NOTHING: &str = r"[^\x{0}-\x{10FFFF}]";
/// Any character, a line's end too.
const ANYTHING: &str = "(?s:.)";
/// The same, as an item of a set.
const ALL: &str = r"[\x{0}-\x{10FFFF}]";
/// The last character.
const LAST: u32 = 0x10_FFFF;

/// Halves of pairs, which are no characters of `regex`.
const SURROGATES: std::ops::RangeInclusive<u32> = 0xD800..=0xDFFF;

/// What it costs to fold a named set, in characters: those of a set of ASCII, and as much as `\pL` costs, of which few
/// have another case.
const ASCII_WIDTH: u32 = 128;
const UNICODE_WIDTH: u32 = 1 << 15;

impl Translator<'_, '_> {
    /// `[^abx-z[:digit:]]`
    pub(super) fn class(&mut self) -> Result<(), String> {
        let mut rest = &self.rest[1..];
        let is_negated = rest.starts_with('^');
        rest = rest.strip_prefix('^').unwrap_or(rest);
        // Each once: to fold a set costs what is in it.
        let (mut ranges, mut named_sets) = (Vec::new(), BTreeSet::new());
        // Beyond the last of them no name ends, and none is looked for.
        let last_end = rest.rfind(":]").map(|at| rest.len() - at);
        let mut is_first = true;
        loop {
            if rest.is_empty() {
                return Err("a `[` is not closed".to_owned());
            }
            if let Some(after) = rest.strip_prefix(']').filter(|_| !is_first) {
                rest = after;
                break;
            }
            is_first = false;
            let posix = if last_end.is_some_and(|end| rest.len() > end) { posix(rest)? } else { None };
            let named = match posix {
                None => shorthand(rest)?,
                named => named,
            };
            if let Some((item, after)) = named {
                match item.as_str() {
                    "" => {}
                    ALL => ranges.push((0, LAST)),
                    _ => drop(named_sets.insert(item)),
                }
                rest = after;
                continue;
            }
            let (low, after) = one(rest)?;
            let end = after.strip_prefix('-').filter(|end| !end.is_empty() && !end.starts_with(']'));
            let (high, after) = end.map_or(Ok((low, after)), one)?;
            if high < low {
                let range = &rest[..rest.len() - after.len()];
                return Err(format!(
                    "`{range}` is a range without a character: its ends are in the wrong order"
                ));
            }
            ranges.extend(of_characters(low, high));
            rest = after;
        }
        self.rest = rest;
        let ranges = merged(ranges);
        let is_empty = ranges.is_empty() && named_sets.is_empty();
        if is_empty || ranges == [(0, LAST)] {
            // In whatever case it is the same.
            self.item(if is_empty == is_negated { ANYTHING } else { NOTHING });
            return Ok(());
        }
        let mut set = String::from(if is_negated { "[^" } else { "[" });
        // Ranges have brackets of their own beside named sets: put together first, all of it would be folded.
        let is_mixed = !ranges.is_empty() && !named_sets.is_empty();
        set.push_str(if is_mixed { "[" } else { "" });
        for (low, high) in &ranges {
            write_code(&mut set, *low);
            set.push('-');
            write_code(&mut set, *high);
        }
        set.push_str(if is_mixed { "]" } else { "" });
        let mut width = ranges.iter().map(|(low, high)| high - low + 1).sum::<u32>();
        for named in &named_sets {
            set.push_str(named);
            width = width.saturating_add(self.named_width(named)?);
        }
        set.push(']');
        self.set(&set, width)
    }

    /// `\d`, `\pL`: what [`shorthand`] gave, alone.
    pub(super) fn named_set(&mut self, set: &str) -> Result<(), String> {
        match set {
            "" => self.item(NOTHING),
            ALL => self.item(ANYTHING),
            _ => {
                let width = self.named_width(set)?;
                return self.set(set, width);
            }
        }
        Ok(())
    }

    /// Also of what is in no such set: it is folded before it is negated.
    fn named_width(&mut self, set: &str) -> Result<u32, String> {
        if !set.contains(r"\p") {
            return Ok(ASCII_WIDTH);
        }
        self.count_set()?;
        Ok(UNICODE_WIDTH)
    }
}

/// Sorted, and none twice.
fn merged(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut all: Vec<(u32, u32)> = Vec::new();
    for (low, high) in ranges {
        match all.last_mut() {
            // What lies between these two is no character.
            Some((_, end))
                if low <= *end + 1 || (*end + 1, low) == (*SURROGATES.start(), SURROGATES.end() + 1) =>
            {
                *end = high.max(*end);
            }
            _ => all.push((low, high)),
        }
    }
    all
}

/// A character of a class, and what follows.
fn one(text: &str) -> Result<(u32, &str), String> {
    let mut chars = text.chars();
    match chars.next() {
        Some('\\') => escape::character(text),
        Some(c) => Ok((u32::from(c), chars.as_str())),
        None => Err("a `[` is not closed".to_owned()),
    }
}

/// Without the ends that are no characters; `None`: there is none in it.
fn of_characters(low: u32, high: u32) -> Option<(u32, u32)> {
    let low = if SURROGATES.contains(&low) { SURROGATES.end() + 1 } else { low };
    let high = if SURROGATES.contains(&high) { SURROGATES.start() - 1 } else { high };
    (low <= high).then_some((low, high))
}

/// `[:alpha:]`, `[:^alpha:]`; any other `[` is a character.
fn posix(text: &str) -> Result<Option<(String, &str)>, String> {
    let Some((name, rest)) = text.strip_prefix("[:").and_then(|after| after.split_once(":]")) else {
        return Ok(None);
    };
    let ranges = match name.strip_prefix('^').unwrap_or(name) {
        "alnum" => r"0-9A-Za-z",
        "alpha" => r"A-Za-z",
        "ascii" => r"\x00-\x7F",
        "blank" => r"\t\x20",
        "cntrl" => r"\x00-\x1F\x7F",
        "digit" => r"0-9",
        "graph" => r"\x21-\x7E",
        "lower" => r"a-z",
        "print" => r"\x20-\x7E",
        "punct" => r"\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7E",
        "space" => r"\t\n\x0B\x0C\r\x20",
        "upper" => r"A-Z",
        "word" => r"0-9A-Za-z_",
        "xdigit" => r"0-9A-Fa-f",
        _ => return Err(format!("`[:{name}:]` is not a class of RE2")),
    };
    Ok(Some((bracketed(ranges, name.starts_with('^')), rest)))
}

fn bracketed(ranges: &str, is_negated: bool) -> String {
    format!("[{}{ranges}]", if is_negated { "^" } else { "" })
}

/// The set that an escape stands for, and what follows. Empty: there is nothing in it.
pub(super) fn shorthand(text: &str) -> Result<Option<(String, &str)>, String> {
    let Some(after) = text.strip_prefix('\\') else { return Ok(None) };
    let mut chars = after.chars();
    let Some(c) = chars.next() else { return Ok(None) };
    let ranges = match c.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => r"\t\n\x0C\r\x20",
        'p' => return unicode(c == 'P', chars.as_str()).map(Some),
        _ => return Ok(None),
    };
    Ok(Some((bracketed(ranges, c.is_ascii_uppercase()), chars.as_str())))
}

/// `L` or `{Greek}`, behind `\p` or `\P`.
fn unicode(is_negated: bool, text: &str) -> Result<(String, &str), String> {
    let (name, rest) = match text.strip_prefix('{') {
        Some(after) => after.split_once('}').ok_or(r"a `\p{` is not closed")?,
        None => text.split_at(text.chars().next().map_or(0, char::len_utf8)),
    };
    let (name, is_negated) = match name.strip_prefix('^') {
        Some(name) => (name, !is_negated),
        None => (name, is_negated),
    };
    // Halves of pairs are no characters here.
    if matches!(name, "Any" | "Cs") {
        let set = if (name == "Any") == is_negated { "" } else { ALL };
        return Ok((set.to_owned(), rest));
    }
    let ranges = match name {
        // In RE2 without those that are not assigned.
        "C" => r"\p{gc=Cc}\p{gc=Cf}\p{gc=Co}".to_owned(),
        _ if CATEGORIES.contains(&name) => format!(r"\p{{gc={name}}}"),
        _ if SCRIPTS.contains(&name) => format!(r"\p{{sc={name}}}"),
        _ => return Err(format!("`{name}` is not a category or script of Unicode that RE2 has")),
    };
    Ok((bracketed(&ranges, is_negated), rest))
}

/// General categories; C and Cs are said above.
#[rustfmt::skip]
const CATEGORIES: &[&str] = &[
    "Cc", "Cf", "Co", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl", "No", "P", "Pc", "Pd",
    "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
];

/// As RE2 spells them.
#[rustfmt::skip]
const SCRIPTS: &[&str] = &[
    "Adlam", "Ahom", "Anatolian_Hieroglyphs", "Arabic", "Armenian", "Avestan", "Balinese", "Bamum", "Bassa_Vah",
    "Batak", "Bengali", "Bhaiksuki", "Bopomofo", "Brahmi", "Braille", "Buginese", "Buhid", "Canadian_Aboriginal",
    "Carian", "Caucasian_Albanian", "Chakma", "Cham", "Cherokee", "Chorasmian", "Common", "Coptic", "Cuneiform",
    "Cypriot", "Cypro_Minoan", "Cyrillic", "Deseret", "Devanagari", "Dives_Akuru", "Dogra", "Duployan",
    "Egyptian_Hieroglyphs", "Elbasan", "Elymaic", "Ethiopic", "Georgian", "Glagolitic", "Gothic", "Grantha", "Greek",
    "Gujarati", "Gunjala_Gondi", "Gurmukhi", "Han", "Hangul", "Hanifi_Rohingya", "Hanunoo", "Hatran", "Hebrew",
    "Hiragana", "Imperial_Aramaic", "Inherited", "Inscriptional_Pahlavi", "Inscriptional_Parthian", "Javanese",
    "Kaithi", "Kannada", "Katakana", "Kawi", "Kayah_Li", "Kharoshthi", "Khitan_Small_Script", "Khmer", "Khojki",
    "Khudawadi", "Lao", "Latin", "Lepcha", "Limbu", "Linear_A", "Linear_B", "Lisu", "Lycian", "Lydian", "Mahajani",
    "Makasar", "Malayalam", "Mandaic", "Manichaean", "Marchen", "Masaram_Gondi", "Medefaidrin", "Meetei_Mayek",
    "Mende_Kikakui", "Meroitic_Cursive", "Meroitic_Hieroglyphs", "Miao", "Modi", "Mongolian", "Mro", "Multani",
    "Myanmar", "Nabataean", "Nag_Mundari", "Nandinagari", "New_Tai_Lue", "Newa", "Nko", "Nushu",
    "Nyiakeng_Puachue_Hmong", "Ogham", "Ol_Chiki", "Old_Hungarian", "Old_Italic", "Old_North_Arabian", "Old_Permic",
    "Old_Persian", "Old_Sogdian", "Old_South_Arabian", "Old_Turkic", "Old_Uyghur", "Oriya", "Osage", "Osmanya",
    "Pahawh_Hmong", "Palmyrene", "Pau_Cin_Hau", "Phags_Pa", "Phoenician", "Psalter_Pahlavi", "Rejang", "Runic",
    "Samaritan", "Saurashtra", "Sharada", "Shavian", "Siddham", "SignWriting", "Sinhala", "Sogdian", "Sora_Sompeng",
    "Soyombo", "Sundanese", "Syloti_Nagri", "Syriac", "Tagalog", "Tagbanwa", "Tai_Le", "Tai_Tham", "Tai_Viet",
    "Takri", "Tamil", "Tangsa", "Tangut", "Telugu", "Thaana", "Thai", "Tibetan", "Tifinagh", "Tirhuta", "Toto",
    "Ugaritic", "Vai", "Vithkuqi", "Wancho", "Warang_Citi", "Yezidi", "Yi", "Zanabazar_Square",
];

/// Both lists.
#[cfg(test)]
pub(super) const NAMES: [&[&str]; 2] = [CATEGORIES, SCRIPTS];
