//! Deliveries over all apps, for the staff: what happened to a path in every watch.
//!
//! The rounds of all apps are read like those of one app, the newest first, with the same limits for a page.

use std::{collections::HashMap, sync::Arc};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{App, RoundPlace};
use tidings_entity::id::AppId;
use utoipa::ToSchema;

use super::{
    Deliveries, DeliveryShown, Mark, PageCost, ROUNDS_MAX, Search, UnreadableRound, Wanted, open_endpoint,
    page_asked::PageAsked,
};
use crate::http::{
    bodies::{
        moment::iso,
        names::Names,
        problem::{Kind, Problem},
    },
    deliveries::histories::{Histories, round_failed},
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route_with},
    },
    front::Front,
};

/// The name of the list in its cursors.
const DELIVERIES: &str = "admin deliveries";

/// The route of this file.
pub(super) fn route(histories: &Arc<Histories>) -> Route {
    let list = route_with::<__path_list, _, _, _>(Access::Staff(Permission::DeliveriesRead), histories, list);
    list.with_parameters_of::<super::__path_list>()
}

/// A delivery of an app. `/api/admin/apps/{app_id}/deliveries/{id}` shows its attempts.
#[derive(Serialize, ToSchema)]
struct DeliveryOfApp {
    app_id: String,
    app_name: String,
    /// `owner/name`, or the path of a local repository. Null: the app does not watch the repository any more.
    repository: Option<String>,
    #[serde(flatten)]
    delivery: DeliveryShown,
}

/// One page of deliveries of all apps.
#[derive(Default, Serialize, ToSchema)]
struct DeliveriesOfAll {
    /// The deliveries, newest round first; within a round the last change first.
    items: Vec<DeliveryOfApp>,
    /// Rounds that show only their dead letters, because their trees cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<UnreadableRound>,
    /// Number of rounds that this page looked at.
    rounds: u64,
    /// When the oldest of these rounds began: how far back the page goes. Missing: the page looked at no
    /// round.
    #[serde(skip_serializing_if = "Option::is_none")]
    back_to: Option<String>,
    /// Value of `cursor` for the next page. Missing on the last page. An empty page may have a next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists the deliveries of all apps, the newest round first. A request reads 32 rounds and about 10,000
/// changes at most: a page may have fewer items than `limit`, or none, and still a `next_cursor`.
#[utoipa::path(get, path = "/api/admin/deliveries", tag = "admin",
    responses((status = 200, body = DeliveriesOfAll)))]
async fn list(front: Arc<Front>, histories: Arc<Histories>, request: Request) -> Answer {
    let mut asked = PageAsked::of(&front, &request, DELIVERIES)?;
    let (mark, apps) = (asked.mark.take(), HashMap::new());
    let mut search = SearchOfAll { front: &front, histories: &histories, wanted: &asked.wanted, apps };
    let (mut page, mark) = search.run(mark, asked.limit).await?;
    page.next_cursor = asked.next_cursor(page.items.is_empty(), mark);
    Ok(json(StatusCode::OK, &page))
}

/// The state of computing one page over all apps.
struct SearchOfAll<'f> {
    front: &'f Front,
    histories: &'f Histories,
    wanted: &'f Wanted,
    /// Apps, looked up once each; `None`: the app was erased meanwhile.
    apps: HashMap<AppId, Option<App>>,
}

impl SearchOfAll<'_> {
    /// Collects deliveries until the page is full, or the limits of one page are reached.
    async fn run(
        &mut self,
        mark: Option<Mark>,
        limit: usize,
    ) -> Result<(DeliveriesOfAll, Option<Mark>), Problem> {
        let place =
            mark.as_ref().map_or(RoundPlace::Newest, |mark| RoundPlace::At(mark.round, mark.cursor.clone()));
        let listed = self.front.history.rounds_of_all(&self.wanted.rounds(place), ROUNDS_MAX + 1).await;
        let listed = listed.map_err(round_failed)?;
        let mut names = Names::of(self.front);
        let (mut page, mut cost) = (DeliveriesOfAll::default(), PageCost::default());
        for (id, facts) in &listed {
            if page.rounds == ROUNDS_MAX || (page.rounds > 0 && cost.is_enough()) {
                return Ok((page, Some(Mark::at(facts, u64::MAX))));
            }
            page.rounds += 1;
            page.back_to = Some(iso(facts.began_at));
            let Some(app) = self.app(id).await? else { continue };
            let (front, histories, wanted) = (self.front, self.histories, self.wanted);
            let _download = histories.downloads.begin(id)?;
            let endpoint = open_endpoint(front, id).await?;
            let left = limit - page.items.len();
            let (named, of_app) = (HashMap::new(), Deliveries::default());
            let mut search = Search {
                front,
                histories,
                app: &app,
                wanted,
                named,
                endpoint,
                limit: left,
                cost,
                page: of_app,
            };
            let below = search.of_round(facts, mark.as_ref()).await?;
            cost = search.cost;
            page.unreadable.extend(search.page.unreadable);
            for delivery in search.page.items {
                page.items.push(DeliveryOfApp {
                    app_id: id.to_string(),
                    app_name: app.name.clone(),
                    repository: names.repository(id, &facts.watch).await?,
                    delivery,
                });
            }
            if let Some(below) = below {
                return Ok((page, Some(Mark::at(facts, below))));
            }
        }
        Ok((page, None))
    }

    async fn app(&mut self, id: &AppId) -> Result<Option<App>, Problem> {
        if !self.apps.contains_key(id) {
            let app = self.front.store.app(id).await;
            let app = app.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
            self.apps.insert(id.clone(), app);
        }
        Ok(self.apps.get(id).cloned().flatten())
    }
}
