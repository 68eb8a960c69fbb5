//! A set of gRPC statuses.

use std::fmt;
use tonic::Code;

/// Some of gRPC's statuses; their names, in order, are its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Codes(u32);

impl Codes {
    pub(crate) fn has(self, code: Code) -> bool {
        self.0 & bit(code) != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

fn bit(code: Code) -> u32 {
    1 << i32::from(code)
}

impl FromIterator<Code> for Codes {
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        Self(codes.into_iter().fold(0, |set, code| set | bit(code)))
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = (0..32).filter(|code| self.0 & (1 << code) != 0).map(Code::from_i32);
        all.try_fold("", |separator, code| {
            f.write_str(separator)?;
            // As gRPC writes it, not as Rust does: DEADLINE_EXCEEDED.
            for (index, letter) in format!("{code:?}").char_indices() {
                let gap = if index > 0 && letter.is_uppercase() { "_" } else { "" };
                write!(f, "{gap}{}", letter.to_ascii_uppercase())?;
            }
            Ok(", ")
        })
        .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_was_put_in_and_names_it_as_grpc_does() {
        let some: Codes =
            [Code::Unavailable, Code::DeadlineExceeded, Code::Unavailable].into_iter().collect();
        let all = (0..=16).map(Code::from_i32);
        let found: Vec<Code> = all.filter(|code| some.has(*code)).collect();
        assert_eq!(found, [Code::DeadlineExceeded, Code::Unavailable]);
        assert_eq!(some.to_string(), "DEADLINE_EXCEEDED, UNAVAILABLE");
        assert!(Codes::default().is_empty() && !some.is_empty());
    }
}
