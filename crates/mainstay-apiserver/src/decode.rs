//! From the body of a request to an object.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/create.go` and
//! `staging/src/k8s.io/apimachinery/pkg/runtime/serializer/json`.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use mainstay_schema::Type;
use mainstay_schema::decode::{self as schema, DecodeError};
use mainstay_schema::protobuf;
use serde_json::Value;

use crate::call::Call;
use crate::kind::Resource;
use crate::object::Object;
use crate::status::{ApiError, Result};

/// An object, held against the schema of its kind.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) object: Object,
    /// Unknown and duplicate fields, of a client that only wants to be told.
    pub(crate) warnings: Vec<String>,
}

/// What a client wants done about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// The types that bodies may have.
const MEDIA_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// What clients written in Go send, without asking whether the server takes it.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The type of a body, without its parameters; JSON if it has none.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let header =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match header.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        media => media,
    }
}

/// The object in the body of a request, of the kind that its resource or subresource has.
///
/// # Errors
///
/// 400 when it is no such thing, 415 when it is written as something else.
pub(crate) fn body(call: &Call<'_>) -> Result<Decoded> {
    let of = Expected::of(call);
    let decoded = match (media_type(call.headers), of.shape()) {
        ("application/json", Some(shape)) => {
            schema::from_slice(&call.body, shape, canonical).map_err(|why| of.refuse(&why))?
        }
        ("application/json", None) => {
            let (object, problems) = schema::json(&call.body).map_err(|why| of.refuse(&why))?;
            schema::Decoded { object, problems }
        }
        ("application/yaml", shape) => of.read(yaml(&call.body)?, shape, schema::from_value)?,
        (PROTOBUF, Some(shape)) => of.protobuf(&call.body, shape)?,
        _ => return Err(ApiError::unsupported_media_type(MEDIA_TYPES)),
    };
    of.judge(call, decoded)
}

/// An object that a client wants, read already.
pub(crate) fn value(call: &Call<'_>, value: Value) -> Result<Decoded> {
    let of = Expected::of(call);
    let decoded = of.read(value, of.shape(), schema::from_value)?;
    of.judge(call, decoded)
}

/// What a patch has made of an object.
pub(crate) fn patched(call: &Call<'_>, value: Value) -> Result<Decoded> {
    let of = Expected::of(call);
    let decoded = of.read(value, of.shape(), schema::from_patched)?;
    of.judge(call, decoded)
}

/// The options in the body of a delete, if it has any.
pub(crate) fn options(call: &Call<'_>) -> Result<Option<Value>> {
    if call.body.is_empty() {
        return Ok(None);
    }
    let bad = |why: &dyn std::fmt::Display| ApiError::bad_request(why.to_string());
    let value = match (media_type(call.headers), DELETE_OPTIONS.shape()) {
        ("application/json", _) => schema::json(&call.body).map_err(|why| bad(&why))?.0,
        ("application/yaml", _) => yaml(&call.body)?,
        (PROTOBUF, Some(shape)) => {
            let unknown = protobuf::unknown(&call.body).map_err(|why| bad(&why))?;
            check_options(&unknown.kind)?;
            unknown.object(shape).map_err(|why| bad(&why))?
        }
        _ => return Err(ApiError::unsupported_media_type(MEDIA_TYPES)),
    };
    check_options(value.get("kind").and_then(Value::as_str).unwrap_or_default())?;
    Ok(Some(value))
}

/// Every group has options of its own, which are all the same.
fn check_options(kind: &str) -> Result<()> {
    match kind {
        "" | "DeleteOptions" => Ok(()),
        kind => Err(ApiError::bad_request(format!(
            "decoded object cannot be converted to DeleteOptions: it is a {kind}"
        ))),
    }
}

/// A quantity as it is stored.
fn canonical(text: &str) -> Option<String> {
    mainstay_pod::quantity::stored_text(text).ok()
}

/// What is sent to a resource or subresource.
struct Expected {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
}

const DELETE_OPTIONS: Expected = Expected { group: "", version: "v1", kind: "DeleteOptions" };

type Reader = fn(
    Value,
    &'static Type,
    schema::Quantities,
) -> std::result::Result<schema::Decoded, DecodeError>;

impl Expected {
    fn of(call: &Call<'_>) -> Self {
        let resource = call.resource;
        let (mut group, mut version, mut kind) = (resource.group, resource.version, resource.kind);
        if let Some(subresource) = resource.subresource(&call.info.subresource) {
            (group, version) = subresource.of.unwrap_or((group, version));
            kind = subresource.kind;
        }
        Self { group, version, kind }
    }

    fn shape(&self) -> Option<&'static Type> {
        mainstay_schema::of(self.group, self.version, self.kind)
    }

    fn refuse(&self, why: &dyn std::fmt::Display) -> ApiError {
        let Self { version, kind, .. } = self;
        ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
        ))
    }

    fn read(
        &self,
        value: Value,
        shape: Option<&'static Type>,
        reader: Reader,
    ) -> Result<schema::Decoded> {
        match shape {
            Some(shape) => reader(value, shape, canonical).map_err(|why| self.refuse(&why)),
            None => Ok(schema::Decoded { object: value, problems: Vec::new() }),
        }
    }

    /// Of what is no protobuf, a piece is shown as Kubernetes does.
    fn protobuf(&self, bytes: &[u8], shape: &'static Type) -> Result<schema::Decoded> {
        let unknown = protobuf::unknown(bytes).map_err(|why| {
            let (kind, piece) = (self.kind, summary(bytes));
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): {why} ({piece})"
            ))
        })?;
        self.check(&unknown.api_version, &unknown.kind)?;
        let value = unknown.object(shape).map_err(|why| self.refuse(&why))?;
        self.read(value, Some(shape), schema::from_value)
    }

    /// What is sent has to be what it is sent as, if it says what it is.
    fn check(&self, found_version: &str, found_kind: &str) -> Result<()> {
        let Self { group, version, kind } = *self;
        let expected = match group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        let other = found_version != expected && !equivalent(found_version, group);
        if !found_version.is_empty() && other {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({found_version}) does not match the expected API \
                 version ({expected})"
            )));
        }
        if !found_kind.is_empty() && found_kind != kind {
            return Err(ApiError::bad_request(format!(
                "{found_kind} in version {expected:?} cannot be handled as a {kind}: converting \
                 ({found_kind}) to ({kind}): unknown conversion"
            )));
        }
        Ok(())
    }

    /// What has been read, if it is what is expected and its problems do not matter to the client.
    fn judge(&self, call: &Call<'_>, decoded: schema::Decoded) -> Result<Decoded> {
        let Self { version, kind, .. } = self;
        let schema::Decoded { object, problems } = decoded;
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        self.check(text("apiVersion"), text("kind"))?;
        let warnings = match field_validation(call)? {
            FieldValidation::Ignore => Vec::new(),
            FieldValidation::Warn => problems,
            FieldValidation::Strict if problems.is_empty() => Vec::new(),
            FieldValidation::Strict => {
                return Err(ApiError::bad_request(format!(
                    "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding \
                     error: {}",
                    problems.join(", ")
                )));
            }
        };
        let Value::Object(fields) = object else {
            return Err(ApiError::bad_request("the body is not an object"));
        };
        Ok(Decoded { object: Object::new(fields), warnings })
    }
}

/// One document of YAML or JSON.
///
/// # Errors
///
/// 400 when it is none.
pub(crate) fn yaml(bytes: &[u8]) -> Result<Value> {
    mainstay_pod::read_value("request", bytes).map_err(|diagnostics| {
        let texts: Vec<String> = diagnostics.iter().map(|it| it.message.clone()).collect();
        ApiError::bad_request(format!("error decoding YAML: {}", texts.join("; ")))
    })
}

/// A strategic merge patch of an object.
pub(crate) fn strategic(resource: &Resource, object: Value, patch: &Value) -> Result<Value> {
    let Some(shape) = mainstay_schema::of(resource.group, resource.version, resource.kind) else {
        return Err(ApiError::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json",
        ));
    };
    mainstay_schema::strategic::merge(object, patch, shape).map_err(|error| {
        let text = error.to_string();
        match error.verdict() {
            mainstay_schema::strategic::Verdict::BadRequest => ApiError::bad_request(text),
            mainstay_schema::strategic::Verdict::Unprocessable => ApiError::unprocessable(text),
            mainstay_schema::strategic::Verdict::Internal => ApiError::internal(text),
        }
    })
}

/// Source: `ValidateFieldValidation`.
fn field_validation(call: &Call<'_>) -> Result<FieldValidation> {
    match call.info.query.get("fieldValidation") {
        "Ignore" => Ok(FieldValidation::Ignore),
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Strict" => Ok(FieldValidation::Strict),
        other => Err(ApiError::unprocessable(format!(
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \
             {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        ))),
    }
}

/// The beginning of a body. Source: `summarizeData`.
fn summary(bytes: &[u8]) -> String {
    let shown = bytes.get(..30).unwrap_or(bytes);
    let text = match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if shown.len() < bytes.len() { text + " ..." } else { text }
}

/// Older clients send evictions in a version that has gone otherwise.
fn equivalent(version: &str, group: &str) -> bool {
    group == "policy" && version == "policy/v1beta1"
}
