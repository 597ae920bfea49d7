//! The configuration contract: for which Talos release a machine configuration is written.
//!
//! A contract is a `MAJOR.MINOR`; what each one changes is a question asked of it by name, so that the generator reads like the table
//! of differences. Contracts older than 1.3 and newer than 1.13 (where nearly everything moves into documents of its own) are refused.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The release that a configuration is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contract {
    major: u32,
    minor: u32,
}

/// A version that is no contract of ours.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ContractError {
    #[error("{text:?} is not a Talos version: expected vMAJOR.MINOR, such as v1.4")]
    Malformed { text: String },
    #[error("configurations for Talos {version} cannot be generated; supported are {} to {}", Contract::OLDEST, Contract::NEWEST)]
    Unsupported { version: String },
}

impl Contract {
    pub const OLDEST: Self = Self { major: 1, minor: 3 };
    /// Also what an empty version stands for.
    pub const NEWEST: Self = Self { major: 1, minor: 13 };

    /// The minor version.
    pub fn minor(self) -> u32 {
        self.minor
    }

    fn is_after(self, minor: u32) -> bool {
        self > Self { major: 1, minor }
    }

    pub(crate) fn has_disk_quota(self) -> bool {
        self.is_after(4)
    }

    pub(crate) fn has_kube_prism(self) -> bool {
        self.is_after(5)
    }

    pub(crate) fn has_host_dns(self) -> bool {
        self.is_after(6)
    }

    /// Service-account keys of new bundles are RSA; ECDSA before.
    pub fn has_rsa_service_account_key(self) -> bool {
        self.is_after(6)
    }

    pub(crate) fn forwards_kube_dns(self) -> bool {
        self.is_after(7)
    }

    pub(crate) fn labels_control_planes(self) -> bool {
        self.is_after(7)
    }

    pub(crate) fn names_cluster_on_workers(self) -> bool {
        self.is_after(7)
    }

    /// Several documents: host name and registry mirrors stand apart. JSON patches are impossible from here on.
    pub fn is_multi_document(self) -> bool {
        self.is_after(11)
    }

    pub(crate) fn has_empty_network(self) -> bool {
        !self.is_after(12)
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.major, self.minor)
    }
}

impl FromStr for Contract {
    type Err = ContractError;

    /// Reads `v1.4`, `1.4`, `v1.4.8`, `v1.13.0-alpha.1`; an empty text is the newest contract, as upstream has it.
    fn from_str(text: &str) -> Result<Self, ContractError> {
        let malformed = || ContractError::Malformed { text: text.to_owned() };
        let bare = text.trim();
        if bare.is_empty() {
            return Ok(Self::NEWEST);
        }
        let mut parts = bare.strip_prefix('v').unwrap_or(bare).split('.');
        let mut number = || -> Result<u32, ContractError> {
            let part = parts.next().ok_or_else(malformed)?;
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(malformed());
            }
            part.parse().map_err(|_| malformed())
        };
        let contract = Self { major: number()?, minor: number()? };
        if contract < Self::OLDEST || contract > Self::NEWEST {
            return Err(ContractError::Unsupported { version: contract.to_string() });
        }
        Ok(contract)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_every_form() {
        for (text, minor) in [("v1.4", 4), ("1.4", 4), ("v1.4.8", 4), ("v1.13.0-alpha.1", 13), ("", 13), (" v1.3 ", 3)] {
            assert_eq!(text.parse::<Contract>().unwrap().minor(), minor, "{text}");
        }
        for text in ["v1", "one", "v1.x", "v1.4-beta", "v.4"] {
            assert!(matches!(text.parse::<Contract>(), Err(ContractError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn an_unsupported_contract_names_the_supported_ones() {
        for text in ["v1.14", "v1.2", "v0.14", "v2.0"] {
            let error = text.parse::<Contract>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("v1.3 to v1.13"), "{error}");
        }
    }
}
