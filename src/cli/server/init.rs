//! `tidings init`: writes a settings file that lists every setting with its default, all commented out.

use std::{
    fs::{OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use crate::cli::{Code, Context, Failure};
use crate::settings;

/// The head of the file.
const HEAD: &str = "\
# Settings of Tidings: tidings serve --config FILE, checked by tidings check-config --config FILE.
# Each setting stands here with its default; take the # away in front of those that you change.
";

#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// The settings file to write (mode 600: only its owner can read it)
    #[arg(value_name = "FILE", default_value = "tidings.toml")]
    file: PathBuf,
    /// Overwrite the file if it exists already
    #[arg(long)]
    replace: bool,
}

pub(crate) fn run(arguments: &InitArgs, context: &Context) -> Result<(), Failure> {
    let shown = arguments.file.display();
    write(arguments)
        .map_err(|error| Failure::new(Code::CannotCreate, cannot_write(&arguments.file, &error)))?;
    let lines = [
        format!("written  {shown}"),
        format!("next     tidings serve --config {shown}"),
        format!("or       tidings service install --settings {shown}"),
    ];
    context.output.print(&json!({ "written": arguments.file }), &lines)
}

/// Why the file was not written, with the mend.
fn cannot_write(file: &Path, error: &io::Error) -> String {
    let shown = file.display();
    let folder = file.parent().unwrap_or(file);
    match error.kind() {
        _ if file.is_dir() => format!("{shown} is a folder; give the name of the file to write"),
        ErrorKind::AlreadyExists => format!("{shown} is there already; --replace writes over it"),
        ErrorKind::NotFound => {
            format!("{shown} cannot be written: there is no folder {}", folder.display())
        }
        _ => format!("{shown} cannot be written: {error}"),
    }
}

fn write(arguments: &InitArgs) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).create_new(!arguments.replace).truncate(true).mode(0o600);
    let mut file = options.open(&arguments.file)?;
    // A file that existed keeps its mode, and secrets may be written into the new one.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text().as_bytes())?;
    file.sync_all()
}

/// The defaults, each line that sets something as a comment.
fn text() -> String {
    let is_setting = |line: &&str| !line.is_empty() && !line.starts_with(['#', '[']);
    // The first paragraph is about the file of defaults.
    let settings = settings::DEFAULTS.split_once("\n\n").map_or(settings::DEFAULTS, |(_, settings)| settings);
    let mut text = format!("{HEAD}\n");
    for line in settings.lines() {
        text.extend(is_setting(&line).then_some("#"));
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::settings::Settings;

    #[test]
    fn the_file_sets_nothing_and_each_of_its_settings_can_be_set() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tidings.toml");
        write(&InitArgs { file: file.clone(), replace: false }).expect("written");
        assert!(include_str!("../../../docs/operating.md").contains(HEAD), "the guide shows the head");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        let load = || Settings::load(Some(&file), std::iter::empty()).expect("settings").redacted();
        let defaults = Settings::load(None, std::iter::empty()).expect("defaults").redacted();
        assert_eq!(load(), defaults);
        let all = text().replace("\n#listen = \"127.0.0.1:8080\"", "\nlisten = \"127.0.0.1:9090\"");
        let set: String = all.lines().map(|line| format!("{}\n", uncommented(line))).collect();
        fs::write(&file, set).expect("written");
        assert_eq!(load()["server"]["listen"], "127.0.0.1:9090");
        let again = write(&InitArgs { file: file.clone(), replace: false }).expect_err("it is there");
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("set");
        write(&InitArgs { file: file.clone(), replace: true }).expect("written over");
        assert_eq!(load(), defaults);
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folder_in_place_of_a_file_and_a_folder_that_is_missing_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        for replace in [false, true] {
            let file = folder.path().to_owned();
            let error = write(&InitArgs { file: file.clone(), replace }).expect_err("a folder");
            let said = cannot_write(&file, &error);
            assert!(said.ends_with("is a folder; give the name of the file to write"), "{said}");
        }
        let file = folder.path().join("absent/tidings.toml");
        let error = write(&InitArgs { file: file.clone(), replace: false }).expect_err("no folder");
        let expected = format!("there is no folder {}", folder.path().join("absent").display());
        assert!(cannot_write(&file, &error).ends_with(&expected), "{error}");
    }

    /// The line after a person has removed the sign of a comment from each setting.
    fn uncommented(line: &str) -> &str {
        line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)
    }
}
