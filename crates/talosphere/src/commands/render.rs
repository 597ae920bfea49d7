//! `render`: templates and values to manifests on standard output.

use super::input;
use crate::cli::Render;
use crate::output::table::columns;
use crate::problem::{Code, Problem};
use crate::render::yaml;
use crate::seams::Seams;

/// Words in a variable's name that say that its value is not to be shown.
const SECRET_WORDS: &[&str] = &["PASSWORD", "SECRET", "TOKEN", "KEY"];

/// Runs the command.
///
/// # Errors
/// As rendering does.
pub fn run(args: &Render, seams: &Seams) -> Result<(), Problem> {
    if args.input.files.is_empty() {
        return Err(Problem::new(Code::BadFlag, "nothing to render").remedy("name a template with -f FILE"));
    }
    let values = input::values(&args.input, &[], seams)?;
    let rendered = input::manifests(&input::read_all(&args.input.files)?, &values)?;
    if args.show_values {
        let rows: Vec<Vec<String>> = rendered
            .used
            .iter()
            .map(|used| {
                let is_secret = SECRET_WORDS.iter().any(|word| used.name.contains(word));
                vec![used.name.clone(), if is_secret { "(not shown)".to_owned() } else { used.value.clone() }, used.source.to_string()]
            })
            .collect();
        seams.printer.data(&columns(&["VARIABLE", "VALUE", "FROM"], &rows));
        return Ok(());
    }
    let text =
        yaml::write_all(rendered.manifests.iter().map(|manifest| &manifest.object)).map_err(|error| Problem::new(Code::Internal, error))?;
    seams.printer.data(&text);
    Ok(())
}
