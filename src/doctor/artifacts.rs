//! Checks where artifacts are kept: whether the bucket answers, and whether the place belongs to this
//! database.

use std::time::Duration;

use tokio::time::timeout;

use super::Finding;
use crate::{
    egress::Egress,
    objects::{Bucket, Folder},
    settings::Settings,
};

const CHECK: &str = "artifacts";
/// How long the bucket may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Looks at the bucket or the folder of artifacts, and changes nothing. `identity`: that of the database, if
/// it is known.
pub(super) async fn examine(
    settings: &Settings,
    egress: &Egress,
    identity: Option<&str>,
    findings: &mut Vec<Finding>,
) {
    let (place, owner) = match Bucket::of(settings, egress.clone(), identity.unwrap_or_default()) {
        Some(bucket) => match timeout(ANSWER_MAX, bucket.look()).await {
            Ok(Ok(owner)) => (bucket.place(), owner),
            Ok(Err(error)) => return findings.push(unanswered(&error.to_string())),
            Err(_) => return findings.push(unanswered("the bucket does not answer within 10 s")),
        },
        None => {
            let path = settings.artifacts_dir();
            let place = format!("the folder {}", path.display());
            match Folder::owner_of(&path) {
                Ok(owner) => (place, owner),
                Err(error) => return findings.push(unanswered(&format!("{place}: {error}"))),
            }
        }
    };
    findings.push(match (owner, identity) {
        (Some(owner), Some(own)) if owner != own => Finding::fault(
            CHECK,
            format!(
                "{place} belongs to another database ({owner}; this one is {own}): no server starts with it"
            ),
            "set artifacts.dir, or artifacts.s3_prefix, to a place of this database",
        ),
        (Some(_), _) => Finding::ok(CHECK, format!("{place} can be read and belongs to this database")),
        (None, _) => Finding::ok(CHECK, format!("{place} is not used yet")),
    });
}

fn unanswered(why: &str) -> Finding {
    Finding::fault(
        CHECK,
        format!("artifacts of tasks cannot be read or stored: {why}"),
        "see that the bucket exists and the key may list, read, write and delete in it (artifacts.s3_...), \
         and that egress.allow names a private address; or that this user may read artifacts.dir",
    )
}
