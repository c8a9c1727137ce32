//! Keyed requests of the in-memory store.

use tidings_entity::id::{AppId, ReplicaId};

use super::rows::{RequestRow, State};
use crate::{
    ports::{Begun, KeyedRequest, StoredAnswer},
    time::Timestamp,
};

fn name(request: &KeyedRequest) -> (AppId, String) {
    (request.owner.clone(), request.key.clone())
}

impl State {
    pub(super) fn begin_request(
        &mut self,
        request: &KeyedRequest,
        at: Timestamp,
        runner: &ReplicaId,
        lives: impl Fn(&ReplicaId) -> bool,
    ) -> Begun {
        match self.requests.get(&name(request)) {
            Some(row) if row.hash != request.hash => return Begun::Other,
            Some(RequestRow { answer: Some(answer), .. }) => return Begun::Answered(answer.clone()),
            Some(row) if row.runner == *runner || lives(&row.runner) => return Begun::Running,
            _ => {}
        }
        let row =
            RequestRow { hash: request.hash, answer: None, runner: runner.clone(), made: None, began_at: at };
        self.requests.insert(name(request), row);
        Begun::New
    }

    pub(super) fn end_request(&mut self, request: &KeyedRequest, answer: Option<&StoredAnswer>) {
        let Some(row) = self.running(request) else { return };
        match answer {
            Some(answer) => row.answer = Some(answer.clone()),
            None => drop(self.requests.remove(&name(request))),
        }
    }

    /// Ends the request that made an app.
    pub(super) fn end_making(&mut self, app: &AppId, request: &KeyedRequest, answer: &StoredAnswer) {
        if let Some(row) = self.running(request) {
            row.answer = Some(answer.clone());
            row.made = Some(app.clone());
        }
    }

    fn running(&mut self, request: &KeyedRequest) -> Option<&mut RequestRow> {
        self.requests.get_mut(&name(request)).filter(|row| row.hash == request.hash && row.answer.is_none())
    }
}
