//! From the body of a request to an object.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/create.go` and
//! `staging/src/k8s.io/apimachinery/pkg/runtime/serializer/json`.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use mainstay_pod::validate::{Errors, Path};
use mainstay_schema::Type;
use mainstay_schema::decode::{self as schema, DecodeError};
use mainstay_schema::managed;
use mainstay_schema::protobuf;
use serde_json::Value;

use crate::call::Call;
use crate::kind::{PLAIN, Resource};
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
        ("application/json", Some(shape)) => schema::from_slice(&call.body, shape, canonical)
            .map_err(|why| of.unreadable(&why, &call.body))?,
        ("application/json", None) => {
            let (object, problems) =
                schema::json(&call.body).map_err(|why| of.unreadable(&why, &call.body))?;
            schema::Decoded { object, problems }
        }
        ("application/yaml", _) => {
            of.read(yaml(&call.body)?, schema::from_value).map_err(|why| of.refuse(&why))?
        }
        (PROTOBUF, Some(shape)) => of.protobuf(&call.body, shape)?,
        _ => return Err(ApiError::unsupported_media_type(MEDIA_TYPES)),
    };
    of.judge(call, decoded)
}

/// What a JSON patch or a merge patch has made of an object. What is wrong with it is told as a fault of
/// the patch, which refusals show as `shown` has it; `problems` has it already.
///
/// Source: `applyPatchToCurrentObject` of `jsonPatcher`.
///
/// # Errors
///
/// 422 when it is no such object.
pub(crate) fn patched(
    call: &Call<'_>,
    value: Value,
    problems: &[String],
    shown: impl Fn() -> String,
) -> Result<Decoded> {
    let of = Expected::of(call);
    of.check_patched(&value).map_err(|why| invalid_patch(&shown(), &why))?;
    of.made_by_patch(call, of.read(value, schema::from_value), problems, shown)
}

/// What a strategic merge patch has made of an object, in the same way.
///
/// Source: `applyPatchToObject`.
///
/// # Errors
///
/// 422 when it is no such object.
pub(crate) fn merged(
    call: &Call<'_>,
    value: Value,
    problems: &[String],
    shown: impl Fn() -> String,
) -> Result<Decoded> {
    let of = Expected::of(call);
    of.made_by_patch(call, of.read(value, schema::from_patched), problems, shown)
}

/// What an apply has made of an object; it has only fields that are known.
///
/// Source: `structuredMergeManager.Apply` in
/// `staging/src/k8s.io/apimachinery/pkg/util/managedfields/internal/structuredmerge.go`.
///
/// # Errors
///
/// 500 as upstream when it is no such object.
pub(crate) fn applied(call: &Call<'_>, value: Value, wanted: &Value) -> Result<Decoded> {
    let of = Expected::of(call);
    let decoded = of.read(value, schema::from_patched).map_err(|why| {
        let (named, kind) = (managed::name_for_errors(wanted), managed::kind_for_errors(wanted));
        ApiError::unknown(format!(
            "failed to convert new object ({named}) to proper version: unable to convert \
             unstructured object to {kind}: {why}"
        ))
    })?;
    Ok(Decoded { object: object(decoded.object)?, warnings: Vec::new() })
}

/// 422 of a patch that makes something of an object that is no such object.
/// What Go's converter says of a kind that nobody knows.
fn unregistered(kind: &str, version: &str) -> String {
    format!(
        "no kind {kind:?} is registered for version {version:?} in scheme \
         \"pkg/api/legacyscheme/scheme.go:30\""
    )
}

fn invalid_patch(shown: &str, why: &str) -> ApiError {
    let mut errors = Errors::default();
    errors.invalid(&Path::new("patch"), shown, why);
    ApiError::invalid(&PLAIN, "", &errors.0)
}

fn object(value: Value) -> Result<Object> {
    match value {
        Value::Object(fields) => Ok(Object::new(fields)),
        _ => Err(ApiError::bad_request("the body is not an object")),
    }
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

    /// Of what is no JSON, a piece is shown as Kubernetes does.
    fn unreadable(&self, why: &DecodeError, bytes: &[u8]) -> ApiError {
        let DecodeError::Syntax(why) = why else { return self.refuse(why) };
        let (kind, piece) = (self.kind, summary(bytes));
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get \
             version/kind; json parse error: {why} ({piece})"
        ))
    }

    fn read(
        &self,
        value: Value,
        reader: Reader,
    ) -> std::result::Result<schema::Decoded, DecodeError> {
        match self.shape() {
            Some(shape) => reader(value, shape, canonical),
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
        self.read(value, schema::from_value).map_err(|why| self.refuse(&why))
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
        if found_kind.is_empty() || found_kind == kind {
            return Ok(());
        }
        let why = match mainstay_schema::of(group, version, found_kind) {
            Some(_) => format!("converting ({found_kind}) to ({kind}): unknown conversion"),
            None => unregistered(found_kind, &expected),
        };
        Err(ApiError::bad_request(format!(
            "{found_kind} in version {expected:?} cannot be handled as a {kind}: {why}"
        )))
    }

    /// What a patch may not make of what an object says it is, in the words of Go's converter.
    fn check_patched(&self, value: &Value) -> std::result::Result<(), String> {
        let Self { group, version, kind } = *self;
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let (found_version, found_kind) = (text("apiVersion"), text("kind"));
        let (found_group, short) = found_version.split_once('/').unwrap_or(("", found_version));
        if mainstay_schema::of(found_group, short, found_kind).is_none() {
            return match found_version.is_empty() || found_kind.is_empty() {
                true => Ok(()),
                false => Err(unregistered(found_kind, found_version)),
            };
        }
        if (found_group, short, found_kind) == (group, version, kind) {
            return Ok(());
        }
        let package = match group.split('.').next() {
            None | Some("" | "events") => "core",
            Some(package) => package,
        };
        Err(format!("converting ({short}.{found_kind}) to ({package}.{kind}): unknown conversion"))
    }

    /// What a patch has made, if it could be read and its problems do not matter to the client.
    fn made_by_patch(
        &self,
        call: &Call<'_>,
        read: std::result::Result<schema::Decoded, DecodeError>,
        before: &[String],
        shown: impl Fn() -> String,
    ) -> Result<Decoded> {
        let validation = field_validation(call);
        let schema::Decoded { object: made, problems } =
            read.map_err(|why| invalid_patch(&shown(), &why.to_string()))?;
        let problems = [before, &problems].concat();
        let warnings = judge(validation, problems).map_err(|why| invalid_patch(&shown(), &why))?;
        Ok(Decoded { object: object(made)?, warnings })
    }

    /// What has been read, if it is what is expected and its problems do not matter to the client.
    fn judge(&self, call: &Call<'_>, decoded: schema::Decoded) -> Result<Decoded> {
        let schema::Decoded { object: read, problems } = decoded;
        let text = |key: &str| read.get(key).and_then(Value::as_str).unwrap_or_default();
        self.check(text("apiVersion"), text("kind"))?;
        let warnings = judge(field_validation(call), problems).map_err(|why| self.refuse(&why))?;
        Ok(Decoded { object: object(read)?, warnings })
    }
}

/// The problems that the client is told as warnings, if they do not make an error.
fn judge(
    validation: FieldValidation,
    problems: Vec<String>,
) -> std::result::Result<Vec<String>, String> {
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(problems),
        FieldValidation::Strict if problems.is_empty() => Ok(problems),
        FieldValidation::Strict => Err(format!("strict decoding error: {}", problems.join(", "))),
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

/// A strategic merge patch of an object; the patch becomes what refusals show.
pub(crate) fn strategic(resource: &Resource, object: Value, patch: &mut Value) -> Result<Value> {
    let Some(shape) = mainstay_schema::of(resource.group, resource.version, resource.kind) else {
        return Err(ApiError::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json",
        ));
    };
    mainstay_schema::strategic::merge(object, patch, shape).map_err(|error| {
        let text = error.to_string();
        match error.verdict() {
            mainstay_schema::strategic::Verdict::BadRequest => ApiError::bad_request(text),
            mainstay_schema::strategic::Verdict::Unprocessable => ApiError::rejected(),
            mainstay_schema::strategic::Verdict::Internal => ApiError::unknown(text),
        }
    })
}

/// What is none of them has been refused.
fn field_validation(call: &Call<'_>) -> FieldValidation {
    match call.info.query.get("fieldValidation") {
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        _ => FieldValidation::Warn,
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
