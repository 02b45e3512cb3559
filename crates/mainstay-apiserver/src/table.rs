//! What objects are shown as: themselves, metadata alone, or the tables that `kubectl get` asks for, with
//! the parts that cells are made of.
//!
//! Source: `pkg/printers/internalversion/printers.go` and
//! `staging/src/k8s.io/apimachinery/pkg/util/duration/duration.go`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kind::Resource;
use crate::object::Object;
use crate::request::Shape;

/// What a row carries beside its cells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum IncludeObject {
    None,
    Metadata,
    Object,
}

impl IncludeObject {
    /// The query parameter `includeObject`.
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "None" => Self::None,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// An object in the shape that a client wants.
pub(crate) fn shaped(
    resource: &Resource,
    shape: &Shape,
    include: IncludeObject,
    object: Object,
    now: Timestamp,
) -> Value {
    match shape {
        Shape::Plain => object.into_value(resource),
        Shape::Partial => partial(object, "v1"),
        Shape::Table(version) => {
            let list = json!({ "resourceVersion": object.resource_version() });
            table(resource, version, list, [object], include, now)
        }
    }
}

/// Objects as a table. `version` is that of `meta.k8s.io`; `list` is the metadata of the list.
pub(crate) fn table(
    resource: &Resource,
    version: &str,
    list: Value,
    objects: impl IntoIterator<Item = Object>,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let columns = resource
        .strategy
        .columns()
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        })
        .collect();
    let rows =
        objects.into_iter().map(|object| row(resource, version, object, include, now)).collect();
    let mut table = json!({ "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}") });
    // What `json!` is given is copied.
    table["metadata"] = list;
    table["columnDefinitions"] = columns;
    table["rows"] = rows;
    table
}

fn row(
    resource: &Resource,
    version: &str,
    object: Object,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let mut row = json!({});
    row["cells"] = resource.strategy.row(&object, now).into();
    let conditions = resource.strategy.row_conditions(&object);
    if !conditions.is_empty() {
        row["conditions"] = conditions.into();
    }
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = partial(object, version),
        IncludeObject::Object => row["object"] = object.into_value(resource),
    }
    row
}

/// An object's metadata alone.
pub(crate) fn partial(mut object: Object, version: &str) -> Value {
    let mut partial = json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
    });
    partial["metadata"] = object.0.remove("metadata").unwrap_or_default();
    partial
}

/// How long ago a time was, as people say it; `<unknown>` of none. Source: `translateTimestampSince`.
pub(crate) fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => human_duration(now.as_second().saturating_sub(time.as_second())),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// The age of an object.
pub(crate) fn age(object: &Object, now: Timestamp) -> Value {
    since(object.meta_str("creationTimestamp"), now).into()
}

/// Seconds as `5m23s`, `3h`, `2d4h`, `1y30d`. Source: `HumanDuration`.
pub(crate) fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |count: i64, unit: &str, rest: i64, small: &str| match rest {
        0 => format!("{count}{unit}"),
        rest => format!("{count}{unit}{rest}{small}"),
    };
    match seconds {
        // A clock that is a little ahead is no reason for alarm.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// Labels or a selector as `a=b,c=d`; `<none>` of none.
pub(crate) fn pairs(map: Option<&Value>) -> String {
    let pairs: Vec<String> = map
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A text, or `<none>`.
pub(crate) fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_shows_them() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text);
        }
    }
}
