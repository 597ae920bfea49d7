//! Faults as data. They are an open set: the raw type name, the message, the cause and whatever else a fault carries are always kept, so that
//! nothing a server says about a failure gets lost between it and the user.

use crate::value::{DecodeError, Field, ManagedObjectReference, Value, is_vim};
use crate::xml::{Element, Name};

/// A fault of any type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodFault {
    /// The type's name on the wire: `InvalidLogin`, `DuplicateName`.
    pub kind: Name,
    /// What brought it about.
    pub cause: Option<Box<LocalizedMethodFault>>,
    /// Messages of the stack behind it.
    pub messages: Vec<LocalizableMessage>,
    /// The type's own members, in the order of the wire.
    pub details: Vec<Element>,
}

impl MethodFault {
    /// A fault of vCenter's namespace without details.
    pub fn new(kind: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { kind: Name::vim(kind), cause: None, messages: Vec::new(), details: Vec::new() }
    }

    /// The same with one more member.
    #[must_use]
    pub fn with<T: Field>(mut self, member: &'static str, value: &T) -> Self {
        let mut holder = Element::vim("fault");
        value.put(member, &mut holder);
        self.details.extend(holder.children);
        self
    }

    /// The type's name.
    pub fn kind(&self) -> &str {
        &self.kind.local
    }

    /// The text of a member: `existingState`, `privilegeId`, `invalidProperty`.
    pub fn detail(&self, member: &str) -> Option<&str> {
        self.details.iter().find(|detail| detail.name.local == member).map(|detail| detail.text.as_str())
    }

    /// A member that refers to a managed object: `object`, `obj`.
    pub fn reference(&self, member: &str) -> Option<ManagedObjectReference> {
        self.details.iter().find(|detail| detail.name.local == member).and_then(|detail| Value::read(detail).ok())
    }
}

impl Value for MethodFault {
    const IS_TYPE_WRITTEN: bool = true;

    fn type_name(&self) -> Name {
        self.kind.clone()
    }

    fn write(&self, element: &mut Element) {
        self.cause.put("faultCause", element);
        self.messages.put("faultMessage", element);
        element.children.extend(self.details.iter().cloned());
    }

    fn read(element: &Element) -> Result<Self, DecodeError> {
        let is_own = |child: &&Element| !(is_vim(&child.name) && matches!(child.local(), "faultCause" | "faultMessage"));
        Ok(Self {
            kind: element.type_name.clone().unwrap_or_else(|| Name::vim("MethodFault")),
            cause: Field::take("faultCause", element)?,
            messages: Field::take("faultMessage", element)?,
            details: element.children.iter().filter(is_own).cloned().collect(),
        })
    }
}

data! {
    /// A fault with its message in the session's language.
    LocalizedMethodFault = "LocalizedMethodFault" {
        fault: MethodFault = "fault",
        message: Option<String> = "localizedMessage",
    }
    /// One message of a stack.
    LocalizableMessage = "LocalizableMessage" {
        key: String = "key",
        arguments: Vec<KeyAnyValue> = "arg",
        message: Option<String> = "message",
    }
    /// An argument of a message.
    KeyAnyValue = "KeyAnyValue" {
        key: String = "key",
        value: crate::value::AnyValue = "value",
    }
}
