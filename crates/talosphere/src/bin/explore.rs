//! The simulation engine's program: see `talosphere::explore`.

fn main() -> std::process::ExitCode {
    talosphere::explore::main()
}
