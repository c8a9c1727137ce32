//! The record of a storm: what producers were told, what each worker was given and what each worker said.
//! After the storm the record is replayed against the rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use serde_json::{Value, json};

/// A claim as its worker was given it.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) task: String,
    pub(super) token: String,
    pub(super) attempt: u64,
    /// When the answer had arrived.
    pub(super) at: Instant,
}

/// A word of a worker about its claim.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) given: Given,
    pub(super) verb: &'static str,
    pub(super) result: Value,
    /// When the request began.
    pub(super) sent: Instant,
    /// Status and body; `None`: the answer was lost.
    pub(super) answer: Option<(u16, Value)>,
}

impl Said {
    /// Whether the word moved the task.
    fn counts(&self) -> bool {
        self.answer.as_ref().is_some_and(|(status, body)| *status == 200 && body["repeated"] != true)
    }

    fn has_status(&self, wanted: u16) -> bool {
        self.answer.as_ref().is_some_and(|(status, _)| *status == wanted)
    }
}

/// How the rows call the end of a claim by this word.
fn end_of(verb: &str) -> &'static str {
    match verb {
        "complete" => "completed",
        "fail" => "failed",
        "nack" => "nacked",
        "abandon" => "abandoned",
        _ => "",
    }
}

/// What happened in a storm.
#[derive(Default)]
pub(super) struct Record {
    /// The id of the task of each key whose creation was acknowledged.
    pub(super) created: BTreeMap<String, String>,
    pub(super) given: Vec<Given>,
    pub(super) said: Vec<Said>,
    /// Task and attempt of each start of a program.
    pub(super) of_programs: Vec<(String, u64)>,
}

/// What the record says of one task.
#[derive(Default)]
struct OfTask<'a> {
    given: Vec<&'a Given>,
    said: Vec<&'a Said>,
    of_programs: Vec<u64>,
}

impl Record {
    /// Compares everything with the rows of the tasks, which are shown by their ids.
    pub(super) fn replay(&self, rows: &BTreeMap<String, Value>) {
        let tokens: BTreeSet<&String> = self.given.iter().map(|given| &given.token).collect();
        assert_eq!(tokens.len(), self.given.len(), "a token was given twice");
        let mut of_tasks: BTreeMap<&String, OfTask<'_>> = BTreeMap::new();
        for given in &self.given {
            of_tasks.entry(&given.task).or_default().given.push(given);
        }
        for said in &self.said {
            of_tasks.entry(&said.given.task).or_default().said.push(said);
        }
        for (task, attempt) in &self.of_programs {
            of_tasks.entry(task).or_default().of_programs.push(*attempt);
        }
        for id in of_tasks.keys() {
            assert!(rows.contains_key(*id), "{id} was given to a worker, and nobody created it");
        }
        for (id, row) in rows {
            of_tasks.remove(id).unwrap_or_default().replay(row);
        }
    }

    /// How often something happened, for people and for the question whether the storm says anything.
    pub(super) fn count(&self, is_meant: impl Fn(&Said) -> bool) -> usize {
        self.said.iter().filter(|said| is_meant(said)).count()
    }

    /// Words that came after the end of their claim.
    pub(super) fn refused(&self) -> usize {
        self.count(|said| said.has_status(409))
    }

    /// Words whose answer was lost with the server.
    pub(super) fn unheard(&self) -> usize {
        self.count(|said| said.answer.is_none())
    }
}

/// The claims of a row: the attempt of each, and how the claim ended; and the attempts that count.
fn claims_of(row: &Value) -> (Vec<(u64, &str)>, u64) {
    let (mut claims, mut attempts) = (Vec::new(), 0);
    for claim in row["claims"].as_array().expect("a list") {
        let end = claim["end"].as_str().unwrap_or_else(|| panic!("a claim has not ended: {row}"));
        claims.push((attempts + 1, end));
        attempts += u64::from(end != "abandoned");
    }
    // This many are kept.
    assert!(claims.len() <= 20, "too many claims to be replayed: {row}");
    (claims, attempts)
}

impl OfTask<'_> {
    fn replay(&self, row: &Value) {
        let (claims, attempts) = claims_of(row);
        assert_eq!(row["attempts"], attempts, "an attempt is a claim that was not abandoned: {row}");
        let most = row["max_attempts"].as_u64().expect("a number");
        assert!(attempts <= most && (row["state"] != "dead" || attempts == most), "n attempts are n: {row}");
        let given = self.given.iter().map(|given| given.attempt);
        for attempt in 1..=given.max().unwrap_or(0).max(most) {
            self.replay_attempt(attempt, &claims, row);
        }
        self.replay_end(row);
        self.replay_fence(row);
    }

    /// Workers were given no claim that the row does not know, and each end of a claim is a worker's word.
    fn replay_attempt(&self, attempt: u64, claims: &[(u64, &str)], row: &Value) {
        let known: Vec<&str> =
            claims.iter().filter(|(number, _)| *number == attempt).map(|(_, end)| *end).collect();
        let given = self.given.iter().filter(|given| given.attempt == attempt).count();
        let of_programs = self.of_programs.iter().filter(|number| **number == attempt).count();
        assert!(given + of_programs <= known.len(), "attempt {attempt} was given more often: {row}");
        for verb in ["complete", "fail", "nack", "abandon"] {
            let ended = known.iter().filter(|end| **end == end_of(verb)).count();
            let words = || self.said.iter().filter(|said| said.given.attempt == attempt && said.verb == verb);
            let counted = words().filter(|said| said.counts()).count();
            assert!(counted <= ended, "{verb} of attempt {attempt} was acknowledged and is gone: {row}");
            let possible = words().count() + of_programs;
            // The server itself abandons a claim whose answer it could not write.
            assert!(verb == "abandon" || ended <= possible, "nobody said {verb} of attempt {attempt}: {row}");
        }
    }

    /// The end of the task is that of the one worker whose last word was acknowledged.
    fn replay_end(&self, row: &Value) {
        let last: Vec<&&Said> = self
            .said
            .iter()
            .filter(|said| said.counts() && matches!(said.verb, "complete" | "fail"))
            .collect();
        assert!(last.len() <= 1, "ended twice: {last:?} {row}");
        if let Some(said) = last.first() {
            let state = if said.verb == "complete" { "succeeded" } else { "failed" };
            let ended = (&json!(state), &json!(said.given.attempt));
            assert_eq!((&row["state"], &row["attempts"]), ended, "{row}");
            assert!(said.verb == "fail" || row["result"] == said.result, "{said:?} {row}");
        }
        if row["state"] == "succeeded" {
            assert_eq!(row["result"]["attempt"], row["attempts"], "the result of another claim: {row}");
        }
    }

    /// No word counts whose claim was followed by another one before the word was sent.
    fn replay_fence(&self, row: &Value) {
        for said in self.said.iter().filter(|said| said.counts()) {
            let is_newer = |given: &&&Given| given.attempt > said.given.attempt && given.at < said.sent;
            let newer = self.given.iter().find(is_newer);
            assert!(newer.is_none(), "two valid tokens: {said:?} after {newer:?}: {row}");
        }
    }
}

/// The record made to fail: each promise broken once, each break noticed.
#[cfg(test)]
mod bites {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn given(token: &str, attempt: u64, at: Instant) -> Given {
        Given { task: "t".into(), token: token.into(), attempt, at }
    }

    fn said(given: &Given, verb: &'static str, answer: Option<(u16, Value)>) -> Said {
        let result = json!({ "attempt": given.attempt });
        Said { given: given.clone(), verb, result, sent: Instant::now(), answer }
    }

    fn row(state: &str, attempts: u64, ends: &[&str]) -> Value {
        let claims: Vec<Value> = ends.iter().map(|end| json!({ "end": end })).collect();
        json!({ "state": state, "attempts": attempts, "max_attempts": 3, "claims": claims,
            "result": { "attempt": attempts } })
    }

    fn holds(given: Vec<Given>, said: Vec<Said>, row: Value) -> bool {
        let record = Record { given, said, ..Record::default() };
        let rows = BTreeMap::from([("t".to_owned(), row)]);
        catch_unwind(AssertUnwindSafe(|| record.replay(&rows))).is_ok()
    }

    #[test]
    fn a_record_of_a_storm_notices_each_broken_promise() {
        let taken = || Some((200, json!({})));
        let one = given("a", 1, Instant::now());
        let nacked = said(&one, "nack", taken());
        // The next claims come after the word that made them possible.
        let (two, again) = (given("b", 2, Instant::now()), given("c", 1, Instant::now()));
        let done = said(&two, "complete", taken());
        let two_claims = row("succeeded", 2, &["nacked", "completed"]);
        let both = || vec![one.clone(), two.clone()];
        assert!(holds(both(), vec![nacked.clone(), done.clone()], two_claims.clone()));
        let repeated = said(&two, "complete", Some((200, json!({ "repeated": true }))));
        assert!(holds(both(), vec![nacked.clone(), done.clone(), repeated], two_claims.clone()));
        let abandoned = vec![said(&one, "abandon", taken()), said(&again, "complete", taken())];
        let its_row = row("succeeded", 1, &["abandoned", "completed"]);
        assert!(holds(vec![one.clone(), again], abandoned, its_row));

        let dead = row("dead", 2, &["nacked", "expired"]);
        assert!(!holds(both(), vec![nacked.clone()], dead), "dead before its last attempt");
        let uncounted = row("succeeded", 1, &["nacked", "completed"]);
        assert!(!holds(both(), vec![nacked.clone(), done.clone()], uncounted), "an attempt was not counted");
        let lost = row("succeeded", 2, &["expired", "completed"]);
        assert!(!holds(both(), vec![nacked.clone(), done.clone()], lost), "an acknowledged nack is gone");
        let undone = row("ready", 2, &["nacked", "expired"]);
        assert!(!holds(both(), vec![nacked.clone(), done.clone()], undone), "an acknowledged end is gone");
        let invented = row("succeeded", 2, &["nacked", "completed"]);
        assert!(!holds(both(), vec![nacked], invented), "nobody completed the task");
        let stale = said(&one, "complete", taken());
        let fenceless = row("succeeded", 2, &["expired", "completed"]);
        assert!(!holds(both(), vec![stale, done.clone()], fenceless), "two workers ended the task");
        let beat = said(&one, "heartbeat", taken());
        let expired = row("succeeded", 2, &["expired", "completed"]);
        assert!(holds(both(), vec![done.clone()], expired.clone()));
        assert!(!holds(both(), vec![beat, done.clone()], expired), "a stale token was taken");
        assert!(!holds(vec![two.clone(), two], vec![done], two_claims), "a token was given twice");
    }
}
