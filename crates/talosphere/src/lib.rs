//! talosphere: Cluster API manifests to running Talos Linux clusters on VMware vSphere.
//!
//! The library is what the binary is made of; `main` only hands the process's own seams to it, so that tests and benchmarks can hand in
//! others.

#![cfg_attr(test, allow(clippy::disallowed_methods))] // seeded sources

pub mod apply;
pub mod cli;
pub mod commands;
pub mod environment;
pub mod explore;
pub mod follow;
pub mod host;
pub mod names;
pub mod output;
pub mod problem;
pub mod render;
pub mod seams;
pub mod signal;
pub mod site;
pub mod state;
pub mod tree;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole program: the process's own seams, the command line, an exit code.
pub fn main() -> ExitCode {
    // A panic that is caught and told as an error of the state directory is not shown as well.
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !apiserver::is_guarded() {
            shown(panic);
        }
    }));
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // The Kubernetes client's own warnings show answers in full, Secrets included: they are never shown.
    let level = match cli.verbose {
        0 => "warn,kube_client=off",
        1 => "warn,talosphere=debug,kube_client=off",
        // What the HTTP libraries say of their own queues and tables helps nobody.
        _ => "debug,kube_client=off,tower=warn,hyper=info,hyper_util=info,h2=info,rustls=info",
    };
    let environment = environment::Environment::of_process();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(output::is_coloured(&environment))
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("the asynchronous runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let seams = match seams::Seams::of_process() {
            Ok(seams) => seams,
            Err(problem) => {
                output::Printer::standard(runtime::clock::Clock::system(), &environment).note(&problem);
                return ExitCode::from(problem.code.exit() as u8);
            }
        };
        match commands::run(cli, &seams).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                seams.printer.settle();
                seams.printer.note(&problem);
                ExitCode::from(problem.code.exit() as u8)
            }
        }
    })
}
