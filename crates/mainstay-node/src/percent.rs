//! Percent-encoded text, of paths and of messages.

/// What percent-encoded text says; what is no escape stays. Source: RFC 3986, section 2.1.
pub(crate) fn decoded(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                text.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                text.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_badly_is_taken_as_it_is() {
        for (part, expected) in [("a%2fb", "a/b"), ("%", "%"), ("%zz", "%zz"), ("%e4", "\u{fffd}")]
        {
            assert_eq!(decoded(part.as_bytes()), expected);
        }
    }
}
