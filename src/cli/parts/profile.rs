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

use toml::de::{DeTable, DeValue};
use url::Url;

use crate::cli::{Code, Environment, Failure};

use super::client::server_url;

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Default)]
struct Profiles {
    default: Option<String>,
    profiles: BTreeMap<String, Profile>,
}

/// A server with a name.
#[derive(Clone, Debug)]
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

    /// The server of the profile of this name, if there is such a profile.
    ///
    /// # Errors
    /// If the file cannot be read, or is writable by others.
    pub(crate) fn server_of(&self, name: &str) -> Result<Option<Url>, Failure> {
        let path = self.file();
        Ok(parse(&path, &read(&path)?)?.profiles.remove(name).map(|profile| profile.server))
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
            // A comment may follow the head; no name of a profile contains its sign.
            is_inside = line.split('#').next().is_some_and(|line| line.trim() == head);
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
    profiles_of(text).map_err(|fault| Failure::new(Code::Config, format!("{}: {fault}", path.display())))
}

/// The profiles of a text. An unknown key and a value of another type are refused, so that a misspelt
/// `token_file` cannot leave the token out. The fault begins with its key.
fn profiles_of(text: &str) -> Result<Profiles, String> {
    let root = DeTable::parse(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(before).filter(|byte| *byte == b'\n').count();
        format!("line {line} is no TOML: {}", error.message())
    })?;
    let mut found = Profiles::default();
    for (key, value) in root.get_ref() {
        match &**key.get_ref() {
            "default" => found.default = Some(text_of("default", value.get_ref())?),
            "profiles" => {
                for (name, value) in table_of("profiles", value.get_ref())? {
                    let profile = profile_of(name.get_ref(), value.get_ref())?;
                    found.profiles.insert(name.get_ref().to_string(), profile);
                }
            }
            other => return Err(format!("{other}: there is no such key; write default or [profiles.NAME]")),
        }
    }
    Ok(found)
}

fn profile_of(name: &str, value: &DeValue<'_>) -> Result<Profile, String> {
    let at = |key: &str| format!("profiles.{name}.{key}");
    let (mut server, mut token_file) = (None, None);
    for (key, value) in table_of(&format!("profiles.{name}"), value)? {
        match &**key.get_ref() {
            "server" => {
                let text = text_of(&at("server"), value.get_ref())?;
                server = Some(server_url(&text).map_err(|fault| format!("{}: {fault}", at("server")))?);
            }
            "token_file" => token_file = Some(text_of(&at("token_file"), value.get_ref())?.into()),
            "token" => {
                let said = "write the token into a file, and its path as token_file";
                return Err(format!("{}: {said}", at("token")));
            }
            other => return Err(format!("{}: there is no such key; write server or token_file", at(other))),
        }
    }
    match server {
        Some(server) => Ok(Profile { server, token_file }),
        None => Err(format!("{}: is missing; write server = \"http://127.0.0.1:8080\"", at("server"))),
    }
}

fn table_of<'t, 'i>(key: &str, value: &'t DeValue<'i>) -> Result<&'t DeTable<'i>, String> {
    match value {
        DeValue::Table(table) => Ok(table),
        other => {
            let kind = kind_of(other);
            Err(format!("{key}: this is {kind}, and a table is needed: write [profiles.NAME]"))
        }
    }
}

fn text_of(key: &str, value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("{key}: this is {}, and a text in quotes is needed", kind_of(other))),
    }
}

/// The type of a value, in words of TOML.
fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
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
        let text = "# mine\n[profiles.one] # at home\nserver = \"http://one.example\" # the first\n";
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
        home.save("one", &of("https://one.example", "/a")).expect("written over a head with a comment");
        let server = home.server_of("one").expect("read").expect("there");
        assert_eq!((server.as_str(), home.server_of("two").expect("read")), ("https://one.example/", None));
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

    #[test]
    fn a_file_of_profiles_is_read_strictly_and_its_fault_names_file_key_and_mend() {
        let of_one = |line: &str| format!("[profiles.one]\nserver = \"http://one.example\"\n{line}\n");
        let alone = |line: &str| line.to_owned();
        for (text, expected) in [
            (alone("defualt = \"one\""), "defualt: there is no such key; write default or [profiles.NAME]"),
            (alone("default = 5"), "default: this is a number, and a text in quotes is needed"),
            (alone("default = 2026-01-31"), "default: this is a date, and a text in quotes is needed"),
            (
                alone("profiles = []"),
                "profiles: this is a list, and a table is needed: write [profiles.NAME]",
            ),
            (
                alone("[profiles]\none = \"http://one.example\""),
                "profiles.one: this is a text, and a table is needed: write [profiles.NAME]",
            ),
            (
                alone("[profiles.one]\nserver = true"),
                "profiles.one.server: this is a truth value, and a text in quotes is needed",
            ),
            (
                alone("[profiles.one]\nserver = \"one.example\""),
                "profiles.one.server: one.example has no scheme; write http://one.example",
            ),
            (
                alone("[profiles.one]\ntoken_file = \"/a\""),
                "profiles.one.server: is missing; write server = \"http://127.0.0.1:8080\"",
            ),
            (
                of_one("token_file = 5"),
                "profiles.one.token_file: this is a number, and a text in quotes is needed",
            ),
            (
                of_one("token-file = \"/a\""),
                "profiles.one.token-file: there is no such key; write server or token_file",
            ),
            (
                of_one("token = \"planted\""),
                "profiles.one.token: write the token into a file, and its path as token_file",
            ),
            (alone("default = \"one\"\n[profiles"), "line 2 is no TOML: "),
        ] {
            let (_folder, environment) = home(&text, 0o600);
            let failure = find(None, &environment).expect_err(&text);
            let said = failure.message.split_once("tidings/profiles.toml: ");
            let (file, fault) = said.expect("the file first");
            assert!(failure.code == Code::Config && file.starts_with('/'), "{text}: {failure}");
            assert!(fault.starts_with(expected) && !fault.contains("planted"), "{text}: {fault}");
        }
    }
}
