//! `pg completions` and `pg man`: what a shell and a reader want to know of the arguments, made from them.

use std::io::{self, Write};

use clap::{Args, Command};
use clap_complete::Shell;

/// Arguments of `pg completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the completions of a shell.
pub(crate) fn completions(args: &CompletionsArgs, command: &mut Command) -> io::Result<()> {
    // clap_complete panics where standard output is closed; a buffer never is.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, command, "pg", &mut text);
    io::stdout().lock().write_all(&text)
}

/// Prints the manual page: the command, and then each of its commands.
pub(crate) fn man(mut command: Command) -> io::Result<()> {
    command.build();
    let mut out = io::stdout().lock();
    clap_mangen::Man::new(command.clone()).render(&mut out)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        // Built, a command is displayed by its whole name: `pg-run`.
        let page = clap_mangen::Man::new(sub.clone());
        page.render_name_section(&mut out)?;
        page.render_synopsis_section(&mut out)?;
        page.render_description_section(&mut out)?;
        page.render_options_section(&mut out)?;
    }
    Ok(())
}
