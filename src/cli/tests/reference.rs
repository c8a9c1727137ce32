//! The guide's page of commands, made from the definition of the command line, and the rule that every
//! command and option says something.

use std::{collections::BTreeMap, fmt::Write};

use clap::{Arg, Command, CommandFactory, builder::StyledStr};
use tidings_entity::id::{
    AppId, CursorId, DeadLetterId, ReceiptId, RedriveId, RepositoryId, SinkId, SourceId, TaskId, TokenId,
    WatchId,
};

use super::{Cli, worker};
use crate::sinks::exec::{CHANGE_VARIABLES, ROUND_VARIABLES};

/// An option that this many commands have stands once, in the table of common options.
const COMMON: usize = 10;
/// A help text of this many words or fewer ("The name of it") tells a stranger nothing.
const HELP_WORDS: usize = 4;

/// A command or subcommand with the words that call it, such as `tidings queue set`.
struct Called {
    path: String,
    command: Command,
}

impl Called {
    /// The arguments of the command alone: without those that every command has.
    fn arguments(&self) -> impl Iterator<Item = &Arg> {
        let of_all = ["help", "version"];
        let arguments = self.command.get_arguments();
        arguments.filter(move |argument| {
            !argument.is_hide_set()
                && !argument.is_global_set()
                && !of_all.contains(&argument.get_id().as_str())
        })
    }

    fn is_group(&self) -> bool {
        commands_of(&self.command).next().is_some()
    }
}

fn commands_of(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| command.get_name() != "help" && !command.is_hide_set())
}

/// Every command below `tidings`, each behind the group that it belongs to.
fn all_commands() -> Vec<Called> {
    fn collect(command: &Command, path: &str, all: &mut Vec<Called>) {
        for command in commands_of(command) {
            let path = format!("{path} {}", command.get_name());
            all.push(Called { path: path.clone(), command: command.clone() });
            collect(command, &path, all);
        }
    }
    let mut root = Cli::command();
    root.build();
    let mut all = Vec::new();
    collect(&root, "tidings", &mut all);
    all
}

/// How an argument is written: `<COMMAND>`, `-q, --query FILTER`, `--all`.
fn spelling(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let values: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let values = values.join(" ");
    if argument.is_positional() {
        return format!("<{values}>");
    }
    let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let long = argument.get_long().unwrap_or_default();
    match argument.get_action().takes_values() {
        true => format!("{short}--{long} {values}"),
        false => format!("{short}--{long}"),
    }
}

/// A help text, each of its paragraphs and of the lines of a list on a line of its own.
fn in_lines(text: Option<&StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

/// A help text in one line.
fn in_one_line(text: Option<&StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What an argument means, with its values, its default and its variable.
fn meaning(argument: &Arg) -> String {
    let mut meaning = in_lines(argument.get_long_help().or(argument.get_help()));
    let values = argument.get_possible_values();
    let values: Vec<String> = values
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}` ({})", value.get_name(), in_one_line(Some(help))),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    if argument.get_action().takes_values() && !values.is_empty() {
        meaning = format!("{meaning} [one of: {}]", values.join(", "));
    }
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        meaning = format!("{meaning} [default: {}]", defaults.join(", "));
    }
    if let Some(variable) = argument.get_env() {
        meaning = format!("{meaning} [variable: {}]", variable.to_string_lossy());
    }
    // Text in backticks stands as it is; elsewhere Markdown would read these characters as its own.
    let parts = meaning.split('`').enumerate().map(|(number, part)| match number.is_multiple_of(2) {
        true => part.replace('*', "\\*").replace('<', "&lt;"),
        false => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`").replace('|', "\\|").replace('\n', "<br>")
}

fn row(argument: &Arg) -> String {
    format!("| `{}` | {} |\n", spelling(argument), meaning(argument))
}

fn table(arguments: &[&Arg]) -> String {
    let rows: String = arguments.iter().map(|argument| row(argument)).collect();
    match rows.is_empty() {
        true => rows,
        false => format!("\n| argument or option | meaning |\n|---|---|\n{rows}"),
    }
}

/// The part of the page about one command.
fn part(called: &Called, count: &BTreeMap<String, usize>) -> String {
    let level = if called.path.split(' ').count() > 2 { "###" } else { "##" };
    let about = called.command.get_long_about().or(called.command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let mut part = format!("\n{level} `{}`\n\n{}\n", called.path, about.trim());
    if !called.is_group() {
        let usage = called.command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage:").trim();
        write!(part, "\n```text\n{usage}\n```\n").expect("a String takes all");
    }
    let is_common = |argument: &&Arg| count.get(&row(argument)).is_some_and(|count| *count >= COMMON);
    let (common, own): (Vec<&Arg>, Vec<&Arg>) = called.arguments().partition(is_common);
    part.push_str(&table(&own));
    if !common.is_empty() {
        let names: Vec<String> = common.iter().map(|argument| format!("`{}`", spelling(argument))).collect();
        write!(part, "\n[Common options](#common-options): {}.\n", names.join(", "))
            .expect("a String takes all");
    }
    part
}

fn page() -> String {
    let all = all_commands();
    let mut count = BTreeMap::new();
    let mut common = Vec::new();
    for argument in all.iter().flat_map(Called::arguments) {
        let times = count.entry(row(argument)).or_insert(0);
        *times += 1;
        if *times == COMMON {
            common.push(argument);
        }
    }
    let root = Cli::command();
    let of_all: Vec<&Arg> = root.get_arguments().collect();
    let mut page = format!(
        "# The command line\n\nMade from the definition of the command line, which `tidings help` prints too; \
         `UPDATE_EXPECT=1 cargo test --lib reference` rewrites it.\n\n\
         Results go to standard output, messages and failures to standard error. The exit code is one of these:\n\n\
         | code | meaning |\n|---|---|\n\
         | 0 | the command did what it says |\n\
         | 1 | a failure without a code of its own |\n\
         | 64 | the command line cannot be read |\n\
         | 65 | an argument is wrong, or names a thing that does not exist |\n\
         | 66 | a file cannot be read |\n\
         | 69 | the server does not answer, or is not available |\n\
         | 70 | a defect of Tidings |\n\
         | 73 | a file cannot be written |\n\
         | 77 | no token is given, or the token does not allow the request |\n\
         | 78 | the settings have faults |\n\
         | 141 | the reader of the output has gone |\n\n\
         ## Common options\n\nEvery command has these:\n{}\n\
         Many commands have these; each command below names those that it has:\n{}",
        table(&of_all),
        table(&common)
    );
    page.extend(all.iter().map(|called| part(called, &count)));
    page
}

#[test]
fn the_guide_lists_every_command_and_option() {
    expect_test::expect_file!["../../../docs/cli.md"].assert_eq(&page());
}

#[test]
fn every_command_and_option_says_what_it_does() {
    let mut thin = Vec::new();
    for called in all_commands() {
        let about = in_one_line(called.command.get_about());
        let mut check = |thing: String, help: &str| {
            if help.split_whitespace().count() <= HELP_WORDS {
                thin.push(format!("{thing}: {help:?}"));
            }
        };
        check(called.path.clone(), &about);
        for argument in called.arguments() {
            check(format!("{} {}", called.path, spelling(argument)), &in_one_line(argument.get_help()));
        }
    }
    assert!(thin.is_empty(), "a help text of at most {HELP_WORDS} words:\n{}", thin.join("\n"));
}

#[test]
fn a_number_says_its_unit() {
    let units = [("SECONDS", "second"), ("BYTES", "byte"), ("MS", "millisecond"), ("GLOB", "glob")];
    let mut silent = Vec::new();
    for called in all_commands() {
        for argument in called.arguments() {
            let names = argument.get_value_names().unwrap_or_default();
            let unit = units.iter().find(|(name, _)| names.iter().any(|value| value.as_str() == *name));
            if let Some((_, unit)) = unit
                && !meaning(argument).to_lowercase().contains(unit)
            {
                silent.push(format!("{} {}", called.path, spelling(argument)));
            }
        }
    }
    assert!(silent.is_empty(), "the help does not say the unit:\n{}", silent.join("\n"));
}

#[test]
fn a_help_text_names_ids_by_the_prefix_that_they_have() {
    let known = [
        AppId::PREFIX,
        CursorId::PREFIX,
        DeadLetterId::PREFIX,
        ReceiptId::PREFIX,
        RedriveId::PREFIX,
        RepositoryId::PREFIX,
        SinkId::PREFIX,
        SourceId::PREFIX,
        TaskId::PREFIX,
        TokenId::PREFIX,
        WatchId::PREFIX,
        "dlv_",
        "whsec_",
    ];
    let mut unknown = Vec::new();
    for called in all_commands() {
        for argument in called.arguments() {
            let help = meaning(argument);
            for (end, _) in help.match_indices("_...") {
                let begin = help[..end].rfind(|c: char| !c.is_ascii_lowercase()).map_or(0, |at| at + 1);
                if !known.contains(&&help[begin..=end]) {
                    unknown.push(format!("{} {}: {}", called.path, spelling(argument), &help[begin..=end]));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "no id begins like this:\n{}", unknown.join("\n"));
}

#[test]
fn the_variables_of_programs_stand_in_the_help_and_in_the_guide() {
    let guide = include_str!("../../../docs/indexing.md");
    let all = all_commands();
    for (path, variables) in [
        ("tidings watch", &ROUND_VARIABLES[..]),
        ("tidings watch", &CHANGE_VARIABLES[..]),
        ("tidings worker start", &worker::VARIABLES[..]),
    ] {
        let called = all.iter().find(|called| called.path == path).expect("a command");
        let exec = called.arguments().find(|argument| argument.get_long() == Some("exec"));
        let help = in_one_line(exec.expect("an option").get_long_help());
        for (name, meaning) in variables {
            assert!(help.contains(&format!("{name}: {meaning}")), "{path} --help: {name}");
            assert!(guide.contains(&format!("| `{name}` | {meaning} |\n")), "docs/indexing.md: {name}");
        }
    }
}
