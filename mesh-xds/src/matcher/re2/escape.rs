//! What a backslash begins.

use super::{Translator, class};

impl Translator<'_, '_> {
    pub(super) fn backslash(&mut self) -> Result<(), String> {
        let second = self.rest.chars().nth(1);
        let simple = match second {
            Some('b') => Some(r"(?-u:\b)"),
            Some('B') => Some(r"(?-u:\B)"),
            Some('A') => Some(r"\A"),
            Some('z') => Some(r"\z"),
            _ => None,
        };
        if let Some(text) = simple {
            self.rest = &self.rest[2..];
            self.item(text);
            return Ok(());
        }
        match second {
            Some('C') => return Err(r"`\C`, a single byte, is not supported".to_owned()),
            Some('Q') => {
                let (text, rest) = self.rest[2..].split_once(r"\E").unwrap_or((&self.rest[2..], ""));
                for c in text.chars() {
                    self.literal(u32::from(c));
                }
                self.rest = rest;
                return Ok(());
            }
            _ => {}
        }
        if let Some((set, rest)) = class::shorthand(self.rest)? {
            self.rest = rest;
            return self.named_set(&set);
        }
        let (code, rest) = character(self.rest)?;
        self.rest = rest;
        self.literal(code);
        Ok(())
    }
}

/// The character that an escape stands for, and what follows. It may be half of a pair, which no text has.
pub(super) fn character(text: &str) -> Result<(u32, &str), String> {
    let mut chars = text.chars();
    chars.next();
    let Some(c) = chars.next() else { return Err(r"it ends with a `\`".to_owned()) };
    let rest = chars.as_str();
    let code = match c {
        'a' => 0x07,
        'f' => 0x0C,
        't' => 0x09,
        'n' => 0x0A,
        'r' => 0x0D,
        'v' => 0x0B,
        '0'..='7' => return octal(c, rest),
        'x' => return hexadecimal(rest),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
        _ => return Err(format!(r"`\{c}` is not an escape of RE2")),
    };
    Ok((code, rest))
}

/// Up to three digits; of two at least, unless the first is 0: otherwise it would refer to a group.
fn octal(first: char, mut rest: &str) -> Result<(u32, &str), String> {
    let mut code = first.to_digit(8).unwrap_or_default();
    let mut digits = 1;
    while digits < 3
        && let Some(digit) = rest.chars().next().and_then(|c| c.to_digit(8))
    {
        code = code * 8 + digit;
        rest = &rest[1..];
        digits += 1;
    }
    if digits == 1 && first != '0' {
        return Err(format!(r"RE2 does not look back: `\{first}` is not in it"));
    }
    Ok((code, rest))
}

/// `7F` or `{10FFFF}`
fn hexadecimal(rest: &str) -> Result<(u32, &str), String> {
    let (digits, rest) = match rest.strip_prefix('{') {
        Some(rest) => rest.split_once('}').unwrap_or_default(),
        None => rest.split_at_checked(2).unwrap_or_default(),
    };
    let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit());
    let digits = digits.trim_start_matches('0');
    // Many zeros may be before it, but not many other digits.
    let code = if digits.is_empty() { Ok(0) } else { u32::from_str_radix(digits, 16) };
    match code {
        Ok(code) if is_number && code <= 0x10_FFFF => Ok((code, rest)),
        _ => {
            Err(r"a `\x` must be followed by two hexadecimal digits, or by any number up to 10FFFF in braces"
                .to_owned())
        }
    }
}
