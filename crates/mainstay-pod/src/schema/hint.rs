//! What somebody probably meant.

use mainstay_schema::Field;

use super::check::Around;
use super::{Shape, Type};
use crate::quantity::Quantity;
use crate::tree::{Node, Value};

/// `did you mean workingDir?`, or the object that a field belongs to.
pub(super) fn unknown_field(name: &str, around: &Around<'_>) -> Option<String> {
    let did_you_mean = |name: &str| Some(format!("did you mean {name}?"));
    let lower = name.to_lowercase();
    let names = || around.object.fields().iter().map(Field::name);
    let nearest = names().map(|known| (distance(&known.to_lowercase(), &lower), known)).min();
    if let Some((0 | 1, known)) = nearest {
        return did_you_mean(known);
    }
    let owner = owner_below(name, around.object).or_else(|| owner_above(name, around));
    if let Some(owner) = owner {
        return Some(format!("this field belongs to {owner}"));
    }
    let allowed = (name.len() / 3).min(3);
    if let Some((_, known)) = nearest.filter(|(distance, _)| *distance <= allowed) {
        return did_you_mean(known);
    }
    let mut abbreviated =
        names().filter(|known| lower.len() >= 4 && abbreviates(&lower, &known.to_lowercase()));
    match (abbreviated.next(), abbreviated.next()) {
        (Some(only), None) => did_you_mean(only),
        _ => None,
    }
}

/// Whether a name is another one with letters left out, but for the first and the last.
fn abbreviates(short: &str, long: &str) -> bool {
    let mut rest = long.chars();
    short.chars().next() == long.chars().next()
        && short.chars().last() == long.chars().last()
        && short.chars().all(|c| rest.any(|other| other == c))
}

/// An object around this one that has the field, or an object in one of those.
fn owner_above(name: &str, around: &Around<'_>) -> Option<String> {
    let mut parent = around.parent;
    while let Some(above) = parent {
        let path = above.path.to_string();
        if above.object.field(name).is_some() {
            return Some(if path.is_empty() {
                "the top level of the manifest".to_owned()
            } else {
                path
            });
        }
        if let Some(owner) = owner_below(name, above.object) {
            return Some(if path.is_empty() { owner } else { format!("{path}.{owner}") });
        }
        parent = above.parent;
    }
    None
}

/// An object in this one that has the field.
fn owner_below(name: &str, object: &'static Type) -> Option<String> {
    let mut owners = Vec::new();
    for field in object.fields() {
        match field.shape() {
            Shape::Object(inner) if inner.field(name).is_some() => owners.push(field.name()),
            Shape::List(item) if field.name() == "containers" => {
                if let Shape::Object(inner) = item.shape()
                    && inner.field(name).is_some()
                {
                    owners.push("an item of containers");
                }
            }
            _ => {}
        }
    }
    // Of several places the ones that people mix up come first; else several are no hint.
    let usual =
        owners.iter().find(|owner| matches!(**owner, "metadata" | "spec" | "securityContext"));
    let owner = usual.or_else(|| owners.first().filter(|_| owners.len() == 1))?;
    Some((*owner).to_owned())
}

/// How to write the value so that it has the right type. `written` is how it stands in the file.
pub(super) fn wrong_type(node: &Node, shape: Shape, written: &str) -> Option<String> {
    let written = if written.is_empty() || written.contains('\n') { None } else { Some(written) };
    match (&node.value, shape) {
        (Value::Number(_) | Value::Bool(_), Shape::String | Shape::Time | Shape::MicroTime) => {
            Some(format!("quote the value: \"{}\"", written?))
        }
        (Value::String(text), Shape::Int32 | Shape::Int64)
            if text.trim().parse::<i64>().is_ok() =>
        {
            Some(format!("write {} without quotes", text.trim()))
        }
        (Value::String(text), Shape::Bool) if matches!(text.trim(), "true" | "false") => {
            Some(format!("write {} without quotes", text.trim()))
        }
        (Value::Map(_), Shape::List(_)) => Some("start each item with \"- \"".to_owned()),
        (Value::List(items), Shape::Object(_) | Shape::Map(_)) if items.len() == 1 => {
            Some("leave out the \"- \"".to_owned())
        }
        (Value::String(_) | Value::Number(_), Shape::List(item))
            if item.shape() == Shape::String =>
        {
            Some(format!("write it as a list: [{}]", written?))
        }
        (Value::String(text), Shape::Map(_)) if text.contains('=') => {
            Some(format!("write {}", text.replacen('=', ": ", 1)))
        }
        _ => None,
    }
}

/// A quantity that differs only in how its suffix is written.
pub(super) fn quantity(text: &str) -> Option<String> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let end = compact.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(compact.len());
    let (number, suffix) = compact.split_at(end);
    let suffix = suffix.to_ascii_lowercase();
    let suffix =
        suffix.strip_suffix("bytes").or_else(|| suffix.strip_suffix('b')).unwrap_or(&suffix);
    let known = match suffix {
        "" => "",
        "k" => "k",
        "m" => "M",
        "g" => "G",
        "t" => "T",
        "ki" => "Ki",
        "mi" => "Mi",
        "gi" => "Gi",
        "ti" => "Ti",
        _ => return None,
    };
    let meant = format!("{number}{known}");
    (meant != text && Quantity::parse(&meant).is_ok()).then(|| format!("did you mean {meant}?"))
}

/// The number of letters to insert, delete, change or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().take(64).collect());
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
