//! `tidings mail`: whether mails of this server arrive, and mails of its templates. Works with the settings
//! of the server, without asking it. The API has no such route: these mails go to any recipient that the
//! caller names, regardless of `mail.allow`, and no token may have that right. Over the API, `POST
//! /api/subscriptions/{id}/test` sends a mail to recipients that `mail.allow` permits.

use std::time::Duration;

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidings_actors::ports::{Clock, Random};

use crate::cli::{Code, Context, Failure};
use crate::{
    egress::Egress,
    machine::{MachineClock, MachineRandom},
    sinks::mail::{MailFault, MailServer, MailStep, Mailer, address::AllowList, templates::Template},
};

/// How long all of it may take.
const WITHIN: Duration = Duration::from_secs(30);

#[derive(Subcommand, Debug)]
pub(crate) enum MailVerb {
    /// Send a test mail and print each step: connect, TLS, login, accepted; exit code 0 if the server accepts
    /// the mail
    Test(TestArgs),
    /// Send a mail made from a template and your data; exit code 0 if the server accepts the mail
    Send(SendArgs),
}

#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// Recipient of the mail; mail.allow need not list the address
    to: String,
}

#[derive(Args, Debug)]
pub(crate) struct SendArgs {
    /// Recipient of the mail; mail.allow must list the address
    #[arg(required = true)]
    to: Vec<String>,
    /// Name of the template; docs/mail.md lists the data of each template
    #[arg(long, value_parser = PossibleValuesParser::new(Template::ALL.iter().map(|one| one.as_str())))]
    template: String,
    /// The data for the template: a JSON object, such as '{"name": "docs"}'
    #[arg(long, value_name = "JSON")]
    data: String,
}

pub(crate) async fn run(verb: MailVerb, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let server = settings.mail_server().ok_or_else(|| Failure::of_error(Code::Config, &MailFault::Off))?;
    let egress = Egress::new(&settings.egress).map_err(|error| Failure::of_error(Code::Config, &error))?;
    let mailer = Mailer::new(egress, Some(server.clone()));
    match verb {
        MailVerb::Test(TestArgs { to }) => {
            let data = json!({ "name": "tidings mail test" });
            let hint = (!server.allow.permits(&to, "")).then(|| not_allowed(&to, &server.allow));
            hand_over(&mailer, &[to], Template::Welcome, &data, hint, context).await
        }
        MailVerb::Send(arguments) => send(&mailer, &server, arguments, context).await,
    }
}

/// That a test went to an address which subscriptions cannot name, and what changes that.
fn not_allowed(to: &str, allow: &AllowList) -> String {
    if allow.permits(to, to) {
        return format!(
            "mail.allow ({allow}) does not list {to}: a subscription may name it only if it is the contact \
             (email) of its app."
        );
    }
    let domain = to.rsplit_once('@').map_or("", |(_, domain)| domain);
    format!(
        "mail.allow ({allow}) does not list {to}: no subscription may name it. Add {to} or @{domain} to \
         mail.allow to permit it."
    )
}

async fn send(
    mailer: &Mailer,
    server: &MailServer,
    arguments: SendArgs,
    context: &Context,
) -> Result<(), Failure> {
    let SendArgs { to, template, data } = arguments;
    if let Some(to) = to.iter().find(|to| !server.allow.permits(to, "")) {
        let text =
            format!("mail.allow ({}) does not list {to}: add the address, or its domain", server.allow);
        return Err(Failure::new(Code::Usage, text));
    }
    let data: Value = serde_json::from_str(&data)
        .map_err(|error| Failure::new(Code::Usage, format!("--data is no JSON: {error}")))?;
    if !data.is_object() {
        return Err(Failure::new(
            Code::Usage,
            "--data must be a JSON object, such as '{\"name\": \"docs\"}'",
        ));
    }
    let template = Template::ALL.iter().find(|known| known.as_str() == template);
    let template = *template.expect("the parser takes only names of templates");
    hand_over(mailer, &to, template, &data, None, context).await
}

/// Sends the mail, and prints each step that succeeded.
async fn hand_over(
    mailer: &Mailer,
    to: &[String],
    template: Template,
    data: &Value,
    hint: Option<String>,
    context: &Context,
) -> Result<(), Failure> {
    let steps = Mutex::new(Vec::new());
    let on_step = |step: MailStep, said: &str| {
        steps.lock().push((step.to_string(), said.to_owned()));
    };
    let now = MachineClock.now();
    let id = format!("hand_{}", MachineRandom.ulid(now));
    let sent = mailer.send_template(to, template, data, (&id, now, WITHIN), &on_step).await;
    let steps = steps.into_inner();
    let width = steps.iter().map(|(step, _)| step.len()).max().unwrap_or_default();
    let mut lines: Vec<String> =
        steps.iter().map(|(step, said)| format!("ok  {step:width$}  {said}")).collect();
    if sent.is_ok() {
        lines.push(format!("The mail server took the mail to {}: look for it there.", to.join(", ")));
        lines.extend(hint);
    }
    let steps: Vec<Value> = steps.iter().map(|(step, said)| json!({ "step": step, "said": said })).collect();
    let failure = sent.as_ref().err().map(ToString::to_string);
    let shown = json!({ "to": to, "accepted": sent.is_ok(), "steps": steps, "failure": failure });
    context.output.print(&shown, &lines)?;
    match sent {
        Ok(_) => Ok(()),
        Err(fault @ (MailFault::Address { .. } | MailFault::Unwritable(_))) => {
            Err(Failure::of_error(Code::Usage, &fault))
        }
        Err(fault) => Err(Failure::of_error(Code::Unavailable, &fault)),
    }
}
