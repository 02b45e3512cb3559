//! What a request that is not carried out is answered: `Status` objects with the conventional reasons.
//!
//! Source: `staging/src/k8s.io/apimachinery/pkg/api/errors/errors.go` and
//! `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`.

use http::StatusCode;
use mainstay_pod::validate::{Errors, FieldError, Path};
use mainstay_store::StoreError;
use serde_json::{Value, json};

use crate::kind::Resource;

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The code of the HTTP answer.
    pub code: StatusCode,
    /// One of Kubernetes' reasons, such as `NotFound`; empty where it has none.
    pub reason: &'static str,
    /// The sentence for people.
    pub message: String,
    /// The object that it is about, and the causes.
    pub details: Option<Box<Details>>,
}

/// What the refusal is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// The object's name; may be empty.
    pub name: String,
    /// The API group; may be empty.
    pub group: String,
    /// The kind, or the resource, as Kubernetes has it in this place.
    pub kind: String,
    /// The object's UID; may be empty.
    pub uid: String,
    /// The fields that are wrong, or whatever caused it.
    pub causes: Vec<Cause>,
    /// When asking again may help, in seconds; 0 for nothing known.
    pub retry_after: u32,
}

/// One cause.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    /// Such as `FieldValueInvalid`.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// The path of the field; may be empty.
    pub field: String,
}

/// The answer to a handler.
pub(crate) type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = Some(Box::new(Details::of(resource, name)));
        self
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401. The text is always the same, so that it tells nothing.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403, of an object.
    pub fn forbidden(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Self {
        let qualified = resource.qualified();
        let message = if name.is_empty() {
            format!("{qualified} is forbidden: {why}")
        } else {
            format!("{qualified} {name:?} is forbidden: {why}")
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(resource, name)
    }

    /// 403, with a whole message and the parts of `details` given one by one.
    pub fn forbidden_text(message: impl Into<String>, details: Details) -> Self {
        let mut error = Self::new(StatusCode::FORBIDDEN, "Forbidden", message);
        error.details = Some(Box::new(details));
        error
    }

    /// 404, of an object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.qualified());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(resource, name)
    }

    /// 404, of a path that leads nowhere.
    pub fn no_such_path() -> Self {
        let mut error = Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = Some(Box::new(Details::default()));
        error
    }

    /// 404, with a sentence of its own.
    pub fn not_found_text(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let mut error = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        error.details = Some(Box::new(Details::default()));
        error
    }

    /// 406.
    pub fn not_acceptable(supported: &str) -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            format!("only the following media types are accepted: {supported}"),
        )
    }

    /// 409, the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.qualified());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(resource, name)
    }

    /// 409, somebody else was faster or a precondition does not hold.
    pub fn conflict(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.qualified());
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(resource, name)
    }

    /// 409 of a delete on a condition, which Kubernetes tells of the kind and not of the resource.
    pub fn kind_conflict(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Self {
        let kind = resource.qualified_kind();
        let message = format!("Operation cannot be fulfilled on {kind} {name:?}: {why}");
        let mut error = Self::new(StatusCode::CONFLICT, "Conflict", message);
        error.details = Some(Box::new(Details::of_kind(resource, name)));
        error
    }

    /// 409 of somebody who changed what was changed meanwhile.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try \
             again",
        )
    }

    /// 409 of an apply, with the fields that others own as causes.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Self {
        let mut error = Self::new(StatusCode::CONFLICT, "Conflict", message);
        error.details = Some(Box::new(Details { causes, ..Details::default() }));
        error
    }

    /// 410, what was asked for is not known any more.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 415.
    pub fn unsupported_media_type(supported: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 {supported}"
            ),
        )
    }

    /// 422, of an object's fields.
    pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_as(&resource.qualified_kind(), Details::of_kind(resource, name), errors)
    }

    /// 422 of a change without a version where there has to be one, which Kubernetes tells of the resource
    /// and not of the kind.
    pub(crate) fn without_version(resource: &Resource, name: &str) -> Self {
        let mut errors = Errors::default();
        let path = Path::new("metadata");
        errors.invalid(&path.field("resourceVersion"), 0, "must be specified for an update");
        Self::invalid_as(&resource.qualified(), Details::of(resource, name), &errors.0)
    }

    /// 422, of parameters of a request: `ListOptions` and the like.
    pub(crate) fn invalid_options(kind: &str, errors: &[FieldError]) -> Self {
        let (kind, group) = (kind.to_owned(), "meta.k8s.io".to_owned());
        let of = format!("{kind}.{group}");
        Self::invalid_as(&of, Details { kind, group, ..Details::default() }, errors)
    }

    fn invalid_as(of: &str, details: Details, errors: &[FieldError]) -> Self {
        let message = format!("{of} {:?} is invalid: {}", details.name, aggregate(errors));
        let causes = errors
            .iter()
            .map(|error| Cause {
                reason: error.kind.reason().to_owned(),
                message: error.message.clone(),
                field: error.field.clone(),
            })
            .collect();
        let mut refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
        refusal.details = Some(Box::new(Details { causes, ..details }));
        refusal
    }

    /// 422 of a patch or an object that is no such thing, with a sentence only.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// 422 of a patch that cannot be carried out; why is told to nobody, as upstream.
    pub(crate) fn rejected() -> Self {
        let text = "the server rejected our request due to an error in our request";
        let mut error = Self::unprocessable(text);
        error.details = Some(Box::new(Details::default()));
        error
    }

    /// 429, with the seconds after which to ask again.
    pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        error.details = Some(Box::new(Details { retry_after, ..Details::default() }));
        error
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let text = message.to_string();
        let mut error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {text}"),
        );
        let causes = vec![Cause { message: text, ..Cause::default() }];
        error.details = Some(Box::new(Details { causes, ..Details::default() }));
        error
    }

    /// 500 of what Kubernetes answers without any reason, such as a patch that cannot be merged.
    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// 504.
    pub fn timeout(message: impl std::fmt::Display) -> Self {
        let text = format!("Timeout: {message}");
        let mut error = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", text);
        error.details = Some(Box::new(Details::default()));
        error
    }

    /// The same with another sentence.
    #[must_use]
    pub(crate) fn with_message(mut self, message: String) -> Self {
        self.message = message;
        self
    }

    /// The same with another code.
    #[must_use]
    pub(crate) fn with_code(mut self, code: StatusCode) -> Self {
        self.code = code;
        self
    }

    /// The `Status` object.
    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code.as_u16(),
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.to_json();
        }
        status
    }
}

/// One error as it is, several in brackets, the same one once. Source: `utilerrors.NewAggregate`.
pub(crate) fn aggregate<T: std::fmt::Display>(errors: &[T]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

impl Details {
    /// An object, by its resource.
    fn of(resource: &Resource, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.plural.to_owned(),
            ..Self::default()
        }
    }

    /// An object, by its kind.
    fn of_kind(resource: &Resource, name: &str) -> Self {
        Self { kind: resource.kind.to_owned(), ..Self::of(resource, name) }
    }

    fn to_json(&self) -> Value {
        let mut json = json!({});
        let texts = [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            json[key] = text.as_str().into();
        }
        if !self.causes.is_empty() {
            json["causes"] = self.causes.iter().map(Cause::to_json).collect();
        }
        if self.retry_after > 0 {
            json["retryAfterSeconds"] = self.retry_after.into();
        }
        json
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let mut json = json!({});
        let texts = [("reason", &self.reason), ("message", &self.message), ("field", &self.field)];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            json[key] = text.as_str().into();
        }
        json
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            // Those who write on a condition look at conflicts themselves.
            StoreError::Conflict { .. } => Self::internal(&error),
            StoreError::Compacted { asked, oldest } => {
                Self::expired(format!("too old resource version: {} ({})", asked.0, oldest.0))
            }
            StoreError::Future { asked, current } => {
                let mut error = Self::timeout(format!(
                    "Too large resource version: {}, current: {}",
                    asked.0, current.0
                ));
                error.details = Some(Box::new(Details {
                    causes: vec![Cause {
                        reason: "ResourceVersionTooLarge".to_owned(),
                        message: "Too large resource version".to_owned(),
                        field: String::new(),
                    }],
                    retry_after: 1,
                    ..Details::default()
                }));
                error
            }
            StoreError::TooLarge(why) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &*why)
            }
            StoreError::Unavailable(why) => Self::unavailable(&*why),
        }
    }
}

/// What is answered to what was carried out and has no object to show.
pub(crate) fn success(resource: &Resource, name: &str, uid: &str) -> Value {
    let details = Details { uid: uid.to_owned(), ..Details::of(resource, name) };
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details.to_json(),
    })
}

/// What is answered to what was made and has no object to show.
pub(crate) fn created() -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": StatusCode::CREATED.as_u16(),
    })
}
