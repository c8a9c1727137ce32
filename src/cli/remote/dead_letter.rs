//! `tidings dead-letter`: parked changes, with the token of their app.

mod dismiss;
mod filter;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};
use tidings_entity::{
    id::{DeadLetterId, RedriveId},
    kind::LetterStatus,
};

use self::filter::FilterArgs;
use crate::cli::{
    Code, Context, Failure,
    client::{Client, ServerArgs},
    delivery::described,
    output::{fields, shown, table},
    progress::Progress,
    words,
};

#[derive(Subcommand, Debug)]
pub(crate) enum DeadLetterVerb {
    /// List the dead letters of the app, newest first
    List {
        #[command(flatten)]
        server: ServerArgs,
        /// Only letters of this status: open, redrive_requested, redriven, superseded or dismissed
        #[arg(
            long,
            value_parser = words::word::<LetterStatus>(LetterStatus::ALL.iter().map(|word| word.as_str()))
        )]
        status: Option<LetterStatus>,
        #[command(flatten)]
        filter: Box<FilterArgs>,
    },
    /// Show one dead letter with the last answer of the receiver
    Show {
        #[command(flatten)]
        server: ServerArgs,
        /// The id of the dead letter, dead_...
        #[arg(value_parser = words::id::<DeadLetterId>(LIST))]
        id: DeadLetterId,
    },
    /// Send dead letters again: by their ids, those that match a filter, or all
    Redrive {
        #[command(flatten)]
        server: ServerArgs,
        /// The ids of the dead letters to send again, dead_...
        #[arg(
            conflicts_with_all = ["all", "dry_run", "filter"],
            value_parser = words::id::<DeadLetterId>(LIST)
        )]
        ids: Vec<DeadLetterId>,
        /// Send every open dead letter again
        #[arg(long, conflicts_with = "filter")]
        all: bool,
        #[command(flatten)]
        filter: Box<FilterArgs>,
        /// Send nothing; show how many letters would be sent, and some of them
        #[arg(long)]
        dry_run: bool,
        /// Wait until the letters are sent or refused again
        #[arg(long, conflicts_with_all = ["dry_run", "ids"])]
        wait: bool,
    },
    /// Close dead letters that need not be sent again: by their ids, those that match a filter, or all
    Dismiss(dismiss::DismissArgs),
    /// Show the progress of redrives, newest first
    Redrives {
        #[command(flatten)]
        server: ServerArgs,
        /// Only the redrive with this id, rdv_...; if missing, all
        #[arg(value_parser = words::id::<RedriveId>("tidings dead-letter redrives"))]
        id: Option<RedriveId>,
    },
    /// Cancel redrives: waiting letters are open again, and a round that is sending them ends early
    Cancel {
        #[command(flatten)]
        server: ServerArgs,
        /// Only letters of this repository: its id, owner/name or address
        #[arg(long, value_name = "REPOSITORY")]
        repository: Option<String>,
    },
}

/// The command that lists dead letters.
const LIST: &str = "tidings dead-letter list";
/// The route of all dead letters.
const PATH: [&str; 2] = ["api", "dead-letters"];
/// The time between two requests while waiting for a redrive.
const WAIT_STEP: Duration = Duration::from_millis(500);
/// The number of looks at a running redrive after which the reason for a delay is read again.
const LOOKS_A_REASON: u32 = 6;
/// Watches that are looked at for that.
const WATCHES_LOOKED_AT: usize = 1_000;
/// The states of a watch that is not held up.
const MOVES: [&str; 3] = ["active", "delivering", "pending"];
/// The columns of a list of dead letters.
const COLUMNS: [&str; 8] =
    ["created_at", "dead_letter_id", "repository_id", "operation", "path", "reason", "status", "http_status"];

pub(crate) async fn run(verb: DeadLetterVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        DeadLetterVerb::List { server, status, filter } => {
            let client = context.client(&server)?;
            let mut query: Vec<_> = status.iter().map(|status| ("status", status.as_str())).collect();
            let said = filter.said(&client).await?;
            query.extend(said.iter().map(|(name, value)| (*name, value.as_str())));
            let letters = client.list(&PATH, &query).await?;
            let lines = table(&letters, &COLUMNS);
            context.output.print(&Value::Array(letters), &lines)
        }
        DeadLetterVerb::Show { server, id } => {
            let path = ["api", "dead-letters", id.as_str()];
            let letter = context.client(&server)?.call(Method::GET, &path, None).await?;
            context.output.print(&letter, &described(&letter, "attempts"))
        }
        DeadLetterVerb::Redrive { server, ids, all, filter, dry_run, wait } => {
            redrive(context, &server, RedriveOrder { ids, all, filter, dry_run, wait }).await
        }
        DeadLetterVerb::Dismiss(arguments) => dismiss::run(arguments, context).await,
        DeadLetterVerb::Redrives { server, id: Some(id) } => {
            let path = ["api", "dead-letters", "redrives", id.as_str()];
            let redrive = context.client(&server)?.call(Method::GET, &path, None).await?;
            context.output.print(&redrive, &fields(&redrive))
        }
        DeadLetterVerb::Redrives { server, id: None } => {
            let redrives = context.client(&server)?.list(&["api", "dead-letters", "redrives"], &[]).await?;
            let columns =
                ["redrive_id", "state", "asked", "sent", "refused", "superseded", "cancelled", "left"];
            let lines = table(&redrives, &columns);
            context.output.print(&Value::Array(redrives), &lines)
        }
        DeadLetterVerb::Cancel { server, repository } => {
            let client = context.client(&server)?;
            let body = match repository {
                Some(named) => json!({ "repository_id": client.watch(&named).await? }),
                None => json!({}),
            };
            let path = ["api", "dead-letters", "redrive", "cancel"];
            let done = client.call(Method::POST, &path, Some(&body)).await?;
            let ending = done["ending"].as_array().map_or(0, Vec::len);
            if done["reopened"] == 0 && ending == 0 {
                return Err(Failure::new(Code::Data, "no redrive waits or runs, so nothing was cancelled"));
            }
            let line = format!("{} reopened, {ending} running redrives end", shown(&done["reopened"]));
            context.output.print(&done, &[line])
        }
    }
}

/// The body of a request for a redrive.
struct RedriveOrder {
    ids: Vec<DeadLetterId>,
    all: bool,
    filter: Box<FilterArgs>,
    dry_run: bool,
    wait: bool,
}

async fn redrive(context: &Context, server: &ServerArgs, order: RedriveOrder) -> Result<(), Failure> {
    if order.ids.is_empty() && order.filter.is_empty() && !order.all {
        return Err(Failure::new(Code::Usage, "name dead letters by id, by a filter, or give --all"));
    }
    let client = context.client(server)?;
    let mut body = json!({});
    for (name, value) in order.filter.said(&client).await? {
        body[name] = Value::String(value);
    }
    if !order.ids.is_empty() {
        body["ids"] = json!(order.ids);
    }
    if order.dry_run {
        body["dry_run"] = Value::Bool(true);
    }
    let done = client.call(Method::POST, &["api", "dead-letters", "redrive"], Some(&body)).await?;
    if order.dry_run {
        let more = if done["at_least"] == true { "at least " } else { "" };
        let mut lines = vec![format!("{more}{} would be sent again", shown(&done["would_request"]))];
        lines.extend(table(done["sample"].as_array().map_or(&[][..], Vec::as_slice), &COLUMNS));
        return context.output.print(&done, &lines);
    }
    if done["requested"] == 0 && done["is_marking"] != true {
        let redrives = client.list_at_most(&["api", "dead-letters", "redrives"], &[], 10).await?.0;
        let running = redrives.iter().find(|redrive| redrive["state"] != "done");
        return match running.and_then(|redrive| redrive["redrive_id"].as_str()) {
            Some(id) if order.wait => wait(context, &client, id).await,
            Some(id) => {
                let text = format!(
                    "what is open is being sent again already; see `tidings dead-letter redrives {id}`"
                );
                Err(Failure::new(Code::Data, text))
            }
            None => {
                Err(Failure::new(Code::Data, "no such dead letter is open, so nothing will be sent again"))
            }
        };
    }
    if let (true, Some(id)) = (order.wait, done["redrive_id"].as_str()) {
        return wait(context, &client, id).await;
    }
    let mut line = format!("{} will be sent again", shown(&done["requested"]));
    if done["is_marking"] == true {
        line.push_str(" so far; more are being found");
    }
    if let Some(id) = done["redrive_id"].as_str() {
        line = format!("{line}; see `tidings dead-letter redrives {id}`");
    }
    context.output.print(&done, &[line])
}

/// The obstacles of an app's watches that have dead letters.
async fn obstacles(client: &Client) -> Result<Vec<String>, Failure> {
    let (watches, _) = client.list_at_most(&["api", "repositories"], &[], WATCHES_LOOKED_AT).await?;
    let is_held = |watch: &&Value| {
        let state = watch["effective_state"].as_str().unwrap_or_default();
        watch["dead_letters"].as_u64() != Some(0) && !MOVES.contains(&state)
    };
    let told = watches.iter().filter(is_held).map(|watch| {
        let why = watch["effective_reason"].as_str().or(watch["effective_state"].as_str());
        format!("{}: {}", shown(&watch["repository"]), why.unwrap_or_default())
    });
    Ok(told.collect())
}

/// Waits until every letter of a redrive is settled, and prints obstacles.
async fn wait(context: &Context, client: &Client, id: &str) -> Result<(), Failure> {
    let path = ["api", "dead-letters", "redrives", id];
    let progress = Progress::of("changes");
    let (mut told, mut looks) = (Vec::new(), 0_u32);
    let done = loop {
        let redrive = client.call(Method::GET, &path, None).await?;
        let number = |name: &str| redrive[name].as_u64().unwrap_or(0);
        progress.done_of(number("asked").saturating_sub(number("left")), number("asked"));
        if redrive["state"] == "done" {
            break redrive;
        }
        looks += 1;
        if looks.is_multiple_of(LOOKS_A_REASON) {
            let reasons = obstacles(client).await?;
            for reason in reasons.iter().filter(|reason| !told.contains(*reason)) {
                drop(writeln!(io::stderr(), "waits: {reason}"));
            }
            told = reasons;
        }
        tokio::time::sleep(WAIT_STEP).await;
    };
    drop(progress);
    context.output.print(&done, &fields(&done))?;
    match done["refused"].as_u64() {
        Some(0) | None => Ok(()),
        Some(1) => Err(Failure::new(Code::Data, "1 change was given up again")),
        Some(refused) => Err(Failure::new(Code::Data, format!("{refused} changes were given up again"))),
    }
}
