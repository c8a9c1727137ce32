//! Why a verb did not succeed, and the exit code that says so. The codes are those of BSD's
//! `sysexits.h`, as far as it has a word for the thing.

use std::{fmt, io};

use crate::{app::StartError, settings::Fault};

/// What kind of failure it was; stable, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something that has no code of its own.
    Failed = 1,
    /// The command line cannot be read.
    Usage = 64,
    /// What was given is wrong, or names nothing.
    Data = 65,
    /// A file cannot be read.
    NoInput = 66,
    /// The server does not answer, or says that it cannot.
    Unavailable = 69,
    /// A defect of ours.
    Software = 70,
    /// A file cannot be written.
    CannotCreate = 73,
    /// No token, or one that does not open this door.
    Permission = 77,
    /// The settings are wrong.
    Config = 78,
    /// Nobody reads the output any more: the code that shells show for a tool which SIGPIPE ended.
    ClosedPipe = 141,
}

/// Why a verb did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// The kind.
    pub code: Code,
    /// One line for people; settings faults have one line each. Empty where nothing is left to say.
    pub message: String,
}

impl Failure {
    /// Names a failure.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The settings are wrong.
    #[must_use]
    pub fn of_settings(faults: &[Fault]) -> Self {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Self::new(Code::Config, lines.join("\n"))
    }

    /// The house could not be opened.
    #[must_use]
    pub fn of_start(error: &StartError) -> Self {
        let code = match error {
            StartError::DataDirectory { .. } => Code::CannotCreate,
            StartError::Secrets(_) | StartError::Egress(_) => Code::Config,
            StartError::InUse { .. }
            | StartError::Unfinished { .. }
            | StartError::Database(_)
            | StartError::Git(_) => Code::Unavailable,
            StartError::Tree(_) => Code::Software,
        };
        Self::of_error(code, error)
    }

    /// What was to be printed could not be. Where its reader went away, as `head` does, there is
    /// nobody to tell.
    #[must_use]
    pub fn of_output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Code::ClosedPipe, ""),
            _ => Self::new(Code::Failed, format!("the output cannot be written: {error}")),
        }
    }

    /// A failure with the chain of its causes.
    pub fn of_error(code: Code, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self::new(code, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}
