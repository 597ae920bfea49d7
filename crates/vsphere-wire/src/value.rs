//! How values become elements and back: [`Value`] is the content of one element, [`Field`] is a member of a data object (once, optional or
//! repeated), [`AnyValue`] is a value whose type only `xsi:type` tells.

use std::fmt;

use jiff::Timestamp;
use thiserror::Error;

use crate::xml::{Element, Name, Namespace};

/// Why an element is not the value that was expected there.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// A member that must be there is not.
    #[error("<{element}> has no <{member}>")]
    Missing { element: String, member: &'static str },
    /// The text is no value of the type.
    #[error("<{element}> holds {text:?}, which is not {expected}")]
    Unreadable { element: String, text: String, expected: &'static str },
    /// The element is of another type.
    #[error("<{element}> is of type {found}, expected {expected}")]
    Type { element: String, found: String, expected: &'static str },
    /// Elements that the type does not have, or not in this place. Only the strict decoder says so.
    #[error("in <{element}>: {found} is unknown there or out of order")]
    Surplus { element: String, found: String },
}

/// The content of one element: text, attributes or child elements.
pub trait Value: Sized {
    /// The name of the type on the wire, for arrays and `xsi:type`.
    fn type_name(&self) -> Name;
    /// Whether `xsi:type` is written in front of statically typed members too: the type has descendants.
    const IS_TYPE_WRITTEN: bool = false;
    /// Puts the content into an empty element.
    fn write(&self, element: &mut Element);
    /// Reads it back.
    ///
    /// # Errors
    /// When the element holds something else.
    fn read(element: &Element) -> Result<Self, DecodeError>;
}

/// A member of a data object.
pub trait Field: Sized {
    /// Appends what there is to append under `name`.
    fn put(&self, name: &'static str, into: &mut Element);
    /// Reads it from the children called `name`.
    ///
    /// # Errors
    /// When it is missing or holds something else.
    fn take(name: &'static str, from: &Element) -> Result<Self, DecodeError>;
}

impl<T: Value> Field for T {
    fn put(&self, name: &'static str, into: &mut Element) {
        into.children.push(element_of(self, name));
    }

    fn take(name: &'static str, from: &Element) -> Result<Self, DecodeError> {
        match from.child(name) {
            Some(child) => T::read(child),
            None => Err(DecodeError::Missing { element: from.local().to_owned(), member: name }),
        }
    }
}

impl<T: Value> Field for Option<T> {
    fn put(&self, name: &'static str, into: &mut Element) {
        if let Some(value) = self {
            value.put(name, into);
        }
    }

    fn take(name: &'static str, from: &Element) -> Result<Self, DecodeError> {
        from.child(name).map(T::read).transpose()
    }
}

impl<T: Value> Field for Vec<T> {
    fn put(&self, name: &'static str, into: &mut Element) {
        for value in self {
            value.put(name, into);
        }
    }

    fn take(name: &'static str, from: &Element) -> Result<Self, DecodeError> {
        from.children_named(name).map(T::read).collect()
    }
}

/// Nothing: what methods without result return.
impl Field for () {
    fn put(&self, _name: &'static str, _into: &mut Element) {}

    fn take(_name: &'static str, _from: &Element) -> Result<Self, DecodeError> {
        Ok(())
    }
}

/// The element `name` with `value` in it.
pub fn element_of<T: Value>(value: &T, name: &'static str) -> Element {
    let mut element = Element::vim(name);
    if T::IS_TYPE_WRITTEN {
        element.type_name = Some(value.type_name());
    }
    value.write(&mut element);
    element
}

fn unreadable(element: &Element, expected: &'static str) -> DecodeError {
    DecodeError::Unreadable { element: element.local().to_owned(), text: element.text.clone(), expected }
}

macro_rules! scalar {
    ($type:ty, $schema:literal, $expected:literal, $parse:expr) => {
        impl Value for $type {
            fn type_name(&self) -> Name {
                Name::schema($schema)
            }

            fn write(&self, element: &mut Element) {
                element.text = self.to_string();
            }

            fn read(element: &Element) -> Result<Self, DecodeError> {
                let parse: fn(&str) -> Option<$type> = $parse;
                parse(element.text.trim()).ok_or_else(|| unreadable(element, $expected))
            }
        }
    };
}

scalar!(i16, "short", "a 16-bit number", |text| text.parse().ok());
scalar!(i32, "int", "a 32-bit number", |text| text.parse().ok());
scalar!(i64, "long", "a 64-bit number", |text| text.parse().ok());
scalar!(Timestamp, "dateTime", "a date and time", |text| text.parse().ok());
scalar!(bool, "boolean", "true or false", |text| match text {
    "true" | "1" => Some(true),
    "false" | "0" => Some(false),
    _ => None,
});

impl Value for String {
    fn type_name(&self) -> Name {
        Name::schema("string")
    }

    fn write(&self, element: &mut Element) {
        element.text.clone_from(self);
    }

    fn read(element: &Element) -> Result<Self, DecodeError> {
        if element.children.is_empty() { Ok(element.text.clone()) } else { Err(unreadable(element, "text")) }
    }
}

/// A reference to a managed object: its type and id, such as `VirtualMachine` and `vm-42`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagedObjectReference {
    /// The managed object's type.
    pub kind: String,
    /// Its id, unique within one vCenter.
    pub id: String,
}

impl ManagedObjectReference {
    /// A reference.
    pub fn new(kind: impl Into<String>, id: impl Into<String>) -> Self {
        Self { kind: kind.into(), id: id.into() }
    }
}

impl fmt::Display for ManagedObjectReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

impl fmt::Debug for ManagedObjectReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for ManagedObjectReference {
    fn type_name(&self) -> Name {
        Name::vim("ManagedObjectReference")
    }

    fn write(&self, element: &mut Element) {
        element.set_attribute("type", self.kind.clone());
        element.text.clone_from(&self.id);
    }

    fn read(element: &Element) -> Result<Self, DecodeError> {
        match element.attribute("type") {
            Some(kind) if element.children.is_empty() => Ok(Self::new(kind, element.text.trim())),
            Some(_) | None => Err(unreadable(element, "a reference to a managed object")),
        }
    }
}

/// A value of any type, as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyValue {
    /// `xsi:type`.
    pub type_name: Name,
    /// The content; its element name has no meaning.
    content: Element,
}

impl AnyValue {
    /// A value of a known type.
    pub fn of<T: Value>(value: &T) -> Self {
        let mut content = Element::vim("val");
        value.write(&mut content);
        Self { type_name: value.type_name(), content }
    }

    /// An `xsd:string`.
    pub fn string(text: impl Into<String>) -> Self {
        Self::of(&text.into())
    }

    /// A value of the enumeration `type_name`.
    pub fn enumeration(type_name: impl Into<std::borrow::Cow<'static, str>>, text: impl Into<String>) -> Self {
        Self { type_name: Name::vim(type_name), content: Element::vim("val").with_text(text) }
    }

    /// An array; `item` is the name of the items' type (`ManagedObjectReference`, `string`, `VirtualDevice`), which names the items too.
    pub fn array<T: Value>(item: &str, values: &[T]) -> Self {
        let mut content = Element::vim("val");
        for value in values {
            let mut child = Element::vim(item.to_owned());
            if T::IS_TYPE_WRITTEN {
                child.type_name = Some(value.type_name());
            }
            value.write(&mut child);
            content.children.push(child);
        }
        let mut name = format!("ArrayOf{item}");
        if let Some(first) = name.get_mut("ArrayOf".len().."ArrayOf".len() + 1) {
            first.make_ascii_uppercase();
        }
        Self { type_name: Name::vim(name), content }
    }

    /// The text of a scalar, whatever its type.
    pub fn text(&self) -> Option<&str> {
        self.content.children.is_empty().then_some(self.content.text.as_str())
    }

    /// The raw content.
    pub fn content(&self) -> &Element {
        &self.content
    }

    /// Reads it as `T`, whatever `xsi:type` says.
    ///
    /// # Errors
    /// When the content is no `T`.
    pub fn decode<T: Value>(&self) -> Result<T, DecodeError> {
        if T::IS_TYPE_WRITTEN {
            let mut typed = self.content.clone();
            typed.type_name = Some(self.type_name.clone());
            return T::read(&typed);
        }
        T::read(&self.content)
    }

    /// Reads it as an array of `T`.
    ///
    /// # Errors
    /// When it is no array, or an item is no `T`.
    pub fn decode_array<T: Value>(&self) -> Result<Vec<T>, DecodeError> {
        if !self.type_name.local.starts_with("ArrayOf") {
            let found = self.type_name.local.clone().into_owned();
            return Err(DecodeError::Type { element: self.content.local().to_owned(), found, expected: "an array" });
        }
        self.content.children.iter().map(T::read).collect()
    }

    /// The same value wherever it stood.
    fn normalized(mut content: Element) -> Result<Self, DecodeError> {
        let type_name = match content.type_name.take() {
            Some(name) => name,
            // A reference is known by its attribute; anything else without a type is taken as text.
            None if content.attribute("type").is_some() => Name::vim("ManagedObjectReference"),
            None if content.children.is_empty() => Name::schema("string"),
            None => {
                let element = content.local().to_owned();
                return Err(DecodeError::Type { element, found: "nothing".to_owned(), expected: "a value with xsi:type" });
            }
        };
        content.name = Name::vim("val");
        Ok(Self { type_name, content })
    }
}

impl Value for AnyValue {
    const IS_TYPE_WRITTEN: bool = true;

    fn type_name(&self) -> Name {
        self.type_name.clone()
    }

    fn write(&self, element: &mut Element) {
        element.attributes.clone_from(&self.content.attributes);
        element.text.clone_from(&self.content.text);
        element.children.clone_from(&self.content.children);
    }

    fn read(element: &Element) -> Result<Self, DecodeError> {
        Self::normalized(element.clone())
    }
}

/// Reads `element` as `T` and makes sure that nothing in it was unknown or out of order: what the real server checks and lenient readers do not.
///
/// # Errors
/// As [`Value::read`]; [`DecodeError::Surplus`] names the first element that was left over.
pub fn read_strictly<T: Value>(element: &Element) -> Result<T, DecodeError> {
    let value = T::read(element)?;
    let mut again = Element::named(element.name.clone());
    again.type_name.clone_from(&element.type_name);
    value.write(&mut again);
    check_equal(element, &again)?;
    Ok(value)
}

fn check_equal(found: &Element, known: &Element) -> Result<(), DecodeError> {
    let surplus = |what: String| Err(DecodeError::Surplus { element: found.local().to_owned(), found: what });
    for (index, child) in found.children.iter().enumerate() {
        match known.children.get(index) {
            Some(twin) if twin.name == child.name => check_equal(child, twin)?,
            Some(_) | None => return surplus(format!("<{}>", child.local())),
        }
    }
    if known.children.len() > found.children.len() {
        return surplus("a repeated or misplaced element".to_owned());
    }
    Ok(())
}

/// Whether two elements say the same: order of attributes apart, and `xsi:type` where only one side writes what the other leaves to be understood.
pub fn is_equivalent(one: &Element, other: &Element) -> bool {
    let sorted = |element: &Element| {
        let mut attributes = element.attributes.clone();
        attributes.sort();
        attributes
    };
    one.name == other.name
        && (one.type_name == other.type_name || one.type_name.is_none() || other.type_name.is_none())
        && sorted(one) == sorted(other)
        && one.text == other.text
        && one.children.len() == other.children.len()
        && one.children.iter().zip(&other.children).all(|(one, other)| is_equivalent(one, other))
}

/// Whether a name is one of vCenter's.
pub(crate) fn is_vim(name: &Name) -> bool {
    name.namespace == Namespace::Vim
}

/// An element that is passed through as it stands: of a type that nobody here needs to look into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub Element);

impl Value for Raw {
    fn type_name(&self) -> Name {
        self.0.type_name.clone().unwrap_or_else(|| Name::vim("anyType"))
    }

    fn write(&self, element: &mut Element) {
        element.type_name.clone_from(&self.0.type_name);
        element.attributes.clone_from(&self.0.attributes);
        element.text.clone_from(&self.0.text);
        element.children.clone_from(&self.0.children);
    }

    fn read(element: &Element) -> Result<Self, DecodeError> {
        Ok(Self(element.clone()))
    }
}

impl<T: Value> Value for Box<T> {
    const IS_TYPE_WRITTEN: bool = T::IS_TYPE_WRITTEN;

    fn type_name(&self) -> Name {
        (**self).type_name()
    }

    fn write(&self, element: &mut Element) {
        (**self).write(element);
    }

    fn read(element: &Element) -> Result<Self, DecodeError> {
        T::read(element).map(Box::new)
    }
}
