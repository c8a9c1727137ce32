//! The address of the database: a SQLite file, or a PostgreSQL server. No connection is made here.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use sqlx::{ConnectOptions, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};
use url::Url;

use super::connect::logged;
use crate::OpenError;

/// The parameters that a PostgreSQL address may have after `?`: those of libpq, and [`POOLER`]. An unknown
/// parameter is refused, because it may be a misspelt `sslmode`.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    POOLER,
];
/// The parameter that announces a pooler between Tidings and the server, which assigns a connection to each
/// transaction.
const POOLER: &str = "pgbouncer";
/// The application name that the server is told, if the address names none.
const APPLICATION: &str = "tidings";

/// What to do about an error of SQLite with one of these codes: `SQLITE_FULL`, `SQLITE_CORRUPT` and
/// `SQLITE_NOTADB`.
const SQLITE_REMEDIES: [(&str, &str); 3] =
    [("(code: 13)", "make room on the disk of this file"), ("(code: 11)", RESTORE), ("(code: 26)", RESTORE)];
/// What to do about a file that is no whole database.
const RESTORE: &str = "restore the last backup into an empty data directory (`tidings restore`); \
    `tidings doctor` examines the file";

/// The address of a database.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// The path of a SQLite file.
    File(PathBuf),
    /// A database of a PostgreSQL server.
    Server(Box<Server>),
}

/// How to connect to a PostgreSQL database.
#[derive(Clone)]
pub(crate) struct Server {
    /// The options of the connection; they hold the password.
    pub(crate) options: PgConnectOptions,
    /// Whether a pooler may give each transaction another connection of the server.
    pub(crate) is_pooled: bool,
}

impl Address {
    /// Reads `sqlite:path`, `sqlite://path`, `sqlite:///path` (options after `?` are ours to set), or
    /// `postgres://user:password@host:port/database?sslmode=...`.
    pub(crate) fn parse(url: &str) -> Result<Self, OpenError> {
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            return Server::parse(url).map(|server| Self::Server(Box::new(server)));
        }
        if !url.starts_with("sqlite:") {
            return Err(OpenError::Address("it begins with neither sqlite: nor postgres://".into()));
        }
        let options =
            SqliteConnectOptions::from_str(url).map_err(|error| OpenError::Address(error.to_string()))?;
        let file = options.get_filename().to_owned();
        if url.contains(":memory:") || url.contains("mode=memory") || file.as_os_str().is_empty() {
            return Err(OpenError::Address("a database in memory forgets everything; name a file".into()));
        }
        Ok(Self::File(file))
    }

    /// The path of the SQLite file; `None` for a server.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(file) => Some(file),
            Self::Server(_) => None,
        }
    }

    /// Whether a database may be there: a server says so only when it is asked.
    pub(crate) fn may_exist(&self) -> bool {
        self.file().is_none_or(Path::exists)
    }
}

impl Server {
    fn parse(text: &str) -> Result<Self, OpenError> {
        // The library's error about a text that is no address never repeats the text, which may hold a
        // password.
        let wrong = |why: &dyn fmt::Display| OpenError::Address(why.to_string());
        let spelling = "in a name or a password ? is written %3F, # %23, / %2F and @ %40";
        // A special character in a password can make the address invalid: the text before ?, # or / is read
        // as a port.
        let cut =
            text.find("://").map(|at| &text[at + 3..]).and_then(|rest| rest.split_once(['?', '#', '/']));
        let is_cut = cut.is_some_and(|(_, behind)| behind.contains('@'));
        let mut url = Url::parse(text).map_err(|error| match is_cut {
            true => wrong(&format!("{error}; {spelling}")),
            false => wrong(&error),
        })?;
        // A ?, # or / in a password ends the password: its rest would be read as a part that is shown.
        let rest = [Some(url.path()), url.query(), url.fragment()];
        if rest.iter().flatten().any(|part| part.contains('@')) {
            return Err(wrong(&format!("an @ stands behind the host; {spelling}")));
        }
        let mut is_pooled = false;
        let mut kept: Vec<(String, String)> = Vec::new();
        for (name, value) in url.query_pairs() {
            match (&*name, &*value) {
                (POOLER, "true") => is_pooled = true,
                (POOLER, "false") => {}
                (POOLER, _) => return Err(wrong(&format!("{POOLER} is true or false"))),
                (name, _) if !PARAMETERS.contains(&name) => {
                    let known = PARAMETERS.join(", ");
                    return Err(wrong(&format!("a parameter behind the ? is none of {known}")));
                }
                (name, value) => kept.push((name.to_owned(), value.to_owned())),
            }
        }
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
        let mut options = PgConnectOptions::from_url(&url).map_err(|error| wrong(&error))?;
        if options.get_application_name().is_none() {
            options = options.application_name(APPLICATION);
        }
        // Poolers refuse this parameter, and no column holds floating point numbers.
        options = logged(options.extra_float_digits(None));
        if is_pooled {
            // A prepared statement lives in a connection that the next transaction may not meet.
            options = options.statement_cache_capacity(0);
        }
        Ok(Self { options, is_pooled })
    }
}

/// Prints the address without the password.
impl Address {
    /// The error, with the name of the database file and the remedy of its usual causes. An error of a server
    /// is unchanged.
    pub(crate) fn naming(&self, error: OpenError) -> OpenError {
        let (Self::File(file), OpenError::Database(text)) = (self, &error) else { return error };
        let name = file.display().to_string();
        let named = if text.contains(&name) { text.clone() } else { format!("{name}: {text}") };
        let remedy = match SQLITE_REMEDIES.iter().find(|(code, _)| text.contains(*code)) {
            Some((_, remedy)) => format!("; {remedy}"),
            None => String::new(),
        };
        OpenError::Database(format!("{named}{remedy}"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(formatter, "{}", file.display()),
            Self::Server(server) => fmt::Debug::fmt(&**server, formatter),
        }
    }
}

/// Prints the address without the password.
impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        let user = options.get_username();
        let name = options.get_database().unwrap_or(user);
        match options.get_socket() {
            Some(socket) => write!(formatter, "the database {name} of {user} at {}", socket.display()),
            None => {
                let (host, port) = (options.get_host(), options.get_port());
                write!(formatter, "the database {name} of {user} at {host}:{port}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let url = "postgres://tidings:planted@db.example:6432/house?sslmode=verify-full&pgbouncer=true";
        let Ok(address) = Address::parse(url) else { panic!("read") };
        assert!(matches!(&address, Address::Server(server) if server.is_pooled));
        assert_eq!(address.to_string(), "the database house of tidings at db.example:6432");
        assert!(!format!("{address:?}").contains("planted"));
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_without_its_password() {
        for url in [
            "postgres://u:planted@host/db?ssl=true",
            "postgres://u:planted@host/db?sslmode=maybe",
            "postgres://u:planted@host/db?pgbouncer=1",
            "postgres://u:planted@host:port/db",
            "postgres://u:12?planted@host/db",
            "postgres://u:12?planted",
            "postgres://u:12/planted@host/db",
            "postgres://u:12#planted@host/db",
            "postgres://u:pla?nted@host/db",
            "postgres://host/db?planted=@",
            "postgres://host/db?password=planted@",
        ] {
            let Err(refused) = Address::parse(url) else { panic!("{url} is refused") };
            assert!(!refused.to_string().contains("planted"), "{refused}");
        }
        for url in ["postgres://u:p?w@host/db", "postgres://u:p/w@host/db", "postgres://u:p#w@host/db"] {
            let Err(refused) = Address::parse(url) else { panic!("{url} is refused") };
            assert!(refused.to_string().contains("? is written %3F"), "{refused}");
        }
    }

    #[test]
    fn an_error_of_a_file_names_the_file_and_the_remedy() {
        let file = Address::File("/data/tidings.db".into());
        let named = |text: &str| file.naming(OpenError::Database(text.into())).to_string();
        let full = named("error returned from database: (code: 13) database or disk is full");
        assert!(
            full.contains("cannot be opened: /data/tidings.db: ") && full.contains("make room"),
            "{full}"
        );
        let other = named("error returned from database: (code: 26) file is not a database");
        assert!(other.contains("/data/tidings.db: ") && other.contains("tidings restore"), "{other}");
        let twice = named("/data/tidings.db: permission denied");
        assert_eq!(twice, "the database cannot be opened: /data/tidings.db: permission denied");
    }
}
