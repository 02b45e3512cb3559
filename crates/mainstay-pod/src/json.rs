//! Reads JSON into trees. A file whose first visible byte is `{` is JSON to Kubernetes, not YAML.

use crate::diagnostic::{Cause, Finding};
use crate::tree::{Entry, MAX_DEPTH, MAX_NODES, Node, Span, Value};
use crate::yaml::{Document, MAX_DOCUMENTS};

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    nodes: usize,
    /// The first error; what was read before it is still handed out.
    error: Option<Finding>,
}

/// Whether Kubernetes would take the text for JSON.
pub(crate) fn is_json(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim_start().starts_with('{')
}

/// Reads one JSON value after another, as kubectl does, at most one more than [`MAX_DOCUMENTS`].
pub(crate) fn read(text: &str) -> Vec<Document> {
    let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut reader = Reader { text, at, depth: 0, nodes: 0, error: None };
    let mut documents = Vec::new();
    loop {
        reader.skip_space();
        if reader.at >= text.len() || documents.len() > MAX_DOCUMENTS {
            return documents;
        }
        let root = reader.value();
        let error = reader.error.take();
        let failed = error.is_some();
        documents.push(Document { root, error });
        if failed {
            return documents;
        }
    }
}

// === impl Reader ===

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn fail<T>(&mut self, message: impl Into<String>) -> Option<T> {
        self.fail_with(message, None)
    }

    fn fail_with<T>(&mut self, message: impl Into<String>, hint: Option<String>) -> Option<T> {
        let end = self.text[self.at..].chars().next().map_or(0, char::len_utf8);
        let finding = Finding::error(Span::new(self.at, self.at + end), "", message).hint(hint);
        self.error.get_or_insert(finding.cause(Cause::Syntax));
        None
    }

    fn unexpected<T>(&mut self, wanted: &str) -> Option<T> {
        let Some(found) = self.text[self.at..].chars().next() else {
            return self.fail(format!("expected {wanted}, found the end of the file"));
        };
        // YAML in braces is no JSON, but looks much like it.
        let hint = "a file that begins with { is read as JSON".to_owned();
        self.fail_with(format!("expected {wanted}, found {found:?}"), Some(hint))
    }

    /// A value; after an error what there is of it, if it is a list or an object.
    fn value(&mut self) -> Option<Node> {
        self.skip_space();
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.fail(format!("the file holds more than {MAX_NODES} values"));
        }
        let start = self.at;
        let value = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::list)?,
            Some(b'"') => Value::String(self.string()?.into()),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ if self.word("true") => Value::Bool(true),
            _ if self.word("false") => Value::Bool(false),
            _ if self.word("null") => Value::Null,
            _ => return self.unexpected("a JSON value"),
        };
        Some(Node { span: Span::new(start, self.at), value })
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.text[self.at..].starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn nested(&mut self, read: fn(&mut Self) -> Value) -> Option<Value> {
        if self.depth >= MAX_DEPTH {
            return self.fail(format!("nested more than {MAX_DEPTH} levels deep"));
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self);
        self.depth -= 1;
        Some(value)
    }

    fn object(&mut self) -> Value {
        let mut entries = Vec::new();
        self.skip_space();
        if !self.word("}") {
            while let Some(more) = self.entry(&mut entries) {
                if !more {
                    break;
                }
            }
        }
        Value::Map(entries)
    }

    /// One key and value, and whether another follows; none after an error.
    fn entry(&mut self, entries: &mut Vec<Entry>) -> Option<bool> {
        self.skip_space();
        let start = self.at;
        if self.peek() != Some(b'"') {
            return self.unexpected("a key in double quotes");
        }
        let key = self.string()?.into();
        let key_span = Span::new(start, self.at);
        self.skip_space();
        if !self.word(":") {
            return self.unexpected("':'");
        }
        let node = self.value()?;
        entries.push(Entry { key, key_span, node });
        self.more('}')
    }

    fn list(&mut self) -> Value {
        let mut items = Vec::new();
        self.skip_space();
        if !self.word("]") {
            while let Some(item) = self.value() {
                items.push(item);
                if self.more(']') != Some(true) {
                    break;
                }
            }
        }
        Value::List(items)
    }

    /// Whether a comma follows, rather than the end; none after an error.
    fn more(&mut self, close: char) -> Option<bool> {
        if self.error.is_some() {
            return None;
        }
        self.skip_space();
        if self.word(",") {
            return Some(true);
        }
        if self.text[self.at..].starts_with(close) {
            self.at += close.len_utf8();
            return Some(false);
        }
        self.unexpected(&format!("',' or '{close}'"))
    }

    /// A number keeps its text: the schema decides what may be written for an integer or a quantity.
    fn number(&mut self) -> Option<Value> {
        let start = self.at;
        self.word("-");
        if !self.word("0") && !self.digits() {
            return self.unexpected("a digit");
        }
        if self.word(".") && !self.digits() {
            return self.unexpected("a digit");
        }
        if self.word("e") || self.word("E") {
            if !self.word("+") {
                self.word("-");
            }
            if !self.digits() {
                return self.unexpected("a digit");
            }
        }
        Some(Value::Number(self.text[start..self.at].into()))
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at > start
    }

    fn string(&mut self) -> Option<String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Some(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                _ => return self.unexpected("the end of the string"),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let c = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return self.unexpected("an escape such as \\n or \\u00e9"),
        };
        self.at += 1;
        Some(c)
    }

    /// `\uXXXX`, two of them for a surrogate pair; half a pair becomes U+FFFD, as in Go.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex4()?;
        if let Some(c) = char::from_u32(first) {
            return Some(c);
        }
        if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            let back = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Some(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Some(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self
            .text
            .get(self.at..self.at + 4)
            .filter(|it| it.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(code) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
            return self.unexpected("four hexadecimal digits");
        };
        self.at += 4;
        Some(code)
    }
}

#[cfg(test)]
mod tests;
