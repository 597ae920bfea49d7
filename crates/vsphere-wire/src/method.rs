//! The methods: one struct for each with its parameters in the order of the wire, and the type of its result. Both sides use the same: the client encodes a
//! request and decodes the result, the server the other way round.

use jiff::Timestamp;

use crate::machine::{VirtualMachineCloneSpec, VirtualMachineConfigSpec};
use crate::property::{PropertyFilterSpec, RetrieveOptions, RetrieveResult, UpdateSet, WaitOptions};
use crate::service::{ServiceContent, UserSession};
use crate::value::{DecodeError, Field, ManagedObjectReference, Value, read_strictly};
use crate::xml::Element;

/// A method: its parameters and the type of its result.
pub trait Method: Value {
    /// The element's name: `CloneVM_Task`.
    const NAME: &'static str;
    /// The type of the result.
    type Output: Field + Clone + std::fmt::Debug + PartialEq;

    /// The object that the method is called on.
    fn this(&self) -> &ManagedObjectReference;
}

/// The request's body element.
pub fn request_element<M: Method>(method: &M) -> Element {
    let mut element = Element::vim(M::NAME);
    method.write(&mut element);
    element
}

/// The response's body element.
pub fn response_element<M: Method>(output: &M::Output) -> Element {
    let mut element = Element::vim(format!("{}Response", M::NAME));
    output.put("returnval", &mut element);
    element
}

/// Reads a response's body element.
///
/// # Errors
/// When it is another method's, or not readable.
pub fn read_response<M: Method>(element: &Element) -> Result<M::Output, DecodeError> {
    if element.local().strip_suffix("Response") != Some(M::NAME) {
        let name = element.local().to_owned();
        return Err(DecodeError::Type { element: name.clone(), found: name, expected: M::NAME });
    }
    M::Output::take("returnval", element)
}

macro_rules! methods {
    ($($(#[$meta:meta])* $name:ident = $wire:literal { $($field:ident : $type:ty = $field_wire:literal),* $(,)? } -> $output:ty;)*) => {
        data! {
            $($(#[$meta])* $name = $wire { this: ManagedObjectReference = "_this", $($field: $type = $field_wire),* })*
        }

        $(
            impl Method for $name {
                const NAME: &'static str = $wire;
                type Output = $output;

                fn this(&self) -> &ManagedObjectReference {
                    &self.this
                }
            }
        )*

        /// A request of any method.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant)] // lives for one call
        pub enum Request {
            $($(#[$meta])* $name($name),)*
            /// A method that this list does not have.
            Other(Element),
        }

        /// A response of any method.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant)] // lives for one call
        pub enum Response {
            $($(#[$meta])* $name(<$name as Method>::Output),)*
            /// A method that this list does not have.
            Other(Element),
        }

        impl Request {
            /// The names of all methods in the list.
            pub const NAMES: &[&str] = &[$($wire),*];

            /// Reads a request's body element; what the method does not know is passed over.
            ///
            /// # Errors
            /// When a parameter is missing or unreadable.
            pub fn read(element: &Element) -> Result<Self, DecodeError> {
                match element.local() {
                    $($wire => Ok(Self::$name(Value::read(element)?)),)*
                    _ => Ok(Self::Other(element.clone())),
                }
            }

            /// Reads a request's body element as a real vCenter does: unknown or misplaced elements are refused.
            ///
            /// # Errors
            /// As [`Self::read`], and when something is left over.
            pub fn read_strictly(element: &Element) -> Result<Self, DecodeError> {
                match element.local() {
                    $($wire => Ok(Self::$name(read_strictly(element)?)),)*
                    _ => Ok(Self::Other(element.clone())),
                }
            }

            /// The method's name.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$name(_) => $wire,)*
                    Self::Other(element) => element.local(),
                }
            }

            /// The object that the method is called on.
            pub fn this(&self) -> Option<ManagedObjectReference> {
                match self {
                    $(Self::$name(method) => Some(method.this.clone()),)*
                    Self::Other(element) => element.child("_this").and_then(|this| Value::read(this).ok()),
                }
            }

            /// The body element.
            pub fn to_element(&self) -> Element {
                match self {
                    $(Self::$name(method) => request_element(method),)*
                    Self::Other(element) => element.clone(),
                }
            }
        }

        impl Response {
            /// Reads a response's body element.
            ///
            /// # Errors
            /// When the result is unreadable.
            pub fn read(element: &Element) -> Result<Self, DecodeError> {
                match element.local().strip_suffix("Response") {
                    $(Some($wire) => Ok(Self::$name(read_response::<$name>(element)?)),)*
                    _ => Ok(Self::Other(element.clone())),
                }
            }

            /// The body element.
            pub fn to_element(&self) -> Element {
                match self {
                    $(Self::$name(output) => response_element::<$name>(output),)*
                    Self::Other(element) => element.clone(),
                }
            }
        }
    };
}

type Reference = ManagedObjectReference;

methods! {
    /// ServiceInstance: the managers; needs no session.
    RetrieveServiceContent = "RetrieveServiceContent" {} -> ServiceContent;
    /// ServiceInstance: the server's time; needs no session.
    CurrentTime = "CurrentTime" {} -> Timestamp;
    /// SessionManager.
    Login = "Login" { user_name: String = "userName", password: String = "password", locale: Option<String> = "locale" } -> UserSession;
    /// SessionManager.
    Logout = "Logout" {} -> ();
    /// PropertyCollector: reads properties; the first page.
    RetrievePropertiesEx = "RetrievePropertiesEx" { specs: Vec<PropertyFilterSpec> = "specSet", options: RetrieveOptions = "options" } -> Option<RetrieveResult>;
    /// PropertyCollector: a further page.
    ContinueRetrievePropertiesEx = "ContinueRetrievePropertiesEx" { token: String = "token" } -> RetrieveResult;
    /// PropertyCollector: gives up the further pages.
    CancelRetrievePropertiesEx = "CancelRetrievePropertiesEx" { token: String = "token" } -> ();
    /// PropertyCollector: another collector for this session.
    CreatePropertyCollector = "CreatePropertyCollector" {} -> Reference;
    /// PropertyCollector.
    DestroyPropertyCollector = "DestroyPropertyCollector" {} -> ();
    /// PropertyCollector: what to watch.
    CreateFilter = "CreateFilter" { spec: PropertyFilterSpec = "spec", is_partial: bool = "partialUpdates" } -> Reference;
    /// PropertyFilter.
    DestroyPropertyFilter = "DestroyPropertyFilter" {} -> ();
    /// PropertyCollector: waits for changes since a version.
    WaitForUpdatesEx = "WaitForUpdatesEx" { version: Option<String> = "version", options: Option<WaitOptions> = "options" } -> Option<UpdateSet>;
    /// PropertyCollector: ends a wait.
    CancelWaitForUpdates = "CancelWaitForUpdates" {} -> ();
    /// ViewManager: all objects of some types below a container.
    CreateContainerView = "CreateContainerView" { container: Reference = "container", kinds: Vec<String> = "type", is_recursive: bool = "recursive" } -> Reference;
    /// ViewManager: a list of objects.
    CreateListView = "CreateListView" { objects: Vec<Reference> = "obj" } -> Reference;
    /// ListView: adds and removes objects; answers those that do not exist.
    ModifyListView = "ModifyListView" { added: Vec<Reference> = "add", removed: Vec<Reference> = "remove" } -> Vec<Reference>;
    /// View.
    DestroyView = "DestroyView" {} -> ();
    /// SearchIndex: by `Datacenter/vm/folder/name`.
    FindByInventoryPath = "FindByInventoryPath" { inventory_path: String = "inventoryPath" } -> Option<Reference>;
    /// SearchIndex: one machine or host.
    FindByUuid = "FindByUuid" {
        datacenter: Option<Reference> = "datacenter",
        uuid: String = "uuid",
        is_vm_search: bool = "vmSearch",
        is_instance_uuid: Option<bool> = "instanceUuid",
    } -> Option<Reference>;
    /// SearchIndex: all machines or hosts.
    FindAllByUuid = "FindAllByUuid" {
        datacenter: Option<Reference> = "datacenter",
        uuid: String = "uuid",
        is_vm_search: bool = "vmSearch",
        is_instance_uuid: Option<bool> = "instanceUuid",
    } -> Vec<Reference>;
    /// Folder: makes a folder in it.
    CreateFolder = "CreateFolder" { name: String = "name" } -> Reference;
    /// VirtualMachine: a copy, in `folder`.
    CloneVm = "CloneVM_Task" { folder: Reference = "folder", name: String = "name", spec: VirtualMachineCloneSpec = "spec" } -> Reference;
    /// VirtualMachine.
    ReconfigureVm = "ReconfigVM_Task" { spec: VirtualMachineConfigSpec = "spec" } -> Reference;
    /// VirtualMachine.
    PowerOnVm = "PowerOnVM_Task" { host: Option<Reference> = "host" } -> Reference;
    /// VirtualMachine.
    PowerOffVm = "PowerOffVM_Task" {} -> Reference;
    /// VirtualMachine: asks the guest to shut down; needs VMware tools.
    ShutdownGuest = "ShutdownGuest" {} -> ();
    /// ManagedEntity: destroys it; a machine with its disks, a folder with all in it.
    Destroy = "Destroy_Task" {} -> Reference;
    /// ManagedEntity: another name.
    Rename = "Rename_Task" { new_name: String = "newName" } -> Reference;
    /// VirtualMachine.
    CreateSnapshot = "CreateSnapshot_Task" {
        name: String = "name",
        description: Option<String> = "description",
        with_memory: bool = "memory",
        is_quiesced: bool = "quiesce",
    } -> Reference;
    /// VirtualMachine: makes a template of it.
    MarkAsTemplate = "MarkAsTemplate" {} -> ();
    /// VirtualMachine: makes a machine of a template.
    MarkAsVirtualMachine = "MarkAsVirtualMachine" { pool: Reference = "pool", host: Option<Reference> = "host" } -> ();
    /// Task: asks it to stop.
    CancelTask = "CancelTask" {} -> ();
}
