//! Kubernetes quantities (`500m`, `1.5Gi`, `2e3`): parsing, comparing, adding, and the canonical text.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource/{quantity,suffix}.go`. Two things differ, both at
//! magnitudes that no machine has: a quantity of more than 10^23 is refused (Kubernetes takes any
//! exponent, and then spends unbounded time comparing it), and so is an exponent beyond ±1000.

use std::cmp::Ordering;
use std::fmt;

use thiserror::Error;

/// Fixed-point scale: the value is held in billionths, the finest unit that Kubernetes keeps.
const NANO: i128 = 1_000_000_000;

/// The largest magnitude, in billionths: sums of a million quantities still fit an `i128`.
const MAX: i128 = 100_000_000_000_000_000_000_000 * NANO;

/// `2^63 - 1` units, at which Kubernetes caps quantities with a binary suffix.
const BINARY_CAP: i128 = i64::MAX as i128 * NANO;

/// The text is not a quantity.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Error)]
pub enum ParseQuantityError {
    /// The text has not the shape of a quantity.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The suffix is none of those that Kubernetes knows.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// Larger than 10^23 in magnitude, or an exponent beyond ±1000.
    #[error("quantity is too large")]
    TooLarge,
}

/// Which family of suffixes the quantity was written with; its canonical text keeps to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    /// `1500m`, `2k`, `3`
    DecimalSi,
    /// `1536Mi`
    BinarySi,
    /// `12e6`
    DecimalExponent,
}

/// An amount of a resource: exact down to a billionth, at most 10^23 in magnitude.
///
/// Finer amounts are rounded away from zero when parsed, as Kubernetes does. Equality and order are
/// those of the amount; how it was written matters only to [`Quantity::canonical`].
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

const BINARY: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// The pieces of a quantity's text, unchecked but for their shape.
struct Pieces<'a> {
    negative: bool,
    /// Without leading zeros; empty for zero.
    whole: &'a str,
    fraction: &'a str,
    suffix: Suffix,
}

enum Suffix {
    Decimal(i32),
    Binary(u32),
    Exponent(i32),
}

// === impl Quantity ===

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    /// Parses the text of a quantity.
    ///
    /// # Errors
    /// When the text has not the shape of a quantity, or is larger than any machine could be.
    pub fn parse(text: &str) -> Result<Self, ParseQuantityError> {
        let pieces = Pieces::split(text)?;
        let (magnitude, format) = match pieces.suffix {
            Suffix::Decimal(exponent) => (pieces.scale_decimal(exponent)?, Format::DecimalSi),
            Suffix::Exponent(exponent) => {
                (pieces.scale_decimal(exponent)?, Format::DecimalExponent)
            }
            Suffix::Binary(bits) => {
                let magnitude = pieces.scale_binary(bits).min(BINARY_CAP);
                // Kubernetes shows a part of one unit in decimal, which avoids rounding.
                let small = magnitude > 0 && magnitude < NANO;
                (magnitude, if small { Format::DecimalSi } else { Format::BinarySi })
            }
        };
        if magnitude > MAX {
            return Err(ParseQuantityError::TooLarge);
        }
        let nano = if pieces.negative { -magnitude } else { magnitude };
        Ok(Self { nano, format })
    }

    /// A whole number of units.
    pub const fn from_units(units: i64) -> Self {
        Self { nano: units as i128 * NANO, format: Format::DecimalSi }
    }

    /// A number of bytes, written with the suffixes of powers of 1024.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self { nano: bytes as i128 * NANO, format: Format::BinarySi }
    }

    /// Thousandths, rounded away from zero and capped at `i64`: milli-CPU.
    pub fn milli(self) -> i64 {
        saturate(divide_away_from_zero(self.nano, NANO / 1000))
    }

    /// Whole units, rounded away from zero and capped at `i64`: bytes.
    pub fn units(self) -> i64 {
        saturate(divide_away_from_zero(self.nano, NANO))
    }

    /// Whether the amount is nothing.
    pub const fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// Whether the amount is less than nothing.
    pub const fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// Rounded away from zero to thousandths: what defaulting does to every list of resources
    /// (`SetDefaults_ResourceList`).
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        let step = NANO / 1000;
        Self { nano: divide_away_from_zero(self.nano, step) * step, ..self }
    }

    /// The sum; it keeps the way of writing of the first amount that is not zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nano: self.nano.saturating_add(other.nano), format }
    }

    /// What is left without another amount, which may be less than nothing; it keeps the way of writing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { nano: self.nano.saturating_sub(other.nano), ..self }
    }

    /// The canonical text: no precision lost, no fraction, the suffix as large as possible.
    pub fn canonical(self) -> String {
        if self.nano == 0 {
            return "0".to_owned();
        }
        let binary = self.format == Format::BinarySi
            && self.nano.abs() >= 1024 * NANO
            && self.nano % NANO == 0;
        if binary {
            let mut mantissa = self.nano / NANO;
            let mut suffix = "";
            for (name, _) in BINARY {
                if mantissa % 1024 != 0 {
                    break;
                }
                mantissa /= 1024;
                suffix = name;
            }
            return format!("{mantissa}{suffix}");
        }
        let mut mantissa = self.nano;
        let mut exponent = -9;
        // Only the decimal suffixes end; an exponent can grow for as long as there are zeros.
        let last = if self.format == Format::DecimalExponent { i32::MAX } else { 18 };
        while mantissa % 1000 == 0 && exponent < last {
            mantissa /= 1000;
            exponent += 3;
        }
        match self.format {
            Format::DecimalExponent if exponent == 0 => mantissa.to_string(),
            Format::DecimalExponent => format!("{mantissa}e{exponent}"),
            Format::DecimalSi | Format::BinarySi => {
                let suffix = DECIMAL
                    .iter()
                    .find(|(_, power)| *power == exponent)
                    .map_or("", |(suffix, _)| suffix);
                format!("{mantissa}{suffix}")
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

/// The text that an API server stores for a quantity: what was written if Kubernetes counts it as
/// canonical already (which `1.500` and `+5` are to it), else the canonical text.
///
/// # Errors
/// As [`Quantity::parse`].
pub fn stored_text(text: &str) -> Result<String, ParseQuantityError> {
    let quantity = Quantity::parse(text)?;
    let pieces = Pieces::split(text)?;
    let digits = pieces.whole.len() + pieces.fraction.len();
    let kept = match pieces.suffix {
        // 18 digits are what Kubernetes' fast path takes.
        Suffix::Decimal(exponent) | Suffix::Exponent(exponent) => {
            let whole = if pieces.whole.is_empty() { "0" } else { pieces.whole };
            let shifted = format!("{whole}{}", pieces.fraction);
            let places = i32::try_from(pieces.fraction.len()).unwrap_or(i32::MAX);
            let scale = exponent.saturating_sub(places);
            digits <= 18
                && scale >= -9
                && scale % 3 == 0
                && !shifted.ends_with("000")
                && !shifted.starts_with('0')
        }
        Suffix::Binary(bits) => {
            let value = pieces.whole.parse::<i64>().unwrap_or(0);
            let room = 15
                - i64::try_from(pieces.whole.len().max(1)).unwrap_or(i64::MAX)
                - i64::from(bits) * 3 / 10
                - 1;
            pieces.fraction.is_empty() && room >= 0 && value & 7 != 0
        }
    };
    Ok(if kept { text.to_owned() } else { quantity.canonical() })
}

// === impl Pieces ===

impl<'a> Pieces<'a> {
    fn split(text: &'a str) -> Result<Self, ParseQuantityError> {
        let (negative, rest) = match text.as_bytes() {
            [] => return Err(ParseQuantityError::Format),
            [b'-', ..] => (true, &text[1..]),
            [b'+', ..] => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = take_digits(rest);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(after) => take_digits(after),
            None => ("", rest),
        };
        check_suffix_shape(suffix)?;
        let suffix = Suffix::parse(suffix)?;
        Ok(Self { negative, whole: whole.trim_start_matches('0'), fraction, suffix })
    }

    /// The digits, whole and fraction, from the most significant on.
    fn digits(&self) -> impl Iterator<Item = i128> {
        self.whole.bytes().chain(self.fraction.bytes()).map(|digit| i128::from(digit - b'0'))
    }

    /// `digits * 10^exponent` in billionths, rounded up.
    fn scale_decimal(&self, exponent: i32) -> Result<i128, ParseQuantityError> {
        let places =
            i64::try_from(self.fraction.len()).map_err(|_| ParseQuantityError::TooLarge)?;
        let mut shift = i64::from(exponent) + 9 - places;
        let mut value: i128 = 0;
        let significant = self.digits().skip_while(|digit| *digit == 0).count();
        let mut left = significant;
        let mut rest_is_zero = true;
        for digit in self.digits().skip_while(|digit| *digit == 0) {
            // Digits below a billionth only decide whether to round up.
            if shift < 0 && i64::try_from(left).unwrap_or(i64::MAX) <= -shift {
                rest_is_zero &= digit == 0;
            } else {
                value = value
                    .checked_mul(10)
                    .and_then(|value| value.checked_add(digit))
                    .ok_or(ParseQuantityError::TooLarge)?;
            }
            left -= 1;
        }
        if !rest_is_zero {
            value += 1;
        }
        while shift > 0 && value != 0 {
            value = value.checked_mul(10).ok_or(ParseQuantityError::TooLarge)?;
            shift -= 1;
        }
        Ok(value)
    }

    /// `digits * 2^bits` in billionths, rounded up, capped far above the binary cap.
    fn scale_binary(&self, bits: u32) -> i128 {
        let factor = 1_i128 << bits;
        let mut whole: i128 = 0;
        for digit in self.whole.bytes() {
            whole = whole.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
        }
        let whole = whole.saturating_mul(factor).saturating_mul(NANO);
        // A fraction digit at place p is digit * 2^bits * 10^9 / 10^p: all of them together are found by
        // long division from the last digit up, keeping whether anything was left over.
        let mut value: i128 = 0;
        let mut inexact = false;
        for digit in self.fraction.bytes().rev() {
            let sum = value + i128::from(digit - b'0') * factor * NANO;
            inexact |= sum % 10 != 0;
            value = sum / 10;
        }
        whole.saturating_add(value + i128::from(inexact))
    }
}

// === impl Suffix ===

impl Suffix {
    fn parse(text: &str) -> Result<Self, ParseQuantityError> {
        if let Some((_, exponent)) = DECIMAL.iter().find(|(suffix, _)| *suffix == text) {
            return Ok(Self::Decimal(*exponent));
        }
        if let Some((_, bits)) = BINARY.iter().find(|(suffix, _)| *suffix == text) {
            return Ok(Self::Binary(*bits));
        }
        let digits = text.strip_prefix(['e', 'E']).ok_or(ParseQuantityError::Suffix)?;
        let exponent: i64 = digits.parse().map_err(|_| ParseQuantityError::Suffix)?;
        match i32::try_from(exponent) {
            Ok(exponent) if exponent.abs() <= 1000 => Ok(Self::Exponent(exponent)),
            _ => Err(ParseQuantityError::TooLarge),
        }
    }
}

fn is_suffix_char(c: char) -> bool {
    "eEinumkKMGTP".contains(c)
}

/// Letters, then at most one sign, then digits; anything else is no quantity at all.
fn check_suffix_shape(suffix: &str) -> Result<(), ParseQuantityError> {
    let rest = suffix.trim_start_matches(is_suffix_char);
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    if rest.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(())
    } else {
        Err(ParseQuantityError::Format)
    }
}

fn take_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn divide_away_from_zero(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests;
