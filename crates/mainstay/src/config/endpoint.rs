//! Where a container runtime is.

use std::path::PathBuf;
use std::str::FromStr;

/// A container runtime's socket, as a kubelet has it in `containerRuntimeEndpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Absolute.
    pub(crate) socket: PathBuf,
}

/// Why a text names none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address such as unix:///run/containerd/containerd.sock")]
pub(crate) struct EndpointError(String);

/// Source: `parseEndpoint` in `staging/src/k8s.io/cri-client/pkg/util/util_unix.go`, where a path alone is
/// one, too. Of others than unix sockets the kubelet says that they are not supported.
impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let socket = PathBuf::from(text.strip_prefix("unix://").unwrap_or(text));
        if socket.is_absolute() { Ok(Self { socket }) } else { Err(EndpointError(text.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_unix_sockets() {
        let socket = PathBuf::from("/run/containerd/containerd.sock");
        for text in ["unix:///run/containerd/containerd.sock", "/run/containerd/containerd.sock"] {
            assert_eq!(text.parse(), Ok(Endpoint { socket: socket.clone() }));
        }
        for text in ["", "tcp://127.0.0.1:7", "unix://", "unix://a/b", "containerd.sock"] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("is not an address such as unix:///run/"), "{error}");
        }
    }
}
