//! The program of `tidings watch --exec`, run in place of printing: once for each change, or once at the end
//! of each round with the list of its changes.
//!
//! The exit code is the answer: 0 is done. 100 gives up for good: a change becomes a dead letter, a round
//! ends. Every other code is tried again, later and later. The list of a round comes from Git, so it is whole
//! also after a restart.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use tidings_actors::{
    model::round::{Change, Round},
    ports::{
        Action, AttemptOutcome, GitSource, ItemOutcome, Notice, Parcel, RepositoryFacts, Seek, SendFailure,
        Store,
    },
};
use tidings_entity::kind::Operation;

use super::print::{nowhere, outcome, plain, whole_body};

/// The exit code that gives a change or a round up for good.
pub const GIVES_UP: i32 = 100;
/// The status of an attempt whose program gave up, as that of an endpoint that refuses.
pub const GIVEN_UP: u16 = 422;
/// The environment variables of a run for a round, each with its meaning.
pub const ROUND_VARIABLES: [(&str, &str); 6] = [
    ("TIDINGS_REPOSITORY", "the address or the path of the repository"),
    ("TIDINGS_BRANCH", "the full name of the branch or tag, such as refs/heads/main"),
    ("TIDINGS_COMMIT", "the commit that the round leads to; empty if the branch is gone"),
    ("TIDINGS_PREVIOUS_COMMIT", "the commit that was delivered before; empty if there is none"),
    ("TIDINGS_ROUND", "the number of the round"),
    ("TIDINGS_CHANGES", "the number of changes in the round"),
];
/// The environment variables of a run for a change, each with its meaning.
pub const CHANGE_VARIABLES: [(&str, &str); 2] = [
    ("TIDINGS_OPERATION", "`create`, `update` or `delete`"),
    ("TIDINGS_PATH", "the path of the file; bytes that are not UTF-8 are replaced"),
];
/// Changes that are read from the trees at once.
const CHANGES_PER_READ: usize = 1_000;

/// How a run of the program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramEnd {
    /// The program exited with this code.
    Exited(i32),
    /// The program did not run, or was ended by a signal; the reason is a verb of the program: "was ended by
    /// signal 9".
    Failed(String),
}

/// One run of the program.
#[derive(Clone, Debug)]
pub struct ProgramRun {
    /// The environment variables that say what the run is for.
    pub variables: Vec<(&'static str, String)>,
    /// The bytes for the standard input of the program.
    pub input: Vec<u8>,
    /// What the run is for, as messages name it: `the update of docs/a.md`.
    pub subject: String,
}

/// Runs the program of a user on this machine.
#[async_trait]
pub trait Program: Send + Sync + 'static {
    /// Runs the program, and waits for its end.
    async fn run(&self, run: ProgramRun) -> ProgramEnd;
}

/// A program that is run for changes or for rounds.
pub struct Exec {
    program: Arc<dyn Program>,
    per_round: bool,
}

/// The part of a body that says which file the change is of.
#[derive(Deserialize)]
struct Named {
    file: NamedFile,
}

#[derive(Deserialize)]
struct NamedFile {
    path: String,
}

/// One line of the list of a round.
#[derive(Serialize)]
struct Line<'a> {
    operation: &'static str,
    path: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

impl Exec {
    /// Runs this program once at the end of each round (`per_round`), or once for each change.
    #[must_use]
    pub fn new(program: Arc<dyn Program>, per_round: bool) -> Self {
        Self { program, per_round }
    }

    /// Runs the program for changes one after another, up to the first that fails.
    pub(super) async fn run_each(&self, parcels: &[Parcel]) -> (AttemptOutcome, Vec<ItemOutcome>) {
        let mut items = Vec::with_capacity(parcels.len());
        for parcel in parcels {
            if !self.per_round {
                let ended = of_end(self.program.run(run_for_change(parcel)).await);
                if !ended.is_success() {
                    return (ended, items);
                }
            }
            items.push(ItemOutcome::Accepted);
        }
        (outcome(Ok(200), ""), items)
    }

    /// Runs the program at the end of a round. Other notices need no program.
    pub(super) async fn notify(
        &self,
        git: &dyn GitSource,
        store: &dyn Store,
        notice: &Notice,
    ) -> AttemptOutcome {
        match notice {
            Notice::OfRound { action: Action::Synced, round, repository } if self.per_round => {
                match list(git, store, round).await {
                    Ok(list) => of_end(self.program.run(run_for_round(round, repository, list)).await),
                    Err(reason) => outcome(Err(SendFailure::Connection), &reason),
                }
            }
            Notice::OfRound { .. } => outcome(Ok(204), ""),
            _ => nowhere().0,
        }
    }
}

fn run_for_change(parcel: &Parcel) -> ProgramRun {
    let operation = match parcel.action {
        Action::Create => "create",
        Action::Delete => "delete",
        _ => "update",
    };
    let input = whole_body(&parcel.body).to_vec();
    let path = serde_json::from_slice(&input).map(|named: Named| named.file.path).unwrap_or_default();
    let subject = format!("the {operation} of {}", plain(&path));
    let values = [operation.to_owned(), path];
    let variables = CHANGE_VARIABLES.map(|(name, _)| name).into_iter().zip(values).collect();
    ProgramRun { variables, input, subject }
}

fn run_for_round(round: &Round, repository: &RepositoryFacts, list: Vec<u8>) -> ProgramRun {
    let commit = |end: &Option<tidings_actors::model::round::TreeEnd>| {
        end.as_ref().map(|end| end.commit.to_string()).unwrap_or_default()
    };
    let (target, total) = (commit(&round.spec.target), round.summary.total());
    let subject = format!("round {} of {} (commit {target})", round.number, plain(&round.branch));
    let values = [
        repository.github_url.clone(),
        round.branch.clone(),
        target,
        commit(&round.spec.held),
        round.number.to_string(),
        total.to_string(),
    ];
    let variables = ROUND_VARIABLES.map(|(name, _)| name).into_iter().zip(values).collect();
    ProgramRun { variables, input: list, subject }
}

/// The changes of a round, a line of JSON each.
async fn list(git: &dyn GitSource, store: &dyn Store, round: &Round) -> Result<Vec<u8>, String> {
    let lane = store.lane(&round.cursor).await.map_err(|error| error.to_string())?;
    let (mut lines, mut seek) = (Vec::new(), Seek::Position(0));
    loop {
        let changes = git.window(&lane.remote, &round.spec, &seek, CHANGES_PER_READ).await;
        let changes = changes.map_err(|error| error.to_string())?;
        for change in &changes {
            serde_json::to_writer(&mut lines, &line(change)).map_err(|error| error.to_string())?;
            lines.push(b'\n');
        }
        match changes.into_iter().last() {
            Some(last) => seek = Seek::After(last),
            None => return Ok(lines),
        }
    }
}

fn line(change: &Change) -> Line<'_> {
    let is_text = std::str::from_utf8(&change.path).is_ok();
    Line {
        operation: match change.operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
        },
        path: String::from_utf8_lossy(&change.path),
        path_base64: (!is_text).then(|| BASE64_STANDARD.encode(&change.path)),
    }
}

/// What the end of a program means for a change or a notice, as the answer of an endpoint would.
fn of_end(end: ProgramEnd) -> AttemptOutcome {
    match end {
        ProgramEnd::Exited(0) => outcome(Ok(200), ""),
        ProgramEnd::Exited(GIVES_UP) => outcome(Ok(GIVEN_UP), "the program exited with 100"),
        ProgramEnd::Exited(code) => outcome(Ok(503), &format!("the program exited with {code}")),
        ProgramEnd::Failed(reason) => outcome(Ok(503), &format!("the program {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_an_answer() {
        let status = |end| of_end(end).result;
        assert_eq!(status(ProgramEnd::Exited(0)), Ok(200));
        assert_eq!(status(ProgramEnd::Exited(100)), Ok(422));
        assert_eq!(status(ProgramEnd::Exited(75)), Ok(503));
        assert_eq!(status(ProgramEnd::Failed("no such program".into())), Ok(503));
    }
}
