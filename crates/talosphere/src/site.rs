//! The simulated vCenter that manifests need: every datacenter, datastore, network, folder, pool and template that they name.
//!
//! The server keeps the name or address that the manifests give it, so that they run unchanged. Templates have a snapshot, the disks
//! that the manifests expect, and the newest patch release of the Talos contract of the machines that are made from them.

use std::collections::BTreeMap;

use apimachinery::meta::text_at as text;
use serde_json::Value;
use simulator::vcenter::Site;

use crate::problem::{Code, Problem};
use crate::render::Manifest;

/// The newest patch release of each Talos minor release.
const NEWEST_PATCH: &[(u32, u32)] =
    &[(0, 6), (1, 2), (2, 8), (3, 7), (4, 8), (5, 5), (6, 8), (7, 7), (8, 4), (9, 6), (10, 9), (11, 6), (12, 7), (13, 3), (14, 1)];

/// The newest patch release of a contract such as `v1.4`; of the newest contract known when none is given.
pub fn newest_release(contract: &str) -> String {
    let digits = contract.trim_start_matches('v');
    let mut parts = digits.split('.');
    let (major, minor) = (parts.next().and_then(|part| part.parse::<u32>().ok()), parts.next().and_then(|part| part.parse::<u32>().ok()));
    match (major, minor) {
        (Some(1), Some(minor)) => {
            let patch = NEWEST_PATCH.iter().find(|(known, _)| *known == minor).map_or(0, |(_, patch)| *patch);
            format!("v1.{minor}.{patch}")
        }
        _ => NEWEST_PATCH.last().map(|(minor, patch)| format!("v1.{minor}.{patch}")).unwrap_or_default(),
    }
}

/// Who may sign in to the simulated vCenter.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Builds the site. `further` are `NAME=VERSION` texts for more templates.
///
/// # Errors
/// When no manifest names a vCenter, when two name different ones, or when a further template is malformed.
pub fn site(manifests: &[Manifest], login: &Login, further: &[String]) -> Result<Site, Problem> {
    let mut servers: Vec<&str> =
        manifests.iter().filter(|m| m.kind() == "VSphereCluster").map(|m| text(&m.object, "/spec/server")).collect();
    servers.dedup();
    let server = match servers.as_slice() {
        [] => {
            return Err(Problem::new(Code::NoCluster, "no VSphereCluster among the manifests names a vCenter server")
                .remedy("give the cluster's manifests with -f"));
        }
        [one] => one.trim_start_matches("https://").trim_end_matches("/sdk").trim_end_matches('/'),
        [one, other, ..] => {
            return Err(Problem::new(
                Code::InvalidObject,
                format!("the manifests name two vCenter servers, {one} and {other}; one is simulated at a time"),
            )
            .remedy("give the manifests of one vCenter's clusters only"));
        }
    };
    let contracts = contracts(manifests);
    let mut site = Site::new(server, &login.user, &login.password);
    for manifest in manifests.iter().filter(|m| m.kind() == "VSphereMachineTemplate") {
        let spec = manifest.object.pointer("/spec/template/spec").unwrap_or(&Value::Null);
        let name = text(spec, "/datacenter");
        let datacenter = site.datacenter(if name.is_empty() || name == "*" { "datacenter" } else { name.trim_start_matches('/') });
        if !text(spec, "/datastore").is_empty() {
            datacenter.add_datastore(text(spec, "/datastore"));
        }
        for device in spec.pointer("/network/devices").and_then(Value::as_array).into_iter().flatten() {
            datacenter.add_network(text(device, "/networkName"));
        }
        for (list, name) in
            [(&mut datacenter.folders, text(spec, "/folder")), (&mut datacenter.resource_pools, text(spec, "/resourcePool"))]
        {
            if !name.is_empty() && !list.iter().any(|known| known == name) {
                list.push(name.to_owned());
            }
        }
        let size = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or(10);
        let mut disks = vec![size(spec.get("diskGiB"))];
        disks.extend(spec.get("additionalDisksGiB").and_then(Value::as_array).into_iter().flatten().map(|disk| size(Some(disk))));
        let release = newest_release(contracts.get(manifest.name()).map_or("", String::as_str));
        datacenter.add_template(text(spec, "/template"), &release, &disks);
    }
    if site.datacenters.is_empty() {
        site.datacenter("datacenter");
    }
    for datacenter in &mut site.datacenters {
        if datacenter.datastores.is_empty() {
            datacenter.add_datastore("datastore");
        }
    }
    for template in further {
        let (text, has_snapshot) = template.strip_suffix(",no-snapshot").map_or((template.as_str(), true), |text| (text, false));
        let Some((name, version)) = text.split_once('=').filter(|(name, version)| !name.is_empty() && version.contains('.')) else {
            return Err(Problem::new(Code::BadFlag, format!("--template {template} is not of the form NAME=VERSION"))
                .remedy("write it as talos-1.9=v1.9.5, or talos-1.9=v1.9.5,no-snapshot"));
        };
        let version = if version.starts_with('v') { version.to_owned() } else { format!("v{version}") };
        if let Some(datacenter) = site.datacenters.first_mut() {
            datacenter.add_template(name, &version, &[10]);
            if let Some(added) = datacenter.templates.iter_mut().rfind(|added| added.name == name) {
                added.has_snapshot = has_snapshot;
            }
        }
    }
    Ok(site)
}

/// The Talos contract of the machines made from each VSphereMachineTemplate.
fn contracts(manifests: &[Manifest]) -> BTreeMap<String, String> {
    let mut contracts = BTreeMap::new();
    for manifest in manifests {
        let object = &manifest.object;
        let (template, contract) = match manifest.kind() {
            "TalosControlPlane" => (
                text(object, "/spec/infrastructureTemplate/name"),
                text(object, "/spec/controlPlaneConfig/controlplane/talosVersion").to_owned(),
            ),
            "MachineDeployment" | "MachineSet" => {
                let config = text(object, "/spec/template/spec/bootstrap/configRef/name");
                let config = manifests.iter().find(|m| m.kind() == "TalosConfigTemplate" && m.name() == config);
                let contract = config.map(|config| text(&config.object, "/spec/template/spec/talosVersion").to_owned()).unwrap_or_default();
                (text(object, "/spec/template/spec/infrastructureRef/name"), contract)
            }
            _ => continue,
        };
        contracts.insert(template.to_owned(), contract);
    }
    contracts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::render::fields::Schemas;
    use crate::render::render;
    use crate::render::values::Values;

    fn examples() -> Vec<Manifest> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let read = |name: &str| (name.to_owned(), std::fs::read_to_string(folder.join(name)).unwrap());
        let values = Values::new(&[], Environment::default(), &[read("standard.env")]).unwrap();
        render(&[read("ipam.yaml"), read("standard.yaml")], &values, &Schemas::of_crds(&api::crds())).unwrap().manifests
    }

    #[test]
    fn everything_the_manifests_name_exists() {
        let login = Login { user: "u".to_owned(), password: "p".to_owned() };
        let site = site(&examples(), &login, &["extra=1.10.2".to_owned(), "bare=1.9.6,no-snapshot".to_owned()]).unwrap();
        assert_eq!(site.server, "vcenter.example.com");
        let [datacenter] = site.datacenters.as_slice() else { panic!("{site:?}") };
        assert_eq!(datacenter.name, "dc-east");
        assert_eq!(datacenter.datastores.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["nvme-01"]);
        assert_eq!(datacenter.networks.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["Servers 20"]);
        assert_eq!(
            (datacenter.folders.as_slice(), datacenter.resource_pools.as_slice()),
            (&["clusters".to_owned()][..], &["*/Resources".to_owned()][..])
        );
        let templates: Vec<(&str, Option<&str>, &[u64], bool)> = datacenter
            .templates
            .iter()
            .map(|t| (t.name.as_str(), t.talos_version.as_deref(), t.disks_gib.as_slice(), t.has_snapshot))
            .collect();
        assert_eq!(
            templates,
            [
                ("talos-1.9", Some("v1.9.6"), &[20][..], true),
                ("extra", Some("v1.10.2"), &[10][..], true),
                ("bare", Some("v1.9.6"), &[10][..], false)
            ]
        );
    }

    #[test]
    fn what_cannot_be_simulated_is_said() {
        let login = Login { user: "u".to_owned(), password: "p".to_owned() };
        assert_eq!(site(&[], &login, &[]).unwrap_err().code, Code::NoCluster);
        assert_eq!(site(&examples(), &login, &["nameonly".to_owned()]).unwrap_err().code, Code::BadFlag);
    }
}
