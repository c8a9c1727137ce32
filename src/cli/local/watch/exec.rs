//! The program of `--exec`: run by `sh` in a process group of its own, with its output on the terminal. A run
//! that fails is told with the program, its end, the change or round, and what happens next.

use std::{
    io::{self, Write as _},
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicI32, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    time::{Instant, sleep},
};

use crate::cli::variables;
use crate::sinks::exec::{CHANGE_VARIABLES, GIVES_UP, Program, ProgramEnd, ProgramRun, ROUND_VARIABLES};

/// How long a program may still run that was told to end.
const GRACE: Duration = Duration::from_secs(2);
/// How often a program that was told to end is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The value of `group` while no program runs.
const NONE: i32 = 0;
/// The value of `group` once no program may start any more.
const STOPPED: i32 = -1;

/// The long help of `--exec`.
pub(super) fn long_help() -> String {
    format!(
        "Run this program with sh instead of printing: once at the end of each round, or with --per change \
         once for each change\n\n\
         On its standard input the program gets one line of JSON for each change of the round, or the body \
         of the one change. Exit code 0 means done. Exit code 100 means given up: the program is not run \
         again for that round or change; with --once the command delivers everything else and then ends \
         with exit code 65, also at each later run with the same --data-dir. After any other exit code, or \
         a signal, the program is run again, after a wait that grows with each try; with --once the command \
         ends instead.\n\n\
         Environment variables of a run for a round:\n{}\n\n\
         Environment variables of a run for a change:\n{}",
        variables::list(&ROUND_VARIABLES),
        variables::list(&CHANGE_VARIABLES)
    )
}

/// A program of the user. One run at a time.
pub(super) struct LocalProgram {
    exec: String,
    /// Branches take turns: each may have a round that has ended.
    turn: tokio::sync::Mutex<()>,
    /// The process group that runs, [`NONE`] or [`STOPPED`].
    group: AtomicI32,
    /// Whether the command ends at the first run that fails and may be tried again.
    once: bool,
    /// The message about the first run that gave up.
    given_up: OnceLock<String>,
    /// The message about a run that failed, for a command that ends with it.
    failed: tokio::sync::watch::Sender<Option<String>>,
}

impl LocalProgram {
    pub(super) fn new(exec: &str, once: bool, failed: tokio::sync::watch::Sender<Option<String>>) -> Self {
        let (exec, group) = (exec.to_owned(), AtomicI32::new(NONE));
        Self { exec, turn: tokio::sync::Mutex::default(), group, once, given_up: OnceLock::new(), failed }
    }

    /// The message about the first run that gave up.
    pub(super) fn given_up(&self) -> Option<&str> {
        self.given_up.get().map(String::as_str)
    }

    /// Ends the program and everything that it started; none starts afterwards, and a run that is not over
    /// never ends. Returns whether a program was ended.
    pub(super) async fn stop(&self) -> bool {
        let group = self.group.swap(STOPPED, SeqCst);
        let Some(group) = Pid::from_raw(group).filter(|_| group > NONE) else { return false };
        // A program that ended meanwhile needs no signal.
        let _sent = kill_process_group(group, Signal::TERM);
        let until = Instant::now() + GRACE;
        while Instant::now() < until && test_kill_process_group(group).is_ok() {
            sleep(LOOK).await;
        }
        let _sent = kill_process_group(group, Signal::KILL);
        true
    }

    /// Runs the program to its end; `None`: the command ends, and has ended the program or not started it.
    async fn run_once(&self, variables: Vec<(&'static str, String)>, input: Vec<u8>) -> Option<ProgramEnd> {
        let _turn = self.turn.lock().await;
        if self.group.load(SeqCst) == STOPPED {
            return None;
        }
        let started = Command::new("sh")
            .arg("-c")
            .arg(&self.exec)
            .envs(variables)
            .stdin(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(reason) => {
                return Some(ProgramEnd::Failed(format!("was not run: sh cannot be started: {reason}")));
            }
        };
        let id = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(NONE);
        // The command may have been told to end just now; dropping the child ends it.
        self.group.compare_exchange(NONE, id, SeqCst, SeqCst).ok()?;
        let input = child.stdin.take().map(|mut stdin| async move {
            // A program that reads none of it closes the pipe, which is its right.
            drop(stdin.write_all(&input).await);
        });
        let write = async {
            if let Some(input) = input {
                input.await;
            }
        };
        let ((), ended) = tokio::join!(write, child.wait());
        self.group.compare_exchange(id, NONE, SeqCst, SeqCst).ok()?;
        Some(match ended {
            Ok(status) => match status.code() {
                Some(code) => ProgramEnd::Exited(code),
                None => ProgramEnd::Failed(by_signal(status)),
            },
            Err(reason) => ProgramEnd::Failed(format!("cannot be waited for: {reason}")),
        })
    }
}

#[async_trait]
impl Program for LocalProgram {
    async fn run(&self, run: ProgramRun) -> ProgramEnd {
        let Some(ended) = self.run_once(run.variables, run.input).await else {
            // A run without an end has no answer: the round stays open, and the next start delivers it.
            return std::future::pending().await;
        };
        if let Some(why) = failure(&self.exec, &ended, &run.subject, self.once) {
            let gives_up = ended == ProgramEnd::Exited(GIVES_UP);
            if !self.once || gives_up {
                // On standard error, beside the events, and in one piece: the program writes there as well.
                let line = format!("tidings: {why}\n");
                drop(io::stderr().write_all(line.as_bytes()));
            }
            if gives_up {
                let _is_first = self.given_up.set(why).is_ok();
            } else {
                self.failed.send_replace(Some(why));
            }
        }
        ended
    }
}

/// The end of a program that a signal ended.
fn by_signal(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("was ended by signal {signal}"),
        None => format!("was ended: {status}"),
    }
}

/// The message about a run that failed: the program, its end, the change or round, and what happens next.
/// `None`: the run did not fail.
fn failure(exec: &str, ended: &ProgramEnd, subject: &str, once: bool) -> Option<String> {
    let end = match ended {
        ProgramEnd::Exited(0) => return None,
        ProgramEnd::Exited(code) => format!("exited with code {code}"),
        ProgramEnd::Failed(reason) => reason.clone(),
    };
    let next = match ended {
        ProgramEnd::Exited(GIVES_UP) => "code 100 gives up: the program is not run again for it",
        _ if once => "with --once this command ends here",
        _ => "the program is run again for it, after a wait that grows with each try",
    };
    Some(format!("the program {exec:?} {end} at {subject}; {next}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_failed_is_told_with_the_program_its_end_the_change_and_the_next_step() {
        let told = |ended, once| failure("./index.sh", &ended, "the update of docs/a.md", once);
        assert_eq!(told(ProgramEnd::Exited(0), true), None);
        let begin = "the program \"./index.sh\" exited with code";
        for (code, once, next) in [
            (3, false, "the program is run again for it, after a wait that grows with each try"),
            (100, false, "code 100 gives up: the program is not run again for it"),
            (100, true, "code 100 gives up: the program is not run again for it"),
            (3, true, "with --once this command ends here"),
        ] {
            let expected = format!("{begin} {code} at the update of docs/a.md; {next}");
            assert_eq!(told(ProgramEnd::Exited(code), once), Some(expected));
        }
        let killed = by_signal(ExitStatus::from_raw(9));
        assert_eq!(killed, "was ended by signal 9");
        let told = told(ProgramEnd::Failed(killed), false).expect("a failure");
        assert!(told.starts_with("the program \"./index.sh\" was ended by signal 9 at the update"), "{told}");
    }
}
