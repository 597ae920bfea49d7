//! What can go wrong with vCenter, and what to do about it.
//!
//! Each error says what, why, evidence and remedy; its [`Reaction`] tells the controllers how to go on (a table of every fault that the operations meet).
//! No password ever gets here: errors are made from what the server said and from names, never from requests.

use std::time::Duration;

use thiserror::Error;
use vsphere_wire::service::TaskInfo;
use vsphere_wire::{Fault, LocalizedMethodFault, ManagedObjectReference, MethodFault};

/// How to go on after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The server cannot be reached or asks for patience: again, with growing delay.
    Later,
    /// The object is busy, or in a state that passes: again after some seconds.
    Busy,
    /// No room or no host at the moment: again after a minute.
    Capacity,
    /// The login was refused: wait for other credentials, try the same ones again only after minutes.
    Credentials,
    /// The request or the rights are wrong: nothing but a change by a person helps.
    Permanent,
    /// The object is not there (any more): look again; when it was to go, it is well.
    Gone,
    /// The name is taken: look whose it is.
    Duplicate,
    /// What was asked for is so already.
    Done,
}

impl Reaction {
    /// How long to wait before trying again, when nothing changes meanwhile. None: with the growing delay of failures.
    pub fn delay(self) -> Option<Duration> {
        match self {
            Self::Later | Self::Gone | Self::Duplicate => None,
            Self::Done => Some(Duration::ZERO),
            Self::Busy => Some(Duration::from_secs(5)),
            Self::Capacity => Some(Duration::from_secs(60)),
            Self::Credentials | Self::Permanent => Some(Duration::from_secs(300)),
        }
    }
}

/// Why an operation on vCenter failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum VSphereError {
    /// No connection, no answer in time, or the server is starting.
    #[error("vCenter {server} is not reachable: {reason}; trying again")]
    Unreachable { server: String, reason: String },
    /// The request was sent, the answer did not come: the effect may have happened.
    #[error("vCenter {server} did not answer {method}: {reason}; whether it took effect has to be looked up")]
    Unanswered { server: String, method: String, reason: String },
    /// The certificate is not signed by a trusted authority.
    #[error("the certificate of vCenter {server} is not trusted: {reason}; give its thumbprint (spec.thumbprint) or its authority")]
    Untrusted { server: String, reason: String },
    /// The certificate is another one.
    #[error(
        "vCenter {server} shows a certificate with the thumbprint {presented}, expected {expected}; if the certificate was renewed, put the new one in spec.thumbprint"
    )]
    Thumbprint { server: String, expected: String, presented: String },
    /// There is nothing to check the server by.
    #[error(
        "there is nothing to verify vCenter {server} by: neither a thumbprint nor an authority is given; set spec.thumbprint{}",
        presented.as_ref().map(|shown| format!(" (the server shows {shown}; compare it with what vCenter's console says)")).unwrap_or_default()
    )]
    NoTrust { server: String, presented: Option<String> },
    /// Wrong user name or password, or an account without rights.
    #[error(
        "vCenter {server} refused the login of {user}: {reason}; correct user name and password in the identity secret (the same ones are not tried again before {retry_minutes} min have passed, so that the account is not locked)"
    )]
    Login { server: String, user: String, reason: String, retry_minutes: u64 },
    /// The server is none that can be worked with.
    #[error("{server} is no vCenter that can be used: {reason}")]
    Server { server: String, reason: String },
    /// A method or a task failed.
    #[error("{action} failed: {}{}", .fault, remedy(.fault))]
    Fault { action: String, fault: Box<FaultReport> },
    /// An answer could not be read.
    #[error("vCenter {server} answered {method} with something unreadable: {reason}")]
    Protocol { server: String, method: String, reason: String },
    /// Something that the manifests name does not exist.
    #[error("{what} {wanted:?} was not found in {place}{}", suggestion(.near))]
    Missing { what: &'static str, wanted: String, place: String, near: Vec<String> },
    /// A name that stands for several things.
    #[error("{what} {wanted:?} is not one thing in {place}: it matches {}; give the full path or the id", .found.join(", "))]
    Ambiguous { what: &'static str, wanted: String, place: String, found: Vec<String> },
    /// A linked clone wants a snapshot.
    #[error(
        "template {template} has no snapshot{}, and cloneMode is linkedClone: take a snapshot of it while it is a virtual machine (govc snapshot.create -vm {template} base), or set cloneMode: fullClone",
        .wanted.as_ref().map(|name| format!(" called {name:?}")).unwrap_or_default()
    )]
    NoSnapshot { template: String, wanted: Option<String> },
    /// The specification cannot be carried out.
    #[error("{reason}")]
    Refused { reason: String },
}

impl VSphereError {
    /// How to go on.
    pub fn reaction(&self) -> Reaction {
        match self {
            Self::Unreachable { .. } | Self::Unanswered { .. } | Self::Protocol { .. } => Reaction::Later,
            Self::Login { .. } => Reaction::Credentials,
            Self::Untrusted { .. } | Self::Thumbprint { .. } | Self::NoTrust { .. } | Self::Server { .. } => Reaction::Permanent,
            Self::Missing { .. } | Self::Ambiguous { .. } | Self::NoSnapshot { .. } | Self::Refused { .. } => Reaction::Permanent,
            Self::Fault { fault, .. } => fault.reaction(),
        }
    }

    /// Whether the call may have taken effect although it failed.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Unanswered { .. } | Self::Protocol { .. })
    }

    /// Whether vCenter itself cannot be worked with (as opposed to this one request).
    pub fn is_about_server(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Unanswered { .. }
                | Self::Untrusted { .. }
                | Self::Thumbprint { .. }
                | Self::NoTrust { .. }
                | Self::Login { .. }
                | Self::Server { .. }
        )
    }

    /// Whether a managed object does not exist (any more).
    pub fn is_gone(&self) -> bool {
        self.reaction() == Reaction::Gone
    }
}

/// A fault, told in full: the outermost one is often the least telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultReport {
    /// The type's name.
    pub kind: String,
    /// The server's message.
    pub message: String,
    /// Members that matter: `privilegeId`, `invalidProperty`, `existingState` and such.
    pub details: Vec<(String, String)>,
    /// What a DuplicateName, NoPermission or ManagedObjectNotFound is about.
    pub object: Option<ManagedObjectReference>,
    /// The causes behind it, outermost first.
    pub causes: Vec<String>,
}

/// Members of faults that are shown.
const SHOWN: [&str; 10] =
    ["privilegeId", "invalidProperty", "existingState", "requestedState", "name", "datastore", "file", "path", "reason", "property"];

impl FaultReport {
    /// What a call answered.
    pub fn of_call(fault: &Fault) -> Self {
        match fault.method_fault() {
            Some(method_fault) => Self::of(method_fault, Some(&fault.text)),
            None => Self { kind: String::new(), message: fault.text.clone(), details: Vec::new(), object: None, causes: Vec::new() },
        }
    }

    /// What a task ended with.
    pub fn of_task(info: &TaskInfo) -> Option<Self> {
        info.error.as_ref().map(Self::of_localized)
    }

    /// A fault with its message.
    pub fn of_localized(fault: &LocalizedMethodFault) -> Self {
        Self::of(&fault.fault, fault.message.as_deref())
    }

    fn of(fault: &MethodFault, message: Option<&str>) -> Self {
        let mut causes: Vec<String> = fault.messages.iter().filter_map(|message| message.message.clone()).collect();
        let mut cause = fault.cause.as_deref();
        while let Some(inner) = cause {
            causes.push(format!("{} ({})", inner.message.as_deref().unwrap_or("no message"), inner.fault.kind()));
            causes.extend(inner.fault.messages.iter().filter_map(|message| message.message.clone()));
            cause = inner.fault.cause.as_deref();
        }
        let details = SHOWN.iter().filter_map(|member| fault.detail(member).map(|text| ((*member).to_owned(), text.to_owned()))).collect();
        let object = fault.reference("object").or_else(|| fault.reference("obj"));
        Self { kind: fault.kind().to_owned(), message: message.unwrap_or_default().to_owned(), details, object, causes }
    }

    /// The value of a member.
    pub fn detail(&self, member: &str) -> Option<&str> {
        self.details.iter().find(|(name, _)| name == member).map(|(_, text)| text.as_str())
    }

    /// How to go on.
    pub fn reaction(&self) -> Reaction {
        match self.kind.as_str() {
            "NotAuthenticated"
            | "RequestCanceled"
            | "InvalidCollectorVersion"
            | "HostCommunication"
            | "HostNotConnected"
            | "HostNotReachable" => Reaction::Later,
            "InvalidLogin" | "InvalidLocale" => Reaction::Credentials,
            "NoPermission" | "RestrictedVersion" | "NotSupported" | "InvalidArgument" | "InvalidRequest" | "InvalidType" => {
                Reaction::Permanent
            }
            "InvalidDeviceSpec" | "InvalidDeviceBacking" | "InvalidDatastorePath" | "InvalidFolder" | "InvalidName" | "VmConfigFault" => {
                Reaction::Permanent
            }
            "InvalidProperty" | "MissingPropertySpec" | "CustomizationFault" | "SnapshotFault" | "CannotCreateFile" => Reaction::Permanent,
            "ManagedObjectNotFound" | "NotFound" => Reaction::Gone,
            "DuplicateName" => Reaction::Duplicate,
            "InvalidPowerState"
                if self.detail("existingState").is_some() && self.detail("existingState") == self.detail("requestedState") =>
            {
                Reaction::Done
            }
            "NoDiskSpace" | "InsufficientResourcesFault" | "InsufficientHostCapacityFault" | "InsufficientCpuResourcesFault" => {
                Reaction::Capacity
            }
            "InsufficientMemoryResourcesFault" | "InsufficientStorageSpace" | "NoCompatibleHost" | "NotEnoughLicenses" => {
                Reaction::Capacity
            }
            "InvalidDatastore" | "DatastoreNotWritableOnHost" | "InaccessibleDatastore" | "AlreadyExists" | "FileAlreadyExists" => {
                Reaction::Capacity
            }
            // TaskInProgress, ConcurrentAccess, ResourceInUse, FileLocked, InvalidState, VmInvalidState, InvalidPowerState and what nobody has met yet.
            _ => Reaction::Busy,
        }
    }
}

impl std::fmt::Display for FaultReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let has_text = !self.message.is_empty() && !self.message.contains(&self.kind);
        match (has_text, self.kind.is_empty()) {
            (true, false) => write!(f, "{} ({}", self.message, self.kind)?,
            (true, true) => write!(f, "{} (", self.message)?,
            (false, _) => write!(f, "{} (", if self.kind.is_empty() { "unknown fault" } else { &self.kind })?,
        }
        let mut separator = if has_text && !self.kind.is_empty() { ": " } else { "" };
        let mut is_detailed = has_text && !self.kind.is_empty();
        for (member, text) in &self.details {
            write!(f, "{separator}{member} {text}")?;
            separator = ", ";
            is_detailed = true;
        }
        if let Some(object) = &self.object {
            write!(f, "{separator}on {object}")?;
            is_detailed = true;
        }
        f.write_str(if is_detailed { ")" } else { "no details)" })?;
        for cause in &self.causes {
            write!(f, "; because: {cause}")?;
        }
        Ok(())
    }
}

fn remedy(fault: &FaultReport) -> &'static str {
    match fault.kind.as_str() {
        "NoPermission" => "; give the account a role with this privilege on this object",
        "NoDiskSpace" | "InsufficientStorageSpace" => "; free space on the datastore or name another one",
        "NoCompatibleHost" => "; check that a host of the pool reaches the datastore and the networks",
        "NotEnoughLicenses" => "; a licence is missing in vCenter",
        "DuplicateName" => "; another object of this name is in the folder: rename or remove it",
        "FileAlreadyExists" | "AlreadyExists" => {
            "; a directory of this name was left on the datastore: remove it, or wait until whoever owns it has gone"
        }
        "InvalidArgument" | "InvalidDeviceSpec" | "NotSupported" => "; the specification does not fit this vCenter or template",
        _ => "",
    }
}

fn suggestion(near: &[String]) -> String {
    match near {
        [] => "; there is none at all".to_owned(),
        [one] => format!("; there is {one:?}"),
        several => format!("; there are {}", several.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(fault: MethodFault, message: &str) -> FaultReport {
        FaultReport::of_call(&Fault::server(message, fault))
    }

    #[test]
    fn every_known_fault_has_its_reaction() {
        for (kind, reaction) in [
            ("NotAuthenticated", Reaction::Later),
            ("InvalidLogin", Reaction::Credentials),
            ("NoPermission", Reaction::Permanent),
            ("ManagedObjectNotFound", Reaction::Gone),
            ("DuplicateName", Reaction::Duplicate),
            ("FileAlreadyExists", Reaction::Capacity),
            ("TaskInProgress", Reaction::Busy),
            ("ConcurrentAccess", Reaction::Busy),
            ("ResourceInUse", Reaction::Busy),
            ("FileLocked", Reaction::Busy),
            ("InvalidState", Reaction::Busy),
            ("VmInvalidState", Reaction::Busy),
            ("NoDiskSpace", Reaction::Capacity),
            ("InsufficientResourcesFault", Reaction::Capacity),
            ("NoCompatibleHost", Reaction::Capacity),
            ("NotEnoughLicenses", Reaction::Capacity),
            ("InvalidDatastore", Reaction::Capacity),
            ("HostNotConnected", Reaction::Later),
            ("HostCommunication", Reaction::Later),
            ("DatastoreNotWritableOnHost", Reaction::Capacity),
            ("VmConfigFault", Reaction::Permanent),
            ("InvalidArgument", Reaction::Permanent),
            ("NotSupported", Reaction::Permanent),
            ("InvalidDeviceSpec", Reaction::Permanent),
            ("RequestCanceled", Reaction::Later),
            ("InvalidCollectorVersion", Reaction::Later),
            ("SomethingNew", Reaction::Busy),
        ] {
            assert_eq!(report(MethodFault::new(kind), "").reaction(), reaction, "{kind}");
        }
    }

    #[test]
    fn a_power_state_that_is_there_already_is_done() {
        let fault = |existing: &str| {
            MethodFault::new("InvalidPowerState")
                .with("requestedState", &"poweredOn".to_owned())
                .with("existingState", &existing.to_owned())
        };
        assert_eq!(report(fault("poweredOn"), "").reaction(), Reaction::Done);
        assert_eq!(report(fault("suspended"), "").reaction(), Reaction::Busy);
    }

    #[test]
    fn a_fault_is_told_with_privilege_object_and_causes() {
        let mut fault = MethodFault::new("NoPermission")
            .with("object", &ManagedObjectReference::new("Folder", "group-v3"))
            .with("privilegeId", &"VirtualMachine.Inventory.CreateFromExisting".to_owned());
        fault.cause = Some(Box::new(LocalizedMethodFault {
            fault: MethodFault::new("RestrictedVersion"),
            message: Some("The licence forbids it".to_owned()),
        }));
        let fault = Box::new(report(fault, "Permission to perform this operation was denied."));
        let error = VSphereError::Fault { action: "cloning node".to_owned(), fault };
        insta::assert_snapshot!(error.to_string(), @"cloning node failed: Permission to perform this operation was denied. (NoPermission: privilegeId VirtualMachine.Inventory.CreateFromExisting, on Folder:group-v3); because: The licence forbids it (RestrictedVersion); give the account a role with this privilege on this object");
    }

    #[test]
    fn errors_say_evidence_and_remedy() {
        let near = vec!["VM Network".to_owned(), "VM Network 2".to_owned()];
        let missing = VSphereError::Missing { what: "network", wanted: "VM Netwrk".to_owned(), place: "datacenter DC0".to_owned(), near };
        insta::assert_snapshot!(missing.to_string(), @r#"network "VM Netwrk" was not found in datacenter DC0; there are "VM Network", "VM Network 2""#);
        let thumbprint = VSphereError::Thumbprint { server: "vc".to_owned(), expected: "AA".to_owned(), presented: "BB".to_owned() };
        assert!(thumbprint.to_string().contains("AA") && thumbprint.to_string().contains("BB"));
        let snapshot = VSphereError::NoSnapshot { template: "talos".to_owned(), wanted: None };
        insta::assert_snapshot!(snapshot.to_string(), @"template talos has no snapshot, and cloneMode is linkedClone: take a snapshot of it while it is a virtual machine (govc snapshot.create -vm talos base), or set cloneMode: fullClone");
    }
}
