//! What can go wrong between a request and its answer.

use std::io;

/// A request that the kernel refused or that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket of this protocol: the kernel lacks it, or the permission is missing.
    #[error("cannot open a netlink socket for {protocol}")]
    Open {
        /// `rtnetlink`, `nf_tables` or `conntrack`.
        protocol: &'static str,
        /// `EPROTONOSUPPORT` when the kernel was built without it.
        #[source]
        source: io::Error,
    },
    /// The socket failed while the request was sent or its answer read.
    #[error("cannot {operation}: the netlink socket failed")]
    Socket {
        /// What was asked for.
        operation: String,
        /// What the socket said.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer was an error.
    #[error("the kernel refused to {operation}{}", explanation(.detail.as_deref()))]
    Refused {
        /// What was asked for.
        operation: String,
        /// The kernel's own words, when it gave any (`NETLINK_EXT_ACK`).
        detail: Option<String>,
        /// The error number of the answer.
        #[source]
        source: io::Error,
    },
    /// The socket was silent where the protocol promises an answer.
    #[error("the kernel did not answer the request to {operation}")]
    NoAnswer {
        /// What was asked for.
        operation: String,
    },
    /// A dump changed under the reader each time it was tried.
    #[error("cannot {operation}: the table never stood still while it was read")]
    Unsteady {
        /// What was asked for.
        operation: String,
    },
    /// A name or a list does not fit into an attribute (64 KiB).
    #[error("cannot {operation}: the request is too long for netlink")]
    TooLong {
        /// What was asked for.
        operation: String,
    },
}

fn explanation(detail: Option<&str>) -> String {
    detail.map(|text| format!(" ({text})")).unwrap_or_default()
}

/// Has it be success that what a request would make exists already.
pub fn unless_exists(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_exists() => Ok(()),
        result => result,
    }
}

/// Has it be success that what a request would take away is not there.
pub fn unless_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}

impl Error {
    /// The error number of the kernel's answer, if that is what went wrong.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. }
            | Self::Open { source, .. }
            | Self::Socket { source, .. } => source.raw_os_error(),
            Self::NoAnswer { .. } | Self::Unsteady { .. } | Self::TooLong { .. } => None,
        }
    }

    /// What the request named does not exist: `ENOENT`, `ENODEV`, `ESRCH` or `EADDRNOTAVAIL`,
    /// which are what nf_tables, links, routes and addresses answer.
    pub fn is_not_found(&self) -> bool {
        let numbers = [libc::ENOENT, libc::ENODEV, libc::ESRCH, libc::EADDRNOTAVAIL];
        self.errno().is_some_and(|number| numbers.contains(&number))
    }

    /// The kernel does not have the subsystem that the request is for: nfnetlink answers
    /// `EINVAL` then, and a socket of a missing protocol is `EPROTONOSUPPORT`.
    pub fn is_unsupported(&self) -> bool {
        let numbers = [libc::EINVAL, libc::EPROTONOSUPPORT, libc::EOPNOTSUPP];
        self.errno().is_some_and(|number| numbers.contains(&number))
    }

    /// What the request would make exists already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }
}
