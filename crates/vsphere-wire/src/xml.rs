//! XML as a small tree: what SOAP needs and no more.
//!
//! Names carry their namespace (resolved by URI; servers bind `xsi` to whatever prefix they like), `xsi:type` is resolved and kept apart from
//! the other attributes, namespace declarations are not kept. Data have either text or child elements: other mixed content is refused, as are
//! document type declarations. Order of children is kept. What was read and written again is equal to what was read.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};
use thiserror::Error;

/// Deeper documents are refused: no message of ours comes near it (folders of virtual disk chains do not nest in XML more than about 40).
const MAX_DEPTH: usize = 256;

const VIM: &str = "urn:vim25";
const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const INSTANCE: &str = "http://www.w3.org/2001/XMLSchema-instance";
const SCHEMA: &str = "http://www.w3.org/2001/XMLSchema";
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// Why a document is not such a tree.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum XmlError {
    /// Not well-formed.
    #[error("not well-formed XML at byte {position}: {reason}")]
    Malformed { position: u64, reason: String },
    /// Well-formed, but nothing that SOAP sends.
    #[error("unexpected XML at byte {position}: {reason}")]
    Unsupported { position: u64, reason: &'static str },
}

/// A namespace, by URI.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// No namespace.
    None,
    /// `urn:vim25`: vCenter's own.
    Vim,
    /// The SOAP 1.1 envelope.
    Soap,
    /// XML Schema instance: `xsi`.
    Instance,
    /// XML Schema's built-in types: `xsd`.
    Schema,
    /// Any other URI.
    Other(Arc<str>),
}

impl Namespace {
    /// The namespace with this URI.
    pub fn from_uri(uri: &str) -> Self {
        match uri {
            "" => Self::None,
            VIM => Self::Vim,
            SOAP => Self::Soap,
            INSTANCE => Self::Instance,
            SCHEMA => Self::Schema,
            other => Self::Other(Arc::from(other)),
        }
    }

    /// Its URI; empty for none.
    pub fn uri(&self) -> &str {
        match self {
            Self::None => "",
            Self::Vim => VIM,
            Self::Soap => SOAP,
            Self::Instance => INSTANCE,
            Self::Schema => SCHEMA,
            Self::Other(uri) => uri,
        }
    }
}

/// A name in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub namespace: Namespace,
    pub local: Cow<'static, str>,
}

impl Name {
    /// A name in `namespace`.
    pub fn new(namespace: Namespace, local: impl Into<Cow<'static, str>>) -> Self {
        Self { namespace, local: local.into() }
    }

    /// A name in vCenter's namespace.
    pub fn vim(local: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Namespace::Vim, local)
    }

    /// A name of XML Schema.
    pub fn schema(local: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Namespace::Schema, local)
    }
}

/// An element with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub name: Name,
    /// `xsi:type`, resolved.
    pub type_name: Option<Name>,
    /// The other attributes, in document order.
    pub attributes: Vec<(Name, String)>,
    /// The text, when there are no child elements.
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    /// An empty element in vCenter's namespace.
    pub fn vim(local: impl Into<Cow<'static, str>>) -> Self {
        Self::named(Name::vim(local))
    }

    /// An empty element.
    pub fn named(name: Name) -> Self {
        Self { name, type_name: None, attributes: Vec::new(), text: String::new(), children: Vec::new() }
    }

    /// The same with this text.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// The same with this `xsi:type`.
    #[must_use]
    pub fn with_type(mut self, type_name: Name) -> Self {
        self.type_name = Some(type_name);
        self
    }

    /// The same with one more child.
    #[must_use]
    pub fn with_child(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    /// The local part of the name.
    pub fn local(&self) -> &str {
        &self.name.local
    }

    /// The local part of `xsi:type`.
    pub fn type_local(&self) -> Option<&str> {
        self.type_name.as_ref().map(|name| name.local.as_ref())
    }

    /// The first child with this local name.
    pub fn child(&self, local: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name.local == local)
    }

    /// The children with this local name.
    pub fn children_named<'a>(&'a self, local: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name.local == local)
    }

    /// The text of the first child with this local name.
    pub fn child_text(&self, local: &str) -> Option<&str> {
        self.child(local).map(|child| child.text.as_str())
    }

    /// An attribute without namespace.
    pub fn attribute(&self, local: &str) -> Option<&str> {
        self.attributes.iter().find(|(name, _)| name.local == local && name.namespace == Namespace::None).map(|(_, value)| value.as_str())
    }

    /// Sets an attribute without namespace.
    pub fn set_attribute(&mut self, local: &'static str, value: impl Into<String>) {
        self.attributes.push((Name::new(Namespace::None, local), value.into()));
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it is not well-formed, or holds mixed content or a document type declaration.
    pub fn parse(document: &str) -> Result<Self, XmlError> {
        Parser { reader: Reader::from_str(document), scopes: Vec::new() }.document()
    }

    /// Writes a document, with declaration. The prefixes are always the same: `soapenv`, `xsi`, `xsd`, and the default namespace for the rest.
    pub fn to_document(&self) -> String {
        let mut out = String::with_capacity(1024);
        out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        self.write(&mut out, &Namespace::None, true);
        out
    }

    fn write(&self, out: &mut String, default: &Namespace, is_root: bool) {
        let prefix = fixed_prefix(&self.name.namespace);
        out.push('<');
        push_name(out, prefix, &self.name.local);
        let mut inner = default.clone();
        if is_root {
            for (prefix, uri) in [("soapenv", SOAP), ("xsd", SCHEMA), ("xsi", INSTANCE)] {
                let _ = write!(out, " xmlns:{prefix}=\"{uri}\"");
            }
        }
        if prefix.is_none() && self.name.namespace != *default {
            let _ = write!(out, " xmlns=\"{}\"", escape_attribute(self.name.namespace.uri()));
            inner = self.name.namespace.clone();
        }
        if let Some(type_name) = &self.type_name {
            self.write_type(out, type_name, &inner);
        }
        for (index, (name, value)) in self.attributes.iter().enumerate() {
            out.push(' ');
            match (&name.namespace, fixed_prefix(&name.namespace)) {
                (Namespace::None, _) => out.push_str(&name.local),
                (_, Some(prefix)) => push_name(out, Some(prefix), &name.local),
                (namespace, None) if namespace.uri() == XML => push_name(out, Some("xml"), &name.local),
                (namespace, None) => {
                    let _ = write!(out, "xmlns:a{index}=\"{}\" a{index}:{}", escape_attribute(namespace.uri()), name.local);
                }
            }
            let _ = write!(out, "=\"{}\"", escape_attribute(value));
        }
        if self.children.is_empty() && self.text.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        push_escaped(out, &self.text, false);
        for child in &self.children {
            child.write(out, &inner, false);
        }
        out.push_str("</");
        push_name(out, prefix, &self.name.local);
        out.push('>');
    }

    #[allow(clippy::unused_self)]
    fn write_type(&self, out: &mut String, type_name: &Name, default: &Namespace) {
        match fixed_prefix(&type_name.namespace) {
            Some(prefix) => {
                let _ = write!(out, " xsi:type=\"{prefix}:{}\"", type_name.local);
            }
            None if type_name.namespace == *default || type_name.namespace == Namespace::None => {
                let _ = write!(out, " xsi:type=\"{}\"", type_name.local);
            }
            None => {
                let uri = escape_attribute(type_name.namespace.uri());
                let _ = write!(out, " xmlns:t=\"{uri}\" xsi:type=\"t:{}\"", type_name.local);
            }
        }
    }
}

fn fixed_prefix(namespace: &Namespace) -> Option<&'static str> {
    match namespace {
        Namespace::Soap => Some("soapenv"),
        Namespace::Instance => Some("xsi"),
        Namespace::Schema => Some("xsd"),
        Namespace::None | Namespace::Vim | Namespace::Other(_) => None,
    }
}

fn push_name(out: &mut String, prefix: Option<&str>, local: &str) {
    if let Some(prefix) = prefix {
        out.push_str(prefix);
        out.push(':');
    }
    out.push_str(local);
}

fn escape_attribute(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    push_escaped(&mut out, value, true);
    out
}

/// Escapes markup, and what a reader would normalize away. Characters that XML 1.0 cannot carry at all become U+FFFD.
fn push_escaped(out: &mut String, text: &str, is_attribute: bool) {
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#xD;"),
            '\n' if is_attribute => out.push_str("&#xA;"),
            '\t' if is_attribute => out.push_str("&#x9;"),
            '\t' | '\n' => out.push(character),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(character),
        }
    }
}

/// Namespace bindings of one element: prefix (empty for the default) and what it stands for.
type Scope = Vec<(String, Namespace)>;

struct Parser<'a> {
    reader: Reader<&'a [u8]>,
    scopes: Vec<Scope>,
}

impl Parser<'_> {
    fn document(mut self) -> Result<Element, XmlError> {
        let mut stack: Vec<Element> = Vec::new(); // whose end has not come yet
        let mut root: Option<Element> = None;
        loop {
            let event = self.reader.read_event().map_err(|error| self.malformed(&error))?;
            match event {
                Event::Start(start) => {
                    self.check_place(&root, stack.len())?;
                    let element = self.open(&start)?;
                    stack.push(element);
                }
                Event::Empty(start) => {
                    self.check_place(&root, stack.len())?;
                    let element = self.open(&start)?;
                    self.scopes.pop();
                    self.close(element, &mut stack, &mut root)?;
                }
                Event::End(_) => {
                    let Some(element) = stack.pop() else { return Err(self.unsupported("an end without a start")) };
                    self.scopes.pop();
                    self.close(element, &mut stack, &mut root)?;
                }
                Event::Text(text) => self.text(&text.xml10_content(), &mut stack)?,
                Event::CData(text) => self.text(&text.xml10_content(), &mut stack)?,
                Event::GeneralRef(reference) => {
                    let character = reference.resolve_char_ref().map_err(|error| self.malformed(&error))?;
                    let resolved = match character {
                        Some(character) => Some(String::from(character)),
                        None => resolve_xml_entity(&reference.xml10_content()).map(str::to_owned),
                    };
                    let resolved = resolved.ok_or_else(|| self.unsupported("an entity that XML does not predefine"))?;
                    self.text(&resolved, &mut stack)?;
                }
                Event::DocType(_) => return Err(self.unsupported("a document type declaration")),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                Event::Eof => break,
            }
        }
        match root {
            Some(root) if stack.is_empty() => Ok(root),
            Some(_) | None => {
                Err(XmlError::Malformed { position: self.reader.buffer_position(), reason: "the document breaks off".to_owned() })
            }
        }
    }

    fn check_place(&self, root: &Option<Element>, depth: usize) -> Result<(), XmlError> {
        if root.is_some() {
            return Err(self.unsupported("a second root element"));
        }
        if depth >= MAX_DEPTH {
            return Err(self.unsupported("elements nested too deeply"));
        }
        Ok(())
    }

    fn text(&self, text: &str, stack: &mut [Element]) -> Result<(), XmlError> {
        let is_blank = text.chars().all(|character| matches!(character, ' ' | '\t' | '\r' | '\n'));
        let Some(open) = stack.last_mut() else {
            return if is_blank { Ok(()) } else { Err(self.unsupported("text outside the document")) };
        };
        if open.children.is_empty() {
            open.text.push_str(text);
            return Ok(());
        }
        if is_blank { Ok(()) } else { Err(self.unsupported("text beside child elements")) }
    }

    fn close(&self, element: Element, stack: &mut [Element], root: &mut Option<Element>) -> Result<(), XmlError> {
        let Some(parent) = stack.last_mut() else {
            *root = Some(element);
            return Ok(());
        };
        if parent.children.is_empty() && !parent.text.is_empty() {
            if !parent.text.chars().all(char::is_whitespace) {
                return Err(self.unsupported("text beside child elements"));
            }
            parent.text.clear();
        }
        parent.children.push(element);
        Ok(())
    }

    fn open(&mut self, start: &BytesStart<'_>) -> Result<Element, XmlError> {
        let mut scope = Scope::new();
        let mut plain: Vec<(String, String)> = Vec::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| self.malformed(&error))?;
            let key = attribute.key.as_ref();
            let value = attribute.normalized_value(XmlVersion::Explicit1_0).map_err(|error| self.malformed(&error))?;
            if key == "xmlns" {
                scope.push((String::new(), Namespace::from_uri(&value)));
            } else if let Some(prefix) = key.strip_prefix("xmlns:") {
                scope.push((prefix.to_owned(), Namespace::from_uri(&value)));
            } else {
                plain.push((key.to_owned(), value.into_owned()));
            }
        }
        self.scopes.push(scope);
        let (namespace, local) = self.resolve(start.name().as_ref(), true)?;
        let mut element = Element::named(Name::new(namespace, local));
        for (key, value) in plain {
            let (namespace, local) = self.resolve(&key, false)?;
            if namespace == Namespace::Instance && local == "type" {
                let (namespace, local) = self.resolve_type(value.trim());
                element.type_name = Some(Name::new(namespace, local));
            } else {
                element.attributes.push((Name::new(namespace, local), value));
            }
        }
        Ok(element)
    }

    fn lookup(&self, prefix: &str) -> Option<&Namespace> {
        self.scopes.iter().rev().flat_map(|scope| scope.iter().rev()).find(|(known, _)| known == prefix).map(|(_, namespace)| namespace)
    }

    fn resolve(&self, name: &str, is_element: bool) -> Result<(Namespace, String), XmlError> {
        match name.split_once(':') {
            None if is_element => Ok((self.lookup("").cloned().unwrap_or(Namespace::None), name.to_owned())),
            None => Ok((Namespace::None, name.to_owned())),
            Some(("xml", local)) => Ok((Namespace::from_uri(XML), local.to_owned())),
            Some((prefix, local)) => match self.lookup(prefix) {
                Some(namespace) => Ok((namespace.clone(), local.to_owned())),
                None => Err(self.unsupported("a prefix that is bound to no namespace")),
            },
        }
    }

    /// The value of `xsi:type`. Some clients write `xsd:string` without having declared `xsd`: the usual prefixes are known.
    fn resolve_type(&self, value: &str) -> (Namespace, String) {
        match value.split_once(':') {
            None => (self.lookup("").cloned().unwrap_or(Namespace::None), value.to_owned()),
            Some((prefix, local)) => match (self.lookup(prefix), prefix) {
                (Some(namespace), _) => (namespace.clone(), local.to_owned()),
                (None, "xsd" | "xs") => (Namespace::Schema, local.to_owned()),
                (None, _) => (Namespace::None, value.to_owned()),
            },
        }
    }

    fn malformed(&self, error: &dyn std::fmt::Display) -> XmlError {
        XmlError::Malformed { position: self.reader.buffer_position(), reason: error.to_string() }
    }

    fn unsupported(&self, reason: &'static str) -> XmlError {
        XmlError::Unsupported { position: self.reader.buffer_position(), reason }
    }
}
