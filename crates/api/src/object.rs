//! The two macros that every type of this crate is made with, and the rule for what is left out of JSON.
//!
//! Kubernetes types distinguish "absent" from "empty" in only a few places; here a field is written exactly when it says something:
//! `Option::None`, empty lists and maps and records with nothing in them are left out ([`Absent`]). Reading is lenient (a missing field
//! is its default), because the server has validated what it stored; what is *required* stands after the record's body and goes into the schema.
//! The macros must never invent field names: names are the Rust names in camelCase, or an explicit `serde(rename)`.

use std::collections::BTreeMap;

/// Tells whether a value is left out when its owner is written as JSON.
pub trait Absent {
    /// True if writing the value would say nothing.
    fn is_absent(&self) -> bool;
}

impl<T> Absent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Absent for BTreeMap<K, V> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

macro_rules! always_present {
    ($($ty:ty),*) => {$(
        impl Absent for $ty {
            fn is_absent(&self) -> bool { false }
        }
    )*};
}
always_present!(bool, i32, i64, u16, String, serde_json::Value);

/// A JSON record: `object! { pub struct Name { pub field: Type, .. } required [field, ..] }`.
macro_rules! object {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident : $ty:ty),* $(,)? }
        $(required [$($required:literal),* $(,)?])?
    ) => {
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        $(#[$meta])*
        #[serde(rename_all = "camelCase", default)]
        $(#[schemars(extend("required" = [$($required),*]))])?
        pub struct $name {
            $($(#[$field_meta])* #[serde(skip_serializing_if = "crate::object::Absent::is_absent")] pub $field: $ty,)*
        }

        impl crate::object::Absent for $name {
            fn is_absent(&self) -> bool {
                *self == Self::default()
            }
        }
    };
}
pub(crate) use object;

/// A closed set of words: `words! { pub enum Name { First, Second = "second" } }`; the first word is the default.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $(#[$first_meta:meta])* $first:ident = $first_word:literal $(, $(#[$variant_meta:meta])* $variant:ident = $word:literal)* $(,)? }) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        $(#[$meta])*
        pub enum $name {
            $(#[$first_meta])* #[default] #[serde(rename = $first_word)] $first,
            $($(#[$variant_meta])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// The word as it stands in JSON.
            pub fn as_str(self) -> &'static str {
                match self { Self::$first => $first_word, $(Self::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl crate::object::Absent for $name {
            fn is_absent(&self) -> bool { false }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool { true }
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "enum": [$first_word $(, $word)*]})
            }
        }
    };
}
pub(crate) use words;

/// A top-level kind: `resource! { Kind, Scope, group, version, plural; metadata and the fields that follow }`.
macro_rules! resource {
    ($(#[$meta:meta])* $kind:ident: $scope:ident, $group:literal / $version:literal, $plural:literal { $($(#[$field_meta:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, schemars::JsonSchema)]
        $(#[$meta])*
        #[serde(rename_all = "camelCase", default)]
        pub struct $kind {
            /// Standard object metadata.
            #[schemars(with = "crate::schema::Metadata")]
            pub metadata: kube::core::ObjectMeta,
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap as _;
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("apiVersion", concat!($group, "/", $version))?;
                map.serialize_entry("kind", stringify!($kind))?;
                map.serialize_entry("metadata", &self.metadata)?;
                $(if stringify!($field) == "spec" || !crate::object::Absent::is_absent(&self.$field) {
                    map.serialize_entry(&crate::object::camel(stringify!($field)), &self.$field)?;
                })*
                map.end()
            }
        }

        impl kube::Resource for $kind {
            type DynamicType = ();
            type Scope = kube::core::$scope;
            fn kind((): &()) -> std::borrow::Cow<'_, str> { stringify!($kind).into() }
            fn group((): &()) -> std::borrow::Cow<'_, str> { $group.into() }
            fn version((): &()) -> std::borrow::Cow<'_, str> { $version.into() }
            fn plural((): &()) -> std::borrow::Cow<'_, str> { $plural.into() }
            fn meta(&self) -> &kube::core::ObjectMeta { &self.metadata }
            fn meta_mut(&mut self) -> &mut kube::core::ObjectMeta { &mut self.metadata }
        }
    };
}
pub(crate) use resource;

/// `watched_namespace` to `watchedNamespace`.
pub(crate) fn camel(snake: &str) -> String {
    let mut out = String::with_capacity(snake.len());
    let mut upper = false;
    for letter in snake.chars() {
        if letter == '_' {
            upper = true;
        } else if upper {
            out.push(letter.to_ascii_uppercase());
            upper = false;
        } else {
            out.push(letter);
        }
    }
    out
}
