//! Names as they are sent.

use std::fmt;

/// Source: RFC 1035, section 2.3.4, as the next one.
const LONGEST_LABEL: usize = 63;
/// In bytes as it is sent, the end included.
const LONGEST: usize = 255;

/// A name: labels, each behind its length, and an empty one at the end. Upper and lower case are the same,
/// so it is kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Of a text such as `web.default`; `None` if it cannot be sent.
    pub fn of(text: &str) -> Option<Self> {
        let labels: Vec<&[u8]> = match text {
            "" => Vec::new(),
            text => text.split('.').map(str::as_bytes).collect(),
        };
        Self::of_labels(&labels)
    }

    fn of_labels(labels: &[&[u8]]) -> Option<Self> {
        let mut bytes = Vec::new();
        for label in labels {
            if label.is_empty() || label.len() > LONGEST_LABEL {
                return None;
            }
            bytes.push(u8::try_from(label.len()).ok()?);
            bytes.extend(label.to_ascii_lowercase());
        }
        bytes.push(0);
        (bytes.len() <= LONGEST).then(|| Self(bytes.into()))
    }

    /// Reads one from the front, as it is in a question: without a pointer, as there is nothing before it
    /// that it could point to. Returns how many bytes it has there; `None` if it is not one.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut at = 0;
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            at += length;
            if length > LONGEST_LABEL || at >= LONGEST {
                return None;
            }
        }
        // Lengths are at most 63, which are digits and signs to ASCII.
        Some((Self(bytes.get(..at)?.to_ascii_lowercase().into()), at))
    }

    /// The bytes that are sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its labels, the one that says most first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.0;
        let mut labels = Vec::new();
        while let Some((length, behind)) = rest.split_first()
            && let Some((label, behind)) = behind.split_at_checked(usize::from(*length))
            && !label.is_empty()
        {
            labels.push(label);
            rest = behind;
        }
        labels.into_iter()
    }

    /// Whether it is that name or below it.
    pub fn is_within(&self, other: &Self) -> bool {
        let (mut own, mut others) = (self.labels().rev(), other.labels().rev());
        others.all(|label| own.next() == Some(label))
    }

    /// The name that it is directly below of; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let length = usize::from(*self.0.first().filter(|length| **length > 0)?);
        Some(Self(self.0.get(1 + length..)?.into()))
    }

    /// This name below another one; `None` if that is too long.
    pub fn below(&self, other: &Self) -> Option<Self> {
        let labels: Vec<_> = self.labels().chain(other.labels()).collect();
        Self::of_labels(&labels)
    }
}

impl Default for Name {
    /// The root, which all names are below of.
    fn default() -> Self {
        Self([0].into())
    }
}

impl fmt::Display for Name {
    /// As people write it. For what they see only: a label may have any bytes in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<_> = self.labels().map(String::from_utf8_lossy).collect();
        f.write_str(&labels.join("."))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::of(text).unwrap()
    }

    #[test]
    fn a_name_is_within_those_that_it_ends_in() {
        for (one, other, expected) in [
            ("web.default", "default", true),
            ("WEB.Default", "default", true),
            ("default", "default", true),
            ("default", "web.default", false),
            ("webdefault", "default", false),
            ("web.default", "", true),
            ("", "", true),
            ("", "default", false),
        ] {
            assert_eq!(name(one).is_within(&name(other)), expected, "{one} {other}");
        }
        assert_eq!(name("a.b").parent(), Some(name("b")));
        assert_eq!(name("b").parent(), Some(name("")));
        assert_eq!(name("").parent(), None);
        assert_eq!(name("a.b").below(&name("c.d")), Some(name("a.b.c.d")));
    }

    #[test]
    fn what_cannot_be_sent_is_no_name() {
        let long = "a".repeat(64);
        for text in [".", "a..b", "a.", long.as_str()] {
            assert_eq!(Name::of(text), None, "{text}");
        }
        let longest = ["a".repeat(63).as_str(); 4].join(".");
        assert_eq!(Name::of(&longest), None);
        assert!(Name::of(&longest[2..]).is_some());
        for bytes in [&b""[..], b"\x01a", b"\x03a", b"\xc0\x0c", b"\x40"] {
            assert_eq!(Name::read(bytes), None, "{bytes:?}");
        }
        assert_eq!(Name::read(&[1; 400]), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_sent(
            labels in proptest::collection::vec("[a-z0-9-]{1,20}", 0..8), rest: Vec<u8>
        ) {
            let name = name(&labels.join("."));
            let mut bytes = name.as_bytes().to_vec();
            let length = bytes.len();
            bytes.extend(rest);
            prop_assert_eq!(Name::read(&bytes), Some((name.clone(), length)));
            prop_assert_eq!(name.to_string(), labels.join("."));
        }

        #[test]
        fn anything_is_read_without_harm(bytes: Vec<u8>) {
            if let Some((name, length)) = Name::read(&bytes) {
                prop_assert!(length <= LONGEST && length <= bytes.len());
                prop_assert_eq!(name.as_bytes().len(), length);
                prop_assert!(name.is_within(&Name::of("").unwrap()));
            }
        }
    }
}
