//! Tasks: producers create them, workers claim and end them, people look at them, cancel them and send them
//! again. A task of another app is answered like one that does not exist.
//!
//! Requests of producers and workers leave no audit entry and are not counted by the rate of a token: they
//! are too many, and the rows of tasks say what happened. Their number at once has bounds of its own
//! ([`Places::work`](crate::http::door::places::Places::work)). The key of a task is kept in its row: the
//! header `Idempotency-Key` is another way to send it, and no answer is stored.

pub(super) mod artifacts;
pub(super) mod claims;
pub(super) mod codeq;
pub(super) mod creates;
pub(super) mod people;
mod queues;
mod rates;
mod schedules;
pub(super) mod shown;
pub(super) mod words;
pub(super) mod workers;

pub(in crate::http) use creates::check_command;

use std::sync::Arc;

use tidings_actors::ports::{
    App, CALLBACKS_MAX, CreateRefusal, DEPTH_MAX, OPEN_BYTES_MAX, OPEN_TASKS_MAX, QUEUES_MAX, Task,
};
use tidings_entity::{id::TaskId, kind::OriginKind};

use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        lifecycle::Lifecycle,
        places::Places,
        request::Request,
        route::{Permission, Route},
    },
    front::Front,
};

/// Most bytes of a request of producers and workers (4 MiB): 100 payloads, or one that is large.
pub(super) const BODY_MAX: u64 = 4 << 20;
/// How many seconds a producer should wait whose app has as much as it may have.
const RETRY_AFTER_SECONDS: u64 = 10;

/// The routes of an app.
pub(super) fn routes(places: &Arc<Places>, lifecycle: &Lifecycle) -> Vec<Route> {
    let of_workers = [
        creates::routes(),
        claims::routes(lifecycle),
        words::routes(),
        artifacts::worker_routes(places),
        workers::routes(),
    ]
    .concat();
    let of_workers = of_workers.into_iter().map(|route| route.of_workers(BODY_MAX));
    let of_people =
        [people::routes(lifecycle), queues::routes(), schedules::routes(), artifacts::routes(places)]
            .concat();
    of_workers.chain(of_people).collect()
}

/// The routes of the staff.
pub(super) fn staff_routes() -> Vec<Route> {
    [queues::staff_routes(), schedules::staff_routes()].concat()
}

/// Who may work with tasks: the app itself. The one place where that is asked.
pub(super) fn owner(request: &Request) -> Result<&App, Problem> {
    request.app()
}

/// Refuses a command that the caller's token is not for; `None`: all commands are asked about at once.
fn may_use(request: &Request, command: Option<&str>) -> Result<(), Problem> {
    // The name that no command has: only a token for all commands matches it.
    if request.may_use(command.unwrap_or_default()) {
        return Ok(());
    }
    Err(Problem::new(Kind::PERMISSION_REQUIRED).with_detail(match command {
        Some(command) => format!("the token is not for the command {command}"),
        None => "the token is for some commands only: name one of them as `command`".to_owned(),
    }))
}

/// A task of this app that its caller may see: of a command that its token is for.
pub(super) async fn seen(front: &Front, request: &Request, id: &TaskId) -> Result<Task, Problem> {
    let task = front.tasks.task(&owner(request)?.id, id).await;
    let task = task.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    if request.may_use(&task.command) { Ok(task) } else { Err(Problem::new(Kind::NO_TASK)) }
}

/// Whether the caller may read the payload of a task. That of a change of a watch holds the content of its
/// file: it is for callers who may read contents, or claim tasks.
pub(super) fn may_read_payload(request: &Request, task: &Task) -> bool {
    let powers = &request.powers;
    task.origin.kind != OriginKind::Commit
        || powers.may(Permission::ContentsRead)
        || powers.may(Permission::TasksClaim)
}

/// Why tasks were not created, as an answer. `within` names the list that they were in.
pub(super) fn refused(refusal: &CreateRefusal, within: Option<&str>) -> Problem {
    let too_many =
        |what: String| Problem::new(Kind::TOO_MANY).with_detail(what).retry_after(RETRY_AFTER_SECONDS);
    let of = |index: usize, rest: &str| match within {
        Some(list) => format!("{list}/{index}/{rest}"),
        None => rest.to_owned(),
    };
    match refusal {
        CreateRefusal::KeyReused(index) => Problem::new(Kind::KEY_REUSED)
            .with_detail(format!("{} was used for another task of this command", of(*index, "key"))),
        CreateRefusal::PayloadTooLarge(index, limit) => Problem::new(Kind::TOO_LARGE).with_detail(format!(
            "{} has at most {limit} bytes: PUT /api/queues/{{command}} with payload_bytes \
             allows more, up to 1 MiB",
            of(*index, "payload")
        )),
        CreateRefusal::Queues => too_many(format!("an app has at most {QUEUES_MAX} queues")),
        CreateRefusal::OpenTasks => too_many(format!(
            "an app has at most {OPEN_TASKS_MAX} open tasks: let workers end some, or purge a queue"
        )),
        CreateRefusal::OpenBytes => too_many(format!(
            "the payloads of an app's open tasks have at most {OPEN_BYTES_MAX} bytes together: let workers \
             end some, or purge a queue"
        )),
        CreateRefusal::Callbacks => too_many(format!(
            "an app's tasks have at most {CALLBACKS_MAX} different webhook addresses: let tasks of others \
             end (an address is forgotten a day after its last task), or remove a callback \
             (DELETE /api/subscriptions/{{id}})"
        )),
        CreateRefusal::Depth => Problem::new(Kind::CONFLICT)
            .with_detail(format!("at most {DEPTH_MAX} tasks follow up one another")),
    }
}
