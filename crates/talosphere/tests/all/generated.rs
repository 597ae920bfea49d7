//! Pages that are made from the code are as the code would make them. `UPDATE=1` rewrites them.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use talosphere::cli::Cli;
use talosphere::problem;

fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    #[allow(clippy::disallowed_methods)] // a switch for the person who runs the tests
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "docs/{name} is stale: UPDATE=1 cargo test -p talosphere generated");
}

#[test]
fn the_error_pages_are_fresh() {
    check("errors.md", &problem::pages());
}

#[test]
fn the_command_reference_is_fresh() {
    let mut text = "# Commands\n".to_owned();
    let mut root = Cli::command().term_width(100);
    root.build();
    for command in root.get_subcommands() {
        let mut pages = vec![(format!("## talosphere {}", command.get_name()), command.clone())];
        pages.extend(
            command.get_subcommands().map(|inner| (format!("### talosphere {} {}", command.get_name(), inner.get_name()), inner.clone())),
        );
        for (heading, mut page) in pages {
            let help = page.render_long_help().to_string();
            let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
            text.push_str(&format!("\n{heading}\n\n```\n{}\n```\n", lines.join("\n").trim_end()));
        }
    }
    check("commands.md", &text);
}

/// What `docs/safety.md` names is there: files by their path, tests as `file::test`.
#[test]
fn the_safety_page_names_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/safety.md")).unwrap();
    let named: Vec<&str> = page.split('`').filter(|text| text.starts_with("crates/")).collect();
    assert!(named.len() > 40, "the page names {} places", named.len());
    let is_missing = |name: &&str| {
        let (file, test) = name.split_once("::").map_or((*name, None), |(file, test)| (file, Some(test)));
        let Ok(text) = fs::read_to_string(root.join(file)) else { return true };
        test.is_some_and(|test| !text.contains(&format!("fn {test}(")))
    };
    let missing: Vec<&str> = named.into_iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "docs/safety.md names what is not there: {missing:#?}");
}
