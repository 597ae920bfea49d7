//! Declaring data objects and enumerations: the order of the members is the order on the wire (the XSD's sequence; a real vCenter minds it).

/// A data object: `Name = "WireName" { member: Type = "wireName", .. }`. Add `typed` after the wire name when `xsi:type` is always written.
macro_rules! data {
    ($($(#[$meta:meta])* $name:ident = $wire:literal $($typed:ident)? { $($(#[$field_meta:meta])* $field:ident : $type:ty = $field_wire:literal),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name { $($(#[$field_meta])* pub $field: $type),* }

            impl $crate::value::Value for $name {
                $(const IS_TYPE_WRITTEN: bool = $crate::macros::$typed;)?

                fn type_name(&self) -> $crate::xml::Name {
                    $crate::xml::Name::vim($wire)
                }

                #[allow(unused_variables)]
                fn write(&self, element: &mut $crate::xml::Element) {
                    $($crate::value::Field::put(&self.$field, $field_wire, element);)*
                }

                #[allow(unused_variables)]
                fn read(element: &$crate::xml::Element) -> Result<Self, $crate::value::DecodeError> {
                    Ok(Self { $($field: $crate::value::Field::take($field_wire, element)?),* })
                }
            }
        )*
    };
}

#[allow(non_upper_case_globals)]
pub(crate) const typed: bool = true;

/// An enumeration: open, since servers add values. `Name = "WireName" { Variant = "text", .. }`.
macro_rules! enumeration {
    ($($(#[$meta:meta])* $name:ident = $wire:literal { $($variant:ident = $text:literal),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
            pub enum $name {
                $(#[doc = concat!("`", $text, "`")] $variant,)*
                /// A value that this list does not have.
                Other(String),
            }

            impl $name {
                /// The text on the wire.
                pub fn as_str(&self) -> &str {
                    match self {
                        $(Self::$variant => $text,)*
                        Self::Other(text) => text,
                    }
                }

                /// The value with this text.
                pub fn from_text(text: &str) -> Self {
                    match text {
                        $($text => Self::$variant,)*
                        other => Self::Other(other.to_owned()),
                    }
                }
            }

            impl std::fmt::Display for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(self.as_str())
                }
            }

            impl $crate::value::Value for $name {
                fn type_name(&self) -> $crate::xml::Name {
                    $crate::xml::Name::vim($wire)
                }

                fn write(&self, element: &mut $crate::xml::Element) {
                    element.text = self.as_str().to_owned();
                }

                fn read(element: &$crate::xml::Element) -> Result<Self, $crate::value::DecodeError> {
                    Ok(Self::from_text(element.text.trim()))
                }
            }
        )*
    };
}

/// A family of types behind one static type, told apart by `xsi:type`: the members of all that matter to us in one struct (a descendant's members follow
/// its parent's, so one order serves), what else stands on the wire kept in `others`.
macro_rules! family {
    ($($(#[$meta:meta])* $name:ident or $default:literal { $($(#[$field_meta:meta])* $field:ident : $type:ty = $field_wire:literal),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name {
                /// The concrete type's name.
                pub kind: $crate::xml::Name,
                $($(#[$field_meta])* pub $field: $type,)*
                /// Members that are not listed here, as they stood.
                pub others: Vec<$crate::xml::Element>,
            }

            impl $crate::value::Value for $name {
                const IS_TYPE_WRITTEN: bool = true;

                fn type_name(&self) -> $crate::xml::Name {
                    self.kind.clone()
                }

                fn write(&self, element: &mut $crate::xml::Element) {
                    $($crate::value::Field::put(&self.$field, $field_wire, element);)*
                    element.children.extend(self.others.iter().cloned());
                }

                fn read(element: &$crate::xml::Element) -> Result<Self, $crate::value::DecodeError> {
                    let is_listed = |child: &&$crate::xml::Element| !matches!(child.local(), $($field_wire)|*);
                    Ok(Self {
                        kind: element.type_name.clone().unwrap_or_else(|| $crate::xml::Name::vim($default)),
                        $($field: $crate::value::Field::take($field_wire, element)?,)*
                        others: element.children.iter().filter(is_listed).cloned().collect(),
                    })
                }
            }
        )*
    };
}
