//! Kubernetes versions as people write them. Pure.

use std::cmp::Ordering;
use std::fmt;

/// A version of Kubernetes: `v1.33.0`, `v1.34.0-rc.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub major: u64,
    pub minor: u64,
    patch: u64,
    /// What stands behind a `-`.
    candidate: Option<String>,
}

impl Version {
    /// Reads `v1.33.0` or `1.33.0`; none when it is no version, or not a whole one.
    pub fn read(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        let (numbers, candidate) = bare.split_once('-').map_or((bare, None), |(numbers, candidate)| (numbers, Some(candidate.to_owned())));
        let is_word = |text: &String| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
        if candidate.as_ref().is_some_and(|text| !is_word(text)) {
            return None;
        }
        let mut parts = numbers.split('.');
        let mut number = || {
            let part = parts.next().filter(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))?;
            let is_plain = part == "0" || !part.starts_with('0');
            part.parse::<u64>().ok().filter(|_| is_plain)
        };
        let version = Self { major: number()?, minor: number()?, patch: number()?, candidate };
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)?;
        self.candidate.as_ref().map_or(Ok(()), |candidate| write!(f, "-{candidate}"))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let numbers = |version: &Self| (version.major, version.minor, version.patch);
        // A candidate comes before the release.
        let candidates = match (&self.candidate, &other.candidate) {
            (Some(ours), Some(theirs)) => ours.cmp(theirs),
            (ours, theirs) => ours.is_none().cmp(&theirs.is_none()),
        };
        numbers(self).cmp(&numbers(other)).then(candidates)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_are_whole_and_ordered() {
        for (text, told) in [("1.33.0", "v1.33.0"), ("v1.33.10", "v1.33.10"), ("v1.34.0-rc.1", "v1.34.0-rc.1")] {
            assert_eq!(Version::read(text).unwrap().to_string(), told);
        }
        for text in ["", "v", "1.33", "v1.33.x", "latest", "1.33.0.1", "v1.33.0-", "v1.033.0", "1.33.0+k3s1", "vv1.33.0", "-1.3.0", "1..0"]
        {
            assert_eq!(Version::read(text), None, "{text}");
        }
        let ordered = ["v1.9.9", "v1.32.4", "v1.33.0-rc.0", "v1.33.0-rc.1", "v1.33.0", "v1.33.1"].map(|text| Version::read(text).unwrap());
        assert!(ordered.is_sorted() && ordered.first() < ordered.last());
    }
}
