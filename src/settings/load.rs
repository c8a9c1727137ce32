//! Reads settings: values of the file and the environment over the defaults, value by value. Each value is
//! first tried alone over the defaults, so that every fault is found and reported with the place of its
//! value; one invalid value hides no other. A value of the file must have the type of its setting; a variable
//! is a text, which is read as that type.

mod typed;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use config::{File, FileFormat, Source, Value, ValueKind};
use tidings_actors::model::secret::Secret;

use super::{Fault, Settings};

/// The prefix of every environment variable that is a setting.
pub const ENVIRONMENT_PREFIX: &str = "TIDINGS__";
/// No settings file and no file that holds a secret is larger (1 MiB, in bytes).
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How alike an unknown name must be to a setting for the setting to be suggested, 0 to 1.
const ALIKE: f64 = 0.75;
/// The keys whose value is never shown.
const SECRETS: [&str; 7] = [
    "artifacts.s3_secret_key",
    "database.url",
    "egress.proxy",
    "hooks.secret",
    "mail.password",
    "server.admin_token",
    "telemetry.otlp_headers",
];
/// The defaults with their comments; they also tell which keys are lists.
pub(crate) const DEFAULTS: &str = include_str!("../../config/default.toml");

type SettingPath = Vec<String>;

/// A value and where it was given.
struct Given {
    value: Value,
    from: ValueOrigin,
    /// The date, if the value of a file is a date or a list that holds a date; no setting is a date.
    date: Option<String>,
}

/// Where a value was given.
#[derive(Clone)]
enum ValueOrigin {
    File(PathBuf),
    Variable(String),
}

impl std::fmt::Display for ValueOrigin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "in {}", path.display()),
            Self::Variable(name) => write!(formatter, "in the variable {name}"),
        }
    }
}

impl Settings {
    /// Reads settings. Environment variables (`TIDINGS__SECTION__KEY`, lists separated by commas) override
    /// the file, which overrides the defaults. Other variables are ignored.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn load(
        config_file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Fault>> {
        let mut given = BTreeMap::new();
        let mut faults = Vec::new();
        if let Some(path) = config_file {
            match read_file(path) {
                Ok(values) => given.extend(values),
                Err(message) => faults.push(Fault::new("--config", message)),
            }
        }
        refuse_secrets_in_the_file(&given, &mut faults);
        take_environment(environment, &mut given, &mut faults);
        given.retain(|key, given| match tried_alone(key, given) {
            Ok(()) => !is_empty(&given.value),
            Err(fault) => {
                // A secret in the file was refused already: a second fault about its form helps nobody.
                if !faults.iter().any(|known| known.key == fault.key) {
                    faults.push(fault);
                }
                false
            }
        });
        let all = given.iter().map(|(key, given)| (key.as_slice(), given.value.clone()));
        let mut settings = match nested(all).try_deserialize::<Self>() {
            Ok(settings) => settings,
            Err(error) => {
                faults.push(Fault::new("settings", error.to_string()));
                return Err(faults);
            }
        };
        settings.read_secret_files(&mut faults);
        faults.extend(settings.validate().into_iter().map(|fault| located(fault, &given)));
        if faults.is_empty() { Ok(settings) } else { Err(faults) }
    }

    fn read_secret_files(&mut self, faults: &mut Vec<Fault>) {
        let server = &mut self.server;
        let database = &mut self.database;
        let mail = &mut self.mail;
        let artifacts = &mut self.artifacts;
        for (key, secret, file) in [
            ("server.admin_token", &mut server.admin_token, &server.admin_token_file),
            ("database.url", &mut database.url, &database.url_file),
            ("mail.password", &mut mail.password, &mail.password_file),
            ("artifacts.s3_secret_key", &mut artifacts.s3_secret_key, &artifacts.s3_secret_key_file),
        ] {
            let Some(path) = file else { continue };
            match secret_text(key, path, secret.is_some()) {
                Ok(text) => *secret = Some(Secret::new(text.trim().to_owned())),
                Err(fault) => faults.push(fault),
            }
        }
        for (name, issuer) in &mut self.identity.issuers {
            let key = |part: &str| format!("identity.issuers.{name}.{part}");
            if let Some(path) = &issuer.client_secret_file {
                match secret_text(&key("client_secret"), path, issuer.client_secret.is_some()) {
                    Ok(text) => issuer.client_secret = Some(Secret::new(text.trim().to_owned())),
                    Err(fault) => faults.push(fault),
                }
            }
            if let Some(path) = &issuer.keys_file {
                match secret_text(&key("keys"), path, issuer.keys.is_some()) {
                    Ok(text) => issuer.keys = Some(text),
                    Err(fault) => faults.push(fault),
                }
            }
        }
        let hooks = &mut self.hooks;
        if let Some(path) = &hooks.secret_file {
            match secret_text("hooks.secret", path, !hooks.secret.is_empty()) {
                Ok(text) => {
                    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                    hooks.secret = lines.map(|line| Secret::new(line.to_owned())).collect();
                }
                Err(fault) => faults.push(fault),
            }
        }
    }
}

/// The content of the file of a secret; `is_given`: the secret itself was also given.
fn secret_text(key: &str, path: &Path, is_given: bool) -> Result<String, Fault> {
    let file_key = format!("{key}_file");
    if is_given {
        return Err(Fault::new(file_key, format!("{key} is set as well; give one of the two")));
    }
    match read_text(path) {
        Ok(text) if text.trim().is_empty() => {
            Err(Fault::new(file_key, format!("{} is empty", path.display())))
        }
        Ok(text) => Ok(text),
        Err(message) => Err(Fault::new(file_key, message)),
    }
}

/// The fault of `key` with the place its value came from.
fn located(fault: Fault, given: &BTreeMap<SettingPath, Given>) -> Fault {
    let key: SettingPath = fault.key.split('.').map(str::to_owned).collect();
    match given.get(&key) {
        Some(given) => Fault { message: format!("{} ({})", fault.message, given.from), ..fault },
        None => fault,
    }
}

/// Text of a small file, without the mark that some editors put in front.
fn read_text(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let facts = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{shown} does not exist"),
        _ => format!("{shown} cannot be read: {error}"),
    })?;
    if facts.is_dir() {
        return Err(format!("{shown} is a directory, not a file"));
    }
    if facts.len() > FILE_BYTES_MAX {
        return Err(format!("{shown} has more than {FILE_BYTES_MAX} bytes"));
    }
    let bytes = fs::read(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{shown} is not UTF-8"))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}

fn read_file(path: &Path) -> Result<Vec<(SettingPath, Given)>, String> {
    let text = read_text(path)?;
    let values = values_and_empty_tables(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut dates = typed::dates(&text);
    let from = ValueOrigin::File(path.to_owned());
    let given = values.into_iter().map(|(key, value)| {
        let date = dates.remove(&key);
        (key, Given { value, from: from.clone(), date })
    });
    Ok(given.collect())
}

/// The values of a TOML text, each with its key.
pub(super) fn parse(text: &str) -> Result<Vec<(SettingPath, Value)>, String> {
    let mut values = values_and_empty_tables(text)?;
    values.retain(|(_, value)| !matches!(&value.kind, ValueKind::Table(_)));
    Ok(values)
}

/// The values of a TOML text and its empty tables, each with its key. An empty table may have an unknown
/// name, or stand in the place of a value.
fn values_and_empty_tables(text: &str) -> Result<Vec<(SettingPath, Value)>, String> {
    let tables = File::from_str(text, FileFormat::Toml).collect().map_err(|error| {
        // The lines between the first and the last show the text, which may hold a secret.
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or("this is not TOML").to_owned();
        let Some(last) = lines.next_back() else { return first };
        // The parser takes a text without quotes that begins like a number for a number.
        let is_number = ["invalid mantissa", "invalid float", "invalid integer"];
        match is_number.iter().any(|fault| last.starts_with(fault)) {
            true => format!("{first}: {last}; a text stands in quotes, as in \"./data\""),
            false => format!("{first}: {last}"),
        }
    })?;
    let mut values = Vec::new();
    for (name, value) in tables {
        flatten(vec![name], value, &mut values);
    }
    Ok(values)
}

fn flatten(key: SettingPath, value: Value, values: &mut Vec<(SettingPath, Value)>) {
    match value.kind {
        ValueKind::Table(table) if !table.is_empty() => {
            for (name, value) in table {
                flatten([key.as_slice(), &[name]].concat(), value, values);
            }
        }
        _ => values.push((key, value)),
    }
}

/// A secret in the settings file would be in every backup and every repository of settings.
fn refuse_secrets_in_the_file(given: &BTreeMap<SettingPath, Given>, faults: &mut Vec<Fault>) {
    for (key, given) in given {
        let name = key.join(".");
        let text = given.value.clone().into_string().unwrap_or_default();
        let holds_secret = match name.as_str() {
            "database.url" | "egress.proxy" => {
                url::Url::parse(&text).is_ok_and(|url| url.password().is_some())
            }
            _ => is_secret(key) && !is_empty(&given.value),
        };
        if holds_secret {
            let variable = format!("{ENVIRONMENT_PREFIX}{}", name.to_uppercase().replace('.', "__"));
            let from = &given.from;
            let message = format!("a secret does not belong into a settings file: use {variable} ({from})");
            faults.push(Fault::new(name, message));
        }
    }
}

fn take_environment(
    environment: impl Iterator<Item = (String, String)>,
    given: &mut BTreeMap<SettingPath, Given>,
    faults: &mut Vec<Fault>,
) {
    let defaults = parse(DEFAULTS).expect("the embedded defaults are valid TOML; a test reads them");
    let lists: Vec<&SettingPath> = defaults
        .iter()
        .filter(|(_, value)| matches!(value.kind, ValueKind::Array(_)))
        .map(|(key, _)| key)
        .collect();
    let mut variables: BTreeMap<SettingPath, String> = BTreeMap::new();
    let known: Vec<SettingPath> = defaults.iter().map(|(key, _)| key.clone()).collect();
    for (name, text) in environment {
        let Some(rest) = strip_prefix(&name) else {
            faults.extend(misspelt(&name, &known));
            continue;
        };
        let key: SettingPath = rest.to_lowercase().split("__").map(str::to_owned).collect();
        if let Some(other) = variables.insert(key.clone(), name.clone()) {
            let message = format!("is given twice, by {other} and {name}");
            faults.push(Fault::new(key.join("."), message));
            continue;
        }
        let value = if lists.contains(&&key) || is_list_of_named(&key) {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::new(None, ValueKind::Array(items.map(|item| Value::new(None, item)).collect()))
        } else {
            Value::new(None, text)
        };
        given.insert(key, Given { value, from: ValueOrigin::Variable(name), date: None });
    }
}

/// Whether a key of a table that the operator names is a list: `roles.support.permissions`.
fn is_list_of_named(key: &[String]) -> bool {
    let key: Vec<&str> = key.iter().map(String::as_str).collect();
    matches!(
        key.as_slice(),
        ["roles", _, "includes" | "permissions"]
            | ["identity", "issuers", _, "algorithms" | "scopes" | "most"]
            | ["identity", "issuers", _, "roles", _]
    )
}

/// Whether the value of a key is never shown.
fn is_secret(key: &[String]) -> bool {
    let of_issuer = matches!(key, [identity, issuers, _, secret]
        if identity == "identity" && issuers == "issuers" && secret == "client_secret");
    of_issuer || SECRETS.contains(&key.join(".").as_str())
}

/// The fault of a variable with one underscore in place of two: `TIDINGS_SERVER__LISTEN`.
fn misspelt(name: &str, known: &[SettingPath]) -> Option<Fault> {
    let rest = name.get(..8).filter(|start| start.eq_ignore_ascii_case("TIDINGS_")).map(|_| &name[8..])?;
    let bare = |text: &str| text.to_lowercase().replace('_', "");
    let key = known.iter().find(|key| bare(&key.concat()) == bare(rest))?;
    let right = format!("{ENVIRONMENT_PREFIX}{}", key.join("__").to_uppercase());
    let message =
        format!("two underscores stand before each part of the name: write {right} instead of {name}");
    Some(Fault::new(key.join("."), message))
}

/// The name without the prefix, in any case: a variable that looks like a setting and is none must be
/// reported.
fn strip_prefix(name: &str) -> Option<&str> {
    let prefix = name.get(..ENVIRONMENT_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(ENVIRONMENT_PREFIX).then(|| &name[ENVIRONMENT_PREFIX.len()..])
}

fn tried_alone(key: &[String], given: &Given) -> Result<(), Fault> {
    let alone = nested(std::iter::once((key, given.value.clone())));
    let text = match alone.clone().try_deserialize::<Settings>() {
        Err(error) => error.to_string(),
        Ok(_) => match typed::refused(alone, given) {
            Some(text) => text,
            None => return Ok(()),
        },
    };
    let name = key.join(".");
    let from = &given.from;
    let is_about_table = typed::is_about_table(&text);
    if let (true, ValueOrigin::File(_)) = (is_about_table, from)
        && let Some((setting, message)) = typed::table_in_place_of_value(key)
    {
        return Err(Fault::new(setting, format!("{message} ({from})")));
    }
    // A variable below a setting (`TIDINGS__DATA_DIR__X`) names no setting.
    let message = if is_about_table || text.contains("unknown field") {
        let meant = nearest(&name).map(|near| format!("; did you mean {near}?"));
        format!("there is no such setting ({from}){}", meant.unwrap_or_default())
    } else if is_empty_text(&given.value) {
        return Ok(());
    } else if is_secret(key) {
        format!("this cannot be read ({from})")
    } else {
        let reason = match text.split(" for key `").next().unwrap_or(&text) {
            "invalid socket address syntax" => {
                "an address and a port are needed, such as 127.0.0.1:8080".to_owned()
            }
            reason if reason.contains("expected a sequence") => {
                "a list is needed, such as [\"one\", \"two\"]".to_owned()
            }
            reason => typed::wrong_type(reason, given).unwrap_or_else(|| reason.to_owned()),
        };
        match given.value.clone().into_string() {
            Ok(value) if !reason.contains(&value) => format!("{value:?}: {reason} ({from})"),
            _ => format!("{reason} ({from})"),
        }
    };
    Err(Fault::new(name, message))
}

/// The setting whose name is most similar to an unknown name, if any is similar.
fn nearest(name: &str) -> Option<String> {
    let likeness = |key: &String| strsim::normalized_damerau_levenshtein(key, name);
    let known = parse(DEFAULTS).ok()?.into_iter().map(|(key, _)| key.join("."));
    let near = known.filter(|key| likeness(key) >= ALIKE);
    near.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
}

/// Whether a value says that its key is not set.
fn is_empty(value: &Value) -> bool {
    match &value.kind {
        ValueKind::Array(values) => values.is_empty(),
        ValueKind::Table(values) => values.is_empty(),
        _ => is_empty_text(value),
    }
}

/// Whether a value is the empty text, which says of a key of any type that it is not set.
fn is_empty_text(value: &Value) -> bool {
    matches!(&value.kind, ValueKind::String(text) if text.is_empty())
}

/// Values as tables within tables.
fn nested<'a>(values: impl Iterator<Item = (&'a [String], Value)>) -> Value {
    let mut root = config::Map::new();
    for (key, value) in values {
        place(&mut root, key, value);
    }
    Value::new(None, ValueKind::Table(root))
}

fn place(table: &mut config::Map<String, Value>, key: &[String], value: Value) {
    match key {
        [] => {}
        [name] => {
            table.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = table
                .entry(name.clone())
                .or_insert_with(|| Value::new(None, ValueKind::Table(config::Map::new())));
            if let ValueKind::Table(inner) = &mut inner.kind {
                place(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_quotes_is_told_with_the_quotes() {
        for text in ["data_dir = ./data", "[egress]\nallow = [127.0.0.1]"] {
            let said = values_and_empty_tables(text).expect_err(text);
            assert!(said.contains("a text stands in quotes"), "{said}");
        }
    }
}
