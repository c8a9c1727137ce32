//! The program of a worker: how it is run, and what its end means.

use std::{
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{json, value::RawValue};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::cli::{Code, Failure};

/// Most bytes of a result: that of what a queue may allow.
const RESULT_MAX: usize = 1 << 20;
/// Characters of standard error that are kept, from its end.
const REASON_MAX: usize = 2_000;
/// The exit code that gives a task back (EX_TEMPFAIL).
const GIVES_BACK: i32 = 75;
/// The exit code that fails a task for good.
const FAILS: i32 = 100;

/// How long the output of a program that has ended is read on: a process that it left behind may hold its
/// pipes open for ever.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// One of the streams of a program: a task reads it to its end.
struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Output {
    /// The output until `deadline` at most.
    async fn until(&mut self, deadline: Instant) -> Vec<u8> {
        if !self.reader.is_finished() && timeout_at(deadline, &mut self.reader).await.is_err() {
            self.reader.abort();
        }
        self.kept.lock().clone()
    }
}

/// A program that runs for a task, in a process group of its own.
pub(super) struct Program {
    child: Child,
    outputs: Option<(Output, Output)>,
    /// Until when its output is read, once it has ended.
    deadline: Option<Instant>,
}

/// How a program ended.
pub(super) enum Ended {
    /// It ended by itself: its status, standard output and the end of standard error.
    Exited(ExitStatus, Vec<u8>, String),
    /// It cannot be waited for.
    Unknown(String),
    /// The worker was told to stop at once.
    Stopped,
}

/// Refuses a program that the shell does not find. A task would be dead before anybody reads why.
pub(super) fn check(exec: &str) -> Result<(), Failure> {
    let first = exec.split_whitespace().next().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./+-".contains(c);
    // What the shell has to expand is known when it runs.
    if first.is_empty() || !first.chars().all(is_plain) {
        return Ok(());
    }
    let found = std::process::Command::new("sh")
        .args(["-c", "command -v -- \"$1\" >/dev/null 2>&1", "sh", first])
        .status()
        .map_err(|error| Failure::new(Code::Failed, format!("sh cannot be started: {error}")))?;
    if found.success() {
        return Ok(());
    }
    let text = format!("--exec: {first} is not found, or may not be run; give the path of a program");
    Err(Failure::new(Code::Usage, text))
}

impl Program {
    /// Starts the program with the payload on its standard input.
    #[expect(clippy::disallowed_methods, reason = "tasks of one program, which end with its pipes")]
    pub(super) fn start(exec: &str, variables: &[(&str, String)], payload: &str) -> Result<Self, Failure> {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(exec)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::new(Code::Failed, format!("sh cannot be started: {error}")))?;
        let outputs = child.stdout.take().zip(child.stderr.take()).map(|(stdout, stderr)| {
            let (printed, said) = (Arc::default(), Arc::default());
            let first = tokio::spawn(beginning(stdout, RESULT_MAX + 1, Arc::clone(&printed)));
            let last = tokio::spawn(end(stderr, 4 * REASON_MAX, Arc::clone(&said)));
            (Output { kept: printed, reader: first }, Output { kept: said, reader: last })
        });
        if let Some(mut stdin) = child.stdin.take() {
            let payload = payload.to_owned();
            // A program that reads none of it closes the pipe, which is its right.
            tokio::spawn(async move { drop(stdin.write_all(payload.as_bytes()).await) });
        }
        Ok(Self { child, outputs, deadline: None })
    }

    /// Waits for its end. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> Ended {
        let status = match self.child.wait().await {
            Ok(status) => status,
            Err(error) => return Ended::Unknown(format!("the program cannot be waited for: {error}")),
        };
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + OUTPUT_GRACE);
        let Some((stdout, stderr)) = &mut self.outputs else {
            return Ended::Unknown("the output of the program cannot be read".to_owned());
        };
        let (stdout, stderr) = (stdout.until(deadline).await, stderr.until(deadline).await);
        Ended::Exited(status, stdout, String::from_utf8_lossy(&stderr).trim().to_owned())
    }

    /// Ends the program and all processes that it started.
    pub(super) async fn kill(&mut self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            // One that ended meanwhile needs no signal.
            let _sent = kill_process_group(id, Signal::KILL);
        }
        drop(self.child.wait().await);
    }
}

impl Ended {
    /// The exit code of a program that did not succeed.
    pub(super) fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited(status, ..) => status.code().filter(|code| *code != 0),
            Self::Unknown(_) | Self::Stopped => None,
        }
    }

    /// The verb that says so to the server, the rest of its body, and what a person is told.
    pub(super) fn word(&self) -> (&'static str, String, &'static str) {
        match self {
            Self::Stopped => ("abandon", String::new(), "given back: the worker stops"),
            Self::Unknown(why) => ("nack", field("reason", why), "given back"),
            Self::Exited(status, stdout, stderr) => match status.code() {
                Some(0) if stdout.len() > RESULT_MAX => (
                    "fail",
                    field("error", &format!("the result has more than {RESULT_MAX} bytes")),
                    "failed: its result is too large",
                ),
                Some(0) => ("complete", result(stdout), "completed"),
                Some(FAILS) => {
                    let why = if stderr.is_empty() { "the program exited with 100" } else { stderr.as_str() };
                    ("fail", field("error", why), "failed")
                }
                Some(GIVES_BACK) if stderr.is_empty() => ("nack", String::new(), "given back"),
                Some(code) if stderr.is_empty() => {
                    ("nack", field("reason", &format!("the program exited with {code}")), "given back")
                }
                None if stderr.is_empty() => {
                    ("nack", field("reason", &format!("the program was ended: {status}")), "given back")
                }
                _ => ("nack", field("reason", stderr), "given back"),
            },
        }
    }
}

/// A text as a field of a body, cut to its last characters.
fn field(name: &str, text: &str) -> String {
    let skip = text.chars().count().saturating_sub(REASON_MAX);
    let text: String = text.chars().skip(skip).filter(|c| *c != '\0').collect();
    format!(",\"{name}\":{}", json!(text))
}

/// What a program printed, as a field of a body: JSON as it is, and everything else as a text.
fn result(stdout: &[u8]) -> String {
    let text = String::from_utf8_lossy(stdout);
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return String::new();
    }
    match RawValue::from_string(trimmed.to_owned()) {
        Ok(json) => format!(",\"result\":{}", json.get()),
        Err(_) => format!(",\"result\":{}", json!(trimmed)),
    }
}

/// Keeps the beginning of what comes; the rest is read and forgotten, so that the program goes on.
async fn beginning(mut from: impl AsyncRead + Unpin, most: usize, kept: Arc<Mutex<Vec<u8>>>) {
    let mut part = vec![0; 8 << 10];
    while let Ok(count @ 1..) = from.read(&mut part).await {
        let mut kept = kept.lock();
        let room = most - kept.len();
        kept.extend_from_slice(&part[..count.min(room)]);
    }
}

/// Keeps the end of what comes.
async fn end(mut from: impl AsyncRead + Unpin, most: usize, kept: Arc<Mutex<Vec<u8>>>) {
    let mut part = vec![0; 8 << 10];
    while let Ok(count @ 1..) = from.read(&mut part).await {
        let mut kept = kept.lock();
        kept.extend_from_slice(&part[..count]);
        let over = kept.len().saturating_sub(most);
        kept.drain(..over);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn word(code: i32, stdout: &str, stderr: &str) -> (&'static str, String) {
        let ended = Ended::Exited(ExitStatus::from_raw(code << 8), stdout.into(), stderr.into());
        let (verb, rest, _) = ended.word();
        (verb, rest)
    }

    #[test]
    fn the_exit_code_says_what_became_of_a_task() {
        assert_eq!(word(0, " {\"a\" :1}\n", ""), ("complete", ",\"result\":{\"a\" :1}".into()));
        assert_eq!(word(0, "done\n", "noise"), ("complete", ",\"result\":\"done\"".into()));
        assert_eq!(word(0, "", ""), ("complete", String::new()));
        assert_eq!(word(75, "x", ""), ("nack", String::new()));
        assert_eq!(word(75, "x", "busy"), ("nack", ",\"reason\":\"busy\"".into()));
        assert_eq!(word(100, "", "no such file"), ("fail", ",\"error\":\"no such file\"".into()));
        assert_eq!(word(1, "", "oops"), ("nack", ",\"reason\":\"oops\"".into()));
        assert_eq!(word(3, "", "").0, "nack");
        assert_eq!(word(0, &"1".repeat(RESULT_MAX + 1), "").0, "fail");
        let long = field("reason", &"y".repeat(REASON_MAX * 2));
        assert!(long.len() < REASON_MAX + 20);
    }

    #[tokio::test]
    async fn a_program_gets_the_payload_and_is_ended_with_what_it_started() {
        let mut program = Program::start("cat; echo \"$X\" >&2", &[("X", "seen".into())], "[1]")
            .unwrap_or_else(|_| panic!("started"));
        let Ended::Exited(status, stdout, stderr) = program.ended().await else { panic!("ended") };
        assert!(status.success());
        assert_eq!((&stdout[..], stderr.as_str()), (&b"[1]"[..], "seen"));
        let mut program =
            Program::start("sleep 600 & sleep 600", &[], "").unwrap_or_else(|_| panic!("started"));
        program.kill().await;
        assert!(
            matches!(program.ended().await, Ended::Exited(..)),
            "its pipes are closed: nothing holds them"
        );
    }

    #[tokio::test]
    async fn a_process_that_a_program_leaves_behind_does_not_keep_its_output() {
        let mut program = Program::start("sleep 600 & echo 7", &[], "").unwrap_or_else(|_| panic!("started"));
        // A worker waits in turns: it extends its claim in between.
        assert!(timeout_at(Instant::now() + OUTPUT_GRACE / 2, program.ended()).await.is_err());
        let Ended::Exited(status, stdout, _) = program.ended().await else { panic!("ended") };
        assert_eq!((status.success(), &stdout[..]), (true, &b"7\n"[..]));
        program.kill().await;
    }
}
