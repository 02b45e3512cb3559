//! When a container is probed, with what, and what follows from what the probes find.
//!
//! # Flow
//!
//! [`targets`] says which containers of a pod are probed. Each has one [`Probes`], which says when the
//! next probe is due ([`Probes::due`]), which ones begin ([`Probes::begin`]) and what their ends mean
//! ([`Probes::finish`]): its [`crate::pod::Health`]. What a probe asks for is its [`Check`].
//!
//! # Guarantees
//!
//! - No two probes of one kind of one container are under way at the same time.
//! - Before a container has started, only its startup probe is asked; afterwards, all but that.
//! - A container that was given up is not asked again. The next one of its name begins anew.
//!
//! Source: `pkg/kubelet/prober/{worker,prober,prober_manager}.go`.

mod check;
mod course;
mod redirect;
mod target;

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Probe};

pub(crate) use check::port_of;
pub use check::{Check, HttpGet, check, expand_command, http_get, join_host_port};
pub use course::{Finding, Probes, Start};
pub use redirect::Redirect;
pub use target::{Target, probed, targets};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Whether the container has started; until then the other ones wait.
    Startup,
    /// Whether it still works.
    Liveness,
    /// Whether it can serve now.
    Readiness,
}

impl ProbeKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// As events and metrics call it.
impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        })
    }
}
