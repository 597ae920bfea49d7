//! The faults that this vCenter raises, with their members and the sentences that go with them.

use vsphere_wire::value::ManagedObjectReference;
use vsphere_wire::{Fault, LocalizedMethodFault, MethodFault};

/// A fault and its message for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub fault: Box<MethodFault>,
    pub message: String,
}

impl Failure {
    /// A fault of this type without members.
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { fault: Box::new(MethodFault::new(kind.to_owned())), message: message.into() }
    }

    fn with(mut self, member: &'static str, value: &str) -> Self {
        *self.fault = self.fault.clone().with(member, &value.to_owned());
        self
    }

    fn with_reference(mut self, member: &'static str, reference: &ManagedObjectReference) -> Self {
        *self.fault = self.fault.clone().with(member, reference);
        self
    }

    /// The fault's type.
    pub fn kind(&self) -> &str {
        self.fault.kind()
    }

    pub fn not_authenticated(on: &ManagedObjectReference) -> Self {
        Self::new("NotAuthenticated", "The session is not authenticated.").with_reference("object", on).with("privilegeId", "System.View")
    }

    pub fn invalid_login() -> Self {
        Self::new("InvalidLogin", "Cannot complete login due to an incorrect user name or password.")
    }

    pub fn no_permission(on: &ManagedObjectReference, privilege: &str) -> Self {
        Self::new("NoPermission", "Permission to perform this operation was denied.")
            .with_reference("object", on)
            .with("privilegeId", privilege)
    }

    pub fn not_found(object: &ManagedObjectReference) -> Self {
        let message = format!("The object '{}:{}' has already been deleted or has not been completely created", object.kind, object.id);
        Self::new("ManagedObjectNotFound", message).with_reference("obj", object)
    }

    pub fn duplicate_name(name: &str, object: &ManagedObjectReference) -> Self {
        Self::new("DuplicateName", format!("The name '{name}' already exists.")).with("name", name).with_reference("object", object)
    }

    pub fn invalid_argument(property: &str) -> Self {
        Self::new("InvalidArgument", format!("A specified parameter was not correct: {property}")).with("invalidProperty", property)
    }

    pub fn invalid_property(name: &str) -> Self {
        Self::new("InvalidProperty", format!("The property '{name}' does not exist on the type it is asked of.")).with("name", name)
    }

    pub fn invalid_request(why: &str) -> Self {
        Self::new("InvalidRequest", why)
    }

    pub fn not_supported() -> Self {
        Self::new("NotSupported", "The operation is not supported on the object.")
    }

    pub fn not_implemented(method: &str) -> Self {
        Self::new("NotImplemented", format!("This simulated vCenter does not have the method {method}."))
    }

    /// The operation wants the VM in state `requested`, it is in `existing`.
    pub fn power_state(requested: &str, existing: &str) -> Self {
        let state = match existing {
            "poweredOn" => "Powered on",
            "poweredOff" => "Powered off",
            other => other,
        };
        Self::new("InvalidPowerState", format!("The attempted operation cannot be performed in the current state ({state})."))
            .with("requestedState", requested)
            .with("existingState", existing)
    }

    pub fn task_in_progress(task: &ManagedObjectReference) -> Self {
        Self::new("TaskInProgress", "The operation is not allowed in the current state: another task is already in progress.")
            .with_reference("task", task)
    }

    pub fn no_disk_space(datastore: &str) -> Self {
        Self::new("NoDiskSpace", "There is insufficient disk space to complete the operation.")
            .with("file", &format!("[{datastore}]"))
            .with("datastore", datastore)
    }

    pub fn device(index: usize, why: &str) -> Self {
        Self::new("InvalidDeviceSpec", format!("Invalid configuration for device '{index}': {why}"))
            .with("property", &format!("virtualDeviceSpec.device[{index}]"))
            .with("deviceIndex", &index.to_string())
    }

    pub fn file_not_found(file: &str) -> Self {
        Self::new("FileNotFound", format!("File {file} was not found.")).with("file", file)
    }

    pub fn resource_in_use(name: &str) -> Self {
        Self::new("ResourceInUse", format!("The resource '{name}' is in use.")).with("name", name)
    }

    pub fn concurrent_access() -> Self {
        Self::new("ConcurrentAccess", "The object has changed since it was read.")
    }

    pub fn request_canceled() -> Self {
        Self::new("RequestCanceled", "The task was canceled by a user.")
    }

    pub fn collector_version(version: &str) -> Self {
        Self::new("InvalidCollectorVersion", format!("The version '{version}' is not one that this collector gave."))
    }

    pub fn tools_unavailable() -> Self {
        Self::new("ToolsUnavailable", "Cannot complete operation because VMware Tools is not running in this virtual machine.")
    }

    /// The fault a hook names; common ones get the members that clients read.
    pub fn named(kind: &str, on: &ManagedObjectReference) -> Self {
        match kind {
            "NotAuthenticated" => Self::not_authenticated(on),
            "InvalidLogin" => Self::invalid_login(),
            "NoPermission" => Self::no_permission(on, "System.Read"),
            "ManagedObjectNotFound" => Self::not_found(on),
            "NoDiskSpace" => Self::no_disk_space("datastore"),
            "NotSupported" => Self::not_supported(),
            "ResourceInUse" => Self::resource_in_use(&on.id),
            "ConcurrentAccess" => Self::concurrent_access(),
            "RequestCanceled" => Self::request_canceled(),
            "TaskInProgress" => Self::task_in_progress(on),
            other => Self::new(other, format!("{other} (asked for by a test)")),
        }
    }

    /// As the answer to a call.
    pub fn to_soap(&self) -> Fault {
        Fault::server(self.message.clone(), (*self.fault).clone())
    }

    /// As a member of another object.
    pub fn localized(&self) -> LocalizedMethodFault {
        LocalizedMethodFault { fault: (*self.fault).clone(), message: Some(self.message.clone()) }
    }
}
