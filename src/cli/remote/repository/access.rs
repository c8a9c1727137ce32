//! Arguments for the access to a repository. Secrets come from files or the environment, never from the
//! command line, which every user of the machine can read.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::{
    Context, Failure, GIT_TOKEN_VARIABLE,
    secret_file::{self, Purpose},
};

/// A token of the Git host, or a GitHub App.
#[derive(Args, Debug)]
pub(in crate::cli) struct AccessArgs {
    /// File that holds the credential of the Git host; without this option the variable TIDINGS_GIT_TOKEN
    /// holds it
    #[arg(long, value_name = "FILE")]
    git_token_file: Option<PathBuf>,
    /// How the token is sent: auto, github, gitlab, gitea, bitbucket, basic (user:password), bearer
    #[arg(long, value_name = "TYPE")]
    git_token_type: Option<String>,
    /// Id of a GitHub App, which is used instead of a token
    #[arg(
        long,
        value_name = "ID",
        requires = "github_app_installation",
        requires = "github_app_key_file",
        conflicts_with_all = ["git_token_file", "git_token_type"]
    )]
    github_app_id: Option<String>,
    /// Id of the installation of the GitHub App
    #[arg(long, value_name = "ID", requires = "github_app_id")]
    github_app_installation: Option<u64>,
    /// File that holds the private key of the GitHub App
    #[arg(long, value_name = "FILE", requires = "github_app_id")]
    github_app_key_file: Option<PathBuf>,
    /// Address of the GitHub API; if missing, derived from the host name
    #[arg(long, value_name = "URL", requires = "github_app_id")]
    github_api_url: Option<String>,
}

impl AccessArgs {
    /// The fields of a body for these arguments; empty without a credential.
    pub(super) fn fields(&self, context: &Context) -> Result<Map<String, Value>, Failure> {
        let mut fields = Map::new();
        if let (Some(id), Some(installation), Some(key)) =
            (&self.github_app_id, self.github_app_installation, &self.github_app_key_file)
        {
            let key = secret_file::read(key, Purpose::GithubAppKey)?;
            let mut app =
                json!({ "app_id": id, "installation_id": installation, "private_key": key.expose() });
            if let Some(url) = &self.github_api_url {
                app["api_url"] = json!(url);
            }
            fields.insert("github_app".to_owned(), app);
            return Ok(fields);
        }
        let token = match &self.git_token_file {
            Some(path) => Some(secret_file::read(path, Purpose::GitToken)?.expose().to_owned()),
            None => context.environment.get(GIT_TOKEN_VARIABLE).filter(|token| !token.is_empty()),
        };
        if let Some(token) = token {
            fields.insert("token".to_owned(), Value::String(token));
        }
        if let Some(kind) = &self.git_token_type {
            fields.insert("token_type".to_owned(), json!(kind));
        }
        Ok(fields)
    }
}
