//! `tidings worker`: runs a program for each task. The task's payload comes on its standard input, what it
//! prints is the result, and its exit code says what became of the task.
//!
//! SIGTERM and SIGINT end it gently: nothing more is claimed, programs run to their end, and their tasks are
//! ended. A task whose answer is on its way at that moment is given back. A second signal ends the programs
//! as well; their tasks are given back. An error that no later try mends ends it gently, too: a worker of
//! which only a part is left would go unnoticed.

mod artifacts;
mod program;

use std::{
    io::{self, Write},
    path::Path,
    pin::pin,
    time::Duration,
};

use clap::{Args, Subcommand};
use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use self::program::{Ended, Program};
use crate::cli::{
    Code, Context, Failure,
    client::{Client, ServerArgs},
    serve::StopSignals,
    variables,
};

/// How long one request waits for a task.
const WAIT_SECONDS: u64 = 20;
/// How long a worker that stops waits for the answer to its claim: the task of an answer on its way would
/// stay claimed for nobody.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// The wait after a request that failed.
const PAUSE: Duration = Duration::from_secs(2);
/// What a person is told of a task whose claim was lost.
const TAKEN_AWAY: &str = "was taken away or cancelled";
/// How often a claim is extended within its time.
const EXTENSIONS: u64 = 3;

#[derive(Subcommand, Debug)]
pub(crate) enum WorkerVerb {
    /// Claim tasks of the given commands, and run a program for each
    Start(StartArgs),
}

#[derive(Args, Debug)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The commands whose tasks are claimed, such as mail.send
    #[arg(required = true, value_name = "COMMAND")]
    commands: Vec<String>,
    /// The program, run by sh: payload on standard input, result from standard output. Exit code 0 completes
    /// the task, 75 gives the task back, 100 fails the task for good, and every other code gives the task
    /// back with the end of standard error as the reason
    #[arg(long, value_name = "PROGRAM", long_help = long_help())]
    exec: String,
    /// Number of tasks that are done at the same time, 1 to 256
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Duration of a claim unless it is extended, in seconds; a worker that dies is noticed after this time
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(3..=3600))]
    claim: u64,
}

/// The environment variables of the program, each with its meaning.
pub(crate) const VARIABLES: [(&str, &str); 4] = [
    ("TIDINGS_TASK_ID", "the id of the task, `tsk_...`"),
    ("TIDINGS_TASK_COMMAND", "the command of the task"),
    ("TIDINGS_TASK_ATTEMPT", "the number of the attempt"),
    (artifacts::VARIABLE, "an empty folder; its files become artifacts of the task if the exit code is 0"),
];

/// The long help of `--exec`.
fn long_help() -> String {
    format!(
        "The program, run by sh: payload on standard input, result from standard output\n\n\
         Exit code 0 completes the task, 75 gives the task back, and 100 fails the task for good. Every \
         other exit code gives the task back with the end of standard error as the reason.\n\n\
         Environment variables:\n{}",
        variables::list(&VARIABLES)
    )
}

/// Whether the worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stopping {
    No,
    Gently,
    Now,
}

#[derive(Deserialize)]
struct Claimed {
    tasks: Vec<ClaimedTask>,
}

#[derive(Deserialize)]
struct ClaimedTask {
    id: String,
    token: String,
    command: String,
    attempt: u64,
    payload: Box<RawValue>,
}

pub(crate) async fn run(verb: WorkerVerb, context: &Context) -> Result<(), Failure> {
    let WorkerVerb::Start(arguments) = verb;
    program::check(&arguments.exec)?;
    let client = context.client(&arguments.server)?;
    let (stop, _) = watch::channel(Stopping::No);
    let workers = (0..arguments.concurrency).map(|_| {
        let worker =
            Worker { arguments: &arguments, client: &client, context, stop: stop.subscribe(), all: &stop };
        let all = &stop;
        async move {
            let outcome = worker.run().await;
            if outcome.is_err() {
                stop_at_least(all, Stopping::Gently);
            }
            outcome
        }
    });
    let mut signals = StopSignals::listen();
    let mut next = Stopping::Gently;
    let mut work = pin!(join_all(workers));
    loop {
        tokio::select! {
            outcomes = &mut work => return outcomes.into_iter().collect(),
            _ = signals.next() => {
                stop_at_least(&stop, next);
                next = Stopping::Now;
            }
        }
    }
}

fn stop_at_least(stop: &watch::Sender<Stopping>, wanted: Stopping) {
    stop.send_modify(|stopping| *stopping = wanted.max(*stopping));
}

/// One task after another.
struct Worker<'a> {
    arguments: &'a StartArgs,
    client: &'a Client,
    context: &'a Context,
    stop: watch::Receiver<Stopping>,
    /// Stops all workers of this process.
    all: &'a watch::Sender<Stopping>,
}

impl Worker<'_> {
    async fn run(mut self) -> Result<(), Failure> {
        while *self.stop.borrow() == Stopping::No {
            match self.next().await? {
                Ok(tasks) => {
                    for task in tasks {
                        self.work(task).await?;
                    }
                }
                // A server that restarts is back in a moment.
                Err(failure) if failure.code == Code::Unavailable => self.pause(&failure).await,
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// The answer to a claim; no tasks if the worker is told to stop meanwhile. Tasks that come within
    /// [`LAST_ANSWER`] are then given back. After that the connection ends, and the server gives nothing out.
    ///
    /// # Errors
    /// If a task cannot be given back.
    async fn next(&self) -> Result<Result<Vec<ClaimedTask>, Failure>, Failure> {
        let mut stop = self.stop.clone();
        let mut claim = pin!(self.claim());
        tokio::select! {
            claimed = &mut claim => return Ok(claimed),
            _ = stop.wait_for(|stopping| *stopping > Stopping::No) => {}
        }
        tokio::select! {
            given_back = async {
                match timeout(LAST_ANSWER, claim).await {
                    Ok(Ok(tasks)) => self.give_back(&tasks).await,
                    Ok(Err(_)) | Err(_) => Ok(()),
                }
            } => given_back?,
            _ = stop.wait_for(|stopping| *stopping == Stopping::Now) => {}
        }
        Ok(Ok(Vec::new()))
    }

    async fn give_back(&self, tasks: &[ClaimedTask]) -> Result<(), Failure> {
        for task in tasks {
            let (verb, rest, words) = Ended::Stopped.word();
            let told = self.say(task, verb, &rest).await?;
            self.tell(task, told.unwrap_or(words), None)?;
        }
        Ok(())
    }

    async fn pause(&self, failure: &Failure) {
        drop(writeln!(io::stderr(), "tidings: {}; trying again", failure.message));
        let mut stop = self.stop.clone();
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = stop.wait_for(|stopping| *stopping > Stopping::No) => {}
        }
    }

    async fn claim(&self) -> Result<Vec<ClaimedTask>, Failure> {
        let body = json!({
            "commands": self.arguments.commands,
            "claim_seconds": self.arguments.claim,
            "wait_seconds": WAIT_SECONDS,
        });
        let (status, answer) =
            self.client.call_raw(Method::POST, &["api", "tasks", "claim"], body.to_string()).await?;
        match status {
            StatusCode::NO_CONTENT => Ok(Vec::new()),
            StatusCode::OK => {
                let claimed: Result<Claimed, _> = serde_json::from_slice(&answer);
                claimed.map(|claimed| claimed.tasks).map_err(|error| {
                    Failure::new(Code::Unavailable, format!("the answer cannot be read: {error}"))
                })
            }
            StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::new(Code::Unavailable, "the server has too many requests under way"))
            }
            status => Err(self.client.refused(status, &answer)),
        }
    }

    /// Starts the program for a task, with a folder for its artifacts.
    fn begin(&self, task: &ClaimedTask) -> Result<(TempDir, Program), Failure> {
        let folder = artifacts::folder()?;
        let values = [
            task.id.clone(),
            task.command.clone(),
            task.attempt.to_string(),
            folder.path().display().to_string(),
        ];
        let variables: Vec<_> = VARIABLES.map(|(name, _)| name).into_iter().zip(values).collect();
        let program = Program::start(&self.arguments.exec, &variables, task.payload.get())?;
        Ok((folder, program))
    }

    /// Runs the program for a task, keeps the claim, and says what became of it.
    async fn work(&mut self, task: ClaimedTask) -> Result<(), Failure> {
        let (folder, mut program) = match self.begin(&task) {
            Ok(begun) => begun,
            Err(failure) => {
                // A worker of another process may be able to. If the server does not hear of it, the claim
                // runs out.
                stop_at_least(self.all, Stopping::Gently);
                drop(self.say(&task, "abandon", "").await);
                return Err(failure);
            }
        };
        let every = Duration::from_millis(self.arguments.claim * 1_000 / EXTENSIONS);
        let mut next = Instant::now() + every;
        let mut stop = self.stop.clone();
        let ended = loop {
            tokio::select! {
                ended = program.ended() => break Some(ended),
                () = tokio::time::sleep_until(next) => {
                    next = Instant::now() + every;
                    if !self.extended(&task).await {
                        // Another worker may have it, or it was cancelled: what comes of it is nobody's.
                        program.kill().await;
                        break None;
                    }
                }
                _ = stop.wait_for(|stopping| *stopping == Stopping::Now) => {
                    program.kill().await;
                    break Some(Ended::Stopped);
                }
            }
        };
        let Some(ended) = ended else { return self.tell(&task, TAKEN_AWAY, None) };
        let (mut verb, mut rest, mut words) = ended.word();
        if verb == "complete" {
            match self.sent(&task, folder.path()).await {
                Some(Ok(())) => {}
                Some(Err(failure)) => {
                    (verb, rest, words) = Ended::Unknown(failure.message).word();
                }
                None => return self.tell(&task, TAKEN_AWAY, None),
            }
        }
        let told = self.say(&task, verb, &rest).await?;
        self.tell(&task, told.unwrap_or(words), ended.exit_code())
    }

    /// Sends the artifacts of a program, and extends the claim meanwhile; `None`: the claim is over or the
    /// task was cancelled.
    async fn sent(&self, task: &ClaimedTask, folder: &Path) -> Option<Result<(), Failure>> {
        let every = Duration::from_millis(self.arguments.claim * 1_000 / EXTENSIONS);
        let patience = Duration::from_secs(self.arguments.claim);
        let mut sending = pin!(artifacts::send_all(self.client, task, folder, patience));
        loop {
            tokio::select! {
                sent = &mut sending => return Some(sent),
                () = sleep(every) => {
                    if !self.extended(task).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Extends a claim; false: it is over or cancelled. A server that does not answer is asked again later.
    async fn extended(&self, task: &ClaimedTask) -> bool {
        let body = json!({ "token": task.token, "extend_seconds": self.arguments.claim });
        let path = ["api", "tasks", &task.id, "heartbeat"];
        match self.client.call_raw(Method::POST, &path, body.to_string()).await {
            Ok((StatusCode::OK, answer)) => {
                let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
                answer["cancelled"] != json!(true)
            }
            Ok((status, _)) => !matches!(status, StatusCode::CONFLICT | StatusCode::NOT_FOUND),
            Err(_) => true,
        }
    }

    /// Says what became of a task, again until the server has heard it or the claim is over. The outcome for
    /// people, where it is another one.
    async fn say(&self, task: &ClaimedTask, verb: &str, rest: &str) -> Result<Option<&'static str>, Failure> {
        let until = Instant::now() + Duration::from_secs(self.arguments.claim);
        let path = ["api", "tasks", &task.id, verb];
        loop {
            let body = format!("{{\"token\":\"{}\"{rest}}}", task.token);
            match self.client.call_raw(Method::POST, &path, body).await {
                Ok((status, answer)) if status.is_success() => {
                    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
                    let is_dead = verb == "nack" && answer["state"] == json!("dead");
                    return Ok(is_dead.then_some("dead: this was its last attempt"));
                }
                Ok((StatusCode::CONFLICT | StatusCode::NOT_FOUND, _)) => {
                    return Ok(Some("ended too late: the claim was over"));
                }
                Ok((StatusCode::PAYLOAD_TOO_LARGE, answer)) => {
                    let reason = self.client.refused(StatusCode::PAYLOAD_TOO_LARGE, &answer).message;
                    let rest = format!(",\"error\":{}", json!(reason));
                    let told = Box::pin(self.say(task, "fail", &rest)).await?;
                    return Ok(told.or(Some("failed: its result is too large")));
                }
                Ok((status, answer))
                    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS =>
                {
                    return Err(self.client.refused(status, &answer));
                }
                Ok(_) | Err(_) if Instant::now() < until => sleep(PAUSE).await,
                Ok((status, answer)) => return Err(self.client.refused(status, &answer)),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Prints what became of a task; `exit_code`: that of its program, unless it is 0.
    fn tell(&self, task: &ClaimedTask, words: &str, exit_code: Option<i32>) -> Result<(), Failure> {
        let mut value = json!({ "task": task.id, "command": task.command, "outcome": words });
        let mut rest = String::new();
        if let Some(code) = exit_code {
            value["exit_code"] = json!(code);
            rest = format!(" (exit code {code})");
        }
        self.context.output.print_line(&value, || format!("{} {} {words}{rest}", task.id, task.command))
    }
}
