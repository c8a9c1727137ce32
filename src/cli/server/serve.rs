//! `tidings serve`: the server, until it is told to stop.

mod doors;
mod limits;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tidings_actors::model::words::counted;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::Instant,
};
use tracing::{error, info, warn};

use self::doors::{Addresses, Doors};
use crate::cli::{Code, Context, Failure};
use crate::{
    app::{Adapters, App, StartError},
    egress::replicas::ToReplicas,
    http::{
        self,
        door::{
            auth::{admin_token::AdminToken, session},
            lifecycle::Lifecycle,
            pipeline::Pipeline,
        },
        front::Front,
        handler_state::HandlerState,
    },
    identity::issuer::{Issuer, Issuers},
    settings::Settings,
    telemetry,
};

/// Runs the server until it is told to stop.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Write the address that the server listens on into this file, once it is ready (for port 0)
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
    /// Write the address of `server.ops_listen` into this file, once it listens
    #[arg(long, value_name = "FILE")]
    ops_address_file: Option<PathBuf>,
    /// Start with an empty database, although this data directory was used with another database that is
    /// missing or empty now
    #[arg(long)]
    new_database: bool,
}

/// Runs until SIGTERM or SIGINT; a second one, half a second later or more, ends at once.
///
/// # Errors
/// [`Failure`] when the start is refused, or when the process must end without a signal.
pub(crate) async fn run(args: ServeArgs, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let telemetry =
        telemetry::start(&settings.telemetry).map_err(|error| Failure::of_error(Code::Config, &error))?;
    let outcome = serve(&args, settings).await;
    stop_telemetry(telemetry).await;
    outcome
}

/// Sends the last spans; blocks, so not on a worker of the runtime.
pub(crate) async fn stop_telemetry(telemetry: telemetry::Guard) {
    // A panic in there costs spans, which are not worth a failure.
    drop(tokio::task::spawn_blocking(move || telemetry.stop()).await);
}

/// Ends the sessions of issuers at which nobody signs in any more: they must not be valid again if the issuer
/// returns. A failure ends no start: such a session opens nothing as long as the issuer is away.
async fn end_sessions_of_former_issuers(front: &Front) {
    let issuers = Issuers::of(&front.settings.identity, &front.egress);
    let origins: Vec<String> = issuers.of_sign_ins().map(Issuer::session_origin).collect();
    match front.administration.end_sessions_of_others(&origins).await {
        Ok(0) => {}
        Ok(ended) => {
            info!(
                "{} ended: the settings no longer have the issuer that opened them",
                counted(ended, "session")
            )
        }
        Err(reason) => {
            warn!(%reason, "sessions of former issuers could not be ended; the next start tries again")
        }
    }
}

async fn serve(args: &ServeArgs, mut settings: Settings) -> Result<(), Failure> {
    let mut stop_signals = StopSignals::listen();
    limits::set(&mut settings.server);
    // Before any file is created or migrated: a start at a busy address leaves everything as it was.
    let addresses = Addresses::take(&settings.server)?;
    settings.egress.own = addresses.own();
    settings.database.may_be_new = args.new_database;
    let adapters = Adapters::open(settings).await.map_err(|error| Failure::of_start(&error))?;
    // After the data directory was created: a new token is written into it.
    let admin = AdminToken::from_settings(&adapters.settings, adapters.random.as_ref())
        .map_err(|error| Failure::of_error(Code::Config, &error))?;
    let certificate = doors::certificate(&adapters.settings.server)?;
    let settings = adapters.settings.clone();
    // Opened before any work begins, because other replicas are told the address. Requests wait until then.
    let doors = Doors::open(addresses, certificate)?;
    let adapters = adapters.reached_at(doors.reached_at(&settings.server));
    let to_replicas =
        ToReplicas::new(&settings.egress).map_err(|error| Failure::of_start(&StartError::Egress(error)))?;
    let mut app = adapters.start(None).await.map_err(|error| Failure::of_start(&error))?;
    doors.announce(args)?;
    doors.tell_dashboard(&settings);
    let lifecycle = Lifecycle::default();
    let front = Arc::new(front(&app, to_replicas));
    http::door::audit_layer::started(&front).await;
    end_sessions_of_former_issuers(&front).await;
    let (stop, stopping) = watch::channel(false);
    let state = HandlerState::new(&settings, lifecycle.clone());
    let pipeline = Arc::new(Pipeline::new(front, state, admin));
    let door = doors.serve(&pipeline, &settings.server, stopping);
    let mut door = std::pin::pin!(door);
    let failed = tokio::select! {
        () = &mut door => Some("the front door closed".to_owned()),
        reason = app.failed() => Some(reason),
        signal = stop_signals.next() => {
            info!("{signal}: stopping");
            None
        }
    };
    lifecycle.drain();
    stop.send_replace(true);
    tokio::select! {
        _both = async { tokio::join!(door, app.stop()) } => {}
        signal = stop_signals.next() => return Err(Failure::new(Code::Software, format!("a second {signal}: \
            ended at once"))),
    }
    match failed {
        None => Ok(()),
        Some(reason) => {
            error!("this process must end: {reason}");
            Err(Failure::new(Code::Software, reason))
        }
    }
}

fn front(app: &App, to_replicas: ToReplicas) -> Front {
    Front {
        store: app.store.clone(),
        requests: app.store.clone(),
        history: app.store.clone(),
        administration: app.store.clone(),
        ledgers: app.store.clone(),
        subscriptions: app.store.clone(),
        hooks: app.store.clone(),
        tasks: app.store.clone(),
        artifacts: app.store.clone(),
        objects: app.objects.clone(),
        keys: app.store.clone(),
        audit_keyring: app.store.clone(),
        git: app.git.clone(),
        handle: app.handle(),
        settings: app.settings.clone(),
        egress: app.egress.clone(),
        session_cookie: session::cookie_name(app.store.identity()),
        to_replicas,
        clock: app.clock.clone(),
        random: app.random.clone(),
    }
}

/// SIGTERM and SIGINT, from the creation of this value on: none is lost between two waits.
pub(crate) struct StopSignals {
    signals: Option<(Signal, Signal)>,
    heard: Option<Instant>,
}

/// A second signal within this time counts as the same one: `timeout` and supervisors signal a process, then
/// its group.
const ECHO: Duration = Duration::from_millis(500);

impl StopSignals {
    /// Catches the signals, so that they no longer end the process.
    pub(crate) fn listen() -> Self {
        // Without handlers the signals end the process the hard way, which loses nothing either.
        let signals = signal(SignalKind::terminate()).ok().zip(signal(SignalKind::interrupt()).ok());
        Self { signals, heard: None }
    }

    /// Waits for the next signal and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        let Some((terminate, interrupt)) = &mut self.signals else { return std::future::pending().await };
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            let now = Instant::now();
            if self.heard.is_none_or(|before| now.duration_since(before) >= ECHO) {
                self.heard = Some(now);
                return name;
            }
        }
    }
}
