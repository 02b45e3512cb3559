//! Tells code, comments and literals of Rust source apart, so that a rule about code does not
//! stumble over a text that talks about it.
//!
//! Source: The Rust Reference, "Tokens" and "Comments".

/// What a byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Everything else.
    Code,
    /// A comment, documentation too.
    Comment,
    /// A string or a character, with its quotes.
    Literal,
}

/// The class of each byte of `source`.
pub(super) fn classes(source: &str) -> Vec<Class> {
    let mut classes = Vec::with_capacity(source.len());
    let mut previous = ' ';
    while let Some(first) = source[classes.len()..].chars().next() {
        let rest = &source[classes.len()..];
        let (class, length) = token(rest, previous);
        classes.resize(classes.len() + length, class);
        previous = if class == Class::Code { first } else { ' ' };
    }
    classes
}

/// `source` with a space for each byte that is not of `class`, line ends apart. Offsets and lines
/// stay the same.
pub(super) fn only(class: Class, source: &str) -> String {
    let classes = classes(source);
    let mut text = String::with_capacity(source.len());
    for (offset, c) in source.char_indices() {
        if classes[offset] == class || c == '\n' {
            text.push(c);
        } else {
            text.extend(std::iter::repeat_n(' ', c.len_utf8()));
        }
    }
    text
}

/// The class and the length of what `rest` begins with, which is not empty.
fn token(rest: &str, previous: char) -> (Class, usize) {
    if rest.starts_with("//") {
        return (Class::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Class::Comment, block_comment(rest));
    }
    // `br"` is a string only if the `b` does not end a name.
    if !(previous.is_alphanumeric() || previous == '_') {
        let prefix = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
        if prefix <= 2
            && let Some(length) = string(&rest[prefix..], rest[..prefix].contains('r'))
        {
            return (Class::Literal, prefix + length);
        }
    }
    if rest.starts_with('\'')
        && let Some(length) = character(rest)
    {
        return (Class::Literal, length);
    }
    (Class::Code, rest.chars().next().map_or(1, char::len_utf8))
}

/// The length of a comment, in which there may be others.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut offset = 0;
    while offset < rest.len() {
        let here = &rest.as_bytes()[offset..];
        if here.starts_with(b"/*") {
            depth += 1;
            offset += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            offset += 2;
            if depth == 0 {
                return offset;
            }
        } else {
            offset += 1;
        }
    }
    rest.len()
}

/// The length of a string without its prefix, if this is one.
fn string(rest: &str, raw: bool) -> Option<usize> {
    let hashes = if raw { rest.len() - rest.trim_start_matches('#').len() } else { 0 };
    if !rest[hashes..].starts_with('"') {
        return None;
    }
    let body = hashes + 1;
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()));
    }
    Some(quoted(rest, '"'))
}

/// The length of a character, if this is not a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.chars().skip(1);
    match (chars.next()?, chars.next()?) {
        ('\\', _) => Some(quoted(rest, '\'')),
        (c, '\'') => Some(c.len_utf8() + 2),
        _ => None,
    }
}

/// The length up to a closing `quote` that is not escaped.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (offset, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return offset + 1,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Code as it is, `c` for a comment, `l` for a literal.
    fn check(source: &str, expected: &Expect) {
        let letters = classes(source).into_iter().zip(source.bytes());
        let letters = letters.map(|(class, byte)| match class {
            Class::Code => char::from(byte),
            Class::Comment => 'c',
            Class::Literal => 'l',
        });
        expected.assert_eq(&letters.collect::<String>());
    }

    #[test]
    fn comments() {
        check("a // b \"c\"\nd", &expect!["a cccccccc\nd"]);
        check("a /* b /* c */ \" */ d", &expect!["a ccccccccccccccccc d"]);
        check("/* never ended", &expect!["cccccccccccccc"]);
    }

    #[test]
    fn strings() {
        check(r#"f("a\"b", c)"#, &expect!["f(llllll, c)"]);
        check(r##"f(r#"a"b"#, br"\", b'x')"##, &expect!["f(llllllll, lllll, blll)"]);
        check("number\"x\"", &expect![[r#"number"x""#]]);
        check("r#type", &expect!["r#type"]);
    }

    #[test]
    fn characters_and_lifetimes() {
        check("'a'", &expect!["lll"]);
        check(r"'\'' '\u{1F}' '\\'", &expect!["llll llllllll llll"]);
        check("fn f<'a>(x: &'a str)", &expect!["fn f<'a>(x: &'a str)"]);
        check("'\"' /* */", &expect!["lll ccccc"]);
    }

    #[test]
    fn one_class_keeps_its_place() {
        assert_eq!(only(Class::Code, "a \"é\n\" // b\nc"), "a    \n      \nc");
        assert_eq!(only(Class::Comment, "a // b"), "  // b");
    }
}
