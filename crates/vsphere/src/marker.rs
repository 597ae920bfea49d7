//! The ownership marker: what makes a virtual machine ours.
//!
//! It says which installation made the machine, for which Cluster and Machine, and under which instance UUID. It is valid only while that UUID is the machine's own:
//! a clone inherits its source's settings, so a person's copy of our node carries our marker with another UUID, and must never become ours. Templates carry none of
//! these keys.

use std::collections::BTreeMap;

use vsphere_wire::machine::OptionValue;

/// The keys in `extraConfig`.
pub const INSTALLATION_KEY: &str = "guestinfo.talosphere.installation";
/// The uid of the Cluster.
pub const CLUSTER_KEY: &str = "guestinfo.talosphere.cluster";
/// The uid of the Machine.
pub const MACHINE_KEY: &str = "guestinfo.talosphere.machine";
/// The instance UUID of the virtual machine.
pub const INSTANCE_KEY: &str = "guestinfo.talosphere.instance";
/// The UUIDs of the disks that were made with the machine, separated by commas. No part of the marker: written with its last version.
pub const DISKS_KEY: &str = "guestinfo.talosphere.disks";

/// Whose a machine is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The id of the installation that made it.
    pub installation: String,
    /// The uid of its Cluster.
    pub cluster: String,
    /// The uid of its Machine.
    pub machine: String,
}

/// A marker as it stands in a machine's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    pub owner: Owner,
    /// The instance UUID it was written for, lower case.
    pub instance: String,
}

impl Marker {
    /// The marker of a machine with this instance UUID.
    pub fn new(owner: Owner, instance: &str) -> Self {
        Self { owner, instance: instance.to_ascii_lowercase() }
    }

    /// Reads the marker from `extraConfig`. None when a part is missing.
    pub fn read(extra_config: &BTreeMap<String, String>) -> Option<Self> {
        let part = |key: &str| extra_config.get(key).filter(|text| !text.is_empty()).cloned();
        Some(Self {
            owner: Owner { installation: part(INSTALLATION_KEY)?, cluster: part(CLUSTER_KEY)?, machine: part(MACHINE_KEY)? },
            instance: part(INSTANCE_KEY)?.to_ascii_lowercase(),
        })
    }

    /// The settings that make it.
    pub fn options(&self) -> Vec<OptionValue> {
        [
            (INSTALLATION_KEY, &self.owner.installation),
            (CLUSTER_KEY, &self.owner.cluster),
            (MACHINE_KEY, &self.owner.machine),
            (INSTANCE_KEY, &self.instance),
        ]
        .map(|(key, value)| OptionValue::text(key, value.clone()))
        .to_vec()
    }

    /// Whether it is valid for a machine with this instance UUID.
    pub fn is_valid_for(&self, instance_uuid: &str) -> bool {
        !instance_uuid.is_empty() && self.instance.eq_ignore_ascii_case(instance_uuid)
    }
}

/// Whether the machine with these settings and this instance UUID is `owner`'s.
pub fn is_ours(extra_config: &BTreeMap<String, String>, instance_uuid: &str, owner: &Owner) -> bool {
    Marker::read(extra_config).is_some_and(|marker| marker.owner == *owner && marker.is_valid_for(instance_uuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(machine: &str) -> Owner {
        Owner { installation: "i".to_owned(), cluster: "c".to_owned(), machine: machine.to_owned() }
    }

    fn settings(marker: &Marker) -> BTreeMap<String, String> {
        marker.options().into_iter().map(|option| (option.key, option.value.text().unwrap().to_owned())).collect()
    }

    #[test]
    fn only_the_machine_it_was_written_for_is_ours() {
        let marker = Marker::new(owner("m"), "5A00-1");
        let own = settings(&marker);
        assert_eq!(Marker::read(&own), Some(marker));
        assert!(is_ours(&own, "5a00-1", &owner("m")));
        assert!(is_ours(&own, "5A00-1", &owner("m")), "case does not matter");
        assert!(!is_ours(&own, "5a00-2", &owner("m")), "a copy has another instance UUID");
        assert!(!is_ours(&own, "", &owner("m")), "no UUID is no proof");
        assert!(!is_ours(&own, "5a00-1", &owner("other")), "another Machine's");
        for key in [INSTALLATION_KEY, CLUSTER_KEY, MACHINE_KEY, INSTANCE_KEY] {
            let mut part = own.clone();
            part.remove(key);
            assert!(!is_ours(&part, "5a00-1", &owner("m")), "without {key}");
            part.insert(key.to_owned(), String::new());
            assert!(!is_ours(&part, "5a00-1", &owner("m")), "with an empty {key}");
        }
    }
}
