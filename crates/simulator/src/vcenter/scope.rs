//! What one caller can see: the inventory, the service's singletons, and the views and collectors of the caller's own session.

use std::collections::BTreeSet;

use jiff::Timestamp;
use vsphere_wire::Value as _;
use vsphere_wire::service::{AboutInfo, ServiceContent};
use vsphere_wire::xml::Element;

use super::failure::Failure;
use super::inventory::{Inventory, Reference, is_a};
use super::properties;
use super::session::{Session, Sessions, View};
use super::val::{Segment, Val};

/// One caller's sight of the world.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub inventory: &'a Inventory,
    pub sessions: &'a Sessions,
    /// The caller's session.
    pub session: Option<&'a Session>,
    pub now: Timestamp,
}

/// The objects that exist once, with their ids.
const SINGLETONS: [(&str, &str); 14] = [
    ("ServiceInstance", "ServiceInstance"),
    ("SessionManager", "SessionManager"),
    ("PropertyCollector", "propertyCollector"),
    ("ViewManager", "ViewManager"),
    ("TaskManager", "TaskManager"),
    ("EventManager", "EventManager"),
    ("SearchIndex", "SearchIndex"),
    ("AuthorizationManager", "AuthorizationManager"),
    ("CustomFieldsManager", "CustomFieldsManager"),
    ("OvfManager", "OvfManager"),
    ("FileManager", "FileManager"),
    ("VirtualDiskManager", "virtualDiskManager"),
    ("OptionManager", "VpxSettings"),
    ("LicenseManager", "LicenseManager"),
];

/// The singleton of this type.
pub fn singleton(kind: &str) -> Option<Reference> {
    SINGLETONS.iter().find(|(known, _)| *known == kind).map(|(kind, id)| Reference::new(*kind, *id))
}

/// What RetrieveServiceContent answers.
pub fn service_content(inventory: &Inventory) -> ServiceContent {
    let about = AboutInfo {
        name: "VMware vCenter Server".to_owned(),
        full_name: "VMware vCenter Server 8.0.3 build-24022515 (simulated by talosphere)".to_owned(),
        vendor: "VMware, Inc.".to_owned(),
        version: "8.0.3".to_owned(),
        patch_level: None,
        build: "24022515".to_owned(),
        locale_version: Some("INTL".to_owned()),
        locale_build: Some("000".to_owned()),
        os_type: "linux-x64".to_owned(),
        product_line_id: "vpx".to_owned(),
        api_type: "VirtualCenter".to_owned(),
        api_version: "8.0.3.0".to_owned(),
        instance_uuid: Some(inventory.uuid.clone()),
        license_product_name: Some("VMware VirtualCenter Server".to_owned()),
        license_product_version: Some("8.0".to_owned()),
    };
    ServiceContent {
        root_folder: inventory.root.clone(),
        property_collector: Reference::new("PropertyCollector", "propertyCollector"),
        view_manager: singleton("ViewManager"),
        about,
        setting: singleton("OptionManager"),
        user_directory: None,
        session_manager: singleton("SessionManager"),
        authorization_manager: singleton("AuthorizationManager"),
        service_manager: None,
        performance_manager: None,
        scheduled_task_manager: None,
        alarm_manager: None,
        event_manager: singleton("EventManager"),
        task_manager: singleton("TaskManager"),
        extension_manager: None,
        customization_spec_manager: None,
        guest_customization_manager: None,
        custom_fields_manager: singleton("CustomFieldsManager"),
        account_manager: None,
        diagnostic_manager: None,
        license_manager: singleton("LicenseManager"),
        search_index: singleton("SearchIndex"),
        file_manager: singleton("FileManager"),
        datastore_namespace_manager: None,
        virtual_disk_manager: singleton("VirtualDiskManager"),
        virtualization_manager: None,
        snmp_system: None,
        vm_provisioning_checker: None,
        vm_compatibility_checker: None,
        ovf_manager: singleton("OvfManager"),
        ip_pool_manager: None,
        distributed_switch_manager: None,
        host_profile_manager: None,
        cluster_profile_manager: None,
        compliance_manager: None,
        localization_manager: None,
        storage_resource_manager: None,
        guest_operations_manager: None,
        overhead_memory_manager: None,
        certificate_manager: None,
        io_filter_manager: None,
        storage_object_manager: None,
        host_spec_manager: None,
        crypto_manager: None,
        health_update_manager: None,
        failover_cluster_configurator: None,
        failover_cluster_manager: None,
        tenant_manager: None,
        site_info_manager: None,
        storage_query_manager: None,
    }
}

/// A session as data.
fn session_val(session: &Session) -> Val {
    Val::data(
        "UserSession",
        [
            ("key", Val::string(&session.key)),
            ("userName", Val::string(&session.user)),
            ("fullName", Val::string(&session.user)),
            ("loginTime", Val::time(session.signed_in)),
            ("lastActiveTime", Val::time(session.last_active)),
            ("locale", Val::string("en")),
            ("messageLocale", Val::string("en")),
            ("extensionSession", Val::boolean(false)),
            ("ipAddress", Val::string(&session.address)),
            ("userAgent", Val::string(&session.agent)),
            ("callCount", Val::long(session.calls)),
        ],
    )
}

impl<'a> Scope<'a> {
    /// Whether the object exists for this caller.
    pub fn exists(&self, reference: &Reference) -> bool {
        if self.inventory.get(reference).is_some() || SINGLETONS.contains(&(reference.kind.as_str(), reference.id.as_str())) {
            return true;
        }
        let Some(session) = self.session else { return false };
        match reference.kind.as_str() {
            "ContainerView" | "ListView" => session.views.contains_key(&reference.id),
            "PropertyCollector" => session.collectors.contains_key(&reference.id),
            "PropertyFilter" => session.collectors.values().any(|collector| collector.filters.contains_key(&reference.id)),
            _ => false,
        }
    }

    /// The number of the object's last change; for what is not in the inventory, the present.
    pub fn changed(&self, reference: &Reference) -> u64 {
        self.inventory.get(reference).map_or(self.inventory.sequence(), |object| object.changed)
    }

    /// The objects that a view shows.
    pub fn shown(&self, view: &View) -> Vec<Reference> {
        match view {
            View::List(objects) => objects.iter().filter(|object| self.exists(object)).cloned().collect(),
            View::Container { container, kinds, is_recursive } => {
                let contents: BTreeSet<Reference> = self.inventory.contents(container, *is_recursive);
                let is_wanted = |object: &Reference| kinds.is_empty() || kinds.iter().any(|kind| is_a(&object.kind, kind));
                contents.into_iter().filter(is_wanted).collect()
            }
        }
    }

    /// The property at a path.
    ///
    /// # Errors
    /// When there is no such object, or its type has no such property.
    pub fn property(&self, reference: &Reference, path: &[Segment]) -> Result<Option<Val>, Failure> {
        if let Some(object) = self.inventory.get(reference) {
            return properties::property(self.inventory, object, path).map_err(|()| Failure::invalid_property(&show(path)));
        }
        if !self.exists(reference) {
            return Err(Failure::not_found(reference));
        }
        let Some((Segment::Name(first), rest)) = path.split_first() else { return Err(Failure::invalid_property(&show(path))) };
        let value = self.other(reference, first).map_err(|()| Failure::invalid_property(first))?;
        Ok(value.and_then(|value| value.at(rest).cloned()))
    }

    /// Properties of objects outside the inventory.
    fn other(&self, reference: &Reference, name: &str) -> Result<Option<Val>, ()> {
        let view = self.session.and_then(|session| session.views.get(&reference.id));
        let value = match (reference.kind.as_str(), name) {
            ("ServiceInstance", "content") => {
                let mut element = Element::vim("content");
                service_content(self.inventory).write(&mut element);
                Some(Val::Raw("ServiceContent", element))
            }
            ("ServiceInstance", "serverClock") => Some(Val::time(self.now)),
            ("ServiceInstance", "capability") => {
                Some(Val::data("Capability", [("provisioningSupported", Val::boolean(true)), ("multiHostSupported", Val::boolean(true))]))
            }
            ("SessionManager", "currentSession") => self.session.map(session_val),
            ("SessionManager", "sessionList") => Some(Val::Array("UserSession", self.sessions.0.values().map(session_val).collect())),
            ("SessionManager", "message") => Some(Val::string("")),
            ("SessionManager", "defaultLocale") => Some(Val::string("en")),
            ("SessionManager", "messageLocaleList" | "supportedLocaleList") => Some(Val::strings(["en"])),
            ("TaskManager", "recentTask") => Some(Val::references(&self.inventory.recent_tasks(None))),
            ("TaskManager", "maxCollector") => Some(Val::int(32)),
            ("TaskManager", "description") => None,
            ("EventManager", "maxCollector") => Some(Val::int(32)),
            ("EventManager", "latestEvent") => self.inventory.events.last().map(event_val),
            ("EventManager", "description") => None,
            ("CustomFieldsManager", "field") => Some(Val::Array("CustomFieldDef", Vec::new())),
            ("AuthorizationManager", "privilegeList" | "roleList" | "description") => None,
            ("ViewManager", "viewList") => {
                let views = self.session.into_iter().flat_map(|session| &session.views);
                let references: Vec<Reference> = views.map(|(id, view)| Reference::new(view_kind(view), id)).collect();
                Some(Val::references(&references))
            }
            ("PropertyCollector", "filter") => {
                let collector = self.session.and_then(|session| session.collectors.get(&reference.id));
                let ids = collector.into_iter().flat_map(|collector| collector.filters.keys());
                let references: Vec<Reference> = ids.map(|id| Reference::new("PropertyFilter", id)).collect();
                Some(Val::references(&references))
            }
            ("PropertyFilter", "partialUpdates") => Some(Val::boolean(false)),
            ("PropertyFilter", "spec") => {
                let collectors = self.session.into_iter().flat_map(|session| session.collectors.values());
                let filter = collectors.filter_map(|collector| collector.filters.get(&reference.id)).next();
                filter.map(|filter| {
                    let mut element = Element::vim("spec");
                    filter.spec.write(&mut element);
                    Val::Raw("PropertyFilterSpec", element)
                })
            }
            ("ContainerView" | "ListView", "view") => view.map(|view| Val::references(&self.shown(view))),
            ("ContainerView", "container") => match view {
                Some(View::Container { container, .. }) => Some(Val::reference(container)),
                _ => None,
            },
            ("ContainerView", "type") => match view {
                Some(View::Container { kinds, .. }) => Some(Val::strings(kinds)),
                _ => None,
            },
            ("ContainerView", "recursive") => match view {
                Some(View::Container { is_recursive, .. }) => Some(Val::boolean(*is_recursive)),
                _ => None,
            },
            _ => return Err(()),
        };
        Ok(value)
    }

    /// The names of all properties of an object.
    pub fn property_names(&self, reference: &Reference) -> Vec<&'static str> {
        match self.inventory.get(reference) {
            Some(object) => properties::property_names(object).collect(),
            None => match reference.kind.as_str() {
                "ServiceInstance" => vec!["content", "serverClock", "capability"],
                "SessionManager" => {
                    vec!["sessionList", "currentSession", "message", "messageLocaleList", "supportedLocaleList", "defaultLocale"]
                }
                "TaskManager" => vec!["recentTask", "maxCollector"],
                "EventManager" => vec!["latestEvent", "maxCollector"],
                "ViewManager" => vec!["viewList"],
                "PropertyCollector" => vec!["filter"],
                "PropertyFilter" => vec!["spec", "partialUpdates"],
                "ContainerView" => vec!["container", "type", "recursive", "view"],
                "ListView" => vec!["view"],
                _ => Vec::new(),
            },
        }
    }
}

/// The type of a view.
pub fn view_kind(view: &View) -> &'static str {
    match view {
        View::Container { .. } => "ContainerView",
        View::List(_) => "ListView",
    }
}

/// An event as data.
pub fn event_val(event: &super::inventory::Event) -> Val {
    let mut members = vec![
        ("key", Val::int(event.key)),
        ("chainId", Val::int(event.key)),
        ("createdTime", Val::time(event.at)),
        ("userName", Val::string(&event.user)),
    ];
    members.push(("fullFormattedMessage", Val::string(&event.message)));
    Val::descendant(event.kind, members)
}

fn show(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Name(name) if text.is_empty() => text.push_str(name),
            Segment::Name(name) => text.push_str(&format!(".{name}")),
            Segment::Key(key) => text.push_str(&format!("[\"{key}\"]")),
        }
    }
    text
}
