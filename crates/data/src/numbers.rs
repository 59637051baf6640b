//! Numbers of the types of NumPy and TIFF, in bytes.

use std::fmt::{self, Display};

use crate::range::Range;

/// A kind of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int,
    Uint,
    Float,
}

/// A type of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumberType {
    kind: Kind,
    bytes: usize,
    big_endian: bool,
}

impl NumberType {
    pub const UINT8: Self = Self { kind: Kind::Uint, bytes: 1, big_endian: false };

    /// The type; `None` where there is none of this size.
    pub fn new(kind: Kind, bytes: usize, big_endian: bool) -> Option<Self> {
        let sizes: &[usize] = match kind {
            Kind::Bool => &[1],
            Kind::Int | Kind::Uint => &[1, 2, 4, 8],
            Kind::Float => &[2, 4, 8],
        };
        sizes.contains(&bytes).then_some(Self { kind, bytes, big_endian })
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        self.bytes
    }

    pub fn is_integer(self) -> bool {
        self.kind != Kind::Float
    }

    /// The range of the type: that of bytes, of 16 bits or of bool; `None` where numbers of this type may have any.
    pub fn range(self) -> Option<Range> {
        match (self.kind, self.bytes) {
            (Kind::Bool, _) => Some(Range { low: 0.0, high: 1.0 }),
            (Kind::Uint, 1) => Some(Range::BYTES),
            (Kind::Uint, 2) => Some(Range::WORDS),
            _ => None,
        }
    }

    /// Whether a number may be as great as `number`.
    pub fn holds(self, number: f64) -> bool {
        self.kind != Kind::Int || number < 2f64.powi(8 * self.bytes as i32 - 1)
    }

    /// Passes each of the numbers in `bytes` to `visit`, those of 64 bits rounded to 53.
    pub fn each(self, bytes: &[u8], mut visit: impl FnMut(f64)) {
        match (self.kind, self.bytes) {
            (Kind::Bool, _) => self.items(bytes, |[byte]| visit(f64::from(byte != 0))),
            (Kind::Uint, 1) => self.items(bytes, |[byte]| visit(byte.into())),
            (Kind::Uint, 2) => self.items(bytes, |item| visit(u16::from_le_bytes(item).into())),
            (Kind::Uint, 4) => self.items(bytes, |item| visit(u32::from_le_bytes(item).into())),
            (Kind::Uint, _) => self.items(bytes, |item| visit(u64::from_le_bytes(item) as f64)),
            (Kind::Int, 1) => self.items(bytes, |item| visit(i8::from_le_bytes(item).into())),
            (Kind::Int, 2) => self.items(bytes, |item| visit(i16::from_le_bytes(item).into())),
            (Kind::Int, 4) => self.items(bytes, |item| visit(i32::from_le_bytes(item).into())),
            (Kind::Int, _) => self.items(bytes, |item| visit(i64::from_le_bytes(item) as f64)),
            (Kind::Float, 2) => self.items(bytes, |item| visit(half(u16::from_le_bytes(item)))),
            (Kind::Float, 4) => self.items(bytes, |item| visit(f32::from_le_bytes(item).into())),
            (Kind::Float, _) => self.items(bytes, |item| visit(f64::from_le_bytes(item))),
        }
    }

    /// Passes each item to `visit`, least significant byte first.
    fn items<const SIZE: usize>(self, bytes: &[u8], mut visit: impl FnMut([u8; SIZE])) {
        for item in bytes.chunks_exact(SIZE) {
            let mut ordered = [0; SIZE];
            ordered.copy_from_slice(item);
            if self.big_endian {
                ordered.reverse();
            }
            visit(ordered);
        }
    }
}

impl Display for NumberType {
    /// The name in NumPy.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = 8 * self.bytes;
        match self.kind {
            Kind::Bool => write!(formatter, "bool"),
            Kind::Int => write!(formatter, "int{bits}"),
            Kind::Uint => write!(formatter, "uint{bits}"),
            Kind::Float => write!(formatter, "float{bits}"),
        }
    }
}

/// A number of half precision (IEEE 754 binary16).
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(kind: Kind, size: usize, big_endian: bool, bytes: &[u8]) -> Vec<f64> {
        let mut numbers = Vec::new();
        NumberType::new(kind, size, big_endian).unwrap().each(bytes, |number| numbers.push(number));
        numbers
    }

    #[test]
    fn every_type_is_read_in_both_orders() {
        assert_eq!(numbers(Kind::Bool, 1, false, &[0, 1, 7]), [0.0, 1.0, 1.0]);
        assert_eq!(numbers(Kind::Int, 1, false, &[0xff]), [-1.0]);
        assert_eq!(numbers(Kind::Int, 2, true, &[0xfc, 0x18]), [-1000.0]);
        assert_eq!(numbers(Kind::Int, 8, false, &(-5i64).to_le_bytes()), [-5.0]);
        assert_eq!(numbers(Kind::Uint, 4, true, &70000u32.to_be_bytes()), [70000.0]);
        assert_eq!(numbers(Kind::Uint, 8, false, &u64::MAX.to_le_bytes()), [18446744073709551616.0]);
        assert_eq!(numbers(Kind::Float, 4, true, &0.5f32.to_be_bytes()), [0.5]);
        assert_eq!(numbers(Kind::Float, 8, false, &(-0.25f64).to_le_bytes()), [-0.25]);
        // numpy.float16: 1, -2, 65504, 2 ** -24, inf, 1 / 3
        let half = [0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00, 0x3555].map(u16::to_le_bytes).concat();
        let expected = [1.0, -2.0, 65504.0, 5.960464477539063e-8, f64::INFINITY, 0.333251953125];
        assert_eq!(numbers(Kind::Float, 2, false, &half), expected);
        assert!(numbers(Kind::Float, 2, true, &[0x7e, 0x00])[0].is_nan());
    }

    #[test]
    fn types_have_names_and_ranges() {
        let int = |bytes| NumberType::new(Kind::Int, bytes, false).unwrap();
        assert_eq!((int(8).to_string(), NumberType::UINT8.to_string()), ("int64".into(), "uint8".into()));
        assert_eq!(NumberType::new(Kind::Float, 16, false), None);
        assert_eq!((NumberType::UINT8.range(), int(2).range()), (Some(Range::BYTES), None));
        assert!(!int(1).holds(255.0) && int(2).holds(255.0) && !int(2).holds(65535.0) && int(4).holds(65535.0));
    }
}
