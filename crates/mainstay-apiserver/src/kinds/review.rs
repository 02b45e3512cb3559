//! Questions about who somebody is and what he may do: nothing of them is kept.

use crate::kind::{PLAIN, Resource};

/// One question.
const fn review(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    namespaced: bool,
) -> Resource {
    Resource { group, kind, plural, singular, namespaced, verbs: &["create"], ..PLAIN }
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

pub(super) static SELF_SUBJECT_REVIEWS: Resource =
    review(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview", false);

pub(super) static TOKEN_REVIEWS: Resource =
    review(AUTHENTICATION, "TokenReview", "tokenreviews", "tokenreview", false);

pub(super) static LOCAL_SUBJECT_ACCESS_REVIEWS: Resource = review(
    AUTHORIZATION,
    "LocalSubjectAccessReview",
    "localsubjectaccessreviews",
    "localsubjectaccessreview",
    true,
);

pub(super) static SELF_SUBJECT_ACCESS_REVIEWS: Resource = review(
    AUTHORIZATION,
    "SelfSubjectAccessReview",
    "selfsubjectaccessreviews",
    "selfsubjectaccessreview",
    false,
);

pub(super) static SELF_SUBJECT_RULES_REVIEWS: Resource = review(
    AUTHORIZATION,
    "SelfSubjectRulesReview",
    "selfsubjectrulesreviews",
    "selfsubjectrulesreview",
    false,
);

pub(super) static SUBJECT_ACCESS_REVIEWS: Resource = review(
    AUTHORIZATION,
    "SubjectAccessReview",
    "subjectaccessreviews",
    "subjectaccessreview",
    false,
);
