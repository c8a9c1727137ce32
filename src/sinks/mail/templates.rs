//! Templates of mails: a text and an HTML page each, rendered by minijinja from JSON. In HTML every value is
//! escaped; a missing value that a template needs is an error, before anything is sent. Each text in the data
//! is made one line, so no value begins a line of a body. A template can neither loop for ever nor read
//! anything but its data.
//!
//! The first line of each text is the subject.

use std::collections::BTreeSet;

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, syntax::SyntaxConfig};
use serde_json::Value;
use thiserror::Error;

use super::compose::one_line;

/// The most steps of one template: a digest of 1,000 entries needs some 60,000.
const STEPS_MAX: u64 = 1_000_000;
/// Between the subject and the text.
const RULE: &str = "\n---\n";

macro_rules! templates {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// The mails that there are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Template { $($(#[$doc])* $variant,)+ }

        impl Template {
            /// All templates of mails, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Name of the template: its file name without the extension.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }

        /// The files, by their names.
        const FILES: &[(&str, &str)] = &[
            ("layout.html", include_str!("templates/layout.html")),
            ("layout.txt", include_str!("templates/layout.txt")),
            $(
                (concat!($name, ".html"), include_str!(concat!("templates/", $name, ".html"))),
                (concat!($name, ".txt"), include_str!(concat!("templates/", $name, ".txt"))),
            )+
        ];
    };
}

templates! {
    /// A piece of work ended well: a round of a branch.
    WorkflowCompleted = "workflow_completed",
    /// A piece of work cannot go on: a source that fails, a branch that is blocked.
    WorkflowFailed = "workflow_failed",
    /// A part of a piece of work ended well.
    JobCompleted = "job_completed",
    /// A part of a piece of work was given up: dead letters.
    JobFailed = "job_failed",
    /// The results of a test run.
    TestResults = "test_results",
    /// A test mail: it tells the reader that mails of Tidings arrive.
    Welcome = "welcome",
    /// One entry of the ledger of another type.
    Entry = "entry",
    /// Many entries of the ledger.
    Digest = "digest",
}

/// Why a mail cannot be written.
#[derive(Debug, Error)]
#[error("the template {name} cannot be filled in: {reason}")]
pub struct TemplateFault {
    name: &'static str,
    reason: String,
}

/// A rendered mail: subject, text and HTML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The subject; may contain any character, and is made one line before it is sent.
    pub subject: String,
    /// The text for readers of plain text.
    pub text: String,
    /// The page for readers of HTML.
    pub html: String,
}

/// The parsed templates, in text and HTML.
pub struct Templates(Environment<'static>);

impl Templates {
    /// Parses the templates that are embedded in the binary.
    #[must_use]
    pub fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|name| match name.ends_with(".html") {
            true => AutoEscape::Html,
            false => AutoEscape::None,
        });
        environment.set_fuel(Some(STEPS_MAX));
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().expect("the usual delimiters"));
        for (name, text) in FILES {
            environment.add_template(name, text).expect("the templates of this binary are well-formed");
        }
        Self(environment)
    }

    /// Renders a template with data.
    ///
    /// # Errors
    /// [`TemplateFault`] names the missing value.
    pub fn render(&self, template: Template, data: &Value) -> Result<Rendered, TemplateFault> {
        let name = template.as_str();
        let data = &in_lines(data);
        let filled = |kind: &str, data: &Value| {
            let file = self.0.get_template(&format!("{name}.{kind}"))?;
            file.render(minijinja::value::Serde(data))
        };
        let fault = |error: minijinja::Error| TemplateFault { name, reason: self.reason(&error, data) };
        let text = filled("txt", data).map_err(fault)?;
        let (subject, text) = text
            .split_once(RULE)
            .ok_or_else(|| TemplateFault { name, reason: "its first line is not a subject".to_owned() })?;
        let mut data = data.clone();
        data["subject"] = Value::String(subject.to_owned());
        let html = filled("html", &data).map_err(fault)?;
        Ok(Rendered { subject: subject.to_owned(), text: text.trim().to_owned() + "\n", html })
    }

    /// Why a template was not filled in, with the names of the values that the data lacks.
    fn reason(&self, error: &minijinja::Error, data: &Value) -> String {
        if error.kind() != ErrorKind::UndefinedError {
            return error.to_string();
        }
        let (file, line) = (error.name().unwrap_or_default(), error.line().unwrap_or_default());
        let place = format!("{file}, line {line}");
        let Ok(template) = self.0.get_template(file) else { return format!("a value is missing ({place})") };
        let needed: BTreeSet<String> = template.undeclared_variables(true).into_iter().collect();
        let is_there = |name: &str| data.pointer(&format!("/{}", name.replace('.', "/"))).is_some();
        // A value that the template asks for with `is defined` may be missing.
        let is_optional = |name: &str| {
            let whole = name.split('.').next().unwrap_or(name);
            [name, whole].iter().any(|name| template.source().contains(&format!("{name} is defined")))
        };
        let lacking = needed.iter().filter(|name| !is_there(name) && !is_optional(name));
        let lacking: Vec<String> = lacking.map(|name| format!("`{name}`")).collect();
        match lacking[..] {
            [] => format!("an item of a list in the data lacks a value that {place} shows"),
            _ => format!("the data lacks {} ({place})", lacking.join(", ")),
        }
    }
}

/// The data with each text in one line.
fn in_lines(data: &Value) -> Value {
    match data {
        Value::String(text) => Value::String(one_line(text, usize::MAX)),
        Value::Array(items) => Value::Array(items.iter().map(in_lines).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), in_lines(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => data.clone(),
    }
}

impl Default for Templates {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
