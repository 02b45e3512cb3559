//! What is asked of a log, from a query.
//!
//! Source: `getContainerLogs` in `pkg/kubelet/server/server.go`, `ValidatePodLogOptions` in
//! `pkg/apis/core/v1/validation/validation.go`, and for what a parameter may look like
//! `staging/src/k8s.io/apimachinery/pkg/runtime/conversion.go`.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::super::auth::Denial;
use crate::logs::{LogOptions, LogStream};

/// Source: `PodLogOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct PodLogOptions {
    pub(super) follow: bool,
    pub(super) previous: bool,
    /// Bytes, at least 1.
    pub(super) limit: Option<u64>,
    pub(super) lines: LogOptions,
}

/// Reads a query.
///
/// # Errors
///
/// 400 for what cannot be understood, 422 for what is not allowed.
pub(in super::super) fn parse(
    query: &[(String, String)],
    now: Timestamp,
) -> Result<PodLogOptions, Denial> {
    let undecodable = || Denial {
        status: StatusCode::BAD_REQUEST,
        message: r#"{"message": "Unable to decode query."}"#.to_owned(),
    };
    let invalid = || Denial {
        status: StatusCode::UNPROCESSABLE_ENTITY,
        message: r#"{"message": "Invalid request."}"#.to_owned(),
    };
    let first =
        |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let flag = |name: &str| {
        first(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    };
    let number = |text: &str| text.parse::<i64>().map_err(|_| undecodable());

    // From before the parameter had its present name.
    let tail = match first("tail").filter(|tail| !tail.is_empty()) {
        Some("all") => None,
        Some(tail) => Some(tail),
        None => first("tailLines"),
    };
    let tail = tail.map(number).transpose()?;
    let limit = first("limitBytes").map(number).transpose()?;
    let since_seconds = first("sinceSeconds").map(number).transpose()?;
    let since_time = match first("sinceTime") {
        None => None,
        // Source: `UnmarshalQueryParameter` of `metav1.Time`.
        Some("" | "null") => Some(Timestamp::MIN),
        Some(text) => Some(text.parse::<Timestamp>().map_err(|_| undecodable())?),
    };
    let stream = match first("stream") {
        None | Some("All") => None,
        Some("Stdout") => Some(LogStream::Stdout),
        Some("Stderr") => Some(LogStream::Stderr),
        Some(_) => return Err(invalid()),
    };

    let too_small = |number: Option<i64>, least: i64| number.is_some_and(|number| number < least);
    if too_small(tail, 0)
        || too_small(limit, 1)
        || too_small(since_seconds, 1)
        || (since_seconds.is_some() && since_time.is_some())
        || (stream.is_some() && tail.is_some())
    {
        return Err(invalid());
    }
    let since = since_seconds
        .map(|seconds| {
            now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)
        })
        .or(since_time);
    Ok(PodLogOptions {
        follow: flag("follow"),
        previous: flag("previous"),
        limit: limit.and_then(|bytes| u64::try_from(bytes).ok()),
        lines: LogOptions {
            tail: tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            since,
            timestamps: flag("timestamps"),
            stream,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Result<PodLogOptions, u16> {
        let pairs: Vec<(String, String)> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        parse(&pairs, now).map_err(|denial| denial.status.as_u16())
    }

    #[test]
    fn parameters_mean_what_they_mean_to_the_kubelet() {
        let none = PodLogOptions::default();
        let lines = |lines| PodLogOptions { lines, ..PodLogOptions::default() };
        let since: Option<Timestamp> = Some("2026-01-02T03:04:00Z".parse().unwrap());
        let all = LogOptions::default();
        let cases = [
            ("", none.clone()),
            (
                "follow=true&previous=1&timestamps=",
                PodLogOptions {
                    follow: true,
                    previous: true,
                    ..lines(LogOptions { timestamps: true, ..all })
                },
            ),
            ("follow=FALSE&previous=0", none.clone()),
            ("tailLines=3", lines(LogOptions { tail: Some(3), ..all })),
            ("tail=4&tailLines=3", lines(LogOptions { tail: Some(4), ..all })),
            ("tail=all&tailLines=3", none.clone()),
            ("limitBytes=10", PodLogOptions { limit: Some(10), ..none.clone() }),
            ("sinceSeconds=5", lines(LogOptions { since, ..all })),
            ("sinceTime=2026-01-02T04:04:00%2B01:00", lines(LogOptions { since, ..all })),
            ("stream=Stderr", lines(LogOptions { stream: Some(LogStream::Stderr), ..all })),
            ("stream=All&tailLines=0", lines(LogOptions { tail: Some(0), ..all })),
        ];
        for (query, expected) in cases {
            assert_eq!(options(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn what_is_wrong_has_its_status() {
        for (query, status) in [
            ("tailLines=x", 400),
            ("limitBytes=", 400),
            ("sinceTime=yesterday", 400),
            ("sinceSeconds=1.5", 400),
            ("tailLines=-1", 422),
            ("limitBytes=0", 422),
            ("sinceSeconds=0", 422),
            ("sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z", 422),
            ("stream=stdout", 422),
            ("stream=Stdout&tailLines=1", 422),
        ] {
            assert_eq!(options(query), Err(status), "{query}");
        }
    }
}
