//! The SOAP 1.1 envelope: an optional `operationID` header (for vpxd's logs) and a body with one element, or a fault.

use thiserror::Error;

use crate::fault::MethodFault;
use crate::value::{DecodeError, Value};
use crate::xml::{Element, Name, Namespace, XmlError};

/// Why a message is no SOAP envelope.
#[derive(Debug, Error)]
pub enum SoapError {
    #[error(transparent)]
    Xml(#[from] XmlError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// XML, but no envelope with a body that holds exactly one element.
    #[error("no SOAP envelope: {reason}")]
    Envelope { reason: String },
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Header elements, as they are.
    pub headers: Vec<Element>,
    /// The one element of the body.
    pub body: Element,
}

impl Envelope {
    /// A message without headers.
    pub fn new(body: Element) -> Self {
        Self { headers: Vec::new(), body }
    }

    /// The same with the `operationID` header.
    #[must_use]
    pub fn with_operation_id(mut self, id: impl Into<String>) -> Self {
        self.headers.push(Element::vim("operationID").with_text(id));
        self
    }

    /// The `operationID` header.
    pub fn operation_id(&self) -> Option<&str> {
        self.headers.iter().find(|header| header.local() == "operationID").map(|header| header.text.as_str())
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When it is no envelope.
    pub fn parse(document: &str) -> Result<Self, SoapError> {
        let wrong = |reason: String| SoapError::Envelope { reason };
        let root = Element::parse(document)?;
        if root.name != soap("Envelope") {
            return Err(wrong(format!("the root element is <{}>", root.local())));
        }
        let mut headers = Vec::new();
        let mut body = None;
        for child in root.children {
            if child.name == soap("Header") {
                headers = child.children;
            } else if child.name == soap("Body") {
                body = Some(child);
            }
        }
        let body = body.ok_or_else(|| wrong("there is no body".to_owned()))?;
        let mut children = body.children.into_iter();
        match (children.next(), children.next()) {
            (Some(body), None) => Ok(Self { headers, body }),
            (None, _) => Err(wrong("the body is empty".to_owned())),
            (Some(_), Some(_)) => Err(wrong("the body holds more than one element".to_owned())),
        }
    }

    /// Writes the message.
    pub fn to_document(&self) -> String {
        let mut root = Element::named(soap("Envelope"));
        if !self.headers.is_empty() {
            let mut header = Element::named(soap("Header"));
            header.children.clone_from(&self.headers);
            root.children.push(header);
        }
        root.children.push(Element::named(soap("Body")).with_child(self.body.clone()));
        root.to_document()
    }

    /// The fault, when the body is one.
    ///
    /// # Errors
    /// When the fault cannot be read.
    pub fn fault(&self) -> Result<Option<Fault>, DecodeError> {
        if self.body.name == soap("Fault") { Fault::read(&self.body).map(Some) } else { Ok(None) }
    }
}

fn soap(local: &'static str) -> Name {
    Name::new(Namespace::Soap, local)
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `ServerFaultCode` on vCenter.
    pub code: String,
    /// The message for people.
    pub text: String,
    /// The fault as data, under the name of its element (`InvalidLoginFault`). Absent when the server itself broke.
    pub detail: Option<FaultDetail>,
}

/// The element inside a fault's `detail`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultDetail {
    pub element: Name,
    pub fault: MethodFault,
}

impl Fault {
    /// What vCenter answers when a method fails with `fault`.
    pub fn server(text: impl Into<String>, fault: MethodFault) -> Self {
        let element = Name::new(fault.kind.namespace.clone(), format!("{}Fault", fault.kind.local));
        Self { code: "ServerFaultCode".to_owned(), text: text.into(), detail: Some(FaultDetail { element, fault }) }
    }

    /// The fault as data.
    pub fn method_fault(&self) -> Option<&MethodFault> {
        self.detail.as_ref().map(|detail| &detail.fault)
    }

    /// The fault's type: `InvalidLogin`; empty when there is none.
    pub fn kind(&self) -> &str {
        self.method_fault().map_or("", MethodFault::kind)
    }

    /// The body element.
    pub fn to_element(&self) -> Element {
        let plain = |local: &'static str, text: &str| Element::named(Name::new(Namespace::None, local)).with_text(text);
        let mut element = Element::named(soap("Fault"));
        element.children.push(plain("faultcode", &self.code));
        element.children.push(plain("faultstring", &self.text));
        if let Some(detail) = &self.detail {
            let mut inner = Element::named(detail.element.clone()).with_type(detail.fault.kind.clone());
            detail.fault.write(&mut inner);
            element.children.push(Element::named(Name::new(Namespace::None, "detail")).with_child(inner));
        }
        element
    }

    fn read(element: &Element) -> Result<Self, DecodeError> {
        let detail = match element.child("detail").and_then(|detail| detail.children.first()) {
            Some(inner) => Some(FaultDetail { element: inner.name.clone(), fault: detail_fault(inner)? }),
            None => None,
        };
        Ok(Self {
            code: element.child_text("faultcode").unwrap_or_default().to_owned(),
            text: element.child_text("faultstring").unwrap_or_default().to_owned(),
            detail,
        })
    }
}

/// The fault of a detail element. Without `xsi:type` the element's name tells the type: `NotFoundFault` is a `NotFound`.
fn detail_fault(element: &Element) -> Result<MethodFault, DecodeError> {
    let mut fault = MethodFault::read(element)?;
    if element.type_name.is_none() {
        let local = element.local().strip_suffix("Fault").unwrap_or(element.local()).to_owned();
        fault.kind = Name::new(element.name.namespace.clone(), local);
    }
    Ok(fault)
}
