//! The table of types: what fields an object of a kind has, and how their values merge.
//!
//! The table holds numbers and one text, no pointers: pointers in a position-independent program are
//! written at every start, and what is written belongs to the process alone. It is written by
//! `cargo xtask codegen`.

#[rustfmt::skip]
mod table;

use std::fmt;

/// An object type of the Kubernetes API.
#[derive(PartialEq, Eq)]
pub struct Type {
    name: Name,
    first: u16,
    count: u16,
    atomic: bool,
}

/// A field of a [`Type`].
#[derive(PartialEq, Eq)]
pub struct Field {
    name: Name,
    go: Name,
    shape: u16,
    merge: u8,
    default: u8,
    embed: u8,
    flags: u8,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Text.
    String,
    /// True or false.
    Bool,
    /// An integer of 32 bits with a sign.
    Int32,
    /// An integer of 64 bits with a sign.
    Int64,
    /// Bytes, in base64.
    Bytes,
    /// A quantity such as `500m`: a string or a number.
    Quantity,
    /// An integer of 32 bits or a string.
    IntOrString,
    /// A time in RFC 3339, by the second.
    Time,
    /// A time in RFC 3339, by the microsecond.
    MicroTime,
    /// Anything at all.
    Any,
    /// An object with the fields of a type.
    Object(&'static Type),
    /// A list.
    List(Item),
    /// An object with any keys.
    Map(Item),
}

/// The values in a list or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item(u16);

/// How the items of a list are told apart when it merges, `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// The list is one value.
    Atomic,
    /// Each item is in it once.
    Set,
    /// The items are objects and these of their fields tell them apart; at least one.
    Map(Keys),
}

/// Names of fields, in the order in which Kubernetes lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys(&'static str);

/// The strategic merge patch strategies of a field, `x-kubernetes-patch-strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// A list's items are merged.
    pub merge: bool,
    /// An object is replaced.
    pub replace: bool,
}

/// Which empty values Kubernetes leaves out when it writes a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omit {
    /// It is always written, as an empty value if need be.
    Never,
    /// Left out if false, 0, an empty string, list or map, or absent. Objects are written.
    Empty,
    /// Left out if an object is empty too.
    Zero,
}

/// A piece of [`table::NAMES`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    at: u16,
    len: u8,
}

struct Kind {
    group: Name,
    version: Name,
    kind: Name,
    of: u16,
}

struct Merge {
    strategy: Name,
    key: Name,
    list: Name,
    keys: Name,
    map: Name,
}

/// The type of a kind, or `None` for a kind that mainstay does not know. The core group is empty.
#[must_use]
pub fn of(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    let key = (group, version, kind);
    let found = table::KINDS.iter().find(|known| known.key() == key)?;
    table::TYPES.get(usize::from(found.of))
}

/// Group, version and kind of all kinds that [`of`] knows, sorted.
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    table::KINDS.iter().map(Kind::key)
}

/// The type of a full name such as `io.k8s.api.core.v1.PodSpec`.
#[must_use]
pub fn named(name: &str) -> Option<&'static Type> {
    let at = table::TYPES.binary_search_by(|known| known.name().cmp(name)).ok()?;
    table::TYPES.get(at)
}

/// Where a type is in the table.
pub(crate) fn position(of: &Type) -> usize {
    table::TYPES.binary_search_by(|known| known.name().cmp(of.name())).unwrap_or_default()
}

/// A number that changes with the table and with the texts of the OpenAPI documents.
pub(crate) fn digest() -> u64 {
    table::DIGEST
}

// === impl Type ===

impl Type {
    const fn new(at: u16, len: u8, first: u16, count: u16, atomic: bool) -> Self {
        Self { name: Name::new(at, len), first, count, atomic }
    }

    /// The full name, such as `io.k8s.api.core.v1.PodSpec`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.text()
    }

    /// The name in Go, such as `PodSpec`.
    #[must_use]
    pub fn go_name(&self) -> &'static str {
        let name = self.name();
        name.rsplit_once('.').map_or(name, |(_, last)| last)
    }

    /// Where its first field is in the table.
    pub(crate) fn first(&self) -> usize {
        usize::from(self.first)
    }

    /// The fields, sorted by name.
    #[must_use]
    pub fn fields(&self) -> &'static [Field] {
        let first = self.first();
        table::FIELDS.get(first..first + usize::from(self.count)).unwrap_or_default()
    }

    /// The field of a name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        let fields = self.fields();
        let at = fields.binary_search_by(|field| field.name().cmp(name)).ok()?;
        fields.get(at)
    }

    /// Whether an object of this type is one value when it merges, as label selectors are.
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        self.atomic
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Field ===

impl Field {
    #[expect(clippy::too_many_arguments, reason = "the columns of the generated table")]
    const fn new(
        at: u16,
        len: u8,
        go_at: u16,
        go_len: u8,
        shape: u16,
        merge: u8,
        default: u8,
        embed: u8,
        flags: u8,
    ) -> Self {
        let (name, go) = (Name::new(at, len), Name::new(go_at, go_len));
        Self { name, go, shape, merge, default, embed, flags }
    }

    /// The name in JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.text()
    }

    /// What its value looks like.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Item(self.shape).shape()
    }

    /// Its type in Go without a pointer's `*`, such as `[]v1.Container` or `v1.RestartPolicy`.
    #[must_use]
    pub fn go_type(&self) -> &'static str {
        self.go.text()
    }

    /// Whether Go has a pointer here, so that an empty value differs from none.
    #[must_use]
    pub fn is_pointer(&self) -> bool {
        self.flags & 8 != 0
    }

    /// The embedded Go struct that holds the field, such as `VolumeSource`; empty for none. It is part
    /// of paths in the decoder's messages.
    #[must_use]
    pub fn embedded_in(&self) -> &'static str {
        table::EMBEDS.get(usize::from(self.embed)).map_or("", |name| name.text())
    }

    /// Whether the OpenAPI documents call it required.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Which empty values are left out.
    #[must_use]
    pub fn omit(&self) -> Omit {
        match self.flags & 6 {
            0 => Omit::Never,
            2 => Omit::Empty,
            _ => Omit::Zero,
        }
    }

    /// The default in the OpenAPI documents, as JSON.
    #[must_use]
    pub fn default(&self) -> Option<&'static str> {
        let text = table::DEFAULTS.get(usize::from(self.default))?.text();
        (!text.is_empty()).then_some(text)
    }

    /// How strategic merge patches treat it.
    #[must_use]
    pub fn patch_strategy(&self) -> PatchStrategy {
        let mut strategy = PatchStrategy::default();
        for part in self.merge(|merge| merge.strategy).split(',') {
            match part {
                "merge" => strategy.merge = true,
                "replace" => strategy.replace = true,
                // What `retainKeys` asks for is in the patch.
                _ => {}
            }
        }
        strategy
    }

    /// `x-kubernetes-patch-strategy` as it is written, or empty.
    #[must_use]
    pub fn patch_strategy_text(&self) -> &'static str {
        self.merge(|merge| merge.strategy)
    }

    /// The field that tells a list's items apart in strategic merge patches, or empty.
    #[must_use]
    pub fn patch_merge_key(&self) -> &'static str {
        self.merge(|merge| merge.key)
    }

    /// How server-side apply tells a list's items apart. Fields without a list type have one that
    /// follows from their patch strategy (`k8s.io/kube-openapi/pkg/schemaconv`).
    #[must_use]
    pub fn list_type(&self) -> ListType {
        match (self.list_type_text(), self.patch_strategy().merge, self.patch_merge_key()) {
            ("map", _, _) => ListType::Map(Keys(self.list_map_keys())),
            ("set", _, _) | ("", true, "") => ListType::Set,
            ("", true, key) => ListType::Map(Keys(key)),
            _ => ListType::Atomic,
        }
    }

    /// `x-kubernetes-list-type` as it is written, or empty.
    #[must_use]
    pub fn list_type_text(&self) -> &'static str {
        self.merge(|merge| merge.list)
    }

    /// `x-kubernetes-list-map-keys`, with commas between, or empty.
    #[must_use]
    pub fn list_map_keys(&self) -> &'static str {
        self.merge(|merge| merge.keys)
    }

    /// Whether an object or map here is one value when it merges, also if its type is not.
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        self.map_type_text() == "atomic"
    }

    /// `x-kubernetes-map-type` as it is written, or empty.
    #[must_use]
    pub fn map_type_text(&self) -> &'static str {
        self.merge(|merge| merge.map)
    }

    fn merge(&self, part: impl Fn(&Merge) -> Name) -> &'static str {
        table::MERGES.get(usize::from(self.merge)).map_or("", |merge| part(merge).text())
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.go_type())
    }
}

// === impl Item ===

impl Item {
    /// What each of the values looks like.
    #[must_use]
    pub fn shape(self) -> Shape {
        let base = self.0 & 0xfff;
        let inner = Self(base | (self.0 >> 14) << 12);
        match self.0 >> 12 & 3 {
            1 => return Shape::List(inner),
            2 => return Shape::Map(inner),
            _ => {}
        }
        match base {
            0 => Shape::String,
            1 => Shape::Bool,
            2 => Shape::Int32,
            3 => Shape::Int64,
            4 => Shape::Bytes,
            5 => Shape::Quantity,
            6 => Shape::IntOrString,
            7 => Shape::Time,
            8 => Shape::MicroTime,
            _ => {
                let of = usize::from(base).checked_sub(16).and_then(|at| table::TYPES.get(at));
                of.map_or(Shape::Any, Shape::Object)
            }
        }
    }
}

// === impl Keys ===

impl Keys {
    /// The names.
    pub fn iter(self) -> impl Iterator<Item = &'static str> + Clone {
        self.0.split(',')
    }
}

// === impl Name ===

impl Name {
    const fn new(at: u16, len: u8) -> Self {
        Self { at, len }
    }

    fn text(self) -> &'static str {
        let at = usize::from(self.at);
        table::NAMES.get(at..at + usize::from(self.len)).unwrap_or_default()
    }
}

// === impl Kind ===

impl Kind {
    const fn new(
        group_at: u16,
        group_len: u8,
        version_at: u16,
        version_len: u8,
        kind_at: u16,
        kind_len: u8,
        of: u16,
    ) -> Self {
        let (group, version) = (Name::new(group_at, group_len), Name::new(version_at, version_len));
        Self { group, version, kind: Name::new(kind_at, kind_len), of }
    }

    fn key(&self) -> (&'static str, &'static str, &'static str) {
        (self.group.text(), self.version.text(), self.kind.text())
    }
}

// === impl Merge ===

impl Merge {
    #[expect(clippy::too_many_arguments, reason = "the columns of the generated table")]
    const fn new(
        strategy_at: u16,
        strategy_len: u8,
        key_at: u16,
        key_len: u8,
        list_at: u16,
        list_len: u8,
        keys_at: u16,
        keys_len: u8,
        map_at: u16,
        map_len: u8,
    ) -> Self {
        Self {
            strategy: Name::new(strategy_at, strategy_len),
            key: Name::new(key_at, key_len),
            list: Name::new(list_at, list_len),
            keys: Name::new(keys_at, keys_len),
            map: Name::new(map_at, map_len),
        }
    }
}

#[cfg(test)]
mod tests;
