//! `render`: templates and values to manifests on standard output.

use super::input;
use crate::cli::Render;
use crate::output::table::columns;
use crate::problem::{Code, Problem};
use crate::render::yaml;
use crate::seams::Seams;

/// Words in a variable's name that say that its value is not to be shown.
const SECRET_WORDS: &[&str] = &["PASS", "PWD", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH"];

/// Whether a variable's value is not to be shown.
fn is_secret(name: &str) -> bool {
    let name = name.to_uppercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

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
                vec![
                    used.name.clone(),
                    if is_secret(&used.name) { "(not shown)".to_owned() } else { used.value.clone() },
                    used.source.to_string(),
                ]
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

#[cfg(test)]
mod tests {
    use super::is_secret;

    #[test]
    fn values_of_secrets_are_known_by_their_names() {
        for name in ["VSPHERE_PASSWORD", "db_pass", "ROOT_PWD", "ApiToken", "ssh_key", "CREDENTIALS", "BASIC_AUTH", "client_secret"] {
            assert!(is_secret(name), "{name}");
        }
        assert!(!is_secret("CLUSTER_NAME") && !is_secret("VSPHERE_USERNAME"));
    }
}
