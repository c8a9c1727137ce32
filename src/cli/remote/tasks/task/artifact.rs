//! `tidings task artifact`: files that belong to a task. What is sent carries its SHA-256, which the server
//! checks; what is received is checked here.

use std::{
    fs::Permissions,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use data_encoding::{BASE64, HEXLOWER};
use http::{HeaderName, Method, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidings_actors::model::task::ClaimToken;
use tidings_entity::id::TaskId;
use tokio::{
    fs::File,
    io::{self, AsyncReadExt, AsyncSeekExt, AsyncWrite, AsyncWriteExt},
};

use crate::cli::{
    Code, Context, Failure,
    client::{Client, Download, ServerArgs},
    output::{fields, table},
    words,
};

/// Standard input, or standard output.
const STANDARD: &str = "-";
/// What a list shows of each.
const COLUMNS: [&str; 5] = ["name", "bytes", "content_type", "sha256", "created_at"];
/// The bytes that are read from a file at a time.
const PIECE_BYTES: usize = 64 << 10;
/// The header that proves a claim.
const CLAIM: HeaderName = HeaderName::from_static("tidings-claim");
/// The digest of a body (RFC 9530).
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum ArtifactVerb {
    /// Store a file with a task, in the place of one of the same name
    Put(PutArgs),
    /// Fetch an artifact, and check its SHA-256
    Get(GetArgs),
    /// List the artifacts of a task with their sizes
    List(ListArgs),
    /// Remove an artifact of a task for good
    Remove(RemoveArgs),
}

/// A task, named by its id.
#[derive(Args, Debug)]
pub(in crate::cli) struct TaskArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The id of the task, tsk_...
    #[arg(value_name = "TASK", value_parser = words::id::<TaskId>("tidings task list"))]
    id: TaskId,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct PutArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// The file; '-' for standard input
    file: PathBuf,
    /// The name of the artifact: letters, digits and '._-+=@' [default: that of the file]
    #[arg(long)]
    name: Option<String>,
    /// The media type of the artifact, such as text/plain
    #[arg(long, value_name = "TYPE", default_value = "application/octet-stream")]
    content_type: String,
    /// The token of the claim, while a worker has the task
    #[arg(long, value_name = "TOKEN", value_parser = super::token)]
    claim: Option<ClaimToken>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct GetArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// The name of the artifact
    name: String,
    /// Where to write it; '-' for standard output [default: its name, in this folder]
    file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    task: TaskArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct RemoveArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// The name of the artifact
    name: String,
    /// The token of the claim, while a worker has the task
    #[arg(long, value_name = "TOKEN", value_parser = super::token)]
    claim: Option<ClaimToken>,
}

pub(in crate::cli) async fn run(verb: ArtifactVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        ArtifactVerb::Put(arguments) => put(arguments, context).await,
        ArtifactVerb::Get(arguments) => get(arguments, context).await,
        ArtifactVerb::List(ListArgs { task }) => {
            let client = context.client(&task.server)?;
            let path = ["api", "tasks", task.id.as_str(), "artifacts"];
            let answer = client.call(Method::GET, &path, None).await?;
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            let lines = table(&items, &COLUMNS);
            context.output.print(&Value::Array(items), &lines)
        }
        ArtifactVerb::Remove(RemoveArgs { task, name, claim }) => {
            let client = context.client(&task.server)?;
            let path = ["api", "tasks", task.id.as_str(), "artifacts", &name];
            client.remove(&path, &claims(claim.as_ref())).await?;
            context.output.print(&json!({ "removed": name }), &[format!("{name} is removed")])
        }
    }
}

fn claims(claim: Option<&ClaimToken>) -> Vec<(HeaderName, String)> {
    claim.map(|token| (CLAIM, token.to_string())).into_iter().collect()
}

async fn put(arguments: PutArgs, context: &Context) -> Result<(), Failure> {
    let PutArgs { task, file, name, content_type, claim } = arguments;
    let of_file = || file.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let is_standard = file.as_os_str() == STANDARD;
    let name = match name {
        Some(name) => name,
        None if is_standard => {
            let text = "standard input has no name: give the name of the artifact with --name";
            return Err(Failure::new(Code::Usage, text));
        }
        None => of_file().ok_or_else(|| {
            Failure::new(Code::Usage, format!("{} has no usable name: give one with --name", file.display()))
        })?,
    };
    let client = context.client(&task.server)?;
    let opened =
        if is_standard { spooled().await? } else { File::open(&file).await.map_err(unreadable(&file))? };
    let artifact = Artifact { task: task.id.as_str(), name: &name, content_type: &content_type };
    let answer = send(&client, &artifact, claims(claim.as_ref()), opened, &file).await?;
    context.output.print(&answer, &fields(&answer))
}

/// An artifact to be stored.
pub(in crate::cli) struct Artifact<'a> {
    pub(in crate::cli) task: &'a str,
    pub(in crate::cli) name: &'a str,
    pub(in crate::cli) content_type: &'a str,
}

/// Stores a file as an artifact of the task that a claim is for.
pub(in crate::cli) async fn send_claimed(
    client: &Client,
    artifact: &Artifact<'_>,
    token: &str,
    path: &Path,
) -> Result<Value, Failure> {
    let file = File::open(path).await.map_err(unreadable(path))?;
    send(client, artifact, vec![(CLAIM, token.to_owned())], file, path).await
}

/// Sends a file with its digest, which takes reading it twice.
async fn send(
    client: &Client,
    artifact: &Artifact<'_>,
    mut headers: Vec<(HeaderName, String)>,
    mut file: File,
    path: &Path,
) -> Result<Value, Failure> {
    let failed = unreadable(path);
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    let mut part = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut part).await.map_err(&failed)? {
            0 => break,
            count => {
                digest.update(&part[..count]);
                bytes += count as u64;
            }
        }
    }
    file.rewind().await.map_err(&failed)?;
    headers.push((CONTENT_DIGEST, format!("sha-256=:{}:", BASE64.encode(&digest.finalize()))));
    headers.push((header::CONTENT_TYPE, artifact.content_type.to_owned()));
    let path = ["api", "tasks", artifact.task, "artifacts", artifact.name];
    client.upload(&path, &headers, file, bytes).await
}

/// Standard input in a file without a name: its size must be known before it is sent.
async fn spooled() -> Result<File, Failure> {
    let failed = |error: io::Error| {
        Failure::new(Code::CannotCreate, format!("standard input cannot be kept for sending: {error}"))
    };
    let mut file = File::from_std(tempfile::tempfile().map_err(failed)?);
    let mut typed = standard(std::io::stdin()).map_err(failed)?;
    io::copy(&mut typed, &mut file).await.map_err(failed)?;
    file.flush().await.map_err(failed)?;
    file.rewind().await.map_err(failed)?;
    Ok(file)
}

/// Standard input or output as a file.
fn standard(stream: impl AsFd) -> io::Result<File> {
    Ok(File::from_std(stream.as_fd().try_clone_to_owned()?.into()))
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::new(Code::NoInput, format!("{path} cannot be read: {error}"))
}

async fn get(arguments: GetArgs, context: &Context) -> Result<(), Failure> {
    let GetArgs { task, name, file } = arguments;
    let client = context.client(&task.server)?;
    let path = ["api", "tasks", task.id.as_str(), "artifacts", &name];
    let file = file.unwrap_or_else(|| PathBuf::from(&name));
    let download = client.download(&path).await?;
    if file.as_os_str() == STANDARD {
        let failed = |error: io::Error| Failure::of_output(&error);
        let mut printed = standard(std::io::stdout()).map_err(failed)?;
        return received(download, &mut printed, failed).await.map(drop);
    }
    let failed = |error: io::Error| {
        Failure::new(Code::CannotCreate, format!("{} cannot be written: {error}", file.display()))
    };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Whole at once: a download that breaks off leaves an older file as it was.
    // The file has the mode that the umask of the user gives to others.
    let fresh = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
    // The library adds the name of its temporary file to the error.
    let fresh = fresh.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let text =
                format!("{} cannot be written: there is no folder {}", file.display(), folder.display());
            Failure::new(Code::CannotCreate, text)
        }
        kind => failed(kind.into()),
    })?;
    let mut writer = File::from_std(fresh.reopen().map_err(failed)?);
    let (bytes, sha256) = received(download, &mut writer, failed).await?;
    fresh.persist(&file).map_err(|error| failed(error.error))?;
    let told = json!({ "name": name, "file": file.display().to_string(), "bytes": bytes, "sha256": sha256 });
    context.output.print(&told, &fields(&told))
}

/// Writes what arrives, and checks it against the tag of the answer. Returns its size and SHA-256.
async fn received(
    mut download: Download<'_>,
    to: &mut (impl AsyncWrite + Unpin),
    failed: impl Fn(io::Error) -> Failure,
) -> Result<(u64, String), Failure> {
    let wanted = download.header(&header::ETAG).unwrap_or_default().trim_matches('"').to_owned();
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    while let Some(part) = download.next().await? {
        digest.update(&part);
        bytes += part.len() as u64;
        to.write_all(&part).await.map_err(&failed)?;
    }
    to.flush().await.map_err(&failed)?;
    let sha256 = HEXLOWER.encode(&digest.finalize());
    if sha256 != wanted {
        let message = format!("what arrived has the SHA-256 {sha256}, and the server names {wanted}");
        return Err(Failure::new(Code::Unavailable, message));
    }
    Ok((bytes, sha256))
}
