use serde_json::{Value, json};

use super::fields::Schemas;
use super::values::Values;
use super::{Rendered, render};
use crate::environment::Environment;
use crate::problem::{Code, Problem};

fn schemas() -> Schemas {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "text": {"type": "string"}, "count": {"type": "integer"}, "small": {"type": "integer", "format": "int32"}, "flag": {"type": "boolean"},
        "surge": {"x-kubernetes-int-or-string": true}, "names": {"type": "array", "items": {"type": "string"}},
        "sizes": {"type": "array", "items": {"type": "integer"}}, "free": {"x-kubernetes-preserve-unknown-fields": true},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    }}}});
    let version = json!({"name": "v1", "schema": {"openAPIV3Schema": schema}});
    Schemas::of_crds(&[json!({"spec": {"group": "x.io", "names": {"kind": "Thing"}, "versions": [version]}})])
}

fn run(template: &str, set: &[&str]) -> Result<Rendered, Problem> {
    let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
    let values = Values::new(&set, Environment::default(), &[])?;
    render(&[("t.yaml".to_owned(), template.to_owned())], &values, &schemas())
}

fn spec(body: &str, set: &[&str]) -> Result<Value, Problem> {
    let indented: String = body.lines().map(|line| format!("  {line}\n")).collect();
    let rendered = run(&format!("apiVersion: x.io/v1\nkind: Thing\nmetadata:\n  name: t\nspec:\n{indented}"), set)?;
    Ok(rendered.manifests[0].object["spec"].clone())
}

#[test]
fn a_value_arrives_intact_where_the_schema_says_string() {
    for value in [
        "12345", "p#x", "p #x", "yes", "a: b", "'", "\"x", "- x", "[x", "0x10", "~", "null", "1e3", "*a", "&a", "!t", "%", "@", "{",
        "x\n y",
    ] {
        assert_eq!(spec("text: ${V}", &[&format!("V={value}")]).unwrap(), json!({"text": value}), "{value}");
        assert_eq!(spec("labels:\n  a: ${V}", &[&format!("V={value}")]).unwrap(), json!({"labels": {"a": value}}), "{value}");
        let secret = format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  {}: {}", "${K}.password", "${V}");
        let object = run(&secret, &[&format!("V={value}"), "K=10.0.0.1"]).unwrap().manifests[0].object.clone();
        assert_eq!(object["stringData"], json!({"10.0.0.1.password": value}), "{value}");
    }
    // In a map of strings an empty one is one as well.
    let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  password: ${V}";
    assert_eq!(run(secret, &["V="]).unwrap().manifests[0].object["stringData"], json!({"password": ""}));
}

#[test]
fn other_fields_get_the_type_of_their_schema() {
    let set = ["N=3", "T=true", "S=25%", "E=", "L=[a, b]", "W=word"];
    let body = "count: ${N}\nflag: ${T}\nsurge: ${S}\nnames: [\"${N}\", \"x${N}\"]\nsizes:\n- ${N}\ntext: v${N}";
    let expected = json!({"count": 3, "flag": true, "surge": "25%", "names": ["3", "x3"], "sizes": [3], "text": "v3"});
    assert_eq!(spec(body, &set).unwrap(), expected);
    assert_eq!(spec("surge: ${N}\nnames: ${L}", &set).unwrap(), json!({"surge": 3, "names": ["a", "b"]}));
    assert_eq!(
        spec("free:\n  a: ${N}\n  b: ${W}\n  c: '${N}'\n  d: ${L}", &set).unwrap(),
        json!({"free": {"a": 3, "b": "word", "c": "3", "d": ["a", "b"]}})
    );
    assert_eq!(spec("text: ${E}\nlabels:\n  a: \"${E}\"", &set).unwrap(), json!({"text": null, "labels": {"a": ""}}));
}

#[test]
fn a_value_of_the_wrong_type_is_an_error_that_names_the_variable_and_not_the_value() {
    let problem = spec("count: ${N}\nflag: ${T}", &["N=secret-three", "T=maybe"]).unwrap_err();
    assert_eq!(problem.code, Code::BadValue);
    let text = problem.to_string();
    assert!(text.contains("N (from --set) is used at t.yaml:6:10 (Thing t), where an integer is needed"), "{text}");
    assert!(text.contains("T (from --set)") && text.contains("true or false") && !text.contains("secret-three"), "{text}");
}

#[test]
fn a_number_is_the_whole_value() {
    for (body, value) in [
        ("count: ${N}", "3 # x"),
        ("count: ${N}", ""),
        ("count: ${N}", "0x10"),
        ("count: ${N}", "null"),
        ("flag: ${N}", ""),
        ("flag: ${N}", "true # x"),
        ("surge: ${N}", ""),
        ("small: ${N}", "2147483648"),
    ] {
        let problem = spec(body, &[&format!("N={value}")]).unwrap_err();
        assert_eq!(problem.code, Code::BadValue, "{body} {value}");
        assert!(problem.what.contains("N (from --set)"), "{problem}");
        assert_eq!(problem.what.contains("is empty"), value.is_empty(), "{problem}");
    }
    assert_eq!(spec("count: ${N}\nsmall: ${N}", &["N=-3"]).unwrap(), json!({"count": -3, "small": -3}));
    assert_eq!(spec("free:\n  a: ${N}", &["N=3 # x"]).unwrap(), json!({"free": {"a": "3 # x"}}));
    let problem = spec("small: ${N}", &["N=2147483648"]).unwrap_err();
    assert!(problem.what.contains("an integer of at most 2147483647"), "{problem}");
}

#[test]
fn many_expressions_take_no_longer_than_their_number() {
    let items: String = (0..20_000).map(|index| format!("  k{index}: ${{V}}\n")).collect();
    let template = format!("apiVersion: x.io/v1\nkind: Thing\nmetadata:\n  name: t\nlabels:\n{items}");
    let values = Values::new(&["V=x".to_owned()], Environment::default(), &[]).unwrap();
    let rendered = render(&[("t.yaml".to_owned(), template)], &values, &schemas()).unwrap();
    assert_eq!(rendered.manifests[0].object["labels"]["k19999"], "x");
}

#[test]
fn every_variable_without_value_is_named_in_one_message_with_its_places() {
    let template = concat!(
        "apiVersion: x.io/v1\nkind: Thing\nmetadata:\n  name: ${A}\nspec:\n  text: ${B}${C:-ok}\n  # ${ONLY_A_COMMENT}\n",
        "---\napiVersion: x.io/v1\nkind: Thing\nmetadata:\n  name: two\nspec:\n  text: ${A}\n"
    );
    let problem = run(template, &[]).unwrap_err();
    assert_eq!(problem.code, Code::UnsetVariable);
    assert_eq!(problem.what, "2 variables have no value: A, B");
    assert_eq!(problem.evidence, ["A: t.yaml:4 (Thing ${A}), t.yaml:14 (Thing two)", "B: t.yaml:6 (Thing ${A})"]);
}

#[test]
fn sources_are_told() {
    let rendered = run("apiVersion: x.io/v1\nkind: Thing\nmetadata:\n  name: ${A}\nspec:\n  text: ${C:=dflt}\n", &["A=a"]).unwrap();
    let used: Vec<String> = rendered.used.iter().map(|used| format!("{}={} {}", used.name, used.value, used.source)).collect();
    assert_eq!(used, ["A=a --set", "C=dflt default in t.yaml:6"]);
}

#[test]
fn an_expression_that_stands_for_a_block_is_substituted_as_text() {
    let template = "apiVersion: x.io/v1\nkind: Thing\nmetadata:\n  name: t\n${BLOCK}\n";
    let rendered = run(template, &["BLOCK=spec:\n  count: 1"]).unwrap();
    assert_eq!(rendered.manifests[0].object["spec"], json!({"count": 1}));
}

#[test]
fn broken_documents_name_their_place() {
    let broken = "apiVersion: x.io/v1\nkind: Thing\nmetadata: {name: t}\n---\na: [1\nb: ${V}\n";
    let problem = run(broken, &["V=1"]).unwrap_err();
    assert_eq!(problem.code, Code::BadYaml);
    assert!(problem.what.starts_with("t.yaml:6") || problem.what.starts_with("t.yaml:5"), "{problem}");
    // The place is the template's, however long the values and the tokens for them are.
    let twice = "apiVersion: x.io/v1\nkind: ${KIND_OF_THING}\nmetadata: {name: \"${A_LONG_NAME}\", a: 1, a: 2}\n";
    let problem = run(twice, &["KIND_OF_THING=Thing", "A_LONG_NAME=t"]).unwrap_err();
    let column = twice.lines().nth(2).unwrap().rfind("a: 2").unwrap() + 1;
    assert_eq!(
        (problem.what.as_str(), problem.why.as_deref()),
        (format!("t.yaml:3:{column}: not YAML").as_str(), Some("the key `a` is there twice"))
    );
    assert_eq!(run("a: 1\n", &[]).unwrap_err().code, Code::NotAnObject);
    let problem = run("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\n", &[]).unwrap_err();
    assert!(
        problem.code == Code::NotAnObject && problem.what.contains("metadata.name") && problem.what.contains("is not text"),
        "{problem}"
    );
    let problem = run("apiVersion: v1\nkind: X\nmetadata:\n  name: ${A!}", &[]).unwrap_err();
    assert_eq!((problem.code, problem.what.starts_with("t.yaml:4:9:")), (Code::BadExpression, true), "{problem}");
}

#[test]
fn lists_are_taken_apart() {
    let rendered = run("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n", &[]).unwrap();
    assert_eq!(rendered.manifests.iter().map(super::Manifest::name).collect::<Vec<_>>(), ["a", "b"]);
}
