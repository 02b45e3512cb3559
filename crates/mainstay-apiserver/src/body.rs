//! Bodies: of requests, read within bounds, and of answers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Full};

use crate::status::{ApiError, Result};

/// Anything that a body may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request or of an answer.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// The largest body that is read, in bytes. Source: `MaxRequestBodyBytes` of
/// `staging/src/k8s.io/apiserver/pkg/server/config.go`.
pub(crate) const MAX_BODY: usize = 3 * 1024 * 1024;

/// How long a client may take to send a body.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nothing, or what is known whole.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Any body as a [`Body`].
pub fn boxed<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// Reads a body.
///
/// # Errors
///
/// 413 when it is too large, 408 as 504 when it does not come, 400 when it breaks off.
pub(crate) async fn read(mut body: Body) -> Result<Bytes> {
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(ApiError::too_large(MAX_BODY));
    }
    let read = async {
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if all.len() + data.len() > MAX_BODY {
                return Err(ApiError::too_large(MAX_BODY));
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    };
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::timeout("the request's body did not come in time")),
    }
}
