//! The failure of a verb and its exit code. The codes are those of BSD's `sysexits.h`, if it has a fitting
//! one.

use std::{fmt, io};

use crate::{app::StartError, settings::Fault};

/// The kind of a failure; stable, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A failure without a code of its own.
    Failed = 1,
    /// The command line cannot be read.
    Usage = 64,
    /// An argument is wrong, or names something that does not exist.
    Data = 65,
    /// A file cannot be read.
    NoInput = 66,
    /// The server does not answer, or answers that it is not available.
    Unavailable = 69,
    /// A defect of Tidings.
    Software = 70,
    /// A file cannot be written.
    CannotCreate = 73,
    /// No token is given, or the token does not allow the request.
    Permission = 77,
    /// The settings have faults.
    Config = 78,
    /// The reader of the output has gone: the code that shells show for a tool that SIGPIPE ended.
    ClosedPipe = 141,
}

/// The reason why a verb failed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code, and so the kind of failure.
    pub code: Code,
    /// One line for people; settings have one line for each fault. Empty if there is nothing more to say.
    pub message: String,
}

impl Failure {
    /// A failure with this exit code and this message for people.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The failure for these faults of the settings.
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
            StartError::Secrets(_)
            | StartError::GivenKeyring(_)
            | StartError::Egress(_)
            | StartError::Artifacts(_) => Code::Config,
            StartError::InUse { .. }
            | StartError::DatabaseInUse { .. }
            | StartError::Unfinished { .. }
            | StartError::Database(_)
            | StartError::Git(_) => Code::Unavailable,
            StartError::Tree(_) => Code::Software,
        };
        Self::of_error(code, error)
    }

    /// The failure of printing. If the reader has closed the pipe, as `head` does, the failure has no text.
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
