//! What the tests of the simulated machines share.

/// A file of the reference data that lies outside the repository. Without it a test prints that it was skipped, except where `CI` is set.
pub(crate) fn reference(path: &str) -> Option<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference");
    if !std::path::Path::new(root).is_dir() {
        #[allow(clippy::disallowed_methods)]
        let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!is_ci, "the reference data is missing: {root}");
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: no reference data at {root}");
        }
        return None;
    }
    std::fs::read_to_string(format!("{root}/{path}")).ok()
}

/// Standard base64.
pub(crate) fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
