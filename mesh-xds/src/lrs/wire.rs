//! The fields of an encoded message, one after the other: nothing is copied, and nothing is kept.

/// A value that a report may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// A number of any width.
    Varint(u64),
    /// Eight bytes.
    Fixed(u64),
    /// A text, or a message.
    Bytes(&'a [u8]),
    /// Four bytes, which no field has that is read.
    Other,
}

/// These bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(Malformed("a number has another type")),
        }
    }

    pub(super) fn double(self) -> Result<f64, Malformed> {
        match self {
            Self::Fixed(bits) => Ok(f64::from_bits(bits)),
            _ => Err(Malformed("a floating-point number has another type")),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        match self {
            Self::Bytes(bytes) => str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8")),
            _ => Err(Malformed("a text has another type")),
        }
    }

    pub(super) fn message(self) -> Result<Fields<'a>, Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(Fields(bytes)),
            _ => Err(Malformed("a message has another type")),
        }
    }
}

/// The fields of a message, in the order in which they were written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The number of the next field, and its value.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed(u64::from_le_bytes(*self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                let (value, rest) = self.0.split_at_checked(length).ok_or(ENDS)?;
                self.0 = rest;
                Value::Bytes(value)
            }
            5 => {
                self.array::<4>()?;
                Value::Other
            }
            // Groups, which no version of these messages ever had.
            _ => return Err(Malformed("a field is of a type that there is not")),
        };
        Ok(Some((key >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed("a number has more than 64 bits"))
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(ENDS)?;
        self.0 = rest;
        Ok(array)
    }
}

const ENDS: Malformed = Malformed("it ends too soon");

#[cfg(test)]
mod tests {
    use super::*;
    use prost::encoding::{WireType, encode_key, encode_varint};

    fn all(bytes: &[u8]) -> Result<Vec<(u64, Value<'_>)>, Malformed> {
        let mut fields = Fields(bytes);
        let mut all = Vec::new();
        while let Some(field) = fields.next()? {
            all.push(field);
        }
        Ok(all)
    }

    #[test]
    fn fields_are_what_prost_writes() {
        let mut bytes = Vec::new();
        for number in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            encode_key(1000, WireType::Varint, &mut bytes);
            encode_varint(number, &mut bytes);
        }
        prost::encoding::double::encode(2, &-1.5, &mut bytes);
        prost::encoding::string::encode(3, &"text".to_owned(), &mut bytes);
        prost::encoding::fixed32::encode(4, &7, &mut bytes);
        let numbers =
            [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX].map(|number| (1000, Value::Varint(number)));
        let others = [(2, Value::Fixed((-1.5_f64).to_bits())), (3, Value::Bytes(b"text")), (4, Value::Other)];
        assert_eq!(all(&bytes).unwrap(), [&numbers[..], &others].concat());
        assert_eq!(Value::Fixed((-1.5_f64).to_bits()).double(), Ok(-1.5));
    }

    #[test]
    fn what_is_no_message_is_said_to_be_none() {
        let cases: [&[u8]; 7] = [
            b"\x08",
            b"\x08\x80",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x09\0\0\0\0\0\0\0",
            b"\x12\x02a",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a",
            b"\x0b\x0c",
        ];
        for bytes in cases {
            assert!(all(bytes).is_err(), "{bytes:?}");
        }
        assert!(Value::Bytes(b"\xff").text().is_err());
    }
}
