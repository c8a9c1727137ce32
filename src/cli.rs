//! The command line: one verb a file. Every verb prints for people, or with `--json` for programs; errors are
//! one line on standard error; exit codes are those of [`Code`]. No verb reports success if nothing was done.

mod local;
mod parts;
mod remote;
mod server;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tidings_actors::ports::Clock;

use self::{
    local::{completions, man, openapi},
    parts::{
        client, folder, follow, listing, needless, passphrase, profile, progress, query, secret_file, usage,
        variables, words,
    },
    remote::{
        admin, app, audit, auth, dead_letter, delivery, healthcheck, hook, ledger, mail, receipt, repository,
        subscription,
        tasks::{queue, schedule, task, worker},
        token,
    },
    server::{backup, check_config, doctor, init, key, migrate, service},
};
pub use self::{
    local::{listen, verify, watch},
    parts::{
        failure::{Code, Failure},
        output::{self, Output},
    },
    server::serve,
};
use crate::{
    http::door::auth::admin_token,
    machine::MachineClock,
    settings::{ENVIRONMENT_PREFIX, Settings},
};

/// The variable that holds the token for a running server.
const TOKEN_VARIABLE: &str = "TIDINGS_TOKEN";
/// The variable that holds the credential of a Git host.
const GIT_TOKEN_VARIABLE: &str = "TIDINGS_GIT_TOKEN";
/// Holds the passphrase of an exported keyring.
const PASSPHRASE_VARIABLE: &str = "TIDINGS_PASSPHRASE";
/// Holds the address that a copy reads from.
const COPY_FROM_VARIABLE: &str = "TIDINGS_COPY_FROM";
/// Holds the address that a copy writes to.
const COPY_TO_VARIABLE: &str = "TIDINGS_COPY_TO";
/// The environment variable with the secret for requests to an app's endpoint.
const ENDPOINT_SECRET_VARIABLE: &str = "TIDINGS_ENDPOINT_SECRET";

/// The environment variables that name the folder of the file of profiles.
const HOME_VARIABLES: [&str; 2] = ["XDG_CONFIG_HOME", "HOME"];

/// How long reads of files may go on after the last verb of this process.
const READS_END_WITHIN: Duration = Duration::from_secs(1);

/// Change data capture for Git: every file-level change, signed, in order, never losing one.
#[derive(Parser, Debug)]
#[command(name = "tidings", version, propagate_version = true)]
pub struct Cli {
    /// Settings file (TOML); environment variables (TIDINGS__SECTION__KEY) override it
    #[arg(long, global = true, env = "TIDINGS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON instead of text for people
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Run the server until it is told to stop
    Serve(serve::ServeArgs),
    /// Watch one repository and print its changes, or send them to a receiver
    Watch(watch::WatchArgs),
    /// Receive deliveries: verify, print, mirror
    Listen(listen::ListenArgs),
    /// Check a received body and its headers against a secret
    Verify(verify::VerifyArgs),
    /// Store the address of a server and the token for it, so that other verbs need no options
    #[command(subcommand)]
    Auth(auth::AuthVerb),
    /// Register apps, change their settings, and erase them
    #[command(subcommand)]
    App(app::AppVerb),
    /// Watch repositories for an app
    #[command(subcommand)]
    Repository(repository::RepositoryVerb),
    /// List dead letters, and send them again
    #[command(subcommand)]
    DeadLetter(dead_letter::DeadLetterVerb),
    /// List deliveries with their results
    #[command(subcommand)]
    Delivery(delivery::DeliveryVerb),
    /// Show the ledger of an app: failing sources, blocked branches, parked changes
    #[command(subcommand)]
    Ledger(ledger::LedgerVerb),
    /// Manage subscriptions: send entries of the ledger to an endpoint, a stream, or by mail
    #[command(subcommand)]
    Subscription(subscription::SubscriptionVerb),
    /// Test whether mails of this server arrive, and send mails from its templates
    #[command(subcommand)]
    Mail(mail::MailVerb),
    /// Manage hooks of an app: addresses at which Git hosts report pushes
    #[command(subcommand)]
    Hook(hook::HookVerb),
    /// Create tasks for workers, list them, and report their results
    #[command(subcommand)]
    Task(task::TaskVerb),
    /// List queues of tasks, and set, pause or purge them
    #[command(subcommand)]
    Queue(queue::QueueVerb),
    /// Manage schedules, which create tasks at the times of a cron line
    #[command(subcommand)]
    Schedule(schedule::ScheduleVerb),
    /// Run a program for each task of the given commands
    #[command(subcommand)]
    Worker(worker::WorkerVerb),
    /// List received hooks, and evaluate one again
    #[command(subcommand)]
    Receipt(receipt::ReceiptVerb),
    /// Create, list and revoke tokens
    #[command(subcommand)]
    Token(token::TokenVerb),
    /// See and change a running server (token of the staff)
    #[command(subcommand)]
    Admin(admin::AdminVerb),
    /// Read the audit log, and check that no row was changed (token of the staff)
    #[command(subcommand)]
    Audit(audit::AuditVerb),
    /// Migrate the database to this version or to an older one, or copy it into another database
    #[command(subcommand)]
    Migrate(migrate::MigrateVerb),
    /// Manage the keyring that seals secrets
    #[command(subcommand)]
    Key(key::KeyVerb),
    /// Copy database and keyring into a folder, also while the server runs
    Backup(backup::BackupArgs),
    /// Fill an empty data directory from a backup
    Restore(backup::RestoreArgs),
    /// Write a settings file that names every setting with its default
    Init(init::InitArgs),
    /// Check the settings and print them without secrets; also list open rounds of an older version that the
    /// next start would end with a resync
    CheckConfig,
    /// Check settings, keys, database, disk, clock and egress for faults, and print a remedy for each
    Doctor(doctor::DoctorArgs),
    /// Ask the local server whether it is alive; exit code 0 or 1
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Run Tidings as a service of this machine (systemd, launchd)
    #[command(subcommand)]
    Service(service::ServiceVerb),
    /// Print the OpenAPI document of the HTTP API, as JSON
    Openapi,
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page, in the form that `man` reads
    Man,
}

/// The options that every verb gets.
#[derive(Clone, Debug)]
pub struct Context {
    /// How results are printed: as text for people or as JSON.
    pub output: Output,
    config: Option<PathBuf>,
    environment: Environment,
}

/// The variables of this process that are ours, and where home is. Not shown: some hold secrets.
#[derive(Clone)]
struct Environment(Vec<(String, String)>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Environment(..)")
    }
}

/// Whether a variable of this name is a setting.
fn is_setting(name: &str) -> bool {
    let prefix = name.get(..ENVIRONMENT_PREFIX.len()).unwrap_or("");
    prefix.eq_ignore_ascii_case(ENVIRONMENT_PREFIX)
}

impl Environment {
    fn of_process() -> Self {
        // Variables with a missing underscore are included: reading the settings names them.
        let ours = |name: &str| name.to_uppercase().starts_with("TIDINGS_") || HOME_VARIABLES.contains(&name);
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let all = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Self(all.filter(|(name, _)| ours(name)).collect())
    }

    /// The names of the variables that are settings.
    fn settings(&self) -> impl Iterator<Item = &str> {
        let names = self.0.iter().map(|(name, _)| name.as_str());
        names.filter(|name| is_setting(name))
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    }
}

impl Context {
    /// Reads the settings from the file, if one is named, and from the variables.
    ///
    /// # Errors
    /// Every fault in the settings, with code 78.
    pub fn settings(&self) -> Result<Settings, Failure> {
        Settings::load(self.config.as_deref(), self.environment.0.iter().cloned())
            .map_err(|faults| Failure::of_settings(&faults))
    }

    /// A client for a running server.
    fn client(&self, arguments: &client::ServerArgs) -> Result<client::Client, Failure> {
        let profile = match (&arguments.server, &arguments.profile) {
            (Some(_), _) => None,
            (None, name) => profile::find(name.as_deref(), &self.environment)?,
        };
        let client = client::Client::new(arguments, profile, self.environment.get(TOKEN_VARIABLE))?;
        Ok(client.with_admin_token_at(self.admin_token_file()))
    }

    /// The file in which a server with these settings keeps its admin token; `None`: the token is in the
    /// settings, or the settings cannot be read.
    fn admin_token_file(&self) -> Option<PathBuf> {
        let settings = self.settings().ok().filter(|settings| settings.server.admin_token.is_none())?;
        Some(settings.data_dir.join(admin_token::FILE_NAME))
    }
}

/// Parses the command line of this process, runs the verb and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    match run(std::env::args_os(), Environment::of_process()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let mut errors = io::stderr().lock();
            for line in failure.message.lines() {
                // Where standard error is closed too, the exit code is all that can be said.
                let _closed = writeln!(errors, "tidings: {line}").is_err();
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

fn run(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> Result<(), Failure> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // A variable that is set and empty is not set, as for every other setting.
    let is_empty = std::env::var_os("TIDINGS_CONFIG").is_some_and(|path| path.is_empty());
    let command = Cli::command();
    let command = if is_empty { command.mut_arg("config", |config| config.env(None)) } else { command };
    let parsed =
        usage::with_negative_numbers(command).try_get_matches_from(&arguments).and_then(|mut matches| {
            let needless = needless::option(&matches);
            Cli::from_arg_matches_mut(&mut matches).map(|cli| (cli, needless))
        });
    let cli = match parsed {
        Ok((_, Some(needless))) => return Err(Failure::new(Code::Usage, needless)),
        Ok((cli, None)) => cli,
        // Help and version are answers, not failures.
        Err(answer) if !answer.use_stderr() => {
            return answer.print().map_err(|error| Failure::of_output(&error));
        }
        Err(error) => return Err(usage::failure(&error, &arguments)),
    };
    let context = Context { output: Output { json: cli.json }, config: cli.config, environment };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of_error(Code::Software, &error))?;
    let done = runtime.block_on(perform(cli.verb, &context));
    // A read that hangs, for example of a disk in a network, does not keep the process.
    runtime.shutdown_timeout(READS_END_WITHIN);
    done
}

async fn perform(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Serve(arguments) => serve::run(arguments, context).await,
        Verb::Watch(arguments) => watch::run(arguments, context).await,
        Verb::Listen(arguments) => receive(arguments, context).await,
        Verb::Verify(arguments) => check(arguments, context),
        Verb::Auth(verb) => auth::run(verb, context).await,
        Verb::App(verb) => app::run(verb, context).await,
        Verb::Repository(verb) => repository::run(verb, context).await,
        Verb::DeadLetter(verb) => dead_letter::run(verb, context).await,
        Verb::Delivery(verb) => delivery::run(verb, context).await,
        Verb::Ledger(verb) => ledger::run(verb, context).await,
        Verb::Subscription(verb) => subscription::run(verb, context).await,
        Verb::Mail(verb) => mail::run(verb, context).await,
        Verb::Hook(verb) => hook::run(verb, context).await,
        Verb::Task(verb) => task::run(verb, context).await,
        Verb::Queue(verb) => queue::run(verb, context).await,
        Verb::Schedule(verb) => schedule::run(verb, context).await,
        Verb::Worker(verb) => worker::run(verb, context).await,
        Verb::Receipt(verb) => receipt::run(verb, context).await,
        Verb::Migrate(verb) => migrate::run(verb, context).await,
        Verb::Key(verb) => key::run(verb, context).await,
        Verb::Backup(arguments) => backup::take(arguments, context).await,
        Verb::Restore(arguments) => backup::restore(arguments, context).await,
        Verb::Init(arguments) => init::run(&arguments, context),
        Verb::CheckConfig => check_config::run(context).await,
        Verb::Doctor(arguments) => doctor::run(&arguments, context).await,
        Verb::Healthcheck(arguments) => healthcheck::run(&arguments, context).await,
        Verb::Service(verb) => service::run(verb, context),
        Verb::Openapi => openapi::run(context),
        Verb::Completions(arguments) => completions::run(&arguments),
        Verb::Token(verb) => token::run(verb, context).await,
        Verb::Admin(verb) => admin::run(verb, context).await,
        Verb::Audit(verb) => audit::run(verb, context).await,
        Verb::Man => man::run(),
    }
}

async fn receive(mut arguments: listen::ListenArgs, context: &Context) -> Result<(), Failure> {
    arguments.json = context.output.json;
    if let Some(watch) = arguments.pull.clone() {
        let client = context.client(&arguments.server)?;
        return listen::pull(&arguments, &watch, client, Arc::new(MachineClock)).await;
    }
    listen::run(&arguments, Arc::new(MachineClock)).await.map_err(|error| {
        let code = match &error {
            listen::ListenError::Secret(verify::InputError::Unreadable(..)) => Code::NoInput,
            listen::ListenError::Secret(_) => Code::Usage,
            listen::ListenError::Mirror(..) => Code::CannotCreate,
            listen::ListenError::Address(..) | listen::ListenError::Accept(_) => Code::Unavailable,
        };
        Failure::of_error(code, &error)
    })
}

fn check(mut arguments: verify::VerifyArgs, context: &Context) -> Result<(), Failure> {
    arguments.json = context.output.json;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    match verify::verify(&arguments, MachineClock.now(), &mut input, &mut output) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(Code::Failed, "the request is not authentic")),
        Err(verify::InputError::Output(error)) => Err(Failure::of_output(&error)),
        Err(error @ (verify::InputError::Unreadable(..) | verify::InputError::Body(_))) => {
            Err(Failure::of_error(Code::NoInput, &error))
        }
        Err(error) => Err(Failure::of_error(Code::Data, &error)),
    }
}

#[cfg(test)]
mod tests;
