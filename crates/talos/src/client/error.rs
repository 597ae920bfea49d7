//! What can be wrong between us and a node, told apart.

use std::error::Error;
use std::time::Duration;

use runtime::tls::TlsError;
use thiserror::Error as ThisError;
use tonic::{Code, Status};

/// Why a node did not do what it was asked.
#[derive(Clone, Debug, ThisError, PartialEq, Eq)]
pub enum TalosError {
    /// No answer. Says nothing about the state of the node or about what a call that broke off has done.
    #[error("{address} does not answer on port 50000: {reason}")]
    Unreachable { address: String, reason: String },
    /// The node has no configuration yet.
    #[error("{address} is in maintenance mode: it has no machine configuration yet")]
    Maintenance { address: String },
    /// The node's certificate was issued by another authority. Every cluster's is called `talos`, so keys are compared.
    #[error(
        "{address} belongs to another cluster: its certificate ({subject}) was signed by the key {signed_by}, ours is {expected}. \
         Is the address in use twice, or is this an old machine?"
    )]
    NotOurs { address: String, subject: String, signed_by: String, expected: String },
    /// Our authority, but the certificate does not hold: a name, a time.
    #[error("{address} shows a certificate of our cluster that does not hold: {reason}")]
    Certificate { address: String, reason: String },
    /// The node does not accept our certificate.
    #[error("{address} refuses our client certificate: {reason}")]
    CredentialsRefused { address: String, reason: String },
    #[error("{address}: {method} is not permitted to this client certificate: {message}")]
    Permission { address: String, method: &'static str, message: String },
    #[error("{address}: {method} is not available there: {message}")]
    Unimplemented { address: String, method: &'static str, message: String },
    /// Not now.
    #[error("{address}: {method} is not possible yet: {message}")]
    Precondition { address: String, method: &'static str, message: String },
    #[error("{address}: {method}: {message}")]
    AlreadyExists { address: String, method: &'static str, message: String },
    #[error("{address}: {method}: {message}")]
    NotFound { address: String, method: &'static str, message: String },
    #[error("{address}: {method}: {message}")]
    InvalidArgument { address: String, method: &'static str, message: String },
    /// The node answers, but what it needs for an answer is not there (etcd has no quorum, a service is down).
    #[error("{address}: {method} cannot be answered now: {message}")]
    NotReady { address: String, method: &'static str, message: String },
    /// The call may still have its effect.
    #[error("{address}: no answer to {method} within {} s", .after.as_secs())]
    Timeout { address: String, method: &'static str, after: Duration },
    #[error("{address}: {method} failed ({code}): {message}")]
    Failed { address: String, method: &'static str, code: String, message: String },
    /// Our own side: a broken identity.
    #[error("the client's own credentials cannot be used: {reason}")]
    Setup { reason: String },
}

impl TalosError {
    /// Whether nothing is known about the node: it is off, away, or the connection broke.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }

    /// Whether the connection ended before the answer came. A node's own answer is never one of these.
    pub(super) fn is_broken_off(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::CredentialsRefused { .. })
    }

    /// Whether a call that ended so may have had its effect all the same.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. } | Self::Failed { .. } | Self::NotReady { .. })
    }

    /// A short word for conditions and counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "Unreachable",
            Self::Maintenance { .. } => "Maintenance",
            Self::NotOurs { .. } => "NotOurs",
            Self::Certificate { .. } => "Certificate",
            Self::CredentialsRefused { .. } => "CredentialsRefused",
            Self::Permission { .. } => "Permission",
            Self::Unimplemented { .. } => "Unimplemented",
            Self::Precondition { .. } => "Precondition",
            Self::AlreadyExists { .. } => "AlreadyExists",
            Self::NotFound { .. } => "NotFound",
            Self::InvalidArgument { .. } => "InvalidArgument",
            Self::NotReady { .. } => "NotReady",
            Self::Timeout { .. } => "Timeout",
            Self::Failed { .. } => "Failed",
            Self::Setup { .. } => "Setup",
        }
    }

    /// From a gRPC status: one that the node sent, or one that stands for a broken connection (those have a source).
    pub(super) fn from_status(address: &str, method: &'static str, status: &Status) -> Self {
        let address = address.to_owned();
        let message = status.message().to_owned();
        if status.source().is_some() {
            return match tls_error(status) {
                Some(TlsError::Refused { reason }) => Self::CredentialsRefused { address, reason: reason.clone() },
                _ => Self::Unreachable { address, reason: innermost(status) },
            };
        }
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Self::Permission { address, method, message },
            Code::Unimplemented => Self::Unimplemented { address, method, message },
            Code::FailedPrecondition => Self::Precondition { address, method, message },
            Code::AlreadyExists => Self::AlreadyExists { address, method, message },
            Code::NotFound => Self::NotFound { address, method, message },
            Code::InvalidArgument => Self::InvalidArgument { address, method, message },
            Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => Self::NotReady { address, method, message },
            code => Self::Failed { address, method, code: format!("{code:?}"), message },
        }
    }
}

/// The TLS error in a chain of causes. An I/O error hides what it wraps from its own chain, so each one is opened.
pub(super) fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    let mut current = Some(error);
    while let Some(cause) = current {
        if let Some(found) = cause.downcast_ref::<TlsError>() {
            return Some(found);
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref()
            && let Some(found) = tls_error(inner)
        {
            return Some(found);
        }
        current = cause.source();
    }
    None
}

/// The text of the last cause: the outer ones say only "transport error".
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
