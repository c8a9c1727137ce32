//! The commands that a caller may use, by names and globs: `mail.send`, `mail.*`, `*`.

use globset::{Glob, GlobSet, GlobSetBuilder};
use thiserror::Error;

/// Most names and globs of one caller.
pub const COMMANDS_MAX: usize = 100;
/// Longest name or glob, in bytes.
pub const COMMAND_BYTES_MAX: usize = 200;

/// A list of commands that cannot be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CommandFault {
    /// More entries than a list may have.
    #[error("has {0} entries, and may have 100")]
    TooMany(usize),
    /// An entry is no name and no glob of names.
    #[error(
        "holds {0:?}, which is no command: a name has 1 to 200 letters, digits, and any of . _ - / :, and \
         one * stands for any part of it"
    )]
    Entry(String),
}

/// The commands that a caller may use.
#[derive(Clone, Debug, Default)]
pub enum Commands {
    /// Every command there is.
    #[default]
    All,
    /// The commands that one of these names or globs matches.
    Only(CommandList),
}

/// Names and globs of commands.
#[derive(Clone, Debug)]
pub struct CommandList {
    entries: Vec<String>,
    globs: GlobSet,
}

impl Commands {
    /// The commands that names and globs match.
    ///
    /// # Errors
    /// [`CommandFault`] for an invalid entry.
    pub fn only(entries: &[String]) -> Result<Self, CommandFault> {
        if entries.len() > COMMANDS_MAX {
            return Err(CommandFault::TooMany(entries.len()));
        }
        let mut globs = GlobSetBuilder::new();
        for entry in entries {
            let fault = || CommandFault::Entry(entry.clone());
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:*".contains(&byte);
            if !(1..=COMMAND_BYTES_MAX).contains(&entry.len())
                || !entry.bytes().all(is_plain)
                // Next to a slash, two stars have a meaning of their own, and match texts that differ from
                // the entry.
                || entry.contains("**")
            {
                return Err(fault());
            }
            globs.add(Glob::new(entry).map_err(|_| fault())?);
        }
        let globs = globs.build().map_err(|_| CommandFault::TooMany(entries.len()))?;
        Ok(Self::Only(CommandList { entries: entries.to_vec(), globs }))
    }

    /// No command at all.
    #[must_use]
    pub fn none() -> Self {
        Self::Only(CommandList { entries: Vec::new(), globs: GlobSet::empty() })
    }

    /// Whether a command may be used.
    #[must_use]
    pub fn has(&self, command: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => list.globs.is_match(command),
        }
    }

    /// The names and globs; `None`: every command.
    #[must_use]
    pub fn entries(&self) -> Option<&[String]> {
        match self {
            Self::All => None,
            Self::Only(list) => Some(&list.entries),
        }
    }

    /// The first entry of `wanted` that this list does not include, as text: a name that no entry matches, or
    /// a glob that no entry equals or covers.
    #[must_use]
    pub fn first_beyond<'w>(&self, wanted: &'w Self) -> Option<&'w str> {
        match (self, wanted) {
            (Self::All, _) => None,
            (Self::Only(_), Self::All) => Some("*"),
            // Names contain no `*`, so a `*` of the wanted glob is matched only by a `*` here. A glob that
            // matches the wanted glob as text therefore matches each name that the wanted glob matches.
            (Self::Only(here), Self::Only(wanted)) => {
                wanted.entries.iter().map(String::as_str).find(|entry| !here.globs.is_match(entry))
            }
        }
    }
}
