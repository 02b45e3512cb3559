//! placeholder
use mainstay_cri::{LinuxContainerSecurityContext, Result, SeccompProfile};
use mainstay_linux::capability::Capabilities;
pub(crate) fn filter(
    _: &SeccompProfile,
    _: &LinuxContainerSecurityContext,
    _: Capabilities,
) -> Result<Vec<u8>> {
    Ok(vec![])
}
