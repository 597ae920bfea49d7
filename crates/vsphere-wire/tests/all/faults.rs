//! Faults keep their type, message, cause and members, whatever they are.

use vsphere_wire::fault::LocalizedMethodFault;
use vsphere_wire::{Envelope, Fault, ManagedObjectReference, MethodFault};

#[test]
fn a_fault_keeps_cause_and_members() {
    let cause = LocalizedMethodFault {
        fault: MethodFault::new("FileLocked").with("file", &"[ds] base.vmdk".to_owned()),
        message: Some("Unable to access file since it is locked".to_owned()),
    };
    let mut fault = MethodFault::new("TaskInProgress").with("task", &ManagedObjectReference::new("Task", "task-7"));
    fault.cause = Some(Box::new(cause));
    let sent = Fault::server("busy", fault);
    let read = Envelope::parse(&Envelope::new(sent.to_element()).to_document()).unwrap().fault().unwrap().unwrap();
    assert_eq!(read, sent);
    assert_eq!(read.kind(), "TaskInProgress");
    let fault = read.method_fault().unwrap();
    assert_eq!(fault.reference("task"), Some(ManagedObjectReference::new("Task", "task-7")));
    assert_eq!(fault.cause.as_ref().unwrap().fault.detail("file"), Some("[ds] base.vmdk"));
}

#[test]
fn a_fault_without_type_is_named_by_its_element() {
    let text = r#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault><faultcode>ServerFaultCode</faultcode>
        <faultstring>gone</faultstring><detail><ManagedObjectNotFoundFault xmlns="urn:vim25"><obj type="Task">task-1</obj></ManagedObjectNotFoundFault></detail>
        </e:Fault></e:Body></e:Envelope>"#;
    let fault = Envelope::parse(text).unwrap().fault().unwrap().unwrap();
    assert_eq!(fault.kind(), "ManagedObjectNotFound");
    assert_eq!(fault.method_fault().unwrap().reference("obj").unwrap().id, "task-1");
}

#[test]
fn a_fault_of_the_server_itself_has_no_detail() {
    let text = r#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault><faultcode>e:Client</faultcode>
        <faultstring>bad request</faultstring></e:Fault></e:Body></e:Envelope>"#;
    let fault = Envelope::parse(text).unwrap().fault().unwrap().unwrap();
    assert_eq!((fault.kind(), fault.text.as_str()), ("", "bad request"));
}
