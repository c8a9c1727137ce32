//! The program of `--exec`: run by `sh` in a process group of its own, with its output on the terminal.

use std::{
    process::Stdio,
    sync::atomic::{AtomicI32, Ordering::SeqCst},
    time::Duration,
};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{io::AsyncWriteExt, process::Command, time::sleep};

use crate::sinks::exec::{Program, ProgramEnd};

/// How long a program may still run that was told to end.
const GRACE: Duration = Duration::from_secs(2);
/// The value of `group` while no program runs.
const NONE: i32 = 0;
/// The value of `group` once no program may start any more.
const STOPPED: i32 = -1;

/// A program of the user. One run at a time.
pub(super) struct LocalProgram {
    exec: String,
    /// The process group that runs, [`NONE`] or [`STOPPED`].
    group: AtomicI32,
    /// The end of a run that failed, for a command that waits for everything.
    failed: tokio::sync::watch::Sender<Option<String>>,
}

impl LocalProgram {
    pub(super) fn new(exec: &str, failed: tokio::sync::watch::Sender<Option<String>>) -> Self {
        Self { exec: exec.to_owned(), group: AtomicI32::new(NONE), failed }
    }

    /// Ends the program and everything that it started; none starts afterwards.
    pub(super) async fn stop(&self) {
        let group = self.group.swap(STOPPED, SeqCst);
        let Some(group) = Pid::from_raw(group).filter(|_| group > NONE) else { return };
        // A program that ended meanwhile needs no signal.
        let _sent = kill_process_group(group, Signal::TERM);
        sleep(GRACE).await;
        let _sent = kill_process_group(group, Signal::KILL);
    }

    async fn run_once(&self, variables: Vec<(&'static str, String)>, input: Vec<u8>) -> ProgramEnd {
        if self.group.load(SeqCst) == STOPPED {
            return ProgramEnd::Failed("the command ends".to_owned());
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
            Err(reason) => return ProgramEnd::Failed(format!("sh cannot be started: {reason}")),
        };
        let id = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(NONE);
        if self.group.compare_exchange(NONE, id, SeqCst, SeqCst).is_err() {
            // The command was told to end just now; dropping the child ends it.
            return ProgramEnd::Failed("the command ends".to_owned());
        }
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
        // A stop in between stays.
        let _was = self.group.compare_exchange(id, NONE, SeqCst, SeqCst);
        match ended {
            Ok(status) => match status.code() {
                Some(code) => ProgramEnd::Exited(code),
                None => ProgramEnd::Failed(format!("the program was ended: {status}")),
            },
            Err(reason) => ProgramEnd::Failed(format!("the program cannot be waited for: {reason}")),
        }
    }
}

#[async_trait]
impl Program for LocalProgram {
    async fn run(&self, variables: Vec<(&'static str, String)>, input: Vec<u8>) -> ProgramEnd {
        let ended = self.run_once(variables, input).await;
        let why = match &ended {
            ProgramEnd::Exited(0) => None,
            ProgramEnd::Exited(code) => Some(format!("the program exited with {code}")),
            ProgramEnd::Failed(reason) => Some(reason.clone()),
        };
        if why.is_some() {
            self.failed.send_replace(why);
        }
        ended
    }
}
