//! Options that have no effect with a verb: the command line is refused, so that the user does not expect an
//! effect.

use clap::{ArgMatches, CommandFactory, parser::ValueSource};

use crate::cli::Cli;

/// The verbs that are about all apps.
const OF_ALL: [&str; 3] = ["admin", "audit", "key"];
/// The options of `tidings listen` that need `--pull`.
const OF_PULL: [(&str, &str); 4] =
    [("server", "--server"), ("token_file", "--token-file"), ("profile", "--profile"), ("for_app", "--for")];

/// The message for an option without effect in this verb.
pub(crate) fn option(matches: &ArgMatches) -> Option<String> {
    let root = Cli::command();
    let (mut command, mut leaf, mut path) = (&root, matches, Vec::new());
    while let Some((name, inner)) = leaf.subcommand() {
        (command, leaf) = (command.find_subcommand(name)?, inner);
        path.push(name);
    }
    // Only debug builds of clap know which options a verb has, so the command is asked.
    let has = |id: &str| command.get_arguments().any(|argument| argument.get_id() == id);
    // A value from an environment variable is meant for all verbs, so it is never refused.
    let is_given = |id: &str| has(id) && leaf.value_source(id) == Some(ValueSource::CommandLine);
    if path == ["listen"] && !is_given("pull") {
        let (_, flag) = OF_PULL.into_iter().find(|(id, _)| is_given(id))?;
        return Some(format!(
            "{flag} does nothing with tidings listen unless --pull names a watch to ask for"
        ));
    }
    if !is_given("for_app") {
        return None;
    }
    let named = leaf.get_one::<String>("for_app")?;
    let why = match path[..] {
        [verb, ..] if OF_ALL.contains(&verb) => {
            let of = if has("of") { format!("; --of {named} takes that app alone") } else { String::new() };
            return Some(format!("--for does nothing with tidings {verb}, which is about all apps{of}"));
        }
        ["app", "create"] => "which registers a new app".to_owned(),
        ["app", "list"] => format!("which lists all apps; tidings app show {named} shows one"),
        ["app", "show" | "erase"] if is_given("id") => "where the app is named already".to_owned(),
        ["listen"] => {
            "which pulls with a token of the app itself: tidings token create --for APP makes one".to_owned()
        }
        _ => return None,
    };
    Some(format!("--for does nothing with tidings {}, {why}", path.join(" ")))
}
