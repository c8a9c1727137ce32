//! Profiles: named servers, so that a user need not type addresses and token files.
//!
//! ```toml
//! default = "home"
//!
//! [profiles.home]
//! server = "http://127.0.0.1:8080"
//! token_file = "/var/lib/tidings/admin-token"
//! ```
//!
//! The file is `tidings/profiles.toml` below `$XDG_CONFIG_HOME` or `~/.config`; `tidings auth` writes the
//! file too. The file holds no secret, but decides to which server a token is sent: a file that others may
//! write to is refused. A server that is named by a flag uses nothing of a profile, so that the token of a
//! profile is sent only to the server of that profile. `--token-file` and `TIDINGS_TOKEN` override the token
//! of a profile.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use config::{Config, File, FileFormat};
use serde::Deserialize;
use url::Url;

use crate::cli::{Code, Environment, Failure};

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
pub(crate) struct Profile {
    /// The address of the server.
    pub(crate) server: Url,
    /// The file that holds the token for it.
    pub(crate) token_file: Option<PathBuf>,
}

/// Where the profiles of a user lie.
pub(crate) struct Home(PathBuf);

impl Home {
    /// The folder of the user who runs this process.
    ///
    /// # Errors
    /// If the user has no home directory.
    pub(crate) fn of(environment: &Environment) -> Result<Self, Failure> {
        let set = |name: &str| environment.get(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
        folder.map(|folder| Self(folder.join("tidings"))).ok_or_else(|| {
            Failure::new(Code::Config, "there is no home directory: HOME and XDG_CONFIG_HOME are not set")
        })
    }

    fn file(&self) -> PathBuf {
        self.0.join("profiles.toml")
    }

    /// The file for the token of a profile that `tidings auth login` keeps.
    pub(crate) fn token_file(&self, name: &str) -> PathBuf {
        self.0.join("tokens").join(name)
    }

    /// Checks the name of a profile, which is the name of its token file too.
    ///
    /// # Errors
    /// A name with other characters than letters, digits, `-` and `_`.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), Failure> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if !name.is_empty() && name.chars().all(is_plain) {
            return Ok(());
        }
        let said = format!("{name:?} is no name of a profile: letters, digits, - and _ make one");
        Err(Failure::new(Code::Usage, said))
    }

    /// The profile of this name, or the default one, with its name; `None` if no name is given and no default
    /// is set.
    ///
    /// # Errors
    /// If the file cannot be read, is writable by others, or has no such profile.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<Option<(String, Profile)>, Failure> {
        let path = self.file();
        let profiles = parse(&path, &read(&path)?)?;
        let Some(name) = name.map(str::to_owned).or(profiles.default) else { return Ok(None) };
        match profiles.profiles.get(&name) {
            Some(profile) => Ok(Some((name, profile.clone()))),
            None => {
                let said = format!("there is no profile {name:?} ({})", path.display());
                Err(Failure::new(Code::Config, said))
            }
        }
    }

    /// The names of all profiles.
    ///
    /// # Errors
    /// If the file cannot be read, or is writable by others.
    pub(crate) fn names(&self) -> Result<Vec<String>, Failure> {
        let path = self.file();
        Ok(parse(&path, &read(&path)?)?.profiles.into_keys().collect())
    }

    /// Writes a profile and replaces an existing one of this name; the first profile becomes the default.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(crate) fn save(&self, name: &str, profile: &Profile) -> Result<(), Failure> {
        let path = self.file();
        let mut text = without(&read(&path)?, name);
        if parse(&path, &text)?.default.is_none() {
            text.insert_str(0, &format!("default = \"{name}\"\n"));
        }
        if !text.ends_with("\n\n") {
            text.push('\n');
        }
        text += &format!("[profiles.{name}]\nserver = {:?}\n", profile.server.as_str());
        if let Some(token_file) = &profile.token_file {
            text += &format!("token_file = {token_file:?}\n");
        }
        self.write(&text)
    }

    /// Removes a profile, and the line that makes it the default.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        let path = self.file();
        let text = without(&read(&path)?, name);
        let is_default = parse(&path, &text)?.default.as_deref() == Some(name);
        let is_of_default = |line: &&str| is_default && line.trim_start().starts_with("default");
        let mut kept: String =
            text.lines().filter(|line| !is_of_default(line)).flat_map(|line| [line, "\n"]).collect();
        kept.truncate(kept.trim_end().len());
        kept.push('\n');
        self.write(&kept)
    }

    /// Writes the file, unless the text could not be parsed again.
    fn write(&self, text: &str) -> Result<(), Failure> {
        let path = self.file();
        parse(&path, text)?;
        let written = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            let aside = path.with_extension("new");
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&aside, &path)
        };
        written().map_err(|error: io::Error| {
            Failure::new(Code::CannotCreate, format!("{} cannot be written: {error}", path.display()))
        })
    }
}

/// The profile of this name, or the default one; `None` if no name is given and no default is set.
///
/// # Errors
/// As [`Home::find`].
pub(crate) fn find(name: Option<&str>, environment: &Environment) -> Result<Option<Profile>, Failure> {
    match (Home::of(environment), name) {
        (Ok(home), name) => Ok(home.find(name)?.map(|(_, profile)| profile)),
        (Err(_), None) => Ok(None),
        (Err(failure), Some(_)) => Err(failure),
    }
}

/// The text of the file without the section of a profile; all other text, comments too, is kept.
fn without(text: &str, name: &str) -> String {
    let head = format!("[profiles.{name}]");
    let mut is_inside = false;
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        if line.trim_start().starts_with('[') {
            is_inside = line.trim() == head;
        }
        if !is_inside {
            kept.extend([line, "\n"]);
        }
    }
    kept
}

/// The text of the file; empty if the file does not exist.
fn read(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(Failure::new(Code::NoInput, format!("{shown} cannot be read: {error}"))),
    };
    if facts.permissions().mode() & 0o022 != 0 {
        let message = format!("{shown} can be written by others: chmod 600 it");
        return Err(Failure::new(Code::Permission, message));
    }
    if facts.len() > FILE_BYTES_MAX {
        return Err(Failure::new(Code::Config, format!("{shown} is too large to be profiles")));
    }
    fs::read_to_string(path)
        .map_err(|error| Failure::new(Code::NoInput, format!("{shown} cannot be read: {error}")))
}

fn parse(path: &Path, text: &str) -> Result<Profiles, Failure> {
    Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build()
        .and_then(Config::try_deserialize)
        .map_err(|error| Failure::new(Code::Config, format!("{}: {error}", path.display())))
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
    fn a_profile_is_written_and_taken_out_and_the_rest_stays() {
        let text = "# mine\n[profiles.one]\nserver = \"http://one.example\" # the first\n";
        let (_folder, environment) = home(text, 0o600);
        let home = Home::of(&environment).expect("a home");
        let of = |server: &str, token_file: &str| Profile {
            server: server.parse().expect("an address"),
            token_file: Some(token_file.into()),
        };
        home.save("two", &of("https://two.example", "/a b/\"two\"")).expect("written");
        home.save("two", &of("https://other.example", "/a b/\"two\"")).expect("written again");
        let (name, profile) =
            home.find(None).expect("read").expect("the first that was saved is the default");
        assert_eq!((name.as_str(), profile.server.as_str()), ("two", "https://other.example/"));
        assert_eq!(profile.token_file, Some("/a b/\"two\"".into()));
        let one = home.find(Some("one")).expect("read").expect("there").1;
        assert_eq!(one.server.as_str(), "http://one.example/");
        home.remove("two").expect("taken out");
        assert!(home.find(None).expect("read").is_none());
        assert_eq!(fs::read_to_string(home.file()).expect("there"), text);
        assert!(home.check_name("../x").is_err() && home.check_name("").is_err());
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
