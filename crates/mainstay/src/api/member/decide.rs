//! What a node shows itself with, and whether it asks for another certificate.
//!
//! Source: `LoadClientConfig` and `isClientConfigStillValid` in `pkg/kubelet/certificate/bootstrap/bootstrap.go`,
//! `buildKubeletClientConfig` in `cmd/kubelet/app/server.go`.

use jiff::Timestamp;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// In the kubeconfig.
    pub(super) given: Given,
    /// In the directory of certificates.
    pub(super) kept: Option<Kept>,
    /// Whether there may be another kubeconfig to get a certificate with.
    pub(super) bootstrap: bool,
    /// Whether certificates are kept and renewed. Source: `rotateCertificates`.
    pub(super) rotates: bool,
    /// Whether the API has said that it does not know what was shown last.
    pub(super) refused: bool,
}

/// What the user of the kubeconfig has, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// A certificate that ends then.
    Certificate(Timestamp),
    /// A token, and no certificate.
    Token,
    /// Neither.
    Nothing,
    /// The kubeconfig, or the certificate that it names, is not there.
    Missing,
    /// The kubeconfig is there and cannot be read: somebody is at it, or has to be.
    Unreadable,
}

/// The node's own certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) ends: Timestamp,
    /// Whether it is time for the next one.
    pub(super) due: bool,
    /// Whether it was made a moment ago: then it is shown, whatever this machine's clock says.
    pub(super) fresh: bool,
}

/// Whose word the node has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// What the kubeconfig's user has.
    Given,
    /// The node's own certificate.
    Kept,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This is shown.
    Show(Proof),
    /// This is shown, also to get the next certificate.
    Renew(Proof),
    /// The node's own certificate is shown, to the cluster of the other kubeconfig, and the kubeconfig is
    /// made to say so.
    Settle,
    /// A certificate is asked for with the other kubeconfig.
    Bootstrap,
    /// The kubeconfig cannot be read, and nothing takes its place.
    Unreadable,
    /// Its certificate has ended then.
    Ended(Timestamp),
}

/// The next step.
pub(super) fn decide(found: &Found, now: Timestamp) -> Step {
    let refused = found.refused && found.bootstrap;
    let kept = found.kept.filter(|it| it.fresh || (it.ends > now && !refused));
    let is_due = kept.is_some_and(|it| it.due && !it.fresh) && found.rotates;
    if found.given == Given::Unreadable {
        return Step::Unreadable;
    }
    if found.bootstrap {
        // Whoever has a token only is not there yet.
        let is_valid = matches!(found.given, Given::Certificate(ends) if ends > now);
        let is_settled = matches!(found.given, Given::Certificate(_));
        match kept {
            None if !is_valid || refused => return Step::Bootstrap,
            // The kubeconfig says so already; by this machine's clock it has ended nevertheless.
            Some(Kept { fresh: true, .. }) if !is_valid && is_settled => {
                return Step::Show(Proof::Kept);
            }
            Some(_) if !is_valid && is_due => return Step::Renew(Proof::Kept),
            Some(_) if !is_valid => return Step::Settle,
            _ => {}
        }
    }
    match (kept, found.given) {
        (_, Given::Missing | Given::Unreadable) => Step::Unreadable,
        _ if !found.rotates => Step::Show(Proof::Given),
        (Some(_), _) if is_due => Step::Renew(Proof::Kept),
        (Some(_), _) => Step::Show(Proof::Kept),
        (None, Given::Certificate(ends)) if ends <= now => Step::Ended(ends),
        (None, Given::Nothing) => Step::Show(Proof::Given),
        (None, Given::Certificate(_) | Given::Token) => Step::Renew(Proof::Given),
    }
}

#[cfg(test)]
mod tests;
