//! Two replicas on one PostgreSQL database: the one that has the repository tells its host, also after the other
//! one died.

use super::*;
use crate::support::fleet::Fleet;

#[test]
fn no_word_is_told_twice_by_two_replicas() {
    let Some(mut fleet) = Fleet::start(2, crate::replicas::CALM_LEASE) else { return };
    let (forge, subscriber) = (Forge::start(StatusHost::Github), Subscriber::start());
    let project = Project::with(&[("a", "1")]);
    forge.publish(&project);
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let body = json!({ "url": forge.url(), "token": TOKEN, "status": "github" });
    let watch = app.watch_with(&fleet.servers[1], &body);
    forge.wait_for(&project.head(), "success");
    let owner = eventually("an owner", SOON, || fleet.owner_of(&watch));
    let mut heads = Vec::new();
    for number in 0..6 {
        project.write("a", format!("{number}").as_bytes());
        heads.push(project.commit("one more"));
        forge.publish(&project);
        app.wait_until_held(&fleet.servers[1 - owner], &watch, heads.last().expect("a head"));
        if number == 3 {
            // A word whose answer the dead replica did not write down is told again, rightly.
            let path = format!("/api/repositories/{watch}/statuses");
            eventually("words that are written down", SOON, || {
                let listed = items(&app.ask(&fleet.servers[1 - owner], "GET", &path, None).json());
                listed.iter().all(|status| status["told"] == "success").then_some(())
            });
            fleet.servers[owner].kill();
        }
    }
    for head in &heads {
        forge.wait_for(head, "success");
    }
    forge.assert_straight();
}
