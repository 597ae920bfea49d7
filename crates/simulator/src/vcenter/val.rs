//! Property values with their types: what a managed object shows, before it becomes XML.
//!
//! A property is read by its path (`config.hardware.device`, `config.extraConfig["key"]`). [`Member`] tables say which members an object
//! has and how each is made, so that one path costs only what it asks for and a whole object is the sum of its members: a reading and
//! an update can never disagree. Member order is the order of the XML schema.

use jiff::Timestamp;
use vsphere_wire::value::{AnyValue, ManagedObjectReference, Value as _};
use vsphere_wire::xml::{Element, Name};

use super::inventory::{Inventory, Object};

/// A typed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Val {
    /// A scalar of XML Schema and its text.
    Scalar(&'static str, String),
    /// A value of one of vSphere's enumerations.
    Enumeration(&'static str, String),
    Reference(ManagedObjectReference),
    /// A data object. Its type is written on the wire where the declared type has descendants.
    Data {
        kind: &'static str,
        has_descendants: bool,
        members: Vec<(&'static str, Val)>,
    },
    /// An array of `item`.
    Array(&'static str, Vec<Val>),
    /// A member declared as anything: its type is always written.
    Any(Box<Val>),
    /// A value of this type that is XML already.
    Raw(&'static str, Element),
}

/// One part of a property path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    Name(String),
    /// The item of an array with this key: `["key"]` or `[4000]`.
    Key(String),
}

/// Splits a property path. `None` when it is not one.
pub fn segments(path: &str) -> Option<Vec<Segment>> {
    let mut out = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (key, after) = match inner.strip_prefix('"') {
                Some(quoted) => quoted.split_once("\"]")?,
                None => inner.split_once(']')?,
            };
            out.push(Segment::Key(key.to_owned()));
            rest = after.strip_prefix('.').unwrap_or(after);
            continue;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() {
            return None;
        }
        out.push(Segment::Name(name.to_owned()));
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    if out.is_empty() { None } else { Some(out) }
}

impl Val {
    pub fn string(text: impl Into<String>) -> Self {
        Self::Scalar("string", text.into())
    }

    pub fn int(number: impl Into<i64>) -> Self {
        Self::Scalar("int", number.into().to_string())
    }

    pub fn short(number: i16) -> Self {
        Self::Scalar("short", number.to_string())
    }

    pub fn long(number: impl TryInto<i64>) -> Self {
        Self::Scalar("long", number.try_into().unwrap_or(i64::MAX).to_string())
    }

    pub fn boolean(is: bool) -> Self {
        Self::Scalar("boolean", is.to_string())
    }

    pub fn time(at: Timestamp) -> Self {
        Self::Scalar("dateTime", format!("{at:.6}"))
    }

    pub fn enumeration(kind: &'static str, text: impl Into<String>) -> Self {
        Self::Enumeration(kind, text.into())
    }

    pub fn reference(to: &ManagedObjectReference) -> Self {
        Self::Reference(to.clone())
    }

    pub fn references<'a>(to: impl IntoIterator<Item = &'a ManagedObjectReference>) -> Self {
        Self::Array("ManagedObjectReference", to.into_iter().map(Self::reference).collect())
    }

    pub fn strings<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::Array("string", texts.into_iter().map(Self::string).collect())
    }

    /// A data object of exactly its declared type.
    pub fn data(kind: &'static str, members: impl IntoIterator<Item = (&'static str, Val)>) -> Self {
        Self::Data { kind, has_descendants: false, members: members.into_iter().collect() }
    }

    /// A data object that stands where an ancestor is declared.
    pub fn descendant(kind: &'static str, members: impl IntoIterator<Item = (&'static str, Val)>) -> Self {
        Self::Data { kind, has_descendants: true, members: members.into_iter().collect() }
    }

    /// What lies at the path below this value.
    pub fn at(&self, path: &[Segment]) -> Option<&Val> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        match (self, first) {
            (Self::Data { members, .. }, Segment::Name(name)) => members.iter().find(|(known, _)| known == name)?.1.at(rest),
            (Self::Array(_, items), Segment::Key(key)) => items.iter().find(|item| item.has_key(key))?.at(rest),
            (Self::Any(inner), _) => inner.at(path),
            _ => None,
        }
    }

    fn has_key(&self, key: &str) -> bool {
        match self {
            Self::Data { members, .. } => {
                members.iter().any(|(name, value)| *name == "key" && matches!(value, Self::Scalar(_, text) if text == key))
            }
            Self::Reference(reference) => reference.id == key,
            _ => false,
        }
    }

    fn type_name(&self) -> Name {
        match self {
            Self::Scalar(kind, _) => Name::schema(*kind),
            Self::Enumeration(kind, _) | Self::Data { kind, .. } | Self::Raw(kind, _) => Name::vim(*kind),
            Self::Reference(_) => Name::vim("ManagedObjectReference"),
            Self::Array(item, _) => {
                let mut name = format!("ArrayOf{item}");
                if let Some(first) = name.get_mut(7..8) {
                    first.make_ascii_uppercase();
                }
                Name::vim(name)
            }
            Self::Any(inner) => inner.type_name(),
        }
    }

    /// Appends this value to `into` as the member `name`.
    fn write_member(&self, name: &'static str, into: &mut Element) {
        match self {
            Self::Array(_, items) => items.iter().for_each(|item| item.write_member(name, into)),
            Self::Any(inner) => {
                let mut element = Element::vim(name).with_type(inner.type_name());
                inner.write_content(&mut element);
                into.children.push(element);
            }
            Self::Scalar(..) | Self::Enumeration(..) | Self::Reference(_) | Self::Data { .. } | Self::Raw(..) => {
                let mut element = Element::vim(name);
                if let Self::Data { has_descendants: true, .. } = self {
                    element.type_name = Some(self.type_name());
                }
                self.write_content(&mut element);
                into.children.push(element);
            }
        }
    }

    fn write_content(&self, element: &mut Element) {
        match self {
            Self::Scalar(_, text) | Self::Enumeration(_, text) => element.text.clone_from(text),
            Self::Reference(reference) => reference.write(element),
            Self::Data { members, .. } => members.iter().for_each(|(name, value)| value.write_member(name, element)),
            Self::Array(item, items) => items.iter().for_each(|value| value.write_member(item, element)),
            Self::Any(inner) => inner.write_content(element),
            Self::Raw(_, raw) => {
                element.text.clone_from(&raw.text);
                element.children.clone_from(&raw.children);
            }
        }
    }

    /// The value as it goes on the wire.
    pub fn to_wire(&self) -> AnyValue {
        let mut element = Element::vim("val").with_type(self.type_name());
        self.write_content(&mut element);
        // A typed element always reads as a value; what cannot happen reads as empty text.
        AnyValue::read(&element).unwrap_or_else(|_| AnyValue::string(""))
    }
}

/// A managed object and the world around it, for making its properties.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    pub inventory: &'a Inventory,
    pub object: &'a Object,
}

/// How a member of an object is made.
pub enum Member {
    /// In one piece. `None` when it is unset.
    Leaf(fn(Look<'_>) -> Option<Val>),
    /// From members of its own.
    Part(&'static str, Members),
}

/// The members of one type, in the order of the schema.
pub type Members = &'static [(&'static str, Member)];

/// Reads a path below a type with these members. `Err(())` when its first name is none of them.
pub fn read(members: Members, look: Look<'_>, path: &[Segment]) -> Result<Option<Val>, ()> {
    let Some((Segment::Name(first), rest)) = path.split_first() else { return Err(()) };
    let (_, member) = members.iter().find(|(name, _)| name == first).ok_or(())?;
    Ok(read_member(member, look, rest))
}

fn read_member(member: &Member, look: Look<'_>, rest: &[Segment]) -> Option<Val> {
    match member {
        Member::Leaf(make) => {
            let value = make(look)?;
            if rest.is_empty() { Some(value) } else { value.at(rest).cloned() }
        }
        Member::Part(kind, members) => match rest.split_first() {
            None => Some(whole(kind, members, look)),
            Some((Segment::Name(name), below)) => {
                let (_, member) = members.iter().find(|(known, _)| known == name)?;
                read_member(member, look, below)
            }
            Some((Segment::Key(_), _)) => None,
        },
    }
}

fn whole(kind: &'static str, members: Members, look: Look<'_>) -> Val {
    let members = members.iter().filter_map(|(name, member)| Some((*name, read_member(member, look, &[])?)));
    Val::Data { kind, has_descendants: false, members: members.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_at_dots_and_keys() {
        let name = |text: &str| Segment::Name(text.to_owned());
        let key = |text: &str| Segment::Key(text.to_owned());
        let cases = [
            ("name", Some(vec![name("name")])),
            ("config.hardware.device", Some(vec![name("config"), name("hardware"), name("device")])),
            (
                "config.extraConfig[\"guestinfo.talos.config\"].value",
                Some(vec![name("config"), name("extraConfig"), key("guestinfo.talos.config"), name("value")]),
            ),
            ("config.hardware.device[4000]", Some(vec![name("config"), name("hardware"), name("device"), key("4000")])),
            ("", None),
            ("a..b", None),
            ("a[\"b", None),
        ];
        for (path, expected) in cases {
            assert_eq!(segments(path), expected, "{path}");
        }
    }

    #[test]
    fn values_carry_their_types_where_the_wire_wants_them() {
        let option = Val::data("OptionValue", [("key", Val::string("a")), ("value", Val::Any(Box::new(Val::string("1"))))]);
        let array = Val::Array("OptionValue", vec![option]);
        let wire = array.to_wire();
        assert_eq!(wire.type_name, Name::vim("ArrayOfOptionValue"));
        let item = &wire.content().children[0];
        assert_eq!((item.local(), item.type_local()), ("OptionValue", None));
        assert_eq!(item.child("value").unwrap().type_name, Some(Name::schema("string")));
        let inner = array.at(&segments("[\"a\"].value").unwrap()).unwrap();
        assert_eq!(inner.to_wire(), AnyValue::string("1"));
        assert!(array.at(&segments("[\"b\"]").unwrap()).is_none());
        assert_eq!(Val::strings(["x"]).to_wire().type_name, Name::vim("ArrayOfString"));
    }
}
