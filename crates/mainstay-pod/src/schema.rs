//! Every field of a Pod, its type, and the walk that holds a manifest against them.

mod check;
mod hint;
#[rustfmt::skip]
mod table;

pub(crate) use check::check;

/// The schema of a Pod.
pub(crate) fn pod() -> &'static Type {
    &table::POD
}

/// An object type of the Kubernetes API.
#[derive(Debug)]
pub(crate) struct Type {
    /// Sorted by name.
    pub(crate) fields: &'static [Field],
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    String,
    Bool,
    Int32,
    Int64,
    Quantity,
    IntOrString,
    /// RFC 3339.
    Time,
    /// Anything at all.
    Any,
    Object(&'static Type),
    List(&'static Kind),
    Map(&'static Kind),
}

// === impl Type ===

impl Type {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        let at = self.fields.binary_search_by(|field| field.name.cmp(name)).ok()?;
        self.fields.get(at)
    }
}

// === impl Kind ===

impl Kind {
    /// `a string`, `a list`.
    pub(crate) const fn describe(&self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Bool => "true or false",
            Self::Int32 | Self::Int64 => "an integer",
            Self::Quantity => "a quantity such as 500m or 64Mi",
            Self::IntOrString => "an integer or a string",
            Self::Time => "a time such as 2026-01-02T15:04:05Z",
            Self::Any => "anything",
            Self::Object(_) => "an object",
            Self::List(_) => "a list",
            Self::Map(_) => "an object of names and values",
        }
    }
}
