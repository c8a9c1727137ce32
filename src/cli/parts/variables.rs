//! The environment variables of the programs that `--exec` runs, as the help shows them.

/// The variables with their meanings, a line each.
pub(crate) fn list(variables: &[(&str, &str)]) -> String {
    let lines = variables.iter().map(|(name, meaning)| format!("  {name}: {meaning}"));
    lines.collect::<Vec<_>>().join("\n")
}
