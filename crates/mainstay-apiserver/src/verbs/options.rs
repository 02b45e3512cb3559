//! What the parameters of a request may be, together.
//!
//! Source: `ValidateListOptions`, `ValidateCreateOptions` and the like in
//! `staging/src/k8s.io/apimachinery/pkg/apis/meta/{internalversion,v1}/validation/validation.go`.

use mainstay_pod::validate::{Errors, Path, Shown};

use crate::request::Query;
use crate::status::{ApiError, Result};

const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// Bytes of a name that a client has for itself as the owner of fields. Source: `FieldManagerMaxLength`.
const MANAGER_MAX: usize = 128;

/// Looks at the parameters of a write, whatever it writes.
///
/// # Errors
///
/// 422 when one is none that there is, or is missing.
pub(crate) fn check_write(verb: &str, media: &str, query: &Query) -> Result<()> {
    let (kind, applies) = match verb {
        "create" => ("CreateOptions", false),
        "update" => ("UpdateOptions", false),
        "patch" => ("PatchOptions", media == "application/apply-patch+yaml"),
        _ => return Ok(()),
    };
    let mut errors = Errors::default();
    let (manager, path) = (query.get("fieldManager"), Path::new("fieldManager"));
    if applies && manager.is_empty() {
        errors.required(&path, "is required for apply patch");
    }
    if verb == "patch" && !applies && query.flag("force") {
        errors.forbidden(&Path::new("force"), "may not be specified for non-apply patch");
    }
    if manager.len() > MANAGER_MAX {
        errors.too_long(&path, MANAGER_MAX);
    }
    dry_run(query.all("dryRun").iter().map(String::as_str), &mut errors);
    let validation = query.get("fieldValidation");
    if !matches!(validation, "" | "Ignore" | "Strict" | "Warn") {
        let known = ["", "Ignore", "Strict", "Warn"];
        errors.not_supported(&Path::new("fieldValidation"), validation, &known);
    }
    told(kind, &errors)
}

/// Whether nothing is to be written; what is neither yes nor no is an error.
pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Errors) -> bool {
    let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
    if values.iter().any(|value| *value != "All") {
        let shown: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        let shown = Shown(format!("[{}]", shown.join(" ")));
        errors.not_supported(&Path::new("dryRun"), shown, &["All"]);
    }
    !values.is_empty()
}

/// # Errors
///
/// 422 when the parameters of a list contradict each other, 400 when a number is none.
pub(crate) fn check_list(query: &Query) -> Result<()> {
    query.number("timeoutSeconds")?;
    let (mut errors, path) = (Errors::default(), Path::new("resourceVersionMatch"));
    let (wanted, version) = (query.get("resourceVersionMatch"), query.get("resourceVersion"));
    if !wanted.is_empty() {
        if version.is_empty() {
            let text = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.forbidden(&path, text);
        }
        continues(query, &path, &mut errors);
        if !matches!(wanted, EXACT | NOT_OLDER_THAN) {
            errors.not_supported(&path, wanted, &[EXACT, NOT_OLDER_THAN, ""]);
        }
        if wanted == EXACT && version == "0" {
            let text = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.forbidden(&path, text);
        }
    }
    if !query.get("sendInitialEvents").is_empty() {
        let path = Path::new("sendInitialEvents");
        errors.forbidden(&path, "sendInitialEvents is forbidden for list");
    }
    told("ListOptions", &errors)
}

/// # Errors
///
/// 422 when the parameters of a watch contradict each other.
pub(crate) fn check_watch(query: &Query) -> Result<()> {
    let (mut errors, path) = (Errors::default(), Path::new("resourceVersionMatch"));
    let wanted = query.get("resourceVersionMatch");
    let initial = !query.get("sendInitialEvents").is_empty();
    if initial && wanted != NOT_OLDER_THAN {
        let text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.forbidden(&path, text);
    }
    if !wanted.is_empty() {
        if !initial {
            let text =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.forbidden(&path, text);
        }
        if wanted != NOT_OLDER_THAN {
            errors.not_supported(&path, wanted, &[NOT_OLDER_THAN]);
        }
        continues(query, &path, &mut errors);
    }
    told("ListOptions", &errors)
}

fn continues(query: &Query, path: &Path<'_>, errors: &mut Errors) {
    if !query.get("continue").is_empty() {
        errors.forbidden(path, "resourceVersionMatch is forbidden when continue is provided");
    }
}

/// # Errors
///
/// 422 if anything is wrong.
pub(crate) fn told(kind: &str, errors: &Errors) -> Result<()> {
    match errors.0.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid_options(kind, &errors.0)),
    }
}
