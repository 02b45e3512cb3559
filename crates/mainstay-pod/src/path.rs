//! Field paths as Kubernetes writes them: `spec.containers[0].env[1].name`, `metadata.labels[app]`.

use std::fmt;

/// One step from an object to something in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Segment<'a> {
    /// A field of an object: `.name`.
    Field(&'a str),
    /// An item of a list: `[0]`.
    Index(usize),
    /// A key of a map: `[app]`.
    Key(&'a str),
}

/// A path that grows on the stack of the function that walks it; text is made only for an error.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Option<Segment<'a>>,
}

// === impl Path ===

impl<'a> Path<'a> {
    /// The whole document, which has no name.
    pub const ROOT: Path<'static> = Path { parent: None, segment: None };

    /// A field of the document.
    pub const fn new(field: &'a str) -> Self {
        Self { parent: None, segment: Some(Segment::Field(field)) }
    }

    /// A field of what the path leads to.
    pub const fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), segment: Some(Segment::Field(name)) }
    }

    /// An item of the list that the path leads to.
    pub const fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), segment: Some(Segment::Index(index)) }
    }

    /// A key of the map that the path leads to.
    pub const fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), segment: Some(Segment::Key(key)) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_start = match self.parent {
            Some(parent) => {
                parent.fmt(f)?;
                parent.parent.is_none() && parent.segment.is_none()
            }
            None => true,
        };
        match self.segment {
            None => Ok(()),
            // As Go has it, where a name is what is not an index.
            Some(Segment::Field("")) => f.write_str("[]"),
            Some(Segment::Field(name)) if at_start => f.write_str(name),
            Some(Segment::Field(name)) => write!(f, ".{name}"),
            Some(Segment::Index(index)) => write!(f, "[{index}]"),
            Some(Segment::Key(key)) => write!(f, "[{key}]"),
        }
    }
}

/// The steps of a written path. A number in brackets is an [`Segment::Index`]; it may name a key of a map too.
pub(crate) fn segments(path: &str) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if rest.is_empty() {
            return None;
        }
        if let Some(inner) = rest.strip_prefix('[') {
            // A key may hold a bracket of its own; the closing one is followed by a step or the end.
            let end = inner
                .match_indices(']')
                .map(|(at, _)| at)
                .find(|at| matches!(inner.as_bytes().get(at + 1), None | Some(b'.' | b'[')))
                .unwrap_or(inner.len());
            let key = &inner[..end];
            rest = inner.get(end + 1..).unwrap_or("");
            return Some(key.parse().map_or(Segment::Key(key), Segment::Index));
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        Some(Segment::Field(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_kubernetes_writes_them() {
        let spec = Path::new("spec");
        let containers = spec.field("containers");
        let first = containers.index(0);
        assert_eq!(first.field("image").to_string(), "spec.containers[0].image");
        let labels = Path::ROOT.field("metadata");
        assert_eq!(labels.key("example.com/app").to_string(), "metadata[example.com/app]");
    }

    #[test]
    fn written_paths_come_apart_again() {
        let steps: Vec<_> =
            segments("spec.containers[12].resources.limits[example.com/a[b]c].x").collect();
        assert_eq!(
            steps,
            [
                Segment::Field("spec"),
                Segment::Field("containers"),
                Segment::Index(12),
                Segment::Field("resources"),
                Segment::Field("limits"),
                Segment::Key("example.com/a[b]c"),
                Segment::Field("x"),
            ]
        );
    }
}
