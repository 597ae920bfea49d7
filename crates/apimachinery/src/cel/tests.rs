//! Tables of expressions with their values.

use serde_json::{Value, json};

use super::Expression;

fn value(text: &str, object: &Value) -> Result<Value, String> {
    let expression = Expression::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    expression.evaluate(&[("self", object), ("oldSelf", &json!({"n": 1}))]).map_err(|error| error.to_string())
}

#[test]
fn expressions_have_their_values() {
    let object = json!({"n": 3, "f": 1.5, "s": "Ready", "list": [1, 2, 3], "names": ["a", "b"], "map": {"k": "v", "a-b": 1}, "null": null, "nested": {"x": true}});
    for (text, expected) in [
        ("true", json!(true)),
        ("self.n == 3", json!(true)),
        ("self.n == 3.0", json!(true)),
        ("self.n + 2 * 3 - 1", json!(8)),
        ("(self.n + 2) * 3 % 4", json!(3)),
        ("7 / 2", json!(3)),
        ("self.f * 2", json!(3.0)),
        ("-self.n < 0 && !false", json!(true)),
        ("!!true", json!(true)),
        ("- -1", json!(1)),
        ("0x10 == 16 && 1u == 1 && 1e3 == 1000", json!(true)),
        ("self.s + '!' == \"Ready!\"", json!(true)),
        ("'a\\n\\x41\\u0042' == \"a\\nAB\"", json!(true)),
        ("r'\\d' == '\\\\d'", json!(true)),
        ("'''it's''' == \"it's\"", json!(true)),
        ("!(self.s in ['Ready', 'Available'])", json!(false)),
        ("'k' in self.map && !('z' in self.map)", json!(true)),
        ("has(self.n) && !has(self.none) && has(self.__null__) && self.__null__ == null", json!(true)),
        ("has(self.none) ? self.none : 'default'", json!("default")),
        ("self.list[1] + self.map['a-b']", json!(3)),
        ("self.map.a__dash__b", json!(1)),
        ("self.list.all(x, x > 0)", json!(true)),
        ("self.list.exists(x, x == 2)", json!(true)),
        ("self.list.exists_one(x, x > 1)", json!(false)),
        ("self.list.all(x, self.list.exists_one(y, x == y))", json!(true)),
        ("[1, 1].all(x, [1, 1].exists_one(y, x == y))", json!(false)),
        ("self.list.filter(x, x > 1).map(x, x * 10)", json!([20, 30])),
        ("self.list.map(x, x > 2, x)", json!([3])),
        ("self.map.all(k, k != '')", json!(true)),
        ("self.nested == {'x': true}", json!(true)),
        ("[1, 2] == [1, 2.0]", json!(true)),
        ("size(self.list) == 3 && self.s.size() == 5 && size(self.map) == 2", json!(true)),
        ("self.s.startsWith('Re') && self.s.endsWith('dy') && self.s.contains('ead')", json!(true)),
        ("self.s.matches('^[A-Z][a-z]+$')", json!(true)),
        ("self.s.lowerAscii() + 'x'.upperAscii() + ' y '.trim()", json!("readyXy")),
        ("'a,b'.split(',') == self.names && self.names.join('-') == 'a-b'", json!(true)),
        ("'aXb'.replace('X', '-').indexOf('b')", json!(2)),
        ("string(self.n) + string(true)", json!("3true")),
        ("int('42') + int(1.9) == 43 && double('1.5') == self.f", json!(true)),
        ("self.list.min() + self.list.max() + self.list.sum()", json!(10)),
        ("self.list.isSorted() && ![2, 1].isSorted()", json!(true)),
        ("self.n >= oldSelf.n", json!(true)),
        ("true || self.none", json!(true)),
        ("self.none || true", json!(true)),
        ("false && self.none", json!(false)),
        ("self.n // the end\n > 2", json!(true)),
    ] {
        assert_eq!(value(text, &object), Ok(expected), "{text}");
    }
}

#[test]
fn what_has_no_value_says_why() {
    let object = json!({"n": 3, "list": [1]});
    for (text, expected) in [
        ("self.none", "no such key: none"),
        ("self.list[5]", "index out of bounds: 5"),
        ("self.n + 'x'", "no such overload: arithmetic(int, string)"),
        ("self.n < 'x'", "no such overload: comparison(int, string)"),
        ("self.n && true", "no such overload: bool(int)"),
        ("1 / 0", "division by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("other", "undeclared reference to 'other'"),
        ("'x'.matches('(')", "error parsing regexp: ("),
        ("self.none || false", "no such key: none"),
    ] {
        assert_eq!(value(text, &object), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn a_costly_expression_is_cut_off() {
    let object = json!((0..200).collect::<Vec<i32>>());
    let text = "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))";
    assert_eq!(value(text, &object), Err("operation cancelled: actual cost limit exceeded".to_owned()));
}

#[test]
fn what_is_not_understood_does_not_compile() {
    for text in [
        "",
        "self.",
        "1 +",
        "(1",
        "[1",
        "{1 2}",
        "self.all(x)",
        "has(self)",
        "a ? b",
        "'open",
        "isURL(self)",
        "self.x.format()",
        "duration('1h')",
        "optional.of(1)",
        "self[?0]",
        "1 2",
        "#",
        "'\\q'",
        "b'bytes'",
    ] {
        assert!(Expression::compile(text).is_err(), "{text}");
    }
    let deep = format!("{}1{}", "(".repeat(100), ")".repeat(100));
    assert!(Expression::compile(&deep).is_err());
    assert!(Expression::compile(&vec!["1"; 5000].join("+")).is_err());
    assert!(Expression::compile(&format!("self{}", ".a".repeat(5000))).is_err());
    // As deep as it can be, it still fits on a thread's stack.
    let deepest = Expression::compile(&vec!["1"; 99].join("+")).unwrap();
    assert_eq!(deepest.evaluate(&[]), Ok(json!(99)));
    let long = Expression::compile(&vec!["self.x != 1"; 150].join(" && ")).unwrap();
    assert_eq!(long.evaluate(&[("self", &json!({"x": 2}))]), Ok(json!(true)));
}

#[test]
fn a_rule_on_changes_is_known_by_its_variable() {
    assert!(Expression::compile("self == oldSelf").unwrap().mentions("oldSelf"));
    assert!(!Expression::compile("self.all(oldSelf, oldSelf > 1)").unwrap().mentions("oldSelf"));
}
