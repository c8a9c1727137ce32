//! `tidings man`: the manual page, with every verb.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_mangen::Man;

use crate::cli::{Cli, Code, Failure};

/// Prints the page of the command and of each of its verbs, in the form that `man` reads.
pub(crate) fn run() -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Code::Failed, error.to_string());
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page).map_err(failed)?;
    verbs(&command, "tidings", &mut page).map_err(failed)?;
    let mut out = io::stdout().lock();
    out.write_all(&page).and_then(|()| out.flush()).map_err(|error| Failure::of_output(&error))
}

/// Each verb below its own heading.
fn verbs(command: &clap::Command, name: &str, page: &mut Vec<u8>) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set()) {
        let name = format!("{name} {}", verb.get_name());
        let man = Man::new(verb.clone());
        writeln!(page, ".SH \"{}\"", name.to_uppercase())?;
        let mut part = Vec::new();
        man.render_description_section(&mut part)?;
        man.render_synopsis_section(&mut part)?;
        man.render_options_section(&mut part)?;
        let text = String::from_utf8_lossy(&part).replace(".SH ", ".SS ");
        page.extend_from_slice(text.as_bytes());
        verbs(verb, &name, page)?;
    }
    Ok(())
}
