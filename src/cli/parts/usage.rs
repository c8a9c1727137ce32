//! The message for a command line that cannot be parsed: the fault, a likely correction, and the command for
//! help about the verb.

use std::ffi::OsString;

use clap::{
    Command, CommandFactory,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::cli::{Cli, Code, Failure, client::without_user};

/// What parsers of numbers say, and the same for people.
const SAID: [(&str, &str); 3] = [
    ("invalid digit found in string", "write a whole number, 0 or more"),
    ("cannot parse integer from empty string", "write a whole number, 0 or more"),
    ("number too large to fit in target type", "the number is too large"),
];

/// The command, where `-1` after an option or for an argument is its value: its parser says what is wrong
/// with that value. Otherwise `-1` would be an unknown option.
pub(crate) fn with_negative_numbers(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    });
    command.mut_subcommands(with_negative_numbers)
}

/// The failure of a command line. A group of verbs without a verb (`tidings`, `tidings app`) prints the
/// list of its verbs instead.
pub(crate) fn failure(error: &clap::Error, arguments: &[OsString]) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // On standard error, because nothing was done. If it is closed, the exit code says the same.
        drop(error.print());
        return Failure::new(Code::Usage, "");
    }
    let mut text = error.render().to_string();
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        // The value of an address, from an option or a variable, may hold a password.
        text = text.replace(value.as_str(), &without_user(value));
    }
    let mut parts = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let said = parts.next().unwrap_or_default();
    let mut line = said.strip_prefix("error: ").unwrap_or(&said).to_owned();
    for part in parts {
        if let Some(tip) = part.strip_prefix("tip: ") {
            line = format!("{line}; {}", tip.replace(" tip: ", "; "));
        }
    }
    for (said, readable) in SAID {
        line = line.replace(said, readable);
    }
    Failure::new(Code::Usage, format!("{line} (see {} --help)", verb(arguments)))
}

/// The verb that a command line names, as far as it exists.
fn verb(arguments: &[OsString]) -> String {
    let mut command = &Cli::command();
    let mut path = command.get_name().to_owned();
    for word in arguments.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(found) = command.find_subcommand(word) {
            path = format!("{path} {}", found.get_name());
            command = found;
        }
    }
    path
}
