//! The field `status` of a watch: whether it shows its state on its commits, and at which kind of host; and
//! the list of those statuses.

use std::{str::FromStr, sync::Arc};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidings_actors::{
    model::secret::Secret,
    ports::{Location, Remote, StatusPlace, StatusRow, Watch},
    time::Timestamp,
};
use tidings_entity::kind::{StatusHost, StatusWord};
use utoipa::ToSchema;

use super::{super::front::Front, named, store_failed};
use crate::git::{credential::Credential, status_host};
use crate::http::{
    bodies::{
        fields::Fields,
        moment::iso,
        paging::{Page, Query, page},
        problem::Problem,
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
};

/// The values of the field `status`.
const WORDS: &str = "off, auto, github, gitlab, gitea";

/// The value of `status` in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StatusRequest {
    /// No status is shown on commits.
    Off,
    /// The credential or the name of the host says which kind it is.
    Auto,
    /// GitHub, also GitHub Enterprise.
    Github,
    /// The API of GitLab.
    Gitlab,
    /// The API of Gitea and Forgejo.
    Gitea,
}

/// Statuses that a watch shows on its commits.
#[derive(Serialize, ToSchema)]
pub(super) struct StatusShown {
    /// The API of the Git host: `github`, `gitlab` or `gitea`.
    host: &'static str,
    /// Name (context) of the status at the Git host.
    context: String,
}

impl StatusShown {
    pub(super) fn of(watch: &Watch) -> Option<Self> {
        let status = watch.status.as_ref()?;
        Some(Self { host: status.host.as_str(), context: status.context.clone() })
    }
}

/// Status of one commit: the status to show, and the status that the Git host was told.
#[derive(Serialize, ToSchema)]
struct CommitStatusShown {
    /// The commit that has the status.
    commit: String,
    /// Host name of the repository, without its port.
    host: String,
    /// Name (context) of the status at the Git host.
    context: String,
    /// Status to show: `pending`, `success`, `parked`, `blocked`, `paused`, `superseded` or `cancelled`.
    wanted: &'static str,
    /// Text of the status.
    description: String,
    /// Status that the Git host was told last, in the words of `wanted`. Null: none, or it is not known
    /// whether the host accepted the status. A status that looks the same at the host as the previous one is
    /// not sent.
    #[schema(required = true)]
    told: Option<&'static str>,
    /// Number of failed requests in a row to the Git host.
    tries: u32,
    /// When the Git host is told next. Missing: there is nothing to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
    /// Why the Git host is told no more about this commit. Missing: the host is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    updated_at: String,
}

impl CommitStatusShown {
    fn of(row: &StatusRow) -> Self {
        Self {
            commit: row.commit.to_string(),
            host: row.host.clone(),
            context: row.context.clone(),
            wanted: row.wanted.as_str(),
            description: row.description.clone(),
            told: row.told.map(StatusWord::as_str),
            tries: row.tries,
            next_attempt_at: row.next_at.map(iso),
            ended: row.ended.clone(),
            updated_at: iso(row.updated_at),
        }
    }
}

/// Where a page of statuses continues.
struct Mark(StatusPlace);

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (at, commit) = text.split_once(' ').ok_or(())?;
        let at = Timestamp(at.parse().map_err(drop)?);
        Ok(Self(StatusPlace { at, commit: commit.parse().map_err(drop)? }))
    }
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![route::<__path_statuses, _, _>(Access::App(Permission::WatchesRead), statuses)]
}

/// Lists the statuses of the repository's commits, the last changed first. A status that is final and
/// reported to the Git host is stored for one day.
#[utoipa::path(get, path = "/api/repositories/{id}/statuses", tag = "repositories",
    params(
        ("id" = String, Path),
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, body = Page<CommitStatusShown>)))]
async fn statuses(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &["limit", "cursor"])?;
    let limit = query.limit()?;
    let watch = named(&front, &request).await?;
    let list = format!("statuses of {}", watch.id);
    let place: Option<Mark> = query.after(&list)?;
    let place = place.map(|Mark(place)| place);
    let found = front.history.statuses(&watch.id, place.as_ref(), limit + 1).await.map_err(store_failed)?;
    let mark = |row: &StatusRow| format!("{} {}", row.updated_at.0, row.commit);
    Ok(json(StatusCode::OK, &page(found, limit, &list, mark, CommitStatusShown::of)))
}

/// Reads the field `status`; `None` if it is missing.
pub(super) fn read(fields: &mut Fields) -> Option<StatusRequest> {
    fields.word("status", WORDS)
}

/// The kind of host whose API is told; `None`: no status.
///
/// # Errors
/// If the host cannot be told: for a local repository, one without a credential, or a host of unknown kind.
pub(super) fn settled(
    requested: StatusRequest,
    location: &Location,
    credential: Option<&Secret>,
) -> Result<Option<StatusHost>, Problem> {
    let refused = |text: String| Err(Problem::invalid_field("status", text));
    if requested == StatusRequest::Off {
        return Ok(None);
    }
    let Location::Http(url) = location else {
        return refused("a repository on this disk has no host that shows statuses".to_owned());
    };
    let Some(credential) = credential else {
        return refused(
            "needs a credential of the repository that may write commit statuses: give one with `token` or \
             `github_app`"
                .to_owned(),
        );
    };
    Ok(Some(match requested {
        StatusRequest::Github => StatusHost::Github,
        StatusRequest::Gitlab => StatusHost::Gitlab,
        StatusRequest::Gitea => StatusHost::Gitea,
        StatusRequest::Auto | StatusRequest::Off => {
            let credential = Credential::of(credential).ok();
            match status_host(url, credential.as_ref()) {
                Some(host) => host,
                None => {
                    let host = url.host_str().unwrap_or_default();
                    return refused(format!(
                        "the name {host} does not say which kind of host it is: give github, gitlab or gitea \
                         (also for Forgejo) in place of auto"
                    ));
                }
            }
        }
    }))
}

/// The kind of host whose API is told, for an existing watch; `None`: no status.
pub(super) async fn settled_of(
    front: &Front,
    watch: &Watch,
    requested: StatusRequest,
) -> Result<Option<StatusHost>, Problem> {
    let pinned = front.store.pinned_trees(&watch.app, &watch.id).await.map_err(store_failed)?;
    let Remote { location, credential, .. } = pinned.remote;
    settled(requested, &location, credential.as_ref())
}
