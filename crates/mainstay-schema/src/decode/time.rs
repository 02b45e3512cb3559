//! Times as Go reads and writes them.

use jiff::civil;
use jiff::{SignedDuration, Timestamp};

/// How a time is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `metav1.Time`.
    Seconds,
    /// `metav1.MicroTime`: six digits after the point, no more and no fewer.
    Micro,
}

/// A piece of a layout, with its name in messages.
#[derive(Clone, Copy)]
enum Piece {
    Year,
    Number { name: &'static str, strict: bool, range: (i8, i8), what: &'static str },
    Mark(&'static str),
    Micro,
    Zone,
}

const fn number(name: &'static str, range: (i8, i8), what: &'static str) -> Piece {
    Piece::Number { name, strict: true, range, what }
}

const PIECES: [Piece; 13] = [
    Piece::Year,
    Piece::Mark("-"),
    number("01", (1, 12), "month"),
    Piece::Mark("-"),
    number("02", (0, 99), "day"),
    Piece::Mark("T"),
    Piece::Number { name: "15", strict: false, range: (0, 23), what: "hour" },
    Piece::Mark(":"),
    number("04", (0, 59), "minute"),
    Piece::Mark(":"),
    number("05", (0, 59), "second"),
    Piece::Micro,
    Piece::Zone,
];

/// The time in UTC, or `None` for Go's zero time, which is written as null.
///
/// # Errors
///
/// The text that Go has for it.
pub(super) fn canonical(text: &str, layout: Layout) -> Result<Option<String>, String> {
    let parsed = parse(text, layout)?;
    let time = parsed.time - parsed.offset;
    if time == civil::date(1, 1, 1).at(0, 0, 0, 0) {
        return Ok(None);
    }
    let (date, clock) = (time.date(), time.time());
    let mut out = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        date.year(),
        date.month(),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    );
    if layout == Layout::Micro {
        out.push_str(&format!(".{:06}", clock.subsec_nanosecond() / 1000));
    }
    out.push('Z');
    Ok(Some(out))
}

struct Parsed {
    time: civil::DateTime,
    offset: SignedDuration,
}

fn parse(text: &str, layout: Layout) -> Result<Parsed, String> {
    let name = match layout {
        Layout::Seconds => "2006-01-02T15:04:05Z07:00",
        Layout::Micro => "2006-01-02T15:04:05.000000Z07:00",
    };
    let bad = |rest: &str, piece: &str| {
        let (text, rest, piece) = (quote(text), quote(rest), quote(piece));
        format!("parsing time {text} as {}: cannot parse {rest} as {piece}", quote(name))
    };
    let range = |what: &str| format!("parsing time {}: {what} out of range", quote(text));

    let mut rest = text;
    let (mut year, mut numbers, mut nanoseconds) = (0_i16, Vec::with_capacity(5), 0_i32);
    let mut offset = SignedDuration::ZERO;
    for piece in PIECES {
        match piece {
            Piece::Mark(mark) => {
                // Go eats what agrees before it looks for what does not.
                rest = rest.strip_prefix(mark).ok_or_else(|| bad(rest, mark))?;
            }
            Piece::Year => {
                let (digits, after) = digits(rest, 4).ok_or_else(|| bad(rest, "2006"))?;
                year = digits.parse().map_err(|_| bad(rest, "2006"))?;
                rest = after;
            }
            Piece::Number { name, strict, range: (low, high), what } => {
                let short = if strict { None } else { digits(rest, 1) };
                let (digits, after) = digits(rest, 2).or(short).ok_or_else(|| bad(rest, name))?;
                let number: i8 = digits.parse().map_err(|_| bad(rest, name))?;
                if number < low || high < number {
                    return Err(range(what));
                }
                numbers.push(number);
                rest = after;
                if what == "second" && layout == Layout::Seconds {
                    (nanoseconds, rest) = fraction(rest);
                }
            }
            Piece::Micro if layout == Layout::Micro => {
                let micro = rest.strip_prefix(['.', ',']).and_then(|rest| digits(rest, 6));
                let (digits, after) = micro.ok_or_else(|| bad(rest, ".000000"))?;
                let micro: i32 = digits.parse().map_err(|_| bad(rest, ".000000"))?;
                nanoseconds = micro * 1000;
                rest = after;
            }
            Piece::Micro => {}
            Piece::Zone => {
                if let Some(after) = rest.strip_prefix('Z') {
                    rest = after;
                    continue;
                }
                let (zone, after) = zone(rest).ok_or_else(|| bad(rest, "Z07:00"))?;
                let (hours, minutes) = (zone.0, zone.1);
                if hours > 24 {
                    return Err(range("time zone offset hour"));
                }
                if minutes > 60 {
                    return Err(range("time zone offset minute"));
                }
                offset = SignedDuration::from_secs((hours * 60 + minutes) * 60 * zone.2);
                rest = after;
            }
        }
    }
    if !rest.is_empty() {
        let (text, rest) = (quote(text), quote(rest));
        return Err(format!("parsing time {text}: extra text: {rest}"));
    }
    let [month, day, hour, minute, second] =
        <[i8; 5]>::try_from(numbers).map_err(|_| bad(text, name))?;
    let time = civil::DateTime::new(year, month, day, hour, minute, second, nanoseconds)
        .map_err(|_| range("day"))?;
    // What is shifted out of all years is no time either.
    let shifted = time.checked_sub(offset).map_err(|_| range("day"))?;
    let (first, last) = (Timestamp::MIN, Timestamp::MAX);
    let at = shifted.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| range("day"))?.timestamp();
    if at <= first || last <= at {
        return Err(range("day"));
    }
    Ok(Parsed { time, offset })
}

/// The first so many characters, if they are digits, and the rest.
fn digits(text: &str, count: usize) -> Option<(&str, &str)> {
    let (digits, rest) = text.split_at_checked(count)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then_some((digits, rest))
}

/// Nanoseconds of a fraction that the layout does not have but the text may, and the rest.
fn fraction(text: &str) -> (i32, &str) {
    let Some(after) = text.strip_prefix(['.', ',']) else { return (0, text) };
    let count = after.bytes().take_while(u8::is_ascii_digit).count();
    let Some((digits, rest)) = after.split_at_checked(count).filter(|_| count > 0) else {
        return (0, text);
    };
    let nine: String = digits.chars().chain("000000000".chars()).take(9).collect();
    (nine.parse().unwrap_or(0), rest)
}

/// Hours, minutes and sign of an offset such as `+02:00`, and the rest.
fn zone(text: &str) -> Option<((i64, i64, i64), &str)> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = digits(text.get(1..)?, 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(':')?, 2)?;
    Some(((hours.parse().ok()?, minutes.parse().ok()?, sign), rest))
}

/// As package `time` quotes.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' | 0x7f => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}
