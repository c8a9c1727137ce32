//! Names in a problem the thing that was not found: the id or name in the path of the request.

use crate::http::bodies::problem::{Kind, Problem};

/// Longest id or name that is repeated, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Kinds of things, each with the part of a path that comes before its id or name.
const PLACES: [(Kind, &str); 18] = [
    (Kind::NO_APP, "apps"),
    (Kind::NO_ARTIFACT, "artifacts"),
    (Kind::NO_BREAKER, "{kind}"),
    (Kind::NO_DEAD_LETTER, "dead-letters"),
    (Kind::NO_DELIVERY, "deliveries"),
    (Kind::NO_HOOK, "hooks"),
    (Kind::NO_KEY, "keys"),
    (Kind::NO_QUEUE, "queues"),
    (Kind::NO_RECEIPT, "receipts"),
    (Kind::NO_REDRIVE, "redrives"),
    (Kind::NO_REPOSITORY, "repositories"),
    (Kind::NO_ROUND, "rounds"),
    (Kind::NO_SCHEDULE, "schedules"),
    (Kind::NO_SUBSCRIPTION, "subscriptions"),
    (Kind::NO_TASK, "tasks"),
    (Kind::NO_TOKEN, "tokens"),
    (Kind::NO_WORKER_SUBSCRIPTION, "subscriptions"),
    (Kind::NOT_REGISTERED, "repositories"),
];

/// The ids and names in the path of a request, each with the part of the path before it.
pub(super) struct Missing(Vec<(String, String)>);

impl Missing {
    /// Those of a request to the route of this template.
    pub(super) fn of(template: &str, parameters: &[String]) -> Self {
        let parts: Vec<&str> = template.split('/').collect();
        let before = parts.windows(2).filter(|pair| pair[1].starts_with('{')).map(|pair| pair[0].to_owned());
        Self(before.zip(parameters.iter().cloned()).collect())
    }

    /// The problem, with the name of the thing if the path has it and nothing else explains the problem.
    pub(super) fn named(&self, problem: Problem) -> Problem {
        let place = PLACES.iter().find(|(kind, _)| kind.code == problem.code());
        let Some((kind, place)) = place.filter(|_| problem.detail().is_none()) else { return problem };
        let is_plain =
            |name: &str| name.len() <= NAME_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
        let found = self.0.iter().find(|(before, name)| before == place && is_plain(name));
        let noun = kind.title.split(" not found").next().unwrap_or_default().to_lowercase();
        match found {
            Some((_, name)) if *kind == Kind::NOT_REGISTERED => {
                problem.with_detail(format!("this app has no repository {name}"))
            }
            Some((_, name)) => problem.with_detail(format!("there is no {noun} {name}")),
            None => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/api/tasks/{id}/artifacts/{name}";
    const OF_APP: &str = "/api/admin/apps/{app_id}/queues/{command}";

    fn detail(template: &str, parameters: &[&str], kind: Kind) -> serde_json::Value {
        let parameters: Vec<String> = parameters.iter().map(|name| (*name).to_owned()).collect();
        let problem = Missing::of(template, &parameters).named(Problem::new(kind));
        problem.detail().into()
    }

    #[test]
    fn the_thing_that_was_not_found_is_named_as_in_the_path() {
        for (template, parameters, kind, expected) in [
            ("/api/tasks/{id}", &["tsk_1"][..], Kind::NO_TASK, Some("there is no task tsk_1")),
            ("/api/queues/{command}/pause", &["a.b"], Kind::NO_QUEUE, Some("there is no queue a.b")),
            (FILE, &["tsk_1", "x"], Kind::NO_TASK, Some("there is no task tsk_1")),
            (FILE, &["tsk_1", "x"], Kind::NO_ARTIFACT, Some("there is no artifact x")),
            (OF_APP, &["app_1", "q"], Kind::NO_APP, Some("there is no app app_1")),
            ("/api/admin/apps/{app_id}/dead-letters/dismiss", &["app_1"], Kind::NO_DEAD_LETTER, None),
            (
                "/api/repositories/{id}/rounds",
                &["repo_1"],
                Kind::NOT_REGISTERED,
                Some("this app has no repository repo_1"),
            ),
            (
                "/api/admin/breakers/{kind}/{id}/reset",
                &["endpoint", "snk_1"],
                Kind::NO_BREAKER,
                Some("there is no breaker snk_1"),
            ),
            ("/api/tasks/{id}", &["with space"], Kind::NO_TASK, None),
            ("/api/tasks/{id}", &["tsk_1"], Kind::CLAIM_LOST, None),
        ] {
            assert_eq!(detail(template, parameters, kind), serde_json::Value::from(expected), "{template}");
        }
        let explained = Problem::new(Kind::NO_TASK).with_detail("why");
        let missing = Missing::of("/api/tasks/{id}", &["tsk_1".to_owned()]);
        assert_eq!(missing.named(explained).detail(), Some("why"));
    }
}
