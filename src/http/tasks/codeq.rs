//! The contract of codeQ below `/v1/codeq`: its routes, names, status words and codes, over the same verbs of
//! the store as `/api/tasks`. A thin translation, so that clients of codeQ work unchanged. docs/codeq.md says
//! what differs on purpose.
//!
//! **Weaker.** These clients send no token of a claim. The identity of the caller must hold the claim: the
//! token of the app, or the subject of a JWT. Two claims of one identity are not told apart, so a worker that
//! lost its claim to another process with the same token may still end the task.
//!
//! Unknown fields are ignored and numbers outside of their bounds are cut to them, as in codeQ. Errors are
//! problems whose `error` is the text of codeQ.

mod admin;
mod bodies;
mod claims;
mod creates;
mod results;
mod shown;
mod subscriptions;
mod topics;
mod words;

use http::StatusCode;
use tidings_actors::ports::{App, Task};
use tidings_entity::id::TaskId;

use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{lifecycle::Lifecycle, request::Request, route::Route},
    front::Front,
    tasks,
};

/// The routes of this folder.
pub(in crate::http) fn routes(lifecycle: &Lifecycle) -> Vec<Route> {
    let of_workers = [
        creates::routes(),
        claims::routes(lifecycle),
        words::routes(),
        results::routes(lifecycle),
        subscriptions::routes(),
    ]
    .concat();
    let of_workers = of_workers.into_iter().map(|route| route.of_workers(tasks::BODY_MAX));
    of_workers.chain(admin::routes()).chain(topics::routes()).collect()
}

/// The texts of `error` that clients compare.
mod texts {
    pub(super) const NOT_FOUND: &str = "not-found";
    pub(super) const NO_TASK: &str = "task not found";
    pub(super) const NO_RESULT: &str = "result not found";
    pub(super) const NO_TOPIC: &str = "topic not found";
    pub(super) const NOT_OWNER: &str = "not-owner";
    pub(super) const NOT_IN_PROGRESS: &str = "not-in-progress";
    pub(super) const NOT_ALLOWED: &str = "event type not allowed";
}

/// A problem as these clients know it: invalid fields are 400, and `error` gives the reason.
fn older(problem: Problem) -> Problem {
    let reason = problem.reason();
    let is_invalid = problem.status() == StatusCode::UNPROCESSABLE_ENTITY;
    let problem = if is_invalid { problem.with_status(StatusCode::BAD_REQUEST) } else { problem };
    problem.saying(reason)
}

/// The refusal of a request for a command that the caller's token is not for.
fn check_command(request: &Request, command: &str) -> Result<(), Problem> {
    if request.may_use(command) {
        return Ok(());
    }
    Err(Problem::new(Kind::PERMISSION_REQUIRED).saying(texts::NOT_ALLOWED))
}

/// The app of the caller.
fn owner(request: &Request) -> Result<&App, Problem> {
    tasks::owner(request)
}

/// A task of this app; `missing`: the text where there is none that the caller may see.
async fn task(front: &Front, request: &Request, id: &TaskId, missing: &'static str) -> Result<Task, Problem> {
    let found = tasks::seen(front, request, id).await;
    found.map_err(|problem| match problem.status() {
        StatusCode::NOT_FOUND => problem.saying(missing),
        _ => problem,
    })
}

/// The id in the path; `missing`: the text for an id that no task can have.
fn id(request: &Request, missing: &'static str) -> Result<TaskId, Problem> {
    request.id(Kind::NO_TASK).map_err(|problem: Problem| problem.saying(missing))
}
