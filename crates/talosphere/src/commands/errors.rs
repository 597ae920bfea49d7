//! `error`: what a code means.

use crate::cli::ErrorPage;
use crate::output::table::columns;
use crate::problem::{Code, Problem};
use crate::seams::Seams;

/// Runs the command.
///
/// # Errors
/// When there is no such code.
pub fn run(args: &ErrorPage, seams: &Seams) -> Result<(), Problem> {
    let Some(wanted) = &args.code else {
        let rows: Vec<Vec<String>> = Code::ALL.iter().map(|code| vec![code.number().to_owned(), code.title().to_owned()]).collect();
        seams.printer.data(&columns(&["CODE", "MEANING"], &rows));
        return Ok(());
    };
    let code = Code::ALL.iter().find(|code| code.number().eq_ignore_ascii_case(wanted));
    let code = code
        .ok_or_else(|| Problem::new(Code::BadFlag, format!("there is no error code {wanted}")).remedy("`talosphere error` lists them"))?;
    seams.printer.data(&code.page());
    Ok(())
}
