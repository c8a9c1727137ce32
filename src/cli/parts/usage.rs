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

/// Options that a variable gives, too: a person who did not write the option looks for the variable.
const GIVEN_BY: [(&str, &str); 2] = [("--server", "TIDINGS_SERVER"), ("--profile", "TIDINGS_PROFILE")];

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
        // The message names all values already; a similar word can mean something else, such as the state of
        // other tasks.
        let tip = part.strip_prefix("tip: ").filter(|tip| !tip.starts_with("a similar value exists"));
        if let Some(tip) = tip {
            line = format!("{line}; {}", tip.replace(" tip: ", "; "));
        }
    }
    if error.kind() == ErrorKind::ArgumentConflict {
        for (option, variable) in GIVEN_BY {
            let is_given =
                arguments.iter().any(|word| word.to_str().is_some_and(|word| word.starts_with(option)));
            if line.contains(&format!("'{option}")) && !is_given {
                line = format!("{line}; the variable {variable} gives {option}");
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said about the words `given`, of which a person wrote only `written`.
    fn said(given: &str, written: &str) -> String {
        let parsed = with_negative_numbers(Cli::command()).try_get_matches_from(given.split(' '));
        let written: Vec<OsString> = written.split(' ').map(OsString::from).collect();
        failure(&parsed.expect_err(given), &written).message
    }

    #[test]
    fn no_other_state_is_proposed_for_a_state_that_does_not_exist() {
        for state in ["claimed", "ready", "fail"] {
            let text = format!("tidings queue purge index --state {state} --yes");
            let said = said(&text, &text);
            assert!(said.contains("failed, dead, cancelled") && !said.contains("similar"), "{said}");
        }
    }

    #[test]
    fn a_variable_that_gives_an_option_is_named() {
        let both = "tidings app list --profile app --server http://h";
        let said_of_variable = said(both, "tidings app list --profile app");
        assert!(
            said_of_variable.contains("the variable TIDINGS_SERVER gives --server"),
            "{said_of_variable}"
        );
        assert!(!said_of_variable.contains("TIDINGS_PROFILE"), "{said_of_variable}");
        assert!(!said(both, both).contains("variable"), "both options are written");
    }
}
