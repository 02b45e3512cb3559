//! The kinds that the server has. Adding one is a file here and a line in [`ALL`]. Any other is 404.

mod certificate_signing_request;
mod config_map;
mod controller_revision;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod lease;
mod namespace;
mod node;
mod pod;
mod pod_disruption_budget;
mod priority_class;
mod rbac;
mod replica_set;
mod review;
mod rules;
mod runtime_class;
mod secret;
pub(crate) mod service;
mod service_account;
mod workload;

pub(crate) use endpoint_slice::ENDPOINT_SLICES;
pub(crate) use endpoints::ENDPOINTS;
pub(crate) use event::EVENTS;
pub(crate) use namespace::NAMESPACES;
pub(crate) use node::NODES;
pub(crate) use pod::PODS;
pub(crate) use pod_disruption_budget::POD_DISRUPTION_BUDGETS;
pub(crate) use priority_class::{PRIORITY_CLASSES, SYSTEM_CLASSES};
pub(crate) use runtime_class::RUNTIME_CLASSES;
pub(crate) use secret::SECRETS;
pub(crate) use service::SERVICES;
pub(crate) use service_account::SERVICE_ACCOUNTS;

use crate::kind::Resource;

/// Every resource, in the order in which discovery tells them: by group, then by name.
pub(crate) static ALL: &[&Resource] = &[
    &config_map::CONFIG_MAPS,
    &endpoints::ENDPOINTS,
    &EVENTS,
    &NAMESPACES,
    &NODES,
    &PODS,
    &SECRETS,
    &SERVICE_ACCOUNTS,
    &SERVICES,
    &controller_revision::CONTROLLER_REVISIONS,
    &daemon_set::DAEMON_SETS,
    &deployment::DEPLOYMENTS,
    &replica_set::REPLICA_SETS,
    &review::SELF_SUBJECT_REVIEWS,
    &review::TOKEN_REVIEWS,
    &review::LOCAL_SUBJECT_ACCESS_REVIEWS,
    &review::SELF_SUBJECT_ACCESS_REVIEWS,
    &review::SELF_SUBJECT_RULES_REVIEWS,
    &review::SUBJECT_ACCESS_REVIEWS,
    &certificate_signing_request::CERTIFICATE_SIGNING_REQUESTS,
    &lease::LEASES,
    &endpoint_slice::ENDPOINT_SLICES,
    &event::NEWER_EVENTS,
    &runtime_class::RUNTIME_CLASSES,
    &POD_DISRUPTION_BUDGETS,
    &rbac::CLUSTER_ROLE_BINDINGS,
    &rbac::CLUSTER_ROLES,
    &rbac::ROLE_BINDINGS,
    &rbac::ROLES,
    &PRIORITY_CLASSES,
];

/// The resource that a path names.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    ALL.iter().find(|it| it.group == group && it.version == version && it.plural == plural).copied()
}
