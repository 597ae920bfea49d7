//! The process environment, read in this one place.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The environment as it was at the start.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's own environment; variables that are not Unicode are left out.
    #[allow(clippy::disallowed_methods)] // the one place
    pub fn of_process() -> Self {
        Self(std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect())
    }

    /// These variables only.
    pub fn of(variables: BTreeMap<String, String>) -> Self {
        Self(variables)
    }

    /// The value of a variable; an empty one counts as set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a variable when it is set and not empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Where state is kept: `TALOSPHERE_STATE`, else `talosphere` under the XDG state home.
    pub fn state_directory(&self) -> Option<PathBuf> {
        if let Some(directory) = self.non_empty("TALOSPHERE_STATE") {
            return Some(PathBuf::from(directory));
        }
        let home = self.non_empty("XDG_STATE_HOME").map(PathBuf::from);
        home.or_else(|| self.non_empty("HOME").map(|home| PathBuf::from(home).join(".local/state"))).map(|home| home.join("talosphere"))
    }
}
