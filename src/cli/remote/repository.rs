//! `tidings repository`: the watches of an app, with the token of that app.

mod access;
mod add;
mod past;
mod preview;
mod settings;
mod shown;
mod sink;
mod update;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use tidings_entity::id::{CursorId, ObjectId, WatchId};

use self::access::AccessArgs;
use crate::cli::{
    Code, Context, Failure, GIT_TOKEN_VARIABLE,
    client::{Client, ServerArgs},
    listing,
    output::{shown, table},
    query::QueryArgs,
    words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum RepositoryVerb {
    /// Watch a repository: from now on its changes go to the app
    Add(Box<add::AddArgs>),
    /// Show which files of a repository a watch would deliver; nothing is registered
    Preview(Box<preview::PreviewArgs>),
    /// Change the settings of a watch; options that are missing leave the setting unchanged
    Update(Box<update::UpdateArgs>),
    /// List the watches of the app with their state and lag
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Show one watch with its branches, settings and last failure
    Show(OneArgs),
    /// Request a scan of the repository now
    Scan(OneArgs),
    /// Send every file again, in a round of its own
    Resync {
        #[command(flatten)]
        one: OneArgs,
        /// Also tell the app to drop each file that is not sent
        #[arg(long)]
        complete: bool,
    },
    /// Skip the change at the head: the change becomes a dead letter, and the next change is sent
    Skip {
        #[command(flatten)]
        one: OneArgs,
        /// The branch, by its `cursor`; needed if several branches have a change at their head
        #[arg(long, value_parser = words::id::<CursorId>(CURSORS))]
        cursor: Option<CursorId>,
    },
    /// Send again the changes after a commit that the app held earlier
    Replay {
        #[command(flatten)]
        one: OneArgs,
        /// The commit that the app held, all 40 hexadecimal digits
        #[arg(value_parser = words::commit)]
        commit: ObjectId,
        /// The branch, by its `cursor`; required if several branches held the commit
        #[arg(long, value_parser = words::id::<CursorId>(CURSORS))]
        cursor: Option<CursorId>,
    },
    /// List the changes of a round with their states
    Changes(Box<past::ChangesArgs>),
    /// List the rounds of a watch with their numbers of changes, newest first
    Rounds(OneArgs),
    /// List the statuses of the commits of a watch: the wanted state, the state that the Git host was told
    /// last, and the reason if the host is told no more
    Statuses(OneArgs),
    /// Print delivered and parked changes as they happen, until the process is ended
    Events(Box<past::EventsArgs>),
    /// Pause the watch: no change is delivered
    Pause(OneArgs),
    /// Resume a paused watch; enables its own sink if the sink answered 410
    Resume(OneArgs),
    /// End the watch: no change of the repository is delivered any more
    Remove(OneArgs),
    /// Replace the credential of the repository; it is read from a file or the variable TIDINGS_GIT_TOKEN
    Token {
        #[command(flatten)]
        one: OneArgs,
        #[command(flatten)]
        access: Box<AccessArgs>,
    },
}

/// The arguments that name one watch.
#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The `repository_id`, the name that `tidings repository list` prints, or the `watch_name`; or
    /// owner/name or the address of the repository, if it has one watch
    #[arg(value_name = "REPOSITORY")]
    named: String,
}

impl OneArgs {
    /// A client, and the id of the watch.
    ///
    /// # Errors
    /// If the app has no such watch, or several.
    async fn find(&self, context: &Context) -> Result<(Client, WatchId), Failure> {
        let client = context.client(&self.server)?;
        let id = client.watch(&self.named).await?;
        Ok((client, id))
    }
}

/// The command that lists the cursors of a watch.
const CURSORS: &str = "tidings repository show --json";
/// The route of all repositories.
const PATH: [&str; 2] = ["api", "repositories"];

pub(crate) async fn run(verb: RepositoryVerb, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    match verb {
        RepositoryVerb::Add(arguments) => add::run(*arguments, context).await,
        RepositoryVerb::Preview(arguments) => preview::run(*arguments, context).await,
        RepositoryVerb::Update(arguments) => update::run(&arguments, context).await,
        RepositoryVerb::List { server, query } => {
            let query: Vec<_> = query.said().into_iter().collect();
            let items = context.client(&server)?.list(&PATH, &query).await?;
            let lines = table(&listing::lines(&items), &listing::COLUMNS);
            output.print(&Value::Array(items), &lines)
        }
        RepositoryVerb::Show(one) => show(&one, context).await,
        RepositoryVerb::Scan(one) => act(&one, context, "scan", None).await,
        RepositoryVerb::Resync { one, complete } => {
            act(&one, context, "resync", Some(json!({ "complete": complete }))).await
        }
        RepositoryVerb::Skip { one, cursor } => {
            let body = cursor.map_or(json!({}), |cursor| json!({ "cursor": cursor }));
            let (_, done) = call(&one, context, Method::POST, Some("skip"), Some(&body)).await?;
            let (round, position) = (shown(&done["round"]), shown(&done["position"]));
            output.print(&done, &[format!("position {position} of round {round} becomes a dead letter")])
        }
        RepositoryVerb::Replay { one, commit, cursor } => {
            let mut body = json!({ "commit": commit.to_string() });
            if let Some(cursor) = cursor {
                body["cursor"] = json!(cursor);
            }
            let (_, done) = call(&one, context, Method::POST, Some("replay"), Some(&body)).await?;
            output.print(
                &done,
                &[format!(
                    "what came after {commit} is delivered once more; a replay that has not begun is dropped"
                )],
            )
        }
        RepositoryVerb::Changes(arguments) => past::changes(*arguments, context).await,
        RepositoryVerb::Rounds(one) => past::rounds(one, context).await,
        RepositoryVerb::Statuses(one) => past::statuses(one, context).await,
        RepositoryVerb::Events(arguments) => past::events(*arguments, context).await,
        RepositoryVerb::Pause(one) => act(&one, context, "pause", None).await,
        RepositoryVerb::Resume(one) => act(&one, context, "resume", None).await,
        RepositoryVerb::Remove(one) => {
            let (id, _) = call(&one, context, Method::DELETE, None, None).await?;
            output.print(&json!({ "removed": id }), &[format!("{id} is no longer watched")])
        }
        RepositoryVerb::Token { one, access } => {
            let fields = access.fields(context)?;
            if !fields.contains_key("token") && !fields.contains_key("github_app") {
                let text =
                    format!("give --git-token-file, --github-app-id or the variable {GIT_TOKEN_VARIABLE}");
                return Err(Failure::new(Code::Usage, text));
            }
            let body = Value::Object(fields);
            let (_, done) = call(&one, context, Method::PATCH, Some("token"), Some(&body)).await?;
            output.print(&done, &[shown(&done["message"])])
        }
    }
}

/// Shows a watch. For people it adds the state of the sink: the endpoint of the app is not part of the watch.
async fn show(one: &OneArgs, context: &Context) -> Result<(), Failure> {
    let (client, id) = one.find(context).await?;
    let watch = client.call(Method::GET, &[PATH[0], PATH[1], id.as_str()], None).await?;
    let endpoint = match &watch["sink"] {
        // The watch's own sink includes its state.
        Value::Object(sink) => sink.get("endpoint").cloned().unwrap_or_default(),
        _ if context.output.json => Value::Null,
        _ => client.call(Method::GET, &["api", "app"], None).await?["endpoint"].take(),
    };
    let mut lines = shown::described(&watch, &endpoint);
    let mut all = watch;
    if all["status"].is_object() {
        let statuses = past::last_statuses(&client, &id).await?;
        lines.extend(past::status_lines(&statuses));
        all["statuses"] = Value::Array(statuses);
    }
    context.output.print(&all, &lines)
}

/// Calls a route of one watch. Returns the id of the watch, and the answer.
async fn call(
    one: &OneArgs,
    context: &Context,
    method: Method,
    verb: Option<&str>,
    body: Option<&Value>,
) -> Result<(WatchId, Value), Failure> {
    let (client, id) = one.find(context).await?;
    let path: Vec<&str> = PATH.into_iter().chain([id.as_str()]).chain(verb).collect();
    let answer = client.call(method, &path, body).await?;
    Ok((id, answer))
}

async fn act(one: &OneArgs, context: &Context, verb: &str, body: Option<Value>) -> Result<(), Failure> {
    let (id, done) = call(one, context, Method::POST, Some(verb), body.as_ref()).await?;
    let line = match &done["message"] {
        Value::String(message) => message.clone(),
        _ if done["effective_state"] == "app_disabled" => format!(
            "{id} is {}, but nothing is sent: its app is {}; tidings app update --enable serves it again",
            shown(&done["state"]),
            shown(&done["effective_reason"])
        ),
        _ => format!("{id} is {}", shown(&done["state"])),
    };
    context.output.print(&done, &[line])
}
