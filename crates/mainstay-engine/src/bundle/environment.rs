//! Environment variables of a container.

use mainstay_cri::ContainerConfig;
use mainstay_image::config::ImageConfig;

use crate::user::User;

/// Source: `defaultUnixEnv` in `pkg/oci/spec.go` of containerd.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables, each name once, in the order in which the names first came.
///
/// From the weakest to the strongest: ours, the image's, the container's; `HOME` comes from the
/// user's entry in the image's `/etc/passwd` if nobody says otherwise, as runc has it.
pub(super) fn of(
    config: &ContainerConfig,
    image: &ImageConfig,
    user: &User,
    hostname: &str,
) -> Vec<String> {
    let mut variables: Vec<String> = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if config.tty {
        variables.push("TERM=xterm".to_owned());
    }
    let own = config.envs.iter().map(|(name, value)| format!("{name}={value}"));
    for variable in image.env.iter().cloned().chain(own) {
        set(&mut variables, variable);
    }
    if !variables.iter().any(|variable| variable.starts_with("HOME=")) {
        variables.push(format!("HOME={}", user.home));
    }
    variables
}

fn set(variables: &mut Vec<String>, variable: String) {
    let name = variable.split_inclusive('=').next().unwrap_or_default().to_owned();
    match variables.iter_mut().find(|known| known.starts_with(&name)) {
        Some(known) => *known = variable,
        None => variables.push(variable),
    }
}
