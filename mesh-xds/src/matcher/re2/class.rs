//! Sets of characters: `[a-z]`, `\d`, `\pL`, `[[:alpha:]]`.

use super::{Translator, escape, write_code};

/// A set without a character in it.
pub(super) const NOTHING: &str = r"[^\x{0}-\x{10FFFF}]";

/// Halves of pairs, which are no characters of `regex`.
const SURROGATES: std::ops::RangeInclusive<u32> = 0xD800..=0xDFFF;

impl Translator<'_> {
    /// `[^abx-z[:digit:]]`
    pub(super) fn class(&mut self) -> Result<(), String> {
        let mut rest = &self.rest[1..];
        let mut set = String::from("[");
        if let Some(after) = rest.strip_prefix('^') {
            rest = after;
            set.push('^');
        }
        // Never without an item.
        set.push_str(NOTHING);
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
            let named = match posix(rest)? {
                None => shorthand(rest)?,
                named => named,
            };
            if let Some((item, after)) = named {
                set.push_str(&item);
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
            write_range(&mut set, low, high);
            rest = after;
        }
        set.push(']');
        self.rest = rest;
        self.folded(&set);
        Ok(())
    }
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

fn write_range(out: &mut String, low: u32, high: u32) {
    let low = if SURROGATES.contains(&low) { SURROGATES.end() + 1 } else { low };
    let high = if SURROGATES.contains(&high) { SURROGATES.start() - 1 } else { high };
    if low <= high {
        write_code(out, low);
        out.push('-');
        write_code(out, high);
    }
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

/// The set that an escape stands for, and what follows.
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
    let ranges = match name {
        "Any" => r"\x{0}-\x{10FFFF}".to_owned(),
        // In RE2 without those that are not assigned.
        "C" => r"\p{gc=Cc}\p{gc=Cf}\p{gc=Co}".to_owned(),
        "Cs" => NOTHING.to_owned(),
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
