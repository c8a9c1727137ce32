//! Ends of tasks and their results, with the artifacts that come with them.
//!
//! An artifact with bytes becomes an artifact of the task. An artifact that is only an address becomes one
//! that holds this address, with the media type of lists of addresses (RFC 2483).

use std::{sync::Arc, time::Duration};

use data_encoding::BASE64;
use futures_util::{TryStreamExt, future::join_all};
use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::{
        codeq,
        task::{ClaimProof, TaskMove},
    },
    ports::{Artifact, ArtifactChange, CONTENT_TYPE_MAX, Task},
};
use tidings_entity::{id::TaskId, kind::TaskState};
use utoipa::ToSchema;

use super::{
    bodies::{ArtifactToKeep, BATCH_MAX, ResultOfTask, ResultToKeep, ResultsToKeep, invalid, read, reason},
    id, older, owner,
    shown::{ArtifactShown, ResultShown, TaskAndResult, TaskShown},
    task, texts,
    words::{held, say},
};
use crate::http::{
    bodies::{
        moment::iso,
        paging::Query,
        problem::{Kind, Problem},
    },
    door::{
        lifecycle::Lifecycle,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route, route_with},
    },
    front::Front,
    tasks::{
        self,
        artifacts::{check_name, put_bytes},
        people::{WAIT_MAX, until_ended},
        shown::raw,
    },
};

/// The media type of an artifact that holds an address (RFC 2483).
const LINK: &str = "text/uri-list";
/// The media type of bytes whose sender names none.
const ANY_BYTES: &str = "application/octet-stream";
/// Most bytes of such an address.
const LINK_MAX: usize = 2_048;
/// Most artifacts that come with one result.
const ARTIFACTS_MAX: usize = 100;

/// The routes of this file.
pub(super) fn routes(lifecycle: &Lifecycle) -> Vec<Route> {
    vec![
        route::<__path_submit, _, _>(Access::App(Permission::TasksClaim), submit),
        route::<__path_submit_batch, _, _>(Access::App(Permission::TasksClaim), submit_batch),
        route::<__path_show, _, _>(Access::App(Permission::TasksRead), show),
        route_with::<__path_result, _, _, _>(Access::App(Permission::TasksRead), lifecycle, result),
    ]
}

/// One of several results.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CodeqSubmitted)]
struct SubmittedShown {
    /// Id of the task.
    task_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ResultShown>,
    /// Why the task did not end.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The results of a request about several tasks.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeqSubmittedList)]
struct SubmittedList {
    /// One for each item, in the order of the request.
    results: Vec<SubmittedShown>,
}

/// Ends a task that the worker has claimed.
#[utoipa::path(post, path = "/v1/codeq/tasks/{id}/result", tag = "codeq", params(("id" = String, Path)),
    request_body = ResultToKeep, responses((status = 200, body = ResultShown)))]
async fn submit(front: Arc<Front>, request: Request) -> Answer {
    let body: ResultToKeep = read(&request.body)?;
    let ended = async { ended(&front, &request, &id(&request, texts::NO_TASK)?, body).await };
    Ok(json(StatusCode::OK, &ended.await.map_err(older)?))
}

/// Ends several tasks. One that is refused does not stop the others.
#[utoipa::path(post, path = "/v1/codeq/tasks/batch/results", tag = "codeq", request_body = ResultsToKeep,
    responses((status = 200, body = SubmittedList)))]
async fn submit_batch(front: Arc<Front>, request: Request) -> Answer {
    let ResultsToKeep { results } = read(&request.body)?;
    if !(1..=BATCH_MAX).contains(&results.len()) {
        return Err(invalid(format!("results must have 1 to {BATCH_MAX} items")));
    }
    let ends = results.into_iter().map(|item| {
        let ResultOfTask { task_id, status, result, error, artifacts } = item;
        let (front, request) = (&front, &request);
        async move {
            let missing = || Problem::new(Kind::NO_TASK).saying(texts::NO_TASK);
            let body = ResultToKeep { status, result, error, artifacts };
            let ended = match task_id.parse::<TaskId>() {
                Ok(id) => ended(front, request, &id, body).await,
                Err(_) => Err(missing()),
            };
            match ended {
                Ok(result) => SubmittedShown { task_id, result: Some(result), error: None },
                Err(problem) => SubmittedShown { task_id, result: None, error: Some(problem.reason()) },
            }
        }
    });
    Ok(json(StatusCode::OK, &SubmittedList { results: join_all(ends).await }))
}

/// Shows a task with its payload.
#[utoipa::path(get, path = "/v1/codeq/tasks/{id}", tag = "codeq", params(("id" = String, Path)),
    responses((status = 200, body = TaskShown)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let shown = async {
        let id = id(&request, "not found")?;
        let task = task(&front, &request, &id, "not found").await?;
        let bodies = front.tasks.task_bodies(&task.app, &id).await;
        let bodies = bodies.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
        Ok(TaskShown::of(&task, payload(&request, &task, bodies.payload)))
    };
    Ok(json(StatusCode::OK, &shown.await.map_err(older)?))
}

/// The payload as the caller may read it: `null` in place of the content of a file that the caller may not.
fn payload(request: &Request, task: &Task, payload: String) -> String {
    if tasks::may_read_payload(request, task) { payload } else { "null".to_owned() }
}

/// Shows the result of a task that its worker ended. With `waitSeconds` the request waits until the task has
/// ended.
#[utoipa::path(get, path = "/v1/codeq/tasks/{id}/result", tag = "codeq",
    params(
        ("id" = String, Path),
        ("waitSeconds" = Option<u64>, Query, description = "Number of seconds to wait, 0 to 60. Default 0."),
    ),
    responses(
        (status = 200, body = TaskAndResult),
        (status = 404, description = "There is no such task, or no worker has ended it.")
    ))]
async fn result(front: Arc<Front>, lifecycle: Lifecycle, request: Request) -> Answer {
    let query = Query::of(&request.query, &["waitSeconds"])?;
    let wait = match query.get("waitSeconds").map(str::parse) {
        None => 0,
        Some(Ok(wait @ 0..=WAIT_MAX)) => wait,
        Some(_) => return Err(invalid(format!("waitSeconds must be between 0 and {WAIT_MAX}"))),
    };
    let shown = async {
        let id = id(&request, texts::NO_TASK)?;
        task(&front, &request, &id, texts::NO_TASK).await?;
        let task = until_ended(&front, &lifecycle, &request, &id, wait).await?;
        if !matches!(task.state, TaskState::Succeeded | TaskState::Failed) {
            return Err(Problem::new(Kind::NO_TASK).saying(texts::NO_RESULT));
        }
        let bodies = front.tasks.task_bodies(&task.app, &id).await;
        let bodies = bodies.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
        let result = record(&front, &task, bodies.result).await?;
        let payload = payload(&request, &task, bodies.payload);
        Ok(TaskAndResult { task: TaskShown::of(&task, payload), result })
    };
    Ok(json(StatusCode::OK, &shown.await.map_err(older)?))
}

/// Ends a task whose claim the caller's identity has. The artifacts are stored first.
async fn ended(
    front: &Front,
    request: &Request,
    id: &TaskId,
    body: ResultToKeep,
) -> Result<ResultShown, Problem> {
    let (step, result) = match (body.status.as_str(), body.result, body.error) {
        ("COMPLETED", Some(result), _) if result.get().starts_with('{') => {
            (TaskMove::Complete, Some(result.get().to_owned()))
        }
        ("COMPLETED", ..) => return Err(invalid("result is required and must be an object")),
        ("FAILED", _, Some(error)) if !error.trim().is_empty() => (TaskMove::Fail(reason(&error)), None),
        ("FAILED", ..) => return Err(invalid("error is required")),
        _ => return Err(invalid("status must be COMPLETED or FAILED")),
    };
    let files = body.artifacts.unwrap_or_default();
    if files.len() > ARTIFACTS_MAX {
        return Err(invalid(format!("at most {ARTIFACTS_MAX} artifacts")));
    }
    let files: Vec<File> = files.into_iter().map(File::of).collect::<Result<_, Problem>>()?;
    held(front, request, id, texts::NO_TASK).await?;
    let app = owner(request)?.id.clone();
    for File { name, content_type, bytes } in files {
        let proof = Some(ClaimProof::Worker(request.actor.clone()));
        let change = ArtifactChange { app: app.clone(), task: id.clone(), name, proof };
        put_bytes(front, change, content_type, bytes).await?;
    }
    say(front, request, id, step, result.clone()).await?;
    let task = task(front, request, id, texts::NO_TASK).await?;
    record(front, &task, result).await
}

/// A file that comes with a result.
struct File {
    name: String,
    content_type: String,
    bytes: Vec<u8>,
}

impl File {
    fn of(sent: ArtifactToKeep) -> Result<Self, Problem> {
        let ArtifactToKeep { name, url, content_base64, content_type } = sent;
        check_name(&name).map_err(|reason| invalid(format!("artifact name {reason}")))?;
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(content) = filled(content_base64) {
            let bytes = BASE64.decode(content.as_bytes());
            let bytes = bytes.map_err(|_| invalid(format!("artifact {name}: invalid contentBase64")))?;
            let is_type = |text: &String| {
                text.len() <= CONTENT_TYPE_MAX
                    && text.contains('/')
                    && text.bytes().all(|b| (b' '..=b'~').contains(&b))
            };
            // A type that is no media type says nothing.
            let content_type = filled(content_type).filter(is_type).filter(|text| text != LINK);
            return Ok(Self {
                name,
                content_type: content_type.unwrap_or_else(|| ANY_BYTES.to_owned()),
                bytes,
            });
        }
        let url =
            filled(url).ok_or_else(|| invalid(format!("artifact {name} needs url or contentBase64")))?;
        if url.len() > LINK_MAX || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(invalid(format!(
                "artifact {name}: url must be an address of at most {LINK_MAX} bytes"
            )));
        }
        Ok(Self { name, content_type: LINK.to_owned(), bytes: url.into_bytes() })
    }
}

/// The record of a task that its worker ended.
async fn record(front: &Front, task: &Task, result: Option<String>) -> Result<ResultShown, Problem> {
    let found = front.artifacts.artifacts(&task.app, &task.id).await;
    let found = found.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    let mut artifacts = Vec::with_capacity(found.len());
    for artifact in &found {
        artifacts.push(ArtifactShown::of(artifact, link(front, artifact).await));
    }
    Ok(ResultShown {
        task_id: task.id.to_string(),
        status: codeq::status(task.state),
        result: raw(result),
        error: task.error.clone().filter(|_| task.state == TaskState::Failed),
        artifacts,
        completed_at: iso(task.ended_at.unwrap_or(task.updated_at)),
    })
}

/// The address that an artifact holds, if it is one that was sent as an address.
async fn link(front: &Front, artifact: &Artifact) -> Option<String> {
    /// How long a look at one object may take.
    const LOOK_MAX: Duration = Duration::from_secs(5);
    if artifact.content_type != LINK || artifact.bytes > LINK_MAX as u64 {
        return None;
    }
    let read = async {
        let body = front.objects.open(&artifact.id, 0..artifact.bytes).await.ok()?;
        let parts: Vec<_> = body.try_collect().await.ok()?;
        String::from_utf8(parts.concat()).ok()
    };
    tokio::time::timeout(LOOK_MAX, read).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(
        name: &str,
        url: Option<&str>,
        content: Option<&str>,
        content_type: Option<&str>,
    ) -> Result<File, Problem> {
        File::of(ArtifactToKeep {
            name: name.to_owned(),
            url: url.map(str::to_owned),
            content_base64: content.map(str::to_owned),
            content_type: content_type.map(str::to_owned),
        })
    }

    #[test]
    fn a_file_is_its_bytes_or_its_address() {
        let made =
            file("a.json", None, Some("e30="), Some("application/json")).unwrap_or_else(|_| panic!("a file"));
        assert_eq!((made.bytes.as_slice(), made.content_type.as_str()), (&b"{}"[..], "application/json"));
        let made = file("a", Some("s3://b/k"), None, Some("text/plain")).unwrap_or_else(|_| panic!("a file"));
        assert_eq!((made.bytes.as_slice(), made.content_type.as_str()), (&b"s3://b/k"[..], LINK));
        // Bytes that call themselves an address are not shown as one.
        let made = file("a", None, Some("e30="), Some(LINK)).unwrap_or_else(|_| panic!("a file"));
        assert_eq!(made.content_type, ANY_BYTES);
        for (name, url, content) in [
            ("a", None, None),
            ("a", Some(""), Some("")),
            ("a", None, Some("no base64")),
            ("../a", Some("s3://b"), None),
            ("", Some("s3://b"), None),
            ("a", Some("two\nlines"), None),
        ] {
            assert!(file(name, url, content, None).is_err(), "{name} {url:?} {content:?}");
        }
    }
}
