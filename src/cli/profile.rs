//! Profiles: servers with names, so that nobody types addresses and paths of tokens.
//!
//! ```toml
//! default = "home"
//!
//! [profiles.home]
//! server = "http://127.0.0.1:8080"
//! token_file = "/var/lib/tidings/admin-token"
//! ```
//!
//! The file is `tidings/profiles.toml` below `$XDG_CONFIG_HOME` or `~/.config`. It holds no secret, but
//! whoever writes it says where tokens go: one that others may write to is refused. A server that is
//! named by hand takes nothing from a profile, so that no token goes to a server it is not meant for.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use config::{Config, File, FileFormat};
use serde::Deserialize;
use url::Url;

use super::{Code, Environment, Failure};

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profiles {
    default: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
}

/// A server with a name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    /// Its address.
    pub(super) server: Url,
    /// The file that holds the token for it.
    pub(super) token_file: Option<PathBuf>,
}

/// The profile of this name, or the default one; `None` where neither is asked for nor set.
///
/// # Errors
/// A file that cannot be read, that others may write to, or that has no such profile.
pub(super) fn find(name: Option<&str>, environment: &Environment) -> Result<Option<Profile>, Failure> {
    let file = file(environment);
    let profiles = match &file {
        Some(path) => read(path)?,
        None => Profiles::default(),
    };
    let Some(name) = name.map(str::to_owned).or(profiles.default) else { return Ok(None) };
    match profiles.profiles.get(&name) {
        Some(profile) => Ok(Some(profile.clone())),
        None => {
            let place = file
                .map_or_else(|| "there is no home directory".to_owned(), |path| path.display().to_string());
            Err(Failure::new(Code::Config, format!("there is no profile {name:?} ({place})")))
        }
    }
}

fn file(environment: &Environment) -> Option<PathBuf> {
    let folder = environment.get("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder = folder.or_else(|| Some(Path::new(&environment.get("HOME")?).join(".config")))?;
    Some(folder.join("tidings").join("profiles.toml"))
}

fn read(path: &Path) -> Result<Profiles, Failure> {
    let shown = path.display();
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Profiles::default()),
        Err(error) => return Err(Failure::new(Code::NoInput, format!("{shown} cannot be read: {error}"))),
    };
    if facts.permissions().mode() & 0o022 != 0 {
        let message = format!("{shown} can be written by others: chmod 600 it");
        return Err(Failure::new(Code::Permission, message));
    }
    if facts.len() > FILE_BYTES_MAX {
        return Err(Failure::new(Code::Config, format!("{shown} is too large to be profiles")));
    }
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(Code::NoInput, format!("{shown} cannot be read: {error}")))?;
    Config::builder()
        .add_source(File::from_str(&text, FileFormat::Toml))
        .build()
        .and_then(Config::try_deserialize)
        .map_err(|error| Failure::new(Code::Config, format!("{shown}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(text: &str, mode: u32) -> (tempfile::TempDir, Environment) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tidings/profiles.toml");
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(&file, text).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
        let variable = ("XDG_CONFIG_HOME".to_owned(), folder.path().display().to_string());
        (folder, Environment(vec![variable]))
    }

    const TWO: &str = "default = \"one\"\n[profiles.one]\nserver = \"http://one.example\"\n\
                       [profiles.two]\nserver = \"https://two.example\"\ntoken_file = \"/a/token\"\n";

    #[test]
    fn a_profile_is_found_by_its_name_or_as_the_default() {
        let (_folder, environment) = home(TWO, 0o600);
        let server = |name| find(name, &environment).expect("read").expect("there").server.to_string();
        assert_eq!(
            (server(None), server(Some("two"))),
            ("http://one.example/".into(), "https://two.example/".into())
        );
        assert_eq!(find(Some("three"), &environment).expect_err("missing").code, Code::Config);
        assert!(find(None, &Environment(Vec::new())).expect("nothing to read").is_none());
    }

    #[test]
    fn a_file_that_others_write_to_or_that_is_something_else_is_refused() {
        let (_folder, environment) = home(TWO, 0o622);
        assert_eq!(find(None, &environment).expect_err("open to all").code, Code::Permission);
        let (_folder, environment) =
            home("[profiles.one]\nserver = \"http://one.example\"\ntoken = \"x\"\n", 0o600);
        assert_eq!(find(None, &environment).expect_err("a token in it").code, Code::Config);
    }
}
