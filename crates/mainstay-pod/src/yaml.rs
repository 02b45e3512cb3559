//! Reads YAML into trees, one for each document, with the meaning that Kubernetes gives it.
//!
//! The grammar is granit-parser's. What a scalar means, how keys become strings and how `<<` merges
//! follow go.yaml.in/yaml/v2 as sigs.k8s.io/yaml uses it. Nothing here recurses: nesting, the number of
//! values and the text that aliases expand to are bounded.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{
    ErrorKind, Event, Marker, Parser, ScalarStyle, Span as YamlSpan, StrInput, Tag,
};

use crate::diagnostic::{Cause, Finding};
use crate::tree::{Entry, MAX_DEPTH, MAX_FILE_BYTES, MAX_NODES, Node, Span, Value};

mod scalar;

/// Documents of one file; each costs an entry with diagnostics of its own.
pub(crate) const MAX_DOCUMENTS: usize = 10_000;

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    /// What it holds; after an error, what came before it. None if it holds nothing.
    pub(crate) root: Option<Node>,
    /// Why it could not be read to its end.
    pub(crate) error: Option<Finding>,
}

/// What is open while a document is read.
struct Builder {
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    budget: Budget,
}

/// What a whole file may still use up.
#[derive(Clone, Copy)]
struct Budget {
    nodes: usize,
    text: usize,
}

struct Frame {
    anchor: usize,
    start: usize,
    kind: FrameKind,
}

enum FrameKind {
    List(Vec<Node>),
    /// `merges` are the places in `entries` of the keys `<<`.
    Map {
        entries: Vec<Entry>,
        key: Option<Key>,
        merges: Vec<usize>,
    },
}

struct Key {
    text: Box<str>,
    span: Span,
    merges: bool,
}

/// A value that has just been read, and whether it may be the merge key `<<`.
struct Read {
    node: Node,
    merges: bool,
}

// === impl Document ===

impl Document {
    const fn is_empty(&self) -> bool {
        self.root.is_none() && self.error.is_none()
    }
}

/// Reads the documents of a YAML file, at most one more than [`MAX_DOCUMENTS`]. A document that does not
/// parse does not harm the next.
pub(crate) fn read(text: &str) -> Vec<Document> {
    let options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut documents = Vec::new();
    let mut budget = Budget { nodes: MAX_NODES, text: MAX_FILE_BYTES };
    loop {
        let mut builder = Builder::new(budget);
        let (error, at_end) = read_document(&mut parser, &mut builder);
        budget = builder.budget;
        let failed = error.is_some();
        let document = Document { root: builder.finish(), error };
        let null = document.root.as_ref().is_some_and(Node::is_null);
        if !document.is_empty() && (failed || !null) {
            documents.push(document);
        }
        if at_end || documents.len() > MAX_DOCUMENTS {
            return documents;
        }
        if failed {
            match parser.proceed_next_document() {
                Ok(true) => {}
                Ok(false) => return documents,
                Err(error) => {
                    documents.push(Document { root: None, error: Some(syntax_error(&error)) });
                    return documents;
                }
            }
        }
    }
}

/// Reads up to the end of a document, an error, or the end of the file (then true).
fn read_document<'input>(
    parser: &mut Parser<'input, StrInput<'input>>,
    builder: &mut Builder,
) -> (Option<Finding>, bool) {
    loop {
        let (event, span) = match parser.next_event() {
            None => return (None, true),
            Some(Ok(next)) => next,
            Some(Err(error)) => return (Some(syntax_error(&error)), false),
        };
        let outcome = match event {
            Event::StreamEnd => return (None, true),
            Event::DocumentEnd => return (None, false),
            Event::Alias(id) => builder.alias(id, span),
            Event::Scalar(text, style, anchor, tag) => {
                builder.scalar(text, style, anchor, tag.as_deref(), span)
            }
            Event::SequenceStart(_, anchor, _) => {
                builder.open(anchor, span, FrameKind::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, _) => builder.open(
                anchor,
                span,
                FrameKind::Map { entries: Vec::new(), key: None, merges: Vec::new() },
            ),
            Event::SequenceEnd | Event::MappingEnd => builder.close(span),
            // The starts of stream and documents; other events come only with options that are off.
            _ => Ok(()),
        };
        if let Err(finding) = outcome {
            return (Some(finding.cause(Cause::Syntax)), false);
        }
    }
}

type Outcome = Result<(), Box<Finding>>;

// === impl Builder ===

impl Builder {
    fn new(budget: Budget) -> Self {
        Self { stack: Vec::new(), root: None, anchors: HashMap::new(), budget }
    }

    /// Closes what an error left open, so that what was read before it can be looked at.
    fn finish(mut self) -> Option<Node> {
        while let Some(frame) = self.stack.pop() {
            let (node, _) = frame.into_node(0);
            match self.stack.last_mut() {
                // A key that never got its value is left out.
                Some(Frame { kind: FrameKind::Map { key: None, .. }, .. }) => {}
                Some(frame) => frame.push(node),
                None => self.root = Some(node),
            }
        }
        self.root
    }

    fn open(&mut self, anchor: usize, span: YamlSpan, kind: FrameKind) -> Outcome {
        let start = offset(span.start);
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(Span::new(start, start + 1)));
        }
        self.budget.take(1, 0, Span::new(start, start + 1))?;
        self.stack.push(Frame { anchor, start, kind });
        Ok(())
    }

    fn close(&mut self, span: YamlSpan) -> Outcome {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let anchor = frame.anchor;
        let (mut node, merges) = frame.into_node(offset(span.end));
        merge(&mut node, &merges)?;
        self.remember(anchor, &node)?;
        self.add(Read { node, merges: false })
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: YamlSpan,
    ) -> Outcome {
        let span = Span::new(offset(span.start), offset(span.end));
        self.budget.take(1, text.len(), span)?;
        let plain = style == ScalarStyle::Plain;
        let merges = plain
            && text == "<<"
            && tag.is_none_or(|tag| yaml_suffix(tag).as_deref() == Some("merge"));
        let value = tagged(text, plain, tag, span)?;
        let node = Node { span, value };
        self.remember(anchor, &node)?;
        self.add(Read { node, merges })
    }

    fn alias(&mut self, id: usize, span: YamlSpan) -> Outcome {
        let span = Span::new(offset(span.start), offset(span.end));
        let Some(node) = self.anchors.get(&id) else {
            return Err(Box::new(Finding::error(
                span,
                "",
                "the anchor's value contains this alias of itself",
            )));
        };
        let height = self.budget.take_node(node, span)?;
        // An alias is as deep as what it stands for: written nesting is not the only one.
        if self.stack.len() + height > MAX_DEPTH {
            return Err(too_deep(span));
        }
        let mut node = node.clone();
        // What an alias stands for is reported where the alias stands.
        node.span = span;
        self.add(Read { node, merges: false })
    }

    fn remember(&mut self, anchor: usize, node: &Node) -> Outcome {
        if anchor != 0 {
            self.budget.take_node(node, node.span)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }

    /// Puts a value where it belongs: into the list, as a key, as the value of a key, or as the root.
    fn add(&mut self, read: Read) -> Outcome {
        match self.stack.last_mut() {
            None => self.root = Some(read.node),
            Some(Frame { kind: FrameKind::Map { key: key @ None, .. }, .. }) => {
                *key = Some(Key::new(read)?);
            }
            Some(frame) => frame.push(read.node),
        }
        Ok(())
    }
}

// === impl Frame ===

impl Frame {
    fn push(&mut self, node: Node) {
        match &mut self.kind {
            FrameKind::List(items) => items.push(node),
            FrameKind::Map { entries, key, merges } => {
                if let Some(key) = key.take() {
                    if key.merges {
                        merges.push(entries.len());
                    }
                    entries.push(Entry { key: key.text, key_span: key.span, node });
                }
            }
        }
    }

    /// The finished collection, and which of its keys are merges to be carried out.
    fn into_node(self, end: usize) -> (Node, Vec<usize>) {
        let span = Span::new(self.start, end);
        match self.kind {
            FrameKind::List(items) => (Node { span, value: Value::List(items) }, Vec::new()),
            FrameKind::Map { entries, merges, .. } => {
                (Node { span, value: Value::Map(entries) }, merges)
            }
        }
    }
}

// === impl Key ===

impl Key {
    fn new(read: Read) -> Result<Self, Box<Finding>> {
        let Read { node, merges } = read;
        let span = node.span;
        let text = match node.value {
            Value::String(text) => text,
            Value::Bool(value) => value.to_string().into(),
            Value::Number(text) if text.contains(['.', 'e']) => {
                scalar::key_float(&text).map_or(text, Into::into)
            }
            Value::Number(text) => text,
            Value::Null => return Err(bad_key(span, "null")),
            Value::List(_) => return Err(bad_key(span, "a list")),
            Value::Map(_) => return Err(bad_key(span, "an object")),
        };
        Ok(Self { text, span, merges })
    }
}

// === impl Budget ===

impl Budget {
    fn take(&mut self, nodes: usize, text: usize, span: Span) -> Outcome {
        let taken = self.nodes.checked_sub(nodes).zip(self.text.checked_sub(text));
        let Some((nodes, text)) = taken else {
            let message = format!(
                "the file holds more than {MAX_NODES} values or {MAX_FILE_BYTES} bytes of text once its aliases are expanded"
            );
            return Err(Box::new(Finding::error(span, "", message)));
        };
        *self = Self { nodes, text };
        Ok(())
    }

    /// Takes what a copy of a subtree costs, and returns how many levels of nesting it has.
    fn take_node(&mut self, node: &Node, span: Span) -> Result<usize, Box<Finding>> {
        let mut height = 0;
        let mut left = vec![(node, 1)];
        while let Some((node, level)) = left.pop() {
            if matches!(node.value, Value::List(_) | Value::Map(_)) {
                height = height.max(level);
            }
            let text = match &node.value {
                Value::Null | Value::Bool(_) => 0,
                Value::Number(text) | Value::String(text) => text.len(),
                Value::List(items) => {
                    left.extend(items.iter().map(|item| (item, level + 1)));
                    0
                }
                Value::Map(entries) => {
                    left.extend(entries.iter().map(|entry| (&entry.node, level + 1)));
                    entries.iter().map(|entry| entry.key.len()).sum()
                }
            };
            self.take(1, text, span)?;
        }
        Ok(height)
    }
}

/// Replaces merge keys by what they name.
///
/// Of several merged objects the first wins, and a key written after the merge replaces a merged one.
/// A key written before it comes twice: sigs.k8s.io/yaml lets the merged value win against the YAML
/// specification, so it is left for the check of duplicate keys to refuse.
fn merge(node: &mut Node, merges: &[usize]) -> Outcome {
    let Value::Map(entries) = &mut node.value else { return Ok(()) };
    if merges.is_empty() {
        return Ok(());
    }
    let mut merged: Vec<Entry> = Vec::with_capacity(entries.len());
    let mut from_merge: HashMap<Box<str>, usize> = HashMap::new();
    for (at, entry) in std::mem::take(entries).into_iter().enumerate() {
        if merges.binary_search(&at).is_err() {
            match from_merge.remove(&entry.key) {
                Some(place) => merged[place] = entry,
                None => merged.push(entry),
            }
            continue;
        }
        let span = entry.key_span;
        let sources = match entry.node.value {
            Value::Map(entries) => vec![entries],
            Value::List(items) => {
                let mut sources = Vec::with_capacity(items.len());
                for item in items {
                    let Value::Map(entries) = item.value else { return Err(bad_merge(span)) };
                    sources.push(entries);
                }
                sources
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(bad_merge(span));
            }
        };
        let mut from_this: HashMap<Box<str>, usize> = HashMap::new();
        for source in sources {
            // A key that is twice in one source stays twice, to be reported as such.
            let mut from_source: Vec<(Box<str>, usize)> = Vec::with_capacity(source.len());
            for entry in source {
                if !from_this.contains_key(&entry.key) {
                    from_source.push((entry.key.clone(), merged.len()));
                    merged.push(entry);
                }
            }
            from_this.extend(from_source);
        }
        from_merge.extend(from_this);
    }
    *entries = merged;
    Ok(())
}

/// The value of a scalar, taking its tag into account.
fn tagged(
    text: Cow<'_, str>,
    plain: bool,
    tag: Option<&Tag>,
    span: Span,
) -> Result<Value, Box<Finding>> {
    let string = |text: Cow<'_, str>| Value::String(text.into_owned().into_boxed_str());
    let resolve = |text: &str| {
        scalar::resolve(text).map_err(|scalar::NotJson| {
            Box::new(
                Finding::error(
                    span,
                    "",
                    format!("{text} is a YAML number that JSON cannot express"),
                )
                .hint(format!("write \"{text}\" if it is meant as text")),
            )
        })
    };
    let Some(tag) = tag else {
        return if plain { resolve(&text) } else { Ok(string(text)) };
    };
    let Some(suffix) = yaml_suffix(tag) else {
        // Kubernetes reads a scalar with a tag of somebody's own as text.
        return Ok(string(text));
    };
    let mismatch = |kind: &str| {
        Box::new(Finding::error(span, "", format!("cannot decode {text:?} as a !!{kind}")))
    };
    match &*suffix {
        "bool" | "int" | "float" | "null" => {
            let value = resolve(&text)?;
            match (&*suffix, &value) {
                ("bool", Value::Bool(_)) | ("null", Value::Null) | ("float", Value::Number(_)) => {
                    Ok(value)
                }
                ("int", Value::Number(number)) if !number.contains(['.', 'e']) => Ok(value),
                _ => Err(mismatch(&suffix)),
            }
        }
        "binary" => {
            let message = "!!binary is not supported in a manifest";
            Err(Box::new(
                Finding::error(span, "", message)
                    .hint("write the base64 text as a string".to_owned()),
            ))
        }
        _ => Ok(string(text)),
    }
}

/// `int` of `!!int`; none of a tag that is somebody's own.
fn yaml_suffix(tag: &Tag) -> Option<Cow<'_, str>> {
    tag.suffix_in_namespace("tag:yaml.org,2002:")
}

fn offset(marker: Marker) -> usize {
    // A parser over a `str` always knows the byte; the index in characters is the nearest thing to it.
    marker.byte_offset().unwrap_or_else(|| marker.index())
}

fn syntax_error(error: &granit_parser::ScanError) -> Finding {
    let start = offset(*error.marker());
    let span = Span::new(start, start);
    let hint = match error.kind() {
        ErrorKind::RecursionLimitExceeded => return too_deep(span).cause(Cause::Syntax),
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar => {
            Some("YAML is indented with spaces, never with tabs".to_owned())
        }
        _ => None,
    };
    Finding::error(span, "", error.kind().to_string()).hint(hint).cause(Cause::Syntax)
}

fn too_deep(span: Span) -> Box<Finding> {
    Box::new(Finding::error(span, "", format!("nested more than {MAX_DEPTH} levels deep")))
}

fn bad_key(span: Span, what: &str) -> Box<Finding> {
    Box::new(Finding::error(span, "", format!("the key of an object cannot be {what}")))
}

fn bad_merge(span: Span) -> Box<Finding> {
    Box::new(Finding::error(span, "", "the merge key << takes an object or a list of objects"))
}

#[cfg(test)]
mod tests;
