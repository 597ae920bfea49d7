//! Columns as kubectl prints them: upper-case heads, three blanks between, nothing behind the last.

/// Lays rows out under heads.
pub fn columns(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("   ").trim_end().to_owned()
    };
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let mut text = line(&heads);
    for row in rows {
        text.push('\n');
        text.push_str(&line(row));
    }
    text.push('\n');
    text
}

/// Lays out an answer of the API server in its Table form; columns of lower priority only when `wide`. `prefix` stands before each name.
pub fn of_answer(table: &serde_json::Value, wide: bool, with_namespace: bool, prefix: &str) -> String {
    use serde_json::Value;
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let definitions = list(table, "columnDefinitions");
    let shown: Vec<usize> = definitions
        .iter()
        .enumerate()
        .filter(|(_, column)| wide || column.get("priority").and_then(Value::as_i64).unwrap_or(0) == 0)
        .map(|(index, _)| index)
        .collect();
    let mut heads: Vec<String> = Vec::new();
    if with_namespace {
        heads.push("NAMESPACE".to_owned());
    }
    let name = |index: &usize| {
        definitions.get(*index).and_then(|column| column.get("name")).and_then(Value::as_str).unwrap_or_default().to_uppercase()
    };
    heads.extend(shown.iter().map(name));
    let rows: Vec<Vec<String>> = list(table, "rows")
        .iter()
        .map(|row| {
            let mut cells = Vec::new();
            if with_namespace {
                cells.push(row.pointer("/object/metadata/namespace").and_then(Value::as_str).unwrap_or_default().to_owned());
            }
            let values = list(row, "cells");
            cells.extend(shown.iter().map(|index| match values.get(*index) {
                Some(Value::String(text)) if *index == 0 => format!("{prefix}{text}"),
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            }));
            cells
        })
        .collect();
    columns(&heads.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "Running".to_owned()], vec!["longer-name".to_owned(), String::new()]];
        assert_eq!(columns(&["NAME", "PHASE"], &rows), "NAME          PHASE\na             Running\nlonger-name\n");
    }

    #[test]
    fn an_answer_shows_the_columns_of_its_priority() {
        let table = json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Desired", "priority": 10}, {"name": "Phase", "priority": 0}],
            "rows": [{"cells": ["a", 3, "Running"], "object": {"metadata": {"namespace": "ns"}}}],
        });
        assert_eq!(of_answer(&table, false, false, ""), "NAME   PHASE\na      Running\n");
        assert_eq!(of_answer(&table, true, true, ""), "NAMESPACE   NAME   DESIRED   PHASE\nns          a      3         Running\n");
        assert_eq!(of_answer(&table, false, false, "thing.x.io/"), "NAME           PHASE\nthing.x.io/a   Running\n");
    }
}
