//! The `pg` command: from a model file to a scored artifact. See `pg --help`.

mod cli;

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    // `first_step_s` counts from here.
    cli::main(Instant::now())
}
