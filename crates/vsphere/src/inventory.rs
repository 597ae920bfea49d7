//! Where a machine goes: the names of the manifests resolved to managed objects, once per placement, and kept until one of them turns out to be gone.

use vsphere_wire::machine::{OpaqueNetworkSummary, VirtualMachineSnapshotInfo, VirtualMachineSnapshotTree};
use vsphere_wire::property::{ObjectContent, ObjectSpec, PropertyFilterSpec, PropertySpec, Selection, TraversalSpec};
use vsphere_wire::{AnyValue, DeviceBacking, ManagedObjectReference, VirtualDevice};

use crate::error::VSphereError;
use crate::tree::{Search, Tree};

/// The names of a placement, as the manifests give them. Empty or absent: the only one there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlacementRequest {
    /// `*` is as good as none.
    pub datacenter: String,
    pub folder: String,
    pub datastore: String,
    pub resource_pool: String,
    /// Name, path, managed object id or instance UUID.
    pub template: String,
    /// The snapshot's name; the current one when absent.
    pub snapshot: Option<String>,
    /// One for each network card.
    pub networks: Vec<String>,
}

/// A placement, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub datacenter: ManagedObjectReference,
    pub datacenter_name: String,
    pub folder: ManagedObjectReference,
    /// `/DC0/vm/clusters`.
    pub folder_path: String,
    pub pool: ManagedObjectReference,
    /// None: where the template is.
    pub datastore: Option<ManagedObjectReference>,
    pub template: Template,
    /// In the order of the request.
    pub networks: Vec<Network>,
}

/// What is cloned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub reference: ManagedObjectReference,
    pub path: String,
    /// The named snapshot, or the current one.
    pub snapshot: Option<ManagedObjectReference>,
    pub wanted_snapshot: Option<String>,
    pub devices: Vec<VirtualDevice>,
}

/// A network, and how a card is plugged into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub name: String,
    pub backing: DeviceBacking,
}

const FOLDERS: [&str; 1] = ["Folder"];
const POOLS: [&str; 2] = ["ResourcePool", "VirtualApp"];
const DATASTORES: [&str; 1] = ["Datastore"];
const NETWORKS: [&str; 3] = ["Network", "DistributedVirtualPortgroup", "OpaqueNetwork"];

/// Reads the whole inventory but its virtual machines: one specification, all datacenters.
pub(crate) fn tree_spec(root: &ManagedObjectReference) -> PropertyFilterSpec {
    let properties = |kind: &str, more: &[&str]| PropertySpec {
        kind: kind.to_owned(),
        is_all: None,
        paths: ["name", "parent"].iter().chain(more).map(|path| (*path).to_owned()).collect(),
    };
    let named = |name: &str| Selection::Named(name.to_owned());
    let along = |name: &str, kind: &str, path: &str, next: &[&str]| {
        Selection::Traversal(TraversalSpec {
            name: Some(name.to_owned()),
            selections: next.iter().map(|name| named(name)).collect(),
            ..TraversalSpec::along(kind, path)
        })
    };
    let everywhere = ["folder", "vm", "host", "datastore", "network", "pool", "member", "nested"];
    PropertyFilterSpec {
        property_sets: vec![
            properties("Folder", &[]),
            properties("Datacenter", &["vmFolder", "hostFolder", "datastoreFolder", "networkFolder"]),
            properties("ComputeResource", &["resourcePool"]),
            properties("ResourcePool", &[]),
            properties("HostSystem", &[]),
            properties("Datastore", &[]),
            properties("Network", &[]),
            properties("OpaqueNetwork", &["summary"]),
            properties("DistributedVirtualPortgroup", &["key", "config.distributedVirtualSwitch"]),
            properties("DistributedVirtualSwitch", &["uuid"]),
        ],
        object_sets: vec![ObjectSpec {
            object: root.clone(),
            is_skipped: Some(true),
            selections: vec![
                along("folder", "Folder", "childEntity", &everywhere),
                along("vm", "Datacenter", "vmFolder", &["folder"]),
                along("host", "Datacenter", "hostFolder", &["folder"]),
                along("datastore", "Datacenter", "datastoreFolder", &["folder"]),
                along("network", "Datacenter", "networkFolder", &["folder"]),
                along("pool", "ComputeResource", "resourcePool", &["nested"]),
                along("member", "ComputeResource", "host", &[]),
                along("nested", "ResourcePool", "resourcePool", &["nested"]),
            ],
        }],
        report_missing_objects: None,
    }
}

/// Reads the names of all virtual machines below a folder.
pub(crate) fn machines_spec(folder: &ManagedObjectReference) -> PropertyFilterSpec {
    PropertyFilterSpec {
        property_sets: vec![PropertySpec { kind: "VirtualMachine".to_owned(), is_all: None, paths: vec!["name".to_owned()] }],
        object_sets: vec![ObjectSpec {
            object: folder.clone(),
            is_skipped: Some(true),
            selections: vec![Selection::Traversal(TraversalSpec {
                name: Some("folder".to_owned()),
                selections: vec![Selection::Named("folder".to_owned())],
                ..TraversalSpec::along("Folder", "childEntity")
            })],
        }],
        report_missing_objects: None,
    }
}

/// Reads whose every virtual machine is, in all datacenters.
pub(crate) fn markers_spec(root: &ManagedObjectReference) -> PropertyFilterSpec {
    let along = |name: &str, kind: &str, path: &str| {
        Selection::Traversal(TraversalSpec {
            name: Some(name.to_owned()),
            selections: ["folder", "vm"].map(|next| Selection::Named(next.to_owned())).to_vec(),
            ..TraversalSpec::along(kind, path)
        })
    };
    let paths = ["name", "config.instanceUuid", "config.extraConfig"].map(str::to_owned).to_vec();
    PropertyFilterSpec {
        property_sets: vec![PropertySpec { kind: "VirtualMachine".to_owned(), is_all: None, paths }],
        object_sets: vec![ObjectSpec {
            object: root.clone(),
            is_skipped: Some(true),
            selections: vec![along("folder", "Folder", "childEntity"), along("vm", "Datacenter", "vmFolder")],
        }],
        report_missing_objects: None,
    }
}

/// The properties of a template.
pub(crate) const TEMPLATE_PROPERTIES: [&str; 4] = ["name", "parent", "snapshot", "config.hardware.device"];

/// Everything of a placement but the template.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub datacenter: ManagedObjectReference,
    pub datacenter_name: String,
    pub datacenter_path: String,
    pub vm_folder: ManagedObjectReference,
    pub folder: ManagedObjectReference,
    pub folder_path: String,
    pub pool: ManagedObjectReference,
    pub datastore: Option<ManagedObjectReference>,
    pub networks: Vec<Network>,
}

impl Site {
    /// Resolves the names.
    pub(crate) fn resolve(tree: &Tree, root: &ManagedObjectReference, request: &PlacementRequest) -> Result<Self, VSphereError> {
        let wanted = if request.datacenter == "*" { "" } else { request.datacenter.as_str() };
        let datacenter = datacenter(tree, root, wanted, request)?;
        let datacenter_path = tree.path(&datacenter).to_owned();
        let datacenter_name = tree.node(&datacenter).map(|node| node.name.clone()).unwrap_or_default();
        let place = format!("datacenter {datacenter_name}");
        let link = |property: &str| {
            tree.linked(&datacenter, property).ok_or_else(|| VSphereError::Refused {
                reason: format!(
                    "{property} of {place} cannot be read: the account needs System.View and System.Read on the datacenter and its folders"
                ),
            })
        };
        let find = |what, kinds: &[&str], base: &ManagedObjectReference, wanted: &str| {
            tree.find(&Search { what, kinds, base, place: &place }, wanted)
        };
        let vm_folder = link("vmFolder")?;
        let is_root = matches!(request.folder.as_str(), "" | "vm" | "/") || request.folder == tree.path(&vm_folder);
        let folder = if is_root { vm_folder.clone() } else { find("folder", &FOLDERS, &vm_folder, &request.folder)? };
        let host_folder = link("hostFolder")?;
        let pool = match request.resource_pool.as_str() {
            "" => only(tree, "resource pool", &POOLS, &host_folder, &place)?,
            wanted => find("resource pool", &POOLS, &host_folder, wanted)?,
        };
        let datastore = match request.datastore.as_str() {
            "" => None,
            wanted => Some(find("datastore", &DATASTORES, &link("datastoreFolder")?, wanted)?),
        };
        let network_folder = link("networkFolder")?;
        let networks = request.networks.iter().map(|wanted| {
            let reference = find("network", &NETWORKS, &network_folder, wanted)?;
            network(tree, &reference, &place)
        });
        Ok(Self {
            networks: networks.collect::<Result<_, _>>()?,
            folder_path: tree.path(&folder).to_owned(),
            datacenter,
            datacenter_name,
            datacenter_path,
            vm_folder,
            folder,
            pool,
            datastore,
        })
    }
}

/// The datacenter: by name; without one, the one that a full path of the request names, else the only one.
fn datacenter(
    tree: &Tree,
    root: &ManagedObjectReference,
    wanted: &str,
    request: &PlacementRequest,
) -> Result<ManagedObjectReference, VSphereError> {
    let kinds = ["Datacenter"];
    let search = Search { what: "datacenter", kinds: &kinds, base: root, place: "the inventory" };
    if !wanted.is_empty() {
        return tree.find(&search, wanted);
    }
    let all: Vec<&ManagedObjectReference> = tree.all(&kinds).collect();
    if let [one] = all.as_slice() {
        return Ok((*one).clone());
    }
    let named = [&request.folder, &request.resource_pool, &request.template, &request.datastore];
    let is_inside = |reference: &&&ManagedObjectReference| {
        let prefix = format!("{}/", tree.path(reference));
        named.iter().any(|path| path.starts_with(&prefix))
    };
    let inside: Vec<&&ManagedObjectReference> = all.iter().filter(is_inside).collect();
    match inside.as_slice() {
        [one] => Ok((**one).clone()),
        _ => tree.find(&search, "*"),
    }
}

/// The only pool at the top of a datacenter's compute resources.
fn only(
    tree: &Tree,
    what: &'static str,
    kinds: &[&str],
    base: &ManagedObjectReference,
    place: &str,
) -> Result<ManagedObjectReference, VSphereError> {
    let is_top = |reference: &&ManagedObjectReference| {
        let parent = tree.node(reference).and_then(|node| node.parent.as_ref());
        parent.is_some_and(|parent| matches!(parent.kind.as_str(), "ComputeResource" | "ClusterComputeResource"))
    };
    let inside = format!("{}/", tree.path(base));
    let tops: Vec<&ManagedObjectReference> =
        tree.all(kinds).filter(is_top).filter(|reference| tree.path(reference).starts_with(&inside)).collect();
    match tops.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(VSphereError::Missing { what, wanted: String::new(), place: place.to_owned(), near: Vec::new() }),
        several => Err(VSphereError::Ambiguous {
            what,
            wanted: String::new(),
            place: place.to_owned(),
            found: several.iter().map(|reference| tree.path(reference).to_owned()).collect(),
        }),
    }
}

fn network(tree: &Tree, reference: &ManagedObjectReference, place: &str) -> Result<Network, VSphereError> {
    let unreadable =
        |why: &str| VSphereError::Refused { reason: format!("network {} in {place} cannot be used: {why}", tree.path(reference)) };
    let node = tree.node(reference).ok_or_else(|| unreadable("it is gone"))?;
    let text = |property: &str| node.properties.get(property).and_then(AnyValue::text);
    let backing = match reference.kind.as_str() {
        "DistributedVirtualPortgroup" => {
            let switch = tree.linked(reference, "config.distributedVirtualSwitch");
            let uuid = switch.as_ref().and_then(|switch| tree.node(switch)?.properties.get("uuid")?.text());
            let uuid = uuid.ok_or_else(|| unreadable("the account cannot read its distributed switch (System.Read on the switch)"))?;
            let key = text("key").unwrap_or(&reference.id);
            DeviceBacking::port_group(uuid, key)
        }
        "OpaqueNetwork" => {
            let summary: Option<OpaqueNetworkSummary> = node.properties.get("summary").and_then(|value| value.decode().ok());
            let summary = summary.ok_or_else(|| unreadable("its summary cannot be read"))?;
            DeviceBacking::opaque(summary.opaque_network_id, summary.opaque_network_type)
        }
        _ => DeviceBacking::network(node.name.clone()),
    };
    Ok(Network { name: node.name.clone(), backing })
}

/// Reads a template.
pub(crate) fn template(content: &ObjectContent, path: &str, wanted: Option<&str>) -> Result<Template, vsphere_wire::DecodeError> {
    let snapshots: Option<VirtualMachineSnapshotInfo> = content.property("snapshot").map(AnyValue::decode).transpose()?;
    let snapshot = snapshots.and_then(|info| match wanted {
        Some(name) => named_snapshot(&info.roots, name),
        None => info.current,
    });
    let devices = content.property("config.hardware.device").map(vsphere_wire::device::devices).transpose()?.unwrap_or_default();
    Ok(Template { reference: content.object.clone(), path: path.to_owned(), snapshot, wanted_snapshot: wanted.map(str::to_owned), devices })
}

fn named_snapshot(trees: &[VirtualMachineSnapshotTree], name: &str) -> Option<ManagedObjectReference> {
    trees.iter().find_map(|tree| if tree.name == name { Some(tree.snapshot.clone()) } else { named_snapshot(&tree.children, name) })
}
