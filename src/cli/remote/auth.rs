//! `tidings auth`: stores the address of a server and the token for it, so that later verbs need no flags.
//! The address is stored in a profile ([`crate::cli::profile`]), the token in a file beside it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, ErrorKind, IsTerminal, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use http::Method;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use tidings_actors::model::secret::Secret;
use url::Url;

use crate::cli::{
    Code, Context, Failure, TOKEN_VARIABLE,
    client::{Client, DEFAULT_SERVER, ServerArgs, TOKEN_GIVER, server_url},
    output::{fields, shown},
    profile::{self, Profile},
    secret_file::{self, Purpose},
};

/// The profile that is written if no other is named.
const PROFILE: &str = "default";

#[derive(Subcommand, Debug)]
pub(crate) enum AuthVerb {
    /// Store the address of a server and the token for it, once the server has accepted the token
    Login(LoginArgs),
    /// Show the server, the token file and the identity that the next verb uses
    Show(ServerArgs),
    /// Delete the stored address of a server and the token for it
    Clear(NameArgs),
}

#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// Address of the server, http:// or https://
    #[arg(
        long,
        env = "TIDINGS_SERVER",
        value_name = "URL",
        value_parser = server_url,
        default_value = DEFAULT_SERVER
    )]
    server: Url,
    /// File that holds the token; without this option the variable TIDINGS_TOKEN or standard input gives it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    name: NameArgs,
}

#[derive(Args, Debug)]
pub(crate) struct NameArgs {
    /// Name of the profile; if missing, the default profile
    #[arg(long, env = "TIDINGS_PROFILE", value_name = "NAME")]
    profile: Option<String>,
}

pub(crate) async fn run(verb: AuthVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        AuthVerb::Login(arguments) => login(&arguments, context).await,
        AuthVerb::Show(server) => show(&server, context).await,
        AuthVerb::Clear(name) => clear(&name, context),
    }
}

async fn login(arguments: &LoginArgs, context: &Context) -> Result<(), Failure> {
    let name = arguments.name.profile.as_deref().unwrap_or(PROFILE);
    let home = profile::Home::of(&context.environment)?;
    home.check_name(name)?;
    let token = match &arguments.token_file {
        Some(path) => secret_file::read(path, Purpose::ServerToken)?,
        None => match context.environment.get(TOKEN_VARIABLE).filter(|token| !token.is_empty()) {
            Some(token) => secret_file::token_of(&token, TOKEN_GIVER)?,
            None => ask()?,
        },
    };
    let server = ServerArgs::of(arguments.server.clone());
    let who = who(&Client::new(&server, None, Some(token.expose().to_owned()))?).await?;
    let token_file = home.token_file(name);
    // If this process is killed in between, no later verb may send the token of one server to another one.
    if home.server_of(name)?.is_some_and(|old| old != arguments.server) {
        remove(&token_file)?;
    }
    let kept = Profile { server: arguments.server.clone(), token_file: Some(token_file.clone()) };
    home.save(name, &kept)?;
    keep(&token_file, &token)?;
    told(name, &kept, &who, context)
}

/// Shows the settings that the next verb would use with the same flags and variables.
async fn show(arguments: &ServerArgs, context: &Context) -> Result<(), Failure> {
    let profile = match &arguments.server {
        Some(_) => None,
        None => profile::Home::of(&context.environment)?.find(arguments.profile.as_deref())?,
    };
    let has_variable = context.environment.get(TOKEN_VARIABLE).is_some_and(|token| !token.is_empty());
    if profile.is_none() && arguments.server.is_none() && arguments.token_file.is_none() && !has_variable {
        return Err(Failure::new(Code::Data, "no server is stored; `tidings auth login` stores one"));
    }
    let of_profile = profile.as_ref().filter(|_| !has_variable).and_then(|(_, kept)| kept.token_file.clone());
    let token_file = arguments.token_file.clone().or(of_profile);
    let who = who(&context.client(arguments)?).await?;
    let of_profile = profile.as_ref().map(|(_, kept)| kept.server.to_string());
    let server = arguments.server.as_ref().map(Url::to_string).or(of_profile);
    let mut value = json!({
        "profile": profile.map(|(name, _)| name),
        "server": server.unwrap_or_else(|| DEFAULT_SERVER.to_owned()),
        "token_file": token_file,
        "as": who,
    });
    if token_file.is_none() && has_variable {
        value["token_variable"] = json!(TOKEN_VARIABLE);
    }
    context.output.print(&value, &fields(&value))
}

fn clear(arguments: &NameArgs, context: &Context) -> Result<(), Failure> {
    let home = profile::Home::of(&context.environment)?;
    let Some((name, kept)) = home.find(arguments.profile.as_deref())? else {
        return Err(Failure::new(Code::Data, "no server is stored; there is nothing to delete"));
    };
    home.remove(&name)?;
    // A token file that was named by hand is not ours to remove.
    let own = home.token_file(&name);
    if kept.token_file.as_ref() == Some(&own) {
        remove(&own)?;
    }
    let left = home.names()?;
    let mut lines = vec![format!("deleted  {name}  {}", kept.server)];
    if !left.is_empty() && home.find(None)?.is_none() {
        lines.push(format!(
            "no profile is the default now; left are {}: name one with --profile, or with default = \"NAME\" \
             in profiles.toml",
            left.join(", ")
        ));
    }
    context.output.print(&json!({ "deleted": name, "left": left }), &lines)
}

/// The owner of the token, according to the server.
async fn who(client: &Client) -> Result<String, Failure> {
    match client.call(Method::GET, &["api", "app"], None).await {
        Ok(app) => Ok(format!("app {} ({})", shown(&app["app_name"]), shown(&app["app_id"]))),
        Err(failure) if failure.code == Code::Permission => {
            // A token of the staff, or one of an app that is narrowed to other permissions.
            let session = client.call(Method::GET, &["api", "session"], None).await.map_err(|_| failure)?;
            Ok(match session["kind"].as_str() {
                Some("app") => format!("app {} ({})", shown(&session["app_name"]), shown(&session["app_id"])),
                _ => "staff".to_owned(),
            })
        }
        Err(failure) => Err(failure),
    }
}

fn told(name: &str, kept: &Profile, who: &str, context: &Context) -> Result<(), Failure> {
    let value = json!({
        "profile": name,
        "server": kept.server,
        "token_file": kept.token_file.as_ref().map_or(Value::Null, |path| json!(path)),
        "as": who,
    });
    context.output.print(&value, &fields(&value))
}

/// Reads the token from standard input, without echo on a terminal.
fn ask() -> Result<Secret, Failure> {
    let input = io::stdin();
    let hidden = if input.is_terminal() {
        // If standard error is closed, the prompt is not shown; the token may still be given.
        let _closed = write!(io::stderr(), "Token: ").is_err();
        tcgetattr(&input).ok()
    } else {
        None
    };
    if let Some(modes) = &hidden {
        let mut silent = modes.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Flush, &silent)
            .map_err(|error| Failure::new(Code::Software, format!("the terminal: {error}")))?;
    }
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    if let Some(modes) = &hidden {
        let _restored = tcsetattr(&input, OptionalActions::Flush, modes).is_ok();
        let _closed = writeln!(io::stderr()).is_err();
    }
    read.map_err(|error| Failure::new(Code::NoInput, format!("standard input cannot be read: {error}")))?;
    match line.trim() {
        "" => Err(Failure::new(
            Code::Usage,
            "a token is needed: --token-file FILE, the variable TIDINGS_TOKEN, or standard input",
        )),
        token => secret_file::token_of(token, "standard input"),
    }
}

/// Writes a token where its owner alone can read it.
fn keep(path: &Path, token: &Secret) -> Result<(), Failure> {
    let written = || {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let aside = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        writeln!(file, "{}", token.expose())?;
        File::sync_all(&file)?;
        fs::rename(&aside, path)
    };
    written().map_err(|error| cannot_write(path, &error))
}

/// Removes the file of a token, if it exists.
fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(cannot_write(path, &error)),
        _ => Ok(()),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::CannotCreate, format!("{} cannot be written: {error}", path.display()))
}
