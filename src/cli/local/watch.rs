//! `tidings watch`: the whole system in one command. It starts the same system as `serve` on an embedded
//! database, registers one app with one watch, and prints each change as it happens, delivers it to `--to`,
//! or runs the program of `--exec`.
//!
//! Restrictions of servers are relaxed for local use: repositories and receivers on this machine are allowed,
//! also over plain http. Other addresses are judged as a server judges them.
//!
//! Without `--data-dir` the database is in a temporary folder that is removed at the end, so that every run
//! begins with all files. With `--data-dir`, a later run continues where the earlier one stopped.

mod exec;
mod kept;
mod once;
mod target;

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::{Args, builder::PossibleValuesParser};
use tidings_actors::{
    model::secret::Secret,
    model::sink::SinkAddress,
    model::view::{MAX_SIZE_DEFAULT, View},
    ports::{
        ATTEMPTS_LOG, App, AppPatch, AppStore, DeliverySettings, EndpointAccess, NewApp, NewWatch,
        RepositoryFacts, Selector, SourceStore, Start, Store, Watch, WatchStore,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, WatchId},
    kind::{BranchGone, ContentRule, HistoryMode},
};

use self::{
    exec::LocalProgram,
    kept::{is_of, tell_if_other_globs, watch_one},
    once::{failed_run, interrupted, is_empty, nothing_left_behind, take_listing, tell_what_was_sent},
};
use crate::cli::{
    Code, Context, Failure,
    secret_file::Purpose,
    serve::{StopSignals, stop_telemetry},
};
use crate::{
    app::{Adapters, StartError, why_unusable},
    git::address::Address,
    secrets::{TOKEN_PREFIX, Token, generate_signing_key},
    settings::{Settings, TelemetrySettings},
    sinks::{Terminal, exec::Exec, print::Printer},
    telemetry,
};

/// The shortest poll interval of a local path: a poll costs one file read.
const LOCAL_POLL: Duration = Duration::from_millis(500);
/// How long the end of a command with `--exec` waits until answered changes are on disk.
const EXEC_DRAIN: Duration = Duration::from_secs(1);
/// The address of the app that prints, in a data directory of version 0.1.0 or before.
const FORMER_TERMINAL: &str = "http://terminal.invalid";

/// Watches one repository and prints or delivers its changes.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The repository: an address or a path on this machine
    #[arg(value_name = "URL_OR_PATH")]
    repository: String,
    /// The branch, a pattern of branches ('release/*'), or refs by their full names (refs/notes/x,
    /// 'refs/pull/*/head'); if missing, the default branch
    #[arg(long)]
    branch: Option<String>,
    /// Only paths that match this glob, such as 'docs/**'; may be repeated. If missing, every path
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Leave out paths that match this glob, such as '**/*.png'; may be repeated
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Deliver to this http:// or https:// address instead of printing
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// File with the signing key for --to; if missing, a key is generated and shown
    #[arg(long, value_name = "FILE", requires = "to")]
    secret_file: Option<PathBuf>,
    /// File with the token of the Git host, for a private repository; if missing, none is sent
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Run this program with sh instead of printing: once at the end of each round, or with --per change once
    /// for each change
    #[arg(long, value_name = "PROGRAM", conflicts_with = "to", long_help = exec::long_help())]
    exec: Option<String>,
    /// Run --exec once for each change, with its body on standard input, or once for each round
    #[arg(long, requires = "exec", default_value = "round",
        value_parser = PossibleValuesParser::new(["change", "round"]))]
    per: String,
    /// Deliver each commit as a round of its own; if missing, the net change of all commits since the last
    /// round
    #[arg(long)]
    every: bool,
    /// End as soon as everything that the repository has now is delivered; with --to, fail if the receiver
    /// does not take a change in 5 tries
    #[arg(long)]
    once: bool,
    /// Keep the state in this folder, and continue from it the next time. It may keep several repositories
    /// and branches; a run delivers the named one. If missing, each run begins with all files
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Watches until a signal stops the process, or (`--once`) until all changes are delivered.
///
/// # Errors
/// [`Failure`]: the address is wrong, the repository cannot be read, the receiver is refused.
pub(crate) async fn run(args: WatchArgs, context: &Context) -> Result<(), Failure> {
    let mut settings = context.settings()?;
    let address = target::address(&args.repository, settings.egress.allow_http)?;
    if settings.telemetry.log_filter == TelemetrySettings::default().log_filter {
        // Changes are for the terminal; beside them only warnings are shown. An attempt here is a run of the
        // program or a printed line, which says itself how it failed; a closed pipe (`| head`) is no failure.
        settings.telemetry.log_filter = match &args.to {
            Some(_) => "warn".to_owned(),
            None => format!("warn,{ATTEMPTS_LOG}=error"),
        };
    }
    let telemetry =
        telemetry::start(&settings.telemetry).map_err(|error| Failure::of_error(Code::Config, &error))?;
    let outcome = watch(&args, &address, settings, context.output.json).await;
    stop_telemetry(telemetry).await;
    outcome
}

async fn watch(args: &WatchArgs, address: &Address, settings: Settings, json: bool) -> Result<(), Failure> {
    let private = fs::Permissions::from_mode(0o700);
    let scratch = match &args.data_dir {
        Some(_) => None,
        None => {
            Some(tempfile::Builder::new().prefix("tidings-watch-").permissions(private).tempdir().map_err(
                |reason| Failure::new(Code::CannotCreate, format!("no temporary folder: {reason}")),
            )?)
        }
    };
    let data_dir =
        scratch.as_ref().map_or_else(|| args.data_dir.clone(), |scratch| Some(scratch.path().to_owned()));
    let settings = tuned(args, settings, data_dir.unwrap_or_default());
    let adapters = Adapters::open(settings).await.map_err(|error| not_opened(&error))?;
    let began_at = adapters.clock.now();
    let (app, watch, left_behind) = register(args, address, &adapters).await?;
    let mut stop_signals = StopSignals::listen();
    // The printer drops its sender when standard output is closed. Without a printer the sender stays here,
    // unused.
    let (reader_gone, mut reader) = tokio::sync::watch::channel(false);
    let (failed, mut failure) = tokio::sync::watch::channel(None);
    let program = args.exec.as_ref().map(|exec| Arc::new(LocalProgram::new(exec, args.once, failed.clone())));
    let printer = || Printer::new(json, reader_gone.clone(), failed.clone());
    let terminal = match &program {
        Some(program) => Some(Terminal::Runs(Exec::new(program.clone(), runs_per_round(args)))),
        None => args.to.is_none().then(|| Terminal::Prints(printer())),
    };
    let mut house = adapters.start(terminal).await.map_err(|error| Failure::of_start(&error))?;
    let store = house.store.clone();
    let mut is_interrupted = false;
    tell_if_empty(store.as_ref(), &app, &watch, args.once).await?;
    let of_rounds = program.as_deref().filter(|_| runs_per_round(args));
    let taken = once::everything_taken(store.as_ref(), &app, &watch, of_rounds);
    let outcome = tokio::select! {
        reason = house.failed() => Err(Failure::new(Code::Software, reason)),
        outcome = taken, if args.once => match outcome {
            Ok(watch) => {
                let told = tell_what_was_sent(args, store.as_ref(), &watch, began_at).await;
                told.and_then(|()| nothing_left_behind(left_behind))
            }
            Err(failure) => Err(failure),
        },
        why = failed_run(&mut failure), if args.once => Err(Failure::new(Code::Failed, why)),
        _gone = reader.wait_for(|gone| *gone) => Err(Failure::new(Code::ClosedPipe, "")),
        _signal = stop_signals.next() => {
            is_interrupted = true;
            interrupted(args.once, &address.display)
        }
    };
    let stop = async {
        let has_ended = match &program {
            Some(program) => program.stop().await,
            None => false,
        };
        if has_ended && is_interrupted {
            tell_what_was_interrupted(args, &address.display);
        }
        house.stop().await;
    };
    tokio::select! {
        () = stop => outcome,
        signal = stop_signals.next() => {
            Err(Failure::new(Code::Software, format!("a second {signal}: ended at once")))
        }
    }
}

/// Says that the round or the change of the program that was ended is not done.
fn tell_what_was_interrupted(args: &WatchArgs, shown: &str) {
    let what = if runs_per_round(args) { "round" } else { "change" };
    // On standard error, where no event is.
    drop(writeln!(io::stderr(), "{shown}: the {what} was interrupted; the next start delivers it again"));
}

/// Whether a program is run at the end of each round.
fn runs_per_round(args: &WatchArgs) -> bool {
    args.exec.is_some() && args.per == "round"
}

/// The failure of opening the data directory, which is named by an argument here, not by a setting.
fn not_opened(error: &StartError) -> Failure {
    match error {
        StartError::InUse { path, owner } => {
            let text = format!(
                "the data directory {path} is in use by another process ({owner}): stop that one, or name \
                 another directory with --data-dir"
            );
            Failure::new(Code::Unavailable, text)
        }
        StartError::DataDirectory { path, reason } => {
            let why = why_unusable(reason);
            let text = format!(
                "the data directory {path} cannot be used: {why}; name a directory that this user may write \
                 with --data-dir"
            );
            Failure::new(Code::CannotCreate, text)
        }
        error => Failure::of_start(error),
    }
}

/// The settings for a person who watches by hand: local paths are allowed, polls of them are frequent, and
/// the first delivery does not wait.
fn tuned(args: &WatchArgs, mut settings: Settings, data_dir: PathBuf) -> Settings {
    settings.data_dir = data_dir;
    // If the folder is lost, all files are sent again; no other data is lost with it.
    settings.database = crate::settings::DatabaseSettings {
        may_be_new: true,
        ..crate::settings::DatabaseSettings::default()
    };
    settings.git.allow_local = true;
    settings.egress.reaches_loopback = true;
    // Shared directories must not be maintained by this database, which does not know what others keep there.
    (settings.git.mirrors_dir, settings.artifacts.dir) = (None, None);
    settings.delivery.first_delay = Duration::ZERO;
    if args.exec.is_some() {
        // At the end the program is gone, and its run is given up: only answered changes are waited for.
        settings.delivery.drain_deadline = EXEC_DRAIN;
    }
    if !args.repository.contains("://") {
        settings.git.poll_min = settings.git.poll_min.min(LOCAL_POLL);
        settings.git.poll_max = settings.git.poll_max.min(4 * LOCAL_POLL);
    }
    settings
}

/// Registers the app and its watch, or finds them in a kept data directory; and why some refs that the watch
/// matches are not taken, if there are any.
async fn register(
    args: &WatchArgs,
    address: &Address,
    adapters: &Adapters,
) -> Result<(AppId, WatchId, Option<String>), Failure> {
    let store = adapters.store.as_ref();
    let now = adapters.clock.now();
    let app = the_app(args, adapters, now).await?;
    let known = store
        .watches(&app, None, 1_000)
        .await
        .map_err(|error| Failure::of_error(Code::Unavailable, &error))?;
    let selector = match args.branch.as_deref().or(address.branch.as_deref()) {
        Some(named) => Selector::named(named)
            .map_err(|fault| Failure::new(Code::Usage, format!("--branch {named:?} {fault}")))?,
        None => Selector::default_branch(),
    };
    let view = view(args)?;
    let same = |watch: &&Watch| is_of(watch, address) && watch.selector == selector && watch.view == view;
    let mode = if args.every { HistoryMode::Every } else { HistoryMode::Net };
    let own = known.iter().find(same);
    watch_one(adapters, &known, own.map(|watch| &watch.id), mode).await?;
    if let Some(watch) = own {
        let left_behind = look(adapters, watch, &address.display, args.once).await?;
        return Ok((app, watch.id.clone(), left_behind));
    }
    tell_if_other_globs(&known, address, &selector);
    let credential = read_secret(args.token_file.as_ref(), Purpose::GitToken)?;
    let ulid = adapters.random.ulid(now);
    let (settled, listing) = target::proved(&selector, adapters, address, credential.clone()).await?;
    let id = WatchId::new(ulid);
    let new = NewWatch {
        id: id.clone(),
        app: app.clone(),
        url: settled.normalised,
        facts: RepositoryFacts {
            repository_id: id,
            github_url: address.display.clone(),
            owner: address.owner.clone(),
            name: address.name.clone(),
        },
        is_private: false,
        credential,
        // The default of a server: when a branch of a pattern vanishes, its files are deleted.
        on_branch_gone: if selector.is_pattern() { BranchGone::Delete } else { BranchGone::Keep },
        selector,
        alias: String::new(),
        may_replace: true,
        sink: None,
        status: None,
        view,
        mode,
        start: Start::All,
        listing,
        deliver_after: now,
        created_at: now,
    };
    let watch =
        store.register_watch(&new).await.map_err(|error| Failure::of_error(Code::Unavailable, &error))?;
    let left_behind = take_listing(adapters, &watch, &new.listing).await?;
    Ok((app, watch.id, left_behind))
}

/// The app of the command: registered now, or found in a kept data directory.
async fn the_app(args: &WatchArgs, adapters: &Adapters, now: Timestamp) -> Result<AppId, Failure> {
    let store = adapters.store.as_ref();
    let unavailable = |error| Failure::of_error(Code::Unavailable, &error);
    let Some(app) = store.apps(None, 1).await.map_err(unavailable)?.pop() else {
        return make_app(args, adapters, now).await;
    };
    if app.receives_at == receiver(args) && app.delivery == delivery(args) {
        return Ok(app.id);
    }
    if prints(&app) && args.to.is_none() {
        let patch = AppPatch {
            receives_at: Some(SinkAddress::Print),
            delivery: Some(delivery(args)),
            ..AppPatch::default()
        };
        return Ok(store.patch_app(&app.id, &patch, now).await.map_err(unavailable)?.id);
    }
    let kept = app.receives_at.base_url().filter(|_| !prints(&app));
    let kept = kept.map_or("prints".to_owned(), |kept| format!("delivers to {kept}"));
    let reason = format!("the state in --data-dir {kept}: go on like that, or name another directory");
    Err(Failure::new(Code::Usage, reason))
}

/// Scans once before the first result counts: the rows of a kept data directory are those of the last run,
/// and may hold an error that has passed. With `once` the ref that is watched must still be there: a missing
/// ref counts as gone only after a while, which such a command does not wait for. Returns why some refs are
/// not taken.
async fn look(
    adapters: &Adapters,
    watch: &Watch,
    shown: &str,
    once: bool,
) -> Result<Option<String>, Failure> {
    let store = adapters.store.as_ref();
    let unavailable = |error| Failure::of_error(Code::Unavailable, &error);
    let sources = store.sources(&watch.repository).await.map_err(unavailable)?;
    let Some(source) = sources.into_iter().find(|source| source.id == watch.source) else { return Ok(None) };
    let listing = adapters
        .git
        .list_refs(&source.remote, &source.patterns.concat())
        .await
        .map_err(|reason| Failure::new(Code::Unavailable, format!("{shown}: {reason}")))?;
    let left_behind = take_listing(adapters, watch, &listing).await?;
    if watch.last_error.is_some() {
        store.record_scan_error(&source.id, None).await.map_err(unavailable)?;
    }
    if once {
        let had = watch.cursors.iter().any(|cursor| cursor.held.is_some());
        target::there(&watch.selector, adapters, &source.remote, shown, &listing, had).await?;
    }
    Ok(left_behind)
}

async fn make_app(args: &WatchArgs, adapters: &Adapters, now: Timestamp) -> Result<AppId, Failure> {
    let random = adapters.random.as_ref();
    let token = Token::generate(TOKEN_PREFIX, random);
    let signing_key = match read_secret(args.secret_file.as_ref(), Purpose::SigningKey)? {
        Some(key) => key,
        None => generate_signing_key(random),
    };
    if let Some(to) = &args.to {
        target::judge_receiver(to, &adapters.egress)?;
        if args.secret_file.is_none() {
            // On standard error, apart from the events: the receiver needs the key.
            drop(writeln!(io::stderr(), "events are signed with the key {}", signing_key.expose()));
        }
    }
    let id = AppId::new(random.ulid(now));
    let app = NewApp {
        id: id.clone(),
        name: "watch".to_owned(),
        email: String::new(),
        is_from_anyone: false,
        receives_at: receiver(args),
        website: None,
        description: None,
        token_public_id: token.public_id().to_owned(),
        token_hash: token.hash(),
        signing_key,
        access: EndpointAccess::default(),
        delivery: delivery(args),
        created_at: now,
        answer: None,
    };
    adapters.store.create_app(&app).await.map_err(|error| Failure::of_error(Code::Unavailable, &error))?;
    Ok(id)
}

/// The sink of the app.
fn receiver(args: &WatchArgs) -> SinkAddress {
    args.to.clone().map_or(SinkAddress::Print, |to| SinkAddress::of(Some(to)))
}

/// The settings of the app: a program for rounds is run by the notice at the end of a round.
fn delivery(args: &WatchArgs) -> DeliverySettings {
    DeliverySettings { synced: runs_per_round(args), ..DeliverySettings::default() }
}

/// Whether an app of a kept data directory prints its changes.
fn prints(app: &App) -> bool {
    matches!(&app.receives_at, SinkAddress::Print) || app.receives_at.base_url() == Some(FORMER_TERMINAL)
}

fn view(args: &WatchArgs) -> Result<View, Failure> {
    let globs = || args.include.iter().chain(&args.exclude);
    let spelt = globs().try_for_each(|glob| View::check_spelling(glob));
    let (include, exclude) = (args.include.clone(), args.exclude.clone());
    spelt
        .and_then(|()| View::check_length(globs()))
        .and_then(|()| View::new(include, exclude, false, ContentRule::Inline, MAX_SIZE_DEFAULT))
        .map_err(|reason| Failure::new(Code::Usage, reason.to_string()))
}

/// A secret of the user; unlike a secret for a server, its file may be readable by others.
fn read_secret(path: Option<&PathBuf>, purpose: Purpose) -> Result<Option<Secret>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|reason| {
        Failure::new(Code::NoInput, format!("the file {shown} for the {purpose} cannot be read: {reason}"))
    })?;
    let text = text.trim();
    if text.is_empty() {
        let text = format!("the file {shown} for the {purpose} is empty; put the {purpose} into it");
        return Err(Failure::new(Code::Data, text));
    }
    Ok(Some(Secret::new(text.to_owned())))
}

/// Prints a notice if there is nothing to deliver yet: otherwise the command would seem not to work.
async fn tell_if_empty(store: &dyn Store, app: &AppId, watch: &WatchId, once: bool) -> Result<(), Failure> {
    let watch = store.watch(app, watch).await;
    let watch = watch.map_err(|error| Failure::of_error(Code::Unavailable, &error))?;
    let why = match watch.cursors.is_empty() {
        true if watch.selector.is_pattern() => format!("has no ref that matches {}", watch.selector.value),
        false if is_empty(&watch) => "has no commits yet".to_owned(),
        _ => return Ok(()),
    };
    let what = if once { "there is nothing to send" } else { "the first one is waited for" };
    // On standard error, where no event is.
    drop(writeln!(io::stderr(), "{} {why}; {what}", watch.facts.github_url));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        watch: WatchArgs,
    }

    #[test]
    fn folders_that_others_share_are_left_alone() {
        let args = Line::parse_from(["watch", "https://git.example/a"]).watch;
        let mut settings = Settings::default();
        settings.git.mirrors_dir = Some("/mnt/mirrors".into());
        settings.artifacts.dir = Some("/mnt/artifacts".into());
        let tuned = tuned(&args, settings, "/tmp/scratch".into());
        let shared = (tuned.git.mirrors_dir, tuned.artifacts.dir);
        assert_eq!(shared, (None, None), "its own database knows nothing of what others keep");
    }
}
