//! OpenAPI v2 in protobuf, as far as our documents go.
//!
//! Source: the numbers are those of `openapiv2/OpenAPIv2.proto` in
//! `github.com/google/gnostic-models`. Values of extensions are YAML there, of which JSON is a part.

use serde_json::{Map, Value};

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

/// The document.
pub(super) fn document(
    info: &Value,
    paths: impl Iterator<Item = (String, Value)>,
    definitions: impl Iterator<Item = (String, Value)>,
) -> Vec<u8> {
    let mut out = Message::default();
    out.string(1, "2.0");
    let text = |key: &str| info.get(key).and_then(Value::as_str).unwrap_or_default();
    out.message(2, |it| {
        it.string(1, text("title"));
        it.string(2, text("version"));
    });
    out.message(8, |it| {
        for (path, item) in paths {
            it.message(2, |it| {
                it.string(1, &path);
                it.message(2, |it| path_item(it, &item));
            });
        }
    });
    out.message(9, |it| {
        for (name, definition) in definitions {
            named_schema(it, 1, &name, &definition);
        }
    });
    out.0
}

fn path_item(out: &mut Message, item: &Value) {
    for (key, value) in map(item) {
        let number = match key.as_str() {
            "get" => 2,
            "put" => 3,
            "post" => 4,
            "delete" => 5,
            "patch" => 8,
            "parameters" => {
                parameters(out, 9, value);
                continue;
            }
            _ => continue,
        };
        out.message(number, |it| operation(it, value));
    }
}

fn operation(out: &mut Message, operation: &Value) {
    for (key, value) in map(operation) {
        match key.as_str() {
            "tags" => out.strings(1, value),
            "description" => out.text(3, value),
            "operationId" => out.text(5, value),
            "produces" => out.strings(6, value),
            "consumes" => out.strings(7, value),
            "parameters" => parameters(out, 8, value),
            "responses" => out.message(9, |it| {
                for (code, value) in map(value) {
                    it.message(1, |it| {
                        it.string(1, code);
                        it.message(2, |it| it.message(1, |it| response(it, value)));
                    });
                }
            }),
            "schemes" => out.strings(10, value),
            _ => extension(out, 13, key, value),
        }
    }
}

fn response(out: &mut Message, response: &Value) {
    if let Some(description) = response.get("description") {
        out.text(1, description);
    }
    if let Some(value) = response.get("schema") {
        out.message(2, |it| it.message(1, |it| schema(it, value)));
    }
}

fn parameters(out: &mut Message, number: u32, list: &Value) {
    for parameter in list.as_array().into_iter().flatten() {
        let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
        out.message(number, |it| {
            it.message(1, |it| match place {
                "body" => it.message(1, |it| body(it, parameter)),
                "path" => it.message(2, |it| it.message(4, |it| no_body(it, 5, parameter))),
                _ => it.message(2, |it| it.message(3, |it| no_body(it, 6, parameter))),
            });
        });
    }
}

fn body(out: &mut Message, parameter: &Value) {
    for (key, value) in map(parameter) {
        match key.as_str() {
            "name" => out.text(2, value),
            "in" => out.text(3, value),
            "required" => out.bool(4, value),
            "schema" => out.message(5, |it| schema(it, value)),
            _ => {}
        }
    }
}

/// A parameter of the query or of the path. What follows the name has other numbers in the two: `kind` is
/// that of the type.
fn no_body(out: &mut Message, kind: u32, parameter: &Value) {
    for (key, value) in map(parameter) {
        match key.as_str() {
            "required" => out.bool(1, value),
            "in" => out.text(2, value),
            "description" => out.text(3, value),
            "name" => out.text(4, value),
            "type" => out.text(kind, value),
            "uniqueItems" => out.bool(kind + 14, value),
            _ => {}
        }
    }
}

fn schema(out: &mut Message, value: &Value) {
    for (key, value) in map(value) {
        match key.as_str() {
            "$ref" => out.text(1, value),
            "format" => out.text(2, value),
            "description" => out.text(4, value),
            "required" => out.strings(19, value),
            "enum" => {
                for allowed in value.as_array().into_iter().flatten() {
                    out.message(20, |it| it.string(2, &allowed.to_string()));
                }
            }
            "additionalProperties" => out.message(21, |it| it.message(1, |it| schema(it, value))),
            "type" => out.message(22, |it| it.text(1, value)),
            "items" => out.message(23, |it| it.message(1, |it| schema(it, value))),
            "properties" => out.message(25, |it| {
                for (name, property) in map(value) {
                    named_schema(it, 1, name, property);
                }
            }),
            _ => extension(out, 31, key, value),
        }
    }
}

fn named_schema(out: &mut Message, number: u32, name: &str, value: &Value) {
    out.message(number, |it| {
        it.string(1, name);
        it.message(2, |it| schema(it, value));
    });
}

/// What begins with `x-`.
fn extension(out: &mut Message, number: u32, key: &str, value: &Value) {
    if key.starts_with("x-") {
        out.message(number, |it| {
            it.string(1, key);
            it.message(2, |it| it.string(2, &value.to_string()));
        });
    }
}

fn map(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

// === impl Message ===

impl Message {
    fn message(&mut self, number: u32, content: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        content(&mut inner);
        self.bytes(number, &inner.0);
    }

    fn string(&mut self, number: u32, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    fn text(&mut self, number: u32, value: &Value) {
        self.string(number, value.as_str().unwrap_or_default());
    }

    fn strings(&mut self, number: u32, values: &Value) {
        for value in values.as_array().into_iter().flatten() {
            self.text(number, value);
        }
    }

    fn bool(&mut self, number: u32, value: &Value) {
        self.varint(u64::from(number << 3));
        self.varint(u64::from(value.as_bool().unwrap_or_default()));
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number << 3 | 2));
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        #[expect(clippy::cast_possible_truncation, reason = "less than 0x80")]
        self.0.push(number as u8);
    }
}
