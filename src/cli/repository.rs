//! `tidings repository`: what an app watches, with the token of that app.

mod access;
mod past;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use tidings_entity::id::{CursorId, ObjectId, WatchId};

use self::access::AccessArgs;
use super::{
    Code, Context, Failure, GIT_TOKEN_VARIABLE,
    client::{Client, ServerArgs},
    output::{fields, shown, table},
};

#[derive(Subcommand, Debug)]
pub(super) enum RepositoryVerb {
    /// Begin to watch a repository
    Add(Box<AddArgs>),
    /// List what the app watches
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one watch with its branches
    Show(OneArgs),
    /// Ask the Git host now
    Scan(OneArgs),
    /// Deliver everything anew
    Resync {
        #[command(flatten)]
        one: OneArgs,
        /// Also tell the app to drop what it has and is not named
        #[arg(long)]
        complete: bool,
    },
    /// Give the change at the head up: it becomes a dead letter, and the next one goes on
    Skip {
        #[command(flatten)]
        one: OneArgs,
        /// The branch, by its `cursor`; needed while several have a change at their head
        #[arg(long)]
        cursor: Option<CursorId>,
    },
    /// Deliver once more what came after a commit that the app held
    Replay {
        #[command(flatten)]
        one: OneArgs,
        /// The commit: 40 hexadecimal digits
        commit: ObjectId,
        /// The branch, by its `cursor`; needed where several held the commit
        #[arg(long)]
        cursor: Option<CursorId>,
    },
    /// List the changes of a round and how each stands
    Changes(Box<past::ChangesArgs>),
    /// List the rounds, newest first
    Rounds(OneArgs),
    /// Print what is delivered and parked as it happens, until the process is ended
    Events(Box<past::EventsArgs>),
    /// Hold the watch still
    Pause(OneArgs),
    /// Serve the watch again
    Resume(OneArgs),
    /// End the watch
    Remove(OneArgs),
    /// Replace the credential; it is read from a file or the variable TIDINGS_GIT_TOKEN
    Token {
        #[command(flatten)]
        one: OneArgs,
        #[command(flatten)]
        access: Box<AccessArgs>,
    },
}

/// One watch of a server.
#[derive(Args, Debug)]
pub(super) struct OneArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Its `repository_id`
    id: WatchId,
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Address of the repository
    url: String,
    /// One branch, or a pattern; missing: the default branch
    #[arg(long)]
    branch: Option<String>,
    /// A pattern of tags, instead of a branch
    #[arg(long, conflicts_with = "branch")]
    tags: Option<String>,
    /// Glob of which one must match a path (may be repeated)
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Glob of which none may match a path (may be repeated)
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// skip or send
    #[arg(long)]
    symlinks: Option<String>,
    /// inline or none
    #[arg(long)]
    content: Option<String>,
    /// Content of larger files is left out (bytes)
    #[arg(long, value_name = "BYTES")]
    max_size: Option<u64>,
    /// net (the net change once) or every (each commit)
    #[arg(long)]
    mode: Option<String>,
    /// What happens to the files of a pattern's branch that vanished: delete or keep
    #[arg(long)]
    on_branch_gone: Option<String>,
    /// all, now, or a commit
    #[arg(long)]
    start: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

/// The route of all repositories.
const PATH: [&str; 2] = ["api", "repositories"];

pub(super) async fn run(verb: RepositoryVerb, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    match verb {
        RepositoryVerb::Add(arguments) => add(*arguments, context).await,
        RepositoryVerb::List { server } => {
            let items = context.client(&server)?.list(&PATH, &[]).await?;
            let lines = table(&items, &["repository_id", "github_url", "state", "last_error"]);
            output.print(&Value::Array(items), &lines)
        }
        RepositoryVerb::Show(one) => {
            let watch = call(&one, context, Method::GET, None, None).await?;
            output.print(&watch, &described(&watch))
        }
        RepositoryVerb::Scan(one) => act(&one, context, "scan", None).await,
        RepositoryVerb::Resync { one, complete } => {
            act(&one, context, "resync", Some(json!({ "complete": complete }))).await
        }
        RepositoryVerb::Skip { one, cursor } => {
            let body = cursor.map_or(json!({}), |cursor| json!({ "cursor": cursor }));
            let done = call(&one, context, Method::POST, Some("skip"), Some(&body)).await?;
            let (round, position) = (shown(&done["round"]), shown(&done["position"]));
            output.print(&done, &[format!("position {position} of round {round} becomes a dead letter")])
        }
        RepositoryVerb::Replay { one, commit, cursor } => {
            let mut body = json!({ "commit": commit.to_string() });
            if let Some(cursor) = cursor {
                body["cursor"] = json!(cursor);
            }
            let done = call(&one, context, Method::POST, Some("replay"), Some(&body)).await?;
            output.print(&done, &[format!("what came after {commit} is delivered once more")])
        }
        RepositoryVerb::Changes(arguments) => past::changes(*arguments, context).await,
        RepositoryVerb::Rounds(one) => past::rounds(one, context).await,
        RepositoryVerb::Events(arguments) => past::events(*arguments, context).await,
        RepositoryVerb::Pause(one) => act(&one, context, "pause", None).await,
        RepositoryVerb::Resume(one) => act(&one, context, "resume", None).await,
        RepositoryVerb::Remove(one) => {
            call(&one, context, Method::DELETE, None, None).await?;
            output.print(&json!({ "removed": one.id }), &[format!("{} is no longer watched", one.id)])
        }
        RepositoryVerb::Token { one, access } => {
            let fields = access.fields(context)?;
            if !fields.contains_key("token") && !fields.contains_key("github_app") {
                let text =
                    format!("give --git-token-file, --github-app-id or the variable {GIT_TOKEN_VARIABLE}");
                return Err(Failure::new(Code::Usage, text));
            }
            let body = Value::Object(fields);
            let done = call(&one, context, Method::PATCH, Some("token"), Some(&body)).await?;
            output.print(&done, &[shown(&done["message"])])
        }
    }
}

async fn add(arguments: AddArgs, context: &Context) -> Result<(), Failure> {
    let mut body = json!({ "url": arguments.url });
    let texts = [
        ("branch", arguments.branch),
        ("tags", arguments.tags),
        ("symlinks", arguments.symlinks),
        ("content", arguments.content),
        ("mode", arguments.mode),
        ("on_branch_gone", arguments.on_branch_gone),
        ("start", arguments.start),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            body[name] = Value::String(text);
        }
    }
    for (name, value) in arguments.access.fields(context)? {
        body[name] = value;
    }
    for (name, globs) in [("include", arguments.include), ("exclude", arguments.exclude)] {
        if !globs.is_empty() {
            body[name] = json!(globs);
        }
    }
    if let Some(bytes) = arguments.max_size {
        body["max_size"] = json!(bytes);
    }
    let client = context.client(&arguments.server)?;
    let watch = client.call(Method::POST, &PATH, Some(&body)).await?;
    context.output.print(&watch, &described(&watch))
}

async fn call(
    one: &OneArgs,
    context: &Context,
    method: Method,
    verb: Option<&str>,
    body: Option<&Value>,
) -> Result<Value, Failure> {
    let client: Client = context.client(&one.server)?;
    let path: Vec<&str> = PATH.into_iter().chain([one.id.as_str()]).chain(verb).collect();
    client.call(method, &path, body).await
}

async fn act(one: &OneArgs, context: &Context, verb: &str, body: Option<Value>) -> Result<(), Failure> {
    let done = call(one, context, Method::POST, Some(verb), body.as_ref()).await?;
    let line = match &done["message"] {
        Value::String(message) => message.clone(),
        _ => format!("{} is {}", one.id, shown(&done["state"])),
    };
    context.output.print(&done, &[line])
}

/// A watch with a line for each of its branches.
fn described(watch: &Value) -> Vec<String> {
    let mut facts = watch.clone();
    let branches = facts["branches"].take();
    if let Some(facts) = facts.as_object_mut() {
        facts.remove("branches");
    }
    let mut lines = fields(&facts);
    if let Value::Array(branches) = branches {
        lines.push(String::new());
        lines.extend(table(
            &branches,
            &[
                "branch",
                "state",
                "held_commit",
                "head_commit",
                "lag_ms",
                "dead_letters",
                "deletes_unknown",
                "reason",
            ],
        ));
    }
    lines
}
