//! Talos releases as a node knows its own: which Kubernetes it runs by default, which documents and keys its decoder knows.
//!
//! The node decides by the release on its disk, never by what a client believes it to be.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Kubernetes as each Talos minor release runs it when the configuration names no image.
const DEFAULT_KUBERNETES: &[(u32, &str)] = &[
    (3, "1.26.3"),
    (4, "1.27.4"),
    (5, "1.28.3"),
    (6, "1.29.3"),
    (7, "1.30.3"),
    (8, "1.31.4"),
    (9, "1.32.3"),
    (10, "1.33.3"),
    (11, "1.34.1"),
    (12, "1.35.0"),
    (13, "1.36.0"),
    (14, "1.37.0"),
];

/// A text that is no Talos release.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a Talos release; expected vMAJOR.MINOR.PATCH")]
pub struct ReleaseError(String);

/// A Talos release: `v1.4.8`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
    /// A pre-release, without its dash: `rc.0`.
    pub suffix: String,
}

impl Release {
    /// Whether it is `minor` of the first major release, or newer.
    pub fn is_at_least(&self, minor: u32) -> bool {
        (self.major, self.minor) >= (1, minor)
    }

    /// The Kubernetes version (without `v`) of a configuration that names none.
    pub fn default_kubernetes(&self) -> &'static str {
        let known = DEFAULT_KUBERNETES.iter().rev().find(|(minor, _)| self.is_at_least(*minor));
        known.or(DEFAULT_KUBERNETES.first()).map_or("1.26.3", |(_, version)| version)
    }

    /// The containerd release, as a node reports it.
    pub fn containerd(&self) -> &'static str {
        match self.minor {
            ..=3 => "1.6.18",
            4..=5 => "1.6.23",
            6 => "1.7.11",
            7..=8 => "1.7.18",
            9..=11 => "2.0.5",
            _ => "2.1.4",
        }
    }

    /// The Linux kernel, as a node reports it.
    pub fn kernel(&self) -> &'static str {
        match self.minor {
            ..=3 => "5.15.94-talos",
            4..=5 => "6.1.46-talos",
            6..=7 => "6.1.82-talos",
            8 => "6.6.60-talos",
            9..=11 => "6.12.31-talos",
            _ => "6.18.1-talos",
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)?;
        if self.suffix.is_empty() { Ok(()) } else { write!(f, "-{}", self.suffix) }
    }
}

impl FromStr for Release {
    type Err = ReleaseError;

    /// Reads `v1.4.8`, `1.4.8`, `v1.4` (patch 0) and pre-releases.
    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        let wrong = || ReleaseError(text.to_owned());
        let bare = text.strip_prefix('v').unwrap_or(text);
        let (numbers, suffix) = bare.split_once('-').unwrap_or((bare, ""));
        let mut parts = numbers.split('.').map(|part| part.parse::<u32>().map_err(|_| wrong()));
        let major = parts.next().ok_or_else(wrong)??;
        let minor = parts.next().ok_or_else(wrong)??;
        let patch = parts.next().transpose()?.unwrap_or(0);
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self { major, minor, patch, suffix: suffix.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_compared_and_printed() {
        for (text, printed) in [("v1.4.8", "v1.4.8"), ("1.12", "v1.12.0"), ("v1.13.0-alpha.1", "v1.13.0-alpha.1")] {
            assert_eq!(text.parse::<Release>().unwrap().to_string(), printed);
        }
        for wrong in ["", "v1", "1.2.3.4", "one.two", "latest"] {
            assert!(wrong.parse::<Release>().is_err(), "{wrong}");
        }
        assert!("v1.12.0".parse::<Release>().unwrap().is_at_least(4));
        assert!(!"v1.3.7".parse::<Release>().unwrap().is_at_least(4));
    }

    #[test]
    fn a_release_runs_its_own_kubernetes() {
        for (release, kubernetes) in
            [("v1.4.8", "1.27.4"), ("v1.11.0", "1.34.1"), ("v1.14.1", "1.37.0"), ("v1.15.0", "1.37.0"), ("v1.2.0", "1.26.3")]
        {
            assert_eq!(release.parse::<Release>().unwrap().default_kubernetes(), kubernetes);
        }
    }
}
