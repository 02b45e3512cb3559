//! Base64 as Go reads and writes it: with padding, and line ends are passed over.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text as Go writes it again.
///
/// # Errors
///
/// The offset that Go names.
pub(super) fn canonical(text: &str) -> Result<String, usize> {
    let source = text.as_bytes();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < source.len() {
        let mut sextets = [0_u8; 4];
        let mut count = 0;
        let mut padded = false;
        while count < 4 {
            let Some(byte) = source.get(at) else {
                if count == 0 {
                    return Ok(out);
                }
                return Err(at - count);
            };
            at += 1;
            match value(*byte) {
                Some(sextet) => {
                    if let Some(place) = sextets.get_mut(count) {
                        *place = sextet;
                    }
                    count += 1;
                }
                None if matches!(byte, b'\n' | b'\r') => {}
                None if *byte == b'=' && count >= 2 => {
                    at = padding(source, at, count)?;
                    padded = true;
                    break;
                }
                None => return Err(at - 1),
            }
        }
        write(&mut out, sextets, count);
        if padded && at < source.len() {
            return Err(at);
        }
    }
    Ok(out)
}

/// The text of bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for piece in bytes.chunks(3) {
        let byte = |at: usize| piece.get(at).copied().unwrap_or_default();
        let (a, b, c) = (byte(0), byte(1), byte(2));
        let sextets = [a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63];
        write(&mut out, sextets, piece.len() + 1);
    }
    out
}

/// Reads what has to come after the first `=`, and gives the place after it.
fn padding(source: &[u8], mut at: usize, count: usize) -> Result<usize, usize> {
    let newlines = |mut at: usize| {
        while matches!(source.get(at), Some(b'\n' | b'\r')) {
            at += 1;
        }
        at
    };
    if count == 2 {
        at = newlines(at);
        match source.get(at) {
            None => return Err(source.len()),
            Some(b'=') => at += 1,
            Some(_) => return Err(at - 1),
        }
    }
    Ok(newlines(at))
}

/// Writes up to four digits with padding; bits that make no byte are zero.
fn write(out: &mut String, mut sextets: [u8; 4], count: usize) {
    match count {
        2 => sextets[1] &= 0b11_0000,
        3 => sextets[2] &= 0b11_1100,
        _ => {}
    }
    for (at, sextet) in sextets.into_iter().enumerate() {
        let digit = ALPHABET.get(usize::from(sextet)).copied().unwrap_or(b'A');
        out.push(if at < count { char::from(digit) } else { '=' });
    }
}

fn value(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}
