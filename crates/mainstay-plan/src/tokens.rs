//! Tokens of service accounts, in volumes of pods of an API.
//!
//! Source: `pkg/kubelet/token/token_manager.go`, `pkg/volume/projected/projected.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccountTokenProjection;
use mainstay_pod::Pod;

/// Seconds that a token lasts of which nobody says. Source: `SetDefaults_ServiceAccountTokenProjection`.
const DEFAULT_SECONDS: i64 = 3600;

/// No token is kept longer. Source: `maxTTL`.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// A token that a pod wants, of its own account and for as long as the pod is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedToken {
    /// Whom it is for; empty for the API itself.
    pub audience: String,
    /// How long it lasts.
    pub seconds: i64,
}

/// What came of asking for a token: itself, or why there is none.
pub type Token = Result<Arc<str>, Arc<str>>;

/// The tokens that a pod wants, as far as they are known.
pub type Tokens = BTreeMap<WantedToken, Token>;

impl WantedToken {
    /// The token of a source of a volume.
    pub fn of(source: &ServiceAccountTokenProjection) -> Self {
        Self {
            audience: source.audience.clone().unwrap_or_default(),
            seconds: source.expiration_seconds.unwrap_or(DEFAULT_SECONDS),
        }
    }
}

/// All tokens that a pod wants.
pub fn wanted(pod: &Pod) -> BTreeSet<WantedToken> {
    let volumes = pod.spec().volumes.iter().flatten().filter_map(|it| it.projected.as_ref());
    let sources = volumes.flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|it| it.service_account_token.as_ref()).map(WantedToken::of).collect()
}

/// When a token is to be replaced that lasts so many seconds, up to a moment: when a fifth of its time is
/// left, or when it is a day old. Source: `requiresRefresh`.
pub fn replace_at(expires: Timestamp, seconds: i64) -> Timestamp {
    let before = |span: SignedDuration| expires.checked_sub(span).unwrap_or(expires);
    let fifth = before(SignedDuration::from_secs(seconds / 5));
    let issued = before(SignedDuration::from_secs(seconds));
    fifth.min(issued.checked_add(LONGEST).unwrap_or(fifth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_in_time() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        for (expires, seconds, replaced) in [
            (3600, 3600, 2880),
            (10_600, 600, 10_480),
            (1_000_000, 500_000, 586_400),
            (100, 0, 100),
        ] {
            assert_eq!(replace_at(at(expires), seconds), at(replaced), "{expires} {seconds}");
        }
    }
}
