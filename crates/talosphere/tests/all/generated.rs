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
