//! What a simulated vCenter is to contain, in the words of the manifests: the names they use must exist, nothing more.
//!
//! The binary derives a [`Site`] from a user's manifests. Names are taken as people write them there: inventory paths, relative paths or
//! plain names, resource pools also as globs (`*/Resources`).

/// One vCenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its address or name, as the manifests have it.
    pub server: String,
    pub user: String,
    pub password: String,
    pub datacenters: Vec<Datacenter>,
}

/// One datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datacenter {
    pub name: String,
    pub datastores: Vec<Datastore>,
    pub networks: Vec<Network>,
    /// Below the datacenter's VM folder, slashes allowed, or in full (`/dc1/vm/a/b`). An empty name is the VM folder itself.
    pub folders: Vec<String>,
    /// `*/Resources`, `cluster-a/Resources/pool`, `/dc1/host/cluster-a/Resources`, or a pool's plain name.
    pub resource_pools: Vec<String>,
    pub templates: Vec<Template>,
    /// Hosts of each cluster.
    pub hosts: u32,
}

/// A datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datastore {
    pub name: String,
    pub capacity_gib: u64,
}

/// A network that VMs can be plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub name: String,
    /// The distributed switch it is a port group of; none: a standard network.
    pub switch: Option<String>,
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// A plain name (in the VM folder), a path below the VM folder, or an inventory path.
    pub name: String,
    /// The Talos release on its disk, `v1.4.8`; none: nothing that boots.
    pub talos_version: Option<String>,
    /// The disks, system disk first.
    pub disks_gib: Vec<u64>,
    /// Linked clones need one.
    pub has_snapshot: bool,
}

impl Site {
    /// A vCenter without datacenters.
    pub fn new(server: &str, user: &str, password: &str) -> Self {
        Self { server: server.to_owned(), user: user.to_owned(), password: password.to_owned(), datacenters: Vec::new() }
    }

    /// The datacenter `name`, made if it is not there.
    pub fn datacenter(&mut self, name: &str) -> &mut Datacenter {
        let index = match self.datacenters.iter().position(|datacenter| datacenter.name == name) {
            Some(index) => index,
            None => {
                self.datacenters.push(Datacenter::new(name));
                self.datacenters.len() - 1
            }
        };
        &mut self.datacenters[index]
    }
}

impl Datacenter {
    /// An empty datacenter with two hosts.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            datastores: Vec::new(),
            networks: Vec::new(),
            folders: Vec::new(),
            resource_pools: Vec::new(),
            templates: Vec::new(),
            hosts: 2,
        }
    }

    /// Adds a datastore of 1 TiB unless there is one of this name.
    pub fn add_datastore(&mut self, name: &str) {
        if !self.datastores.iter().any(|datastore| datastore.name == name) {
            self.datastores.push(Datastore { name: name.to_owned(), capacity_gib: 1024 });
        }
    }

    /// Adds a standard network unless there is one of this name.
    pub fn add_network(&mut self, name: &str) {
        if !self.networks.iter().any(|network| network.name == name) {
            self.networks.push(Network { name: name.to_owned(), switch: None });
        }
    }

    /// Adds a template with a snapshot unless there is one of this name.
    pub fn add_template(&mut self, name: &str, talos_version: &str, disks_gib: &[u64]) {
        if !self.templates.iter().any(|template| template.name == name) {
            self.templates.push(Template {
                name: name.to_owned(),
                talos_version: Some(talos_version.to_owned()),
                disks_gib: disks_gib.to_vec(),
                has_snapshot: true,
            });
        }
    }
}

/// Where a resource pool of the manifests lies: the cluster's name (`None`: any) and the pools below its root pool.
pub(crate) fn pool_path(datacenter: &str, written: &str) -> (Option<String>, Vec<String>) {
    let prefix = format!("/{datacenter}/host/");
    let parts: Vec<&str> = written.strip_prefix(&prefix).unwrap_or(written).split('/').filter(|part| !part.is_empty()).collect();
    let is_glob = |part: &str| part.contains(['*', '?', '[']);
    let name = |part: &&str| if is_glob(part) { None } else { Some((*part).to_owned()) };
    let pools = |parts: &[&str]| parts.iter().filter_map(name).collect::<Vec<_>>();
    match parts.iter().position(|part| *part == "Resources") {
        Some(root) => (root.checked_sub(1).and_then(|before| parts.get(before)).and_then(name), pools(&parts[root + 1..])),
        None => (None, pools(&parts)),
    }
}

/// The folders below the VM folder that `written` names, outermost first.
pub(crate) fn folder_path(datacenter: &str, written: &str) -> Vec<String> {
    let prefix = format!("/{datacenter}/vm");
    let rest = written.strip_prefix(&prefix).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(written);
    rest.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_found_as_people_write_them() {
        let cases = [
            ("*/Resources", None, vec![]),
            ("cluster-a/Resources", Some("cluster-a"), vec![]),
            ("/dc1/host/cluster-a/Resources/team/dev", Some("cluster-a"), vec!["team", "dev"]),
            ("/dc1/host/*/Resources", None, vec![]),
            ("Resources", None, vec![]),
            ("team", None, vec!["team"]),
            ("", None, vec![]),
        ];
        for (written, cluster, pools) in cases {
            let (found, below) = pool_path("dc1", written);
            assert_eq!(found.as_deref(), cluster, "{written}");
            assert_eq!(below, pools, "{written}");
        }
    }

    #[test]
    fn folders_are_found_as_people_write_them() {
        for (written, expected) in [
            ("", vec![]),
            ("team", vec!["team"]),
            ("a/b", vec!["a", "b"]),
            ("/dc1/vm/a/b", vec!["a", "b"]),
            ("/dc1/vm", vec![]),
            ("/dc1/vms", vec!["dc1", "vms"]),
        ] {
            assert_eq!(folder_path("dc1", written), expected, "{written}");
        }
    }
}
