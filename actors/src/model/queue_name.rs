//! The name of a queue over all apps: `<app>/<command>`, as settings and labels of metrics write it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use tidings_entity::id::AppId;

/// An app, and the command of one of its queues.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueName {
    /// The app that the queue belongs to.
    pub app: AppId,
    /// The command of its tasks.
    pub command: String,
}

impl fmt::Display for QueueName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.app, self.command)
    }
}

impl FromStr for QueueName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
        let name = text.split_once('/').and_then(|(app, command)| {
            let is_command = !command.is_empty() && command.bytes().all(is_plain);
            let app: AppId = app.parse().ok()?;
            is_command.then(|| Self { app, command: command.to_owned() })
        });
        name.ok_or_else(|| format!("{text:?} is no queue: write the id of an app and a command, APP/COMMAND"))
    }
}

impl TryFrom<String> for QueueName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<QueueName> for String {
    fn from(name: QueueName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_app_and_a_command() {
        let text = "app_00000000000000000000000001/mail.send";
        let name: QueueName = text.parse().expect("a name");
        assert_eq!((name.command.as_str(), name.to_string().as_str()), ("mail.send", text));
        for wrong in ["mail.send", "app_1/mail", "app_00000000000000000000000001/", "/mail", "", "a/b/c"] {
            wrong.parse::<QueueName>().expect_err(wrong);
        }
        format!("{text}/x").parse::<QueueName>().expect_err("a slash is no part of a command");
    }
}
