//! The tree: what was written is read again; what is no data document is refused.

use proptest::prelude::*;
use vsphere_wire::Element;
use vsphere_wire::xml::{Name, Namespace, XmlError};

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            Just('<'),
            Just('&'),
            Just('"'),
            Just('\''),
            Just('\r'),
            Just('\n'),
            Just('\t'),
            Just(' '),
            Just(']'),
            Just('>'),
            any::<char>()
        ],
        0..12,
    )
    .prop_map(|characters| characters.into_iter().filter(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r')).collect::<String>())
    .prop_map(|text| text.replace(['\u{fffe}', '\u{ffff}'], "x"))
}

fn namespace() -> impl Strategy<Value = Namespace> {
    prop_oneof![
        Just(Namespace::None),
        Just(Namespace::Vim),
        Just(Namespace::Soap),
        Just(Namespace::Other("urn:pbm".into())),
        Just(Namespace::Other("urn:a\"<&".into())),
    ]
}

fn element() -> impl Strategy<Value = Element> {
    let leaf = (namespace(), "[a-zA-Z_][a-zA-Z0-9_.-]{0,6}", text(), text(), prop_oneof![Just(None), Just(Some("xsd")), Just(Some("own"))])
        .prop_map(|(namespace, local, text, attribute, kind)| {
            let mut element = Element::named(Name::new(namespace, local)).with_text(text);
            element.set_attribute("type", attribute);
            element.type_name = match kind {
                None => None,
                Some("xsd") => Some(Name::schema("string")),
                Some(_) => Some(Name::vim("Thing")),
            };
            element
        });
    leaf.prop_recursive(4, 24, 4, |inner| {
        (namespace(), "[a-z]{1,5}", proptest::collection::vec(inner, 1..4)).prop_map(|(namespace, local, children)| {
            let mut element = Element::named(Name::new(namespace, local));
            element.children = children;
            element
        })
    })
}

proptest! {
    #[test]
    fn a_written_tree_reads_the_same(element in element()) {
        prop_assert_eq!(Element::parse(&element.to_document()).unwrap(), element);
    }

    #[test]
    fn any_text_is_refused_or_read(text in ".{0,60}") {
        let _ = Element::parse(&text);
    }
}

#[test]
fn namespaces_are_resolved_by_uri() {
    let one = Element::parse(r#"<a xmlns="urn:vim25" xmlns:q="http://www.w3.org/2001/XMLSchema-instance" q:type="b"/>"#).unwrap();
    let other =
        Element::parse(r#"<v:a xmlns:v="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="v:b"/>"#).unwrap();
    assert_eq!(one, other);
    assert_eq!(one.type_name, Some(Name::vim("b")));
}

#[test]
fn entities_and_character_data_are_text() {
    let element = Element::parse("<a>1 &lt; 2 &#x26; <![CDATA[<3>]]></a>").unwrap();
    assert_eq!(element.text, "1 < 2 & <3>");
}

#[test]
fn what_is_no_data_document_is_refused() {
    for (document, is_unsupported) in [
        ("<a>text<b/></a>", true),
        ("<a><b/>text</a>", true),
        ("<a><b/>&amp;</a>", true),
        ("<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>", true),
        ("<a>&x;</a>", true),
        ("<a/><b/>", true),
        ("<x:a/>", true),
        ("<a><b></a></b>", false),
        ("<a>", false),
        ("", false),
    ] {
        let error = Element::parse(document).unwrap_err();
        assert_eq!(matches!(error, XmlError::Unsupported { .. }), is_unsupported, "{document}: {error}");
    }
    let deep = "<a>".repeat(300) + &"</a>".repeat(300);
    assert!(matches!(Element::parse(&deep), Err(XmlError::Unsupported { .. })));
}
