//! `tidings repository add`: begins to watch a repository. The API replaces the settings of an existing watch
//! and sends every file again; this verb refuses that first, in case it is a mistake.

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use tidings_actors::ports::Location;

use super::{PATH, access::AccessArgs, settings::SettingsArgs, shown::described, sink::SinkArgs};
use crate::cli::{
    Code, Context, Failure,
    client::{Client, ServerArgs},
    folder,
    output::shown,
};
use crate::{git::address::Address, http::repositories::register::selector::selector};

#[derive(Args, Debug)]
pub(in crate::cli) struct AddArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Address of the repository; a path, too, if the server may read local repositories
    url: String,
    /// One branch, a pattern, or the full name of any ref (refs/notes/x, 'refs/pull/*/head'); if missing, the
    /// default branch
    #[arg(long)]
    branch: Option<String>,
    /// A pattern of tags, instead of a branch
    #[arg(long, conflicts_with = "branch")]
    tags: Option<String>,
    /// Watch the same refs a second time under this name: lower-case letters, digits and -
    #[arg(long, value_name = "NAME")]
    watch_name: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    sink: SinkArgs,
    /// What is sent first: all (every file; the default), now (nothing before the next commit), or a commit
    /// (the changes since that commit)
    #[arg(long)]
    start: Option<String>,
    /// If the repository is watched already: replace all settings of that watch and resync it
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    access: AccessArgs,
}

pub(super) async fn run(arguments: AddArgs, context: &Context) -> Result<(), Failure> {
    let mut body = arguments.body(context)?;
    let client = context.client(&arguments.server)?;
    // How people name folders: from where they are, not from where the server runs.
    let address = Address::parse(&arguments.url, true, true).ok();
    let is_here = client.is_of_this_machine();
    let address =
        address.map(|address| if is_here { folder::followed(&arguments.url, address) } else { address });
    let folder = match address.as_ref().map(|address| &address.location) {
        Some(Location::Local(path)) if is_here => Some(path.clone()),
        _ => None,
    };
    if let Some(path) = folder.as_ref().filter(|path| !arguments.url.contains("://") && path.exists()) {
        body["url"] = json!(path.display().to_string());
    }
    if let Some(address) = address.filter(|_| !arguments.again) {
        refuse_second(&client, &arguments, &address).await?;
    }
    let watch = client.call(Method::POST, &PATH, Some(&body)).await.map_err(|failure| {
        // The server does not tell apps about its disk, but the user of this machine may know.
        let seen = folder.as_ref().and_then(|path| folder::check(&arguments.url, path).err());
        match seen.filter(|_| failure.code == Code::Data) {
            Some(seen) => seen,
            None if folder::is_owner_and_name(&arguments.url) => {
                let hint = folder::at_github(&arguments.url);
                Failure::new(failure.code, format!("{}; {hint}", failure.message))
            }
            None if failure.message.ends_with("needs a token") => {
                Failure::new(failure.code, format!("{} (--git-token-file)", failure.message))
            }
            None => failure,
        }
    })?;
    context.output.print(&watch, &described(&watch, &Value::Null))
}

impl AddArgs {
    /// The body of the registration.
    ///
    /// # Errors
    /// A secret that cannot be read.
    fn body(&self, context: &Context) -> Result<Value, Failure> {
        let mut fields = self.settings.fields();
        fields.insert("url".to_owned(), json!(self.url));
        for (name, text) in [
            ("branch", &self.branch),
            ("tags", &self.tags),
            ("start", &self.start),
            ("watch_name", &self.watch_name),
        ] {
            fields.extend(text.as_ref().map(|text| (name.to_owned(), json!(text))));
        }
        let sink = self.sink.fields(context)?;
        fields.extend((!sink.is_empty()).then(|| ("sink".to_owned(), Value::Object(sink))));
        fields.extend(self.access.fields(context)?);
        Ok(Value::Object(fields))
    }
}

/// Refuses to register a watch that the app has already.
async fn refuse_second(client: &Client, arguments: &AddArgs, address: &Address) -> Result<(), Failure> {
    let branch = arguments.branch.as_ref().or(address.branch.as_ref());
    // The server reports a fault of the branch argument.
    let Ok(selector) = selector(branch.map(String::as_str), arguments.tags.as_deref(), true) else {
        return Ok(());
    };
    let watches = client.list(&PATH, &[]).await?;
    let name = arguments.watch_name.as_deref().unwrap_or_default();
    let is_same = |watch: &&Value| {
        let named = watch["watch_name"].as_str().unwrap_or_default();
        watch["selector"] == json!(selector) && named == name && is_of(watch, address)
    };
    let Some(watch) = watches.iter().find(is_same) else { return Ok(()) };
    let (id, url) = (shown(&watch["repository_id"]), &arguments.url);
    let text = format!(
        "{url} is already watched as {id}: change its settings with `tidings repository update {id} ...`, or \
         add --again, which replaces all of them and delivers every file again"
    );
    Err(Failure::new(Code::Data, text))
}

/// Whether a watch is of the repository at this address.
fn is_of(watch: &Value, address: &Address) -> bool {
    match &address.location {
        Location::Local(path) => watch["repository"] == json!(path.display().to_string()),
        Location::Http(_) => {
            let other = watch["github_url"].as_str().and_then(|url| Address::parse(url, true, true).ok());
            other.is_some_and(|other| other.normalised == address.normalised)
        }
    }
}
