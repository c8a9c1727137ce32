//! `tidings verify`: was this request signed with that secret, and if not, why not.

use std::{
    fs,
    io::{self, Read, Write},
    path::PathBuf,
};

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use thiserror::Error;
use tidings_actors::{model::secret::Secret, time::Timestamp};

use crate::{
    secrets::KEY_CHARACTERS,
    sinks::signature::{self, SignatureFault, SigningKey, Verdict},
};

/// Bytes of a body that is checked.
const BODY_MAX: u64 = 512 << 20;

/// The secret that signatures are checked with.
#[derive(Args, Clone, Debug)]
pub struct SecretArgs {
    /// The app's client_auth_key or its whsec_ form; use the environment or a file instead, because every
    /// user of this machine can see arguments
    #[arg(long, env = "TIDINGS_SECRET", hide_env_values = true, value_parser = secret, value_name = "SECRET")]
    pub secret: Option<Secret>,
    /// File with one secret per line, in place of --secret; during a rotation it holds several
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

impl SecretArgs {
    /// The keys to check against; those of the file if both are given.
    ///
    /// # Errors
    /// If the file cannot be read, or no secret is given.
    pub fn keys(&self) -> Result<Vec<SigningKey>, InputError> {
        let text = match (&self.secret_file, &self.secret) {
            (Some(path), _) => {
                let read = fs::read_to_string(path);
                Secret::new(read.map_err(|error| InputError::Unreadable(path.clone(), error))?)
            }
            (None, Some(secret)) => secret.clone(),
            (None, None) => return Err(InputError::NoSecret),
        };
        let keys: Vec<_> = text.expose().lines().map(str::trim).flat_map(SigningKey::readings).collect();
        match &self.secret_file {
            _ if !keys.is_empty() => Ok(keys),
            Some(path) => Err(InputError::EmptyFile(path.clone())),
            None => Err(InputError::NoSecret),
        }
    }

    /// The keys to check against, for a receiver that relies on them: a key that no server accepts for an app
    /// is refused, because it protects nothing.
    ///
    /// # Errors
    /// As [`SecretArgs::keys`], and if a key is too short.
    pub(crate) fn strong_keys(&self) -> Result<Vec<SigningKey>, InputError> {
        let keys = self.keys()?;
        let is_short = |key: &SigningKey| key.size() < *KEY_CHARACTERS.start();
        if keys.iter().any(is_short) { Err(InputError::ShortSecret) } else { Ok(keys) }
    }
}

/// Checks the signatures of a webhook that was received.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// File with the body exactly as it was received; if missing or `-`, standard input
    #[arg(value_name = "BODY")]
    pub body: Option<PathBuf>,
    /// A header as it was received, `Name: value`; repeat the option for each header
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    pub headers: Vec<String>,
    /// File with the headers as they were received, one `Name: value` per line
    #[arg(long, value_name = "FILE")]
    pub headers_file: Option<PathBuf>,
    /// The secret that the signatures are checked with.
    #[command(flatten)]
    pub secret: SecretArgs,
    /// Accept timestamps that differ from now by more than five minutes
    #[arg(long)]
    pub ignore_age: bool,
    /// Prints the verdict as JSON; set from the option that every verb has.
    #[arg(skip)]
    pub json: bool,
}

/// Why no signature could be checked.
#[derive(Debug, Error)]
pub enum InputError {
    /// No secret was given, or an empty one.
    #[error("no secret: give TIDINGS_SECRET or --secret-file")]
    NoSecret,
    /// The file for secrets holds none.
    #[error("the file {} is empty; write the secret into it", _0.display())]
    EmptyFile(PathBuf),
    /// A secret that no app has.
    #[error(
        "the secret is too short: the signing key of an app has {} characters or more; give the \
         client_auth_key of the app, or the signing_secret (whsec_...) that its registration answered",
        KEY_CHARACTERS.start()
    )]
    ShortSecret,
    /// A file cannot be read.
    #[error("{} cannot be read: {}", _0.display(), _1)]
    Unreadable(PathBuf, #[source] io::Error),
    /// The body cannot be read.
    #[error("the body cannot be read: {0}")]
    Body(#[source] io::Error),
    /// The body is too long.
    #[error("the body has more than {BODY_MAX} bytes")]
    TooLong,
    /// An argument or a line that is no header.
    #[error("{place} is not a header; write `Name: value`")]
    Header {
        /// The argument, or the file with the number of its line.
        place: String,
    },
    /// The verdict cannot be printed.
    #[error("the verdict cannot be printed: {0}")]
    Output(#[source] io::Error),
}

/// Checks and prints; `Ok(true)` when the request is authentic (exit code 0, else 1).
///
/// # Errors
/// [`InputError`] when nothing could be checked.
pub fn verify(
    args: &VerifyArgs,
    now: Timestamp,
    input: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<bool, InputError> {
    let keys = args.secret.keys()?;
    let headers = headers(args)?;
    let body = body(args, input)?;
    let now = (!args.ignore_age).then(|| now.0.div_euclid(1000));
    let verdict = signature::check(&keys, &headers, &body, now);
    print(&verdict, args.json, output).map_err(InputError::Output)?;
    if headers.is_empty() && !args.json {
        let said = "no header was given: give those that were received with --header or --headers-file";
        writeln!(output, "{said}").map_err(InputError::Output)?;
    }
    Ok(verdict.is_good())
}

fn headers(args: &VerifyArgs) -> Result<HeaderMap, InputError> {
    let file = match &args.headers_file {
        None => String::new(),
        Some(path) => {
            fs::read_to_string(path).map_err(|error| InputError::Unreadable(path.clone(), error))?
        }
    };
    let lines = file.lines().zip(1_u64..).filter(|(line, _)| !line.trim().is_empty());
    let given = args.headers.iter().map(|header| (header.as_str(), 0));
    let mut headers = HeaderMap::new();
    for (line, number) in lines.chain(given) {
        let bad = || InputError::Header {
            place: match &args.headers_file {
                // The file may be another one, such as the body, so its text is not repeated.
                Some(path) if number > 0 => format!("line {number} of {}", path.display()),
                _ => format!("{line:?}"),
            },
        };
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        let name: HeaderName = name.trim().parse().map_err(|_| bad())?;
        headers.append(name, HeaderValue::from_str(value.trim()).map_err(|_| bad())?);
    }
    Ok(headers)
}

fn body(args: &VerifyArgs, input: &mut dyn Read) -> Result<Vec<u8>, InputError> {
    let mut body = Vec::new();
    let read = match args.body.as_ref().filter(|path| path.as_os_str() != "-") {
        None => input.take(BODY_MAX + 1).read_to_end(&mut body).map_err(InputError::Body)?,
        Some(path) => {
            let file = fs::File::open(path).map_err(|error| InputError::Unreadable(path.clone(), error))?;
            file.take(BODY_MAX + 1).read_to_end(&mut body).map_err(InputError::Body)?
        }
    };
    if read as u64 > BODY_MAX { Err(InputError::TooLong) } else { Ok(body) }
}

fn print(verdict: &Verdict, json: bool, output: &mut dyn Write) -> io::Result<()> {
    let schemes = [("Standard Webhooks", &verdict.standard), ("Docora", &verdict.docora)];
    if json {
        let text = |result: &Option<Result<(), SignatureFault>>| match result {
            None => json!({ "present": false }),
            Some(Ok(())) => json!({ "present": true, "valid": true }),
            Some(Err(fault)) => json!({ "present": true, "valid": false, "reason": fault.to_string() }),
        };
        let [standard, docora] = schemes.map(|(_, result)| text(result));
        let verdict = json!({ "valid": verdict.is_good(), "standard_webhooks": standard, "docora": docora });
        return writeln!(output, "{verdict}");
    }
    for (name, result) in schemes {
        match result {
            None => writeln!(output, "{name}: not signed under this scheme")?,
            Some(Ok(())) => writeln!(output, "{name}: valid")?,
            Some(Err(fault)) => writeln!(output, "{name}: not valid: {fault}")?,
        }
    }
    writeln!(output, "{}", if verdict.is_good() { "authentic" } else { "not authentic" })
}

#[cfg(test)]
mod tests;
