//! The work, as it stands in the rows: what keeps apps from getting their changes although the installation
//! is well. Warnings, because somebody else has to act: the owner of a receiver or of a credential.

use super::Finding;
use crate::store::examine::{Examination, InTheWay};

const CHECK: &str = "work";

/// Everything that is in the way.
pub(super) fn examine(found: &Examination, findings: &mut Vec<Finding>) {
    let InTheWay { credentials_refused, sources_failing, branches_blocked, breakers_open, apps_gone } =
        found.in_the_way;
    let before = findings.len();
    for (count, [one, many], how, remedy) in [
        (
            credentials_refused,
            ["repository is", "repositories are"],
            "not read, because the Git host refuses the credential",
            "tidings admin sources --failing names them; the app replaces it with tidings repository token",
        ),
        (
            sources_failing,
            ["repository", "repositories"],
            "cannot be read (the credential is not the cause)",
            "tidings admin sources --failing names them with what the Git host said",
        ),
        (
            branches_blocked,
            ["branch waits", "branches wait"],
            "at a change that is not taken",
            "tidings admin watches --condition blocked names them with the reason; where a branch has a \
             fault the receiver has no part in it: see docs/watching.md",
        ),
        (
            breakers_open,
            ["breaker is", "breakers are"],
            "open: an endpoint or a Git host fails, and is asked now and then only",
            "tidings admin breaker list names them with the last failure",
        ),
        (
            apps_gone,
            ["app is", "apps are"],
            "disabled, because the endpoint answered 410 Gone: nothing is sent",
            "tidings app list names them; tidings app update --enable --for APP serves one again",
        ),
    ] {
        let what = if count == 1 { one } else { many };
        if count > 0 {
            findings.push(Finding::warning(CHECK, format!("{count} {what} {how}"), remedy));
        }
    }
    if findings.len() == before {
        findings.push(Finding::ok(
            CHECK,
            "no credential is refused, no branch blocked, no breaker open, no endpoint gone",
        ));
    }
}
