//! Reports what keeps apps from getting their changes although the installation works, as far as the rows
//! tell. These are warnings, because the owner of a receiver or of a credential must act.

use super::Finding;
use crate::store::examine::{Examination, InTheWay};

const CHECK: &str = "work";

/// A count, its nouns for one and for many, the fault and the remedy.
type Line = (u64, [&'static str; 2], &'static str, &'static str);

/// Reports each count of rows that need attention, such as refused credentials.
pub(super) fn examine(found: &Examination, findings: &mut Vec<Finding>) {
    let before = findings.len();
    for (count, [one, many], how, remedy) in lines(found.in_the_way) {
        let what = if count == 1 { one } else { many };
        if count > 0 {
            findings.push(Finding::warning(CHECK, format!("{count} {what} {how}"), remedy));
        }
    }
    if findings.len() == before {
        findings.push(Finding::ok(
            CHECK,
            "no credential is refused, no branch and no subscription blocked, no breaker open, no endpoint \
             gone, no status lost",
        ));
    }
}

fn lines(in_the_way: InTheWay) -> [Line; 9] {
    let InTheWay {
        credentials_refused,
        sources_failing,
        branches_blocked,
        breakers_open,
        subscriptions_blocked,
        apps_gone,
        sinks_gone,
        statuses_ended,
        statuses_waiting,
    } = in_the_way;
    [
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
            subscriptions_blocked,
            ["subscription is", "subscriptions are"],
            "blocked: what they send to fails, and their entries wait",
            "tidings ledger list --all-apps --type subscription.blocked names them with the reason",
        ),
        (
            apps_gone,
            ["app is", "apps are"],
            "disabled, because the endpoint answered 410 Gone: nothing is sent",
            "tidings app list names them; tidings app update --enable --for APP serves one again",
        ),
        (
            sinks_gone,
            ["sink of a watch or a subscription is", "sinks of watches or subscriptions are"],
            "disabled, because of an answer 410 Gone: nothing is sent there",
            "tidings ledger list --all-apps --type sink.disabled names them; a resume serves one again",
        ),
        (
            statuses_ended,
            ["commit has", "commits have"],
            "a status at the Git host that is not true any more, because the host refuses statuses",
            "tidings ledger list -q type:status.ended says why; tidings repository token gives a credential",
        ),
        (
            statuses_waiting,
            ["status of a commit", "statuses of commits"],
            "was not taken by the Git host three times or more, and is tried again",
            "tidings repository statuses shows those of one repository; see whether the host answers",
        ),
    ]
}
