//! `/openapi`: what the kinds look like, for `kubectl explain` and validation by clients.

use http::request::Parts;

use crate::call::Answer;
use crate::status::Result;

/// Answers a path below `/openapi`; `None` for one that leads nowhere.
pub(crate) fn answer(_parts: &Parts, _rest: &[&str]) -> Result<Option<Answer>> {
    Ok(None)
}
