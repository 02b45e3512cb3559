//! Containers: one verb, one file.

pub(crate) mod attach;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod log;
pub(crate) mod remove;
pub(crate) mod start;
pub(crate) mod stop;
mod streams;
mod target;

use mainstay_cri::ContainerState;

use crate::sandbox::Container;

impl Container {
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, ContainerState::Exited { .. })
    }
}
