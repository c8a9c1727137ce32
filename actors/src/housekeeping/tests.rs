//! Upkeep: it comes round again, also after a failure, a hang and a kill.

use std::time::Duration;

use tidings_entity::{
    id::{AppId, ArtifactId, ReplicaId, TaskId},
    kind::{LetterStatus, ParkReason},
};
use ulid::Ulid;

use crate::{
    ports::{
        ClaimRequest, GitError, LANE_LETTERS, LaneStore, Leases, LetterFilter, LetterStore, Objects, Signal,
        StoreError, WatchStore,
    },
    supervision::tree::{ARTIFACT_KEEPER, DELIVERER, LETTER_KEEPER, MIRROR_KEEPER, RETENTION, SURVEYOR},
    testing::{
        Fault,
        house::{House, files, refs},
        transport::Answer,
    },
};

#[tokio::test(start_paused = true)]
async fn a_letter_that_lacked_its_content_is_sent_again_after_a_fetch_brought_it_hourly_at_most() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(3, "one")));
    let blob = house.git.files(commit)[b"name0001".as_slice()];
    let content = house.git.lose_blob(blob);
    house.transport.lose_content("name0001", true);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, commit).await;
    let letters = house.letters(&app).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].reason, letters[0].status), (ParkReason::ContentUnavailable, LetterStatus::Open));

    let fetches = house.git.refusals();
    tokio::time::sleep(Duration::from_secs(2 * 3_600 + 60)).await;
    let asked = house.git.refusals() - fetches;
    assert!(asked == 4, "two refusals an hour, {asked} in two hours");
    assert_eq!(house.letters(&app).await, letters, "nothing is sent for nothing");

    house.git.restore_blob(content, false);
    house.transport.lose_content("name0001", false);
    house.store.befall("unavailable_letters", Fault::Fails(StoreError::Unavailable("down".into())));
    house.kill(LETTER_KEEPER, "");
    tokio::time::sleep(Duration::from_secs(3_500)).await;
    assert_eq!(house.letters(&app).await, letters, "a restart does not make it look sooner");
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    assert_eq!(house.letters(&app).await[0].status, LetterStatus::Redriven);
    house.assert_mirrors(&app, commit);
    assert_eq!(house.taken(&app).iter().filter(|taken| *taken == "C name0001").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_that_was_cut_off_goes_on_by_itself() {
    let house = House::running().await;
    let first = house.commit(&[("ok", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.transport.answer_path("bad", Some(Answer::Status(422)));
    let second = house.commit(&[("ok", "1"), ("bad", "1")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    house.transport.answer_path("bad", None);
    house.store.begin_redrive(&app, &LetterFilter::default()).await.expect("begun");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(house.letters(&app).await[0].status, LetterStatus::Open, "nobody was told");
    house.store.befall("mark_redrive", Fault::Fails(StoreError::Unavailable("down".into())));
    house.kill(LETTER_KEEPER, "");
    house
        .until("it is sent again", async || house.letters(&app).await[0].status == LetterStatus::Redriven)
        .await;
    let shown = house.store.redrives(&app, None, 9).await.expect("listed");
    assert_eq!((shown[0].asked, shown[0].sent, shown[0].left), (1, 1, 0));
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn a_round_finds_the_letter_of_its_path_among_more_than_a_lane_reads() {
    let house = House::running().await;
    let mut all = files(LANE_LETTERS + 50, "one");
    let first = house.commit(&refs(&all));
    for (path, blob) in house.git.files(first) {
        house.git.lose_blob(blob);
        house.transport.lose_content(&String::from_utf8(path).expect("a name"), true);
    }
    let (app, watch, cursor) = house.watching().await;
    house.until_held(&watch, first).await;
    assert!(house.store.lane(&cursor).await.expect("a lane").more_letters);
    let last = all.last_mut().expect("files");
    let path = last.0.clone();
    last.1 = "two".into();
    house.transport.lose_content(&path, false);
    let second = house.commit(&refs(&all));
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    assert_eq!(house.taken(&app), [format!("C {path}")], "the app never had it");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_refuses_is_asked_for_few_blobs_and_what_lies_here_goes_anyway() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(100, "one")));
    for (path, blob) in house.git.files(commit) {
        let content = house.git.lose_blob(blob);
        let path = String::from_utf8(path).expect("a name");
        house.transport.lose_content(&path, true);
        if path == "name0042" {
            house.git.restore_blob(content, true);
        }
    }
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, commit).await;
    assert_eq!(house.letters(&app).await.len(), 100);
    house.transport.lose_content("name0042", false);
    let fetches = house.git.refusals();
    tokio::time::sleep(Duration::from_secs(3_700)).await;
    assert!(house.git.refusals() - fetches <= 2 * 16, "{} refusals", house.git.refusals() - fetches);
    assert_eq!(house.taken(&app), ["C name0042"]);
}

#[tokio::test(start_paused = true)]
async fn old_history_goes_also_when_the_store_fails_hangs_and_the_actor_is_killed() {
    let mut house = House::with(|policy| {
        policy.history = Duration::from_secs(7_200);
        policy.upkeep_interval = Duration::from_secs(60);
    });
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.transport.answer_path("b", Some(Answer::Status(422)));
    let second = house.commit(&[("a", "1"), ("b", "1")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    house.transport.answer_path("b", None);
    let third = house.commit(&[("a", "1")]);
    house.until_held(&watch, third).await;
    assert_eq!(house.letters(&app).await.len(), 1, "superseded, and still history");
    house.store.befall("prune", Fault::Hangs);
    house.store.befall("prune", Fault::Fails(StoreError::Unavailable("down".into())));
    house.kill(RETENTION, "");
    house.kill(MIRROR_KEEPER, "");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(house.letters(&app).await.len(), 1, "it is not old enough");
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    assert!(house.letters(&app).await.is_empty());
    assert!(house.store.watch(&app, &watch.id).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn unused_room_of_the_database_is_given_back_at_each_run_also_after_a_failure() {
    let mut house = House::with(|policy| policy.upkeep_interval = Duration::from_secs(60));
    house.start().await;
    for run in ["the first one", "one after a failure"] {
        house.store.befall("release_space", Fault::Fails(StoreError::Unavailable("down".into())));
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(!house.store.awaits_fault("release_space"), "{run} gives nothing back");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_polled_scanned_settled_and_given_up_is_measured() {
    let house = House::running().await;
    house.transport.answer_path("bad", Some(Answer::Status(422)));
    let commit = house.commit(&[("bad", "1"), ("ok", "1"), ("other", "1")]);
    let (_, watch, _) = house.watching().await;
    house.until_held(&watch, commit).await;
    let measured = house.meter.measured();
    assert_eq!((measured.acknowledged, measured.parked.as_slice()), (2, &[ParkReason::Rejected][..]));
    house.git.fail(vec![GitError::NotFound]);
    house.poke(&watch).await;
    house
        .until("a failed poll", async || house.meter.measured().polls.contains(&"repository_not_found"))
        .await;
    let measured = house.meter.measured();
    assert_eq!(measured.polls.len(), measured.scans.len());
    assert!(measured.polls.contains(&"ok") && measured.waits.len() >= measured.polls.len());
    house
        .until("a failed scan", async || house.meter.measured().scans.contains(&"repository_not_found"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn everything_is_looked_at_at_once_and_again_after_a_failure_and_a_kill() {
    let house = House::running().await;
    house.until("the first look", async || house.meter.measured().surveys == 1).await;
    house.transport.answer_path("a", Some(Answer::Status(503)));
    let head = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    let survey = async || house.meter.measured().survey.expect("there was one");
    house.until("lag", async || survey().await.backlog.behind.iter().sum::<u64>() == 1).await;
    let found = survey().await;
    assert_eq!((found.totals.watches, found.totals.apps, found.tree.lanes), (1, 1, 1));
    assert_eq!(found.tree.roles[DELIVERER].running, 1);
    house
        .until("an open breaker", async || {
            let breakers = survey().await.tree.breakers;
            breakers.iter().any(|((_, word), count)| *word != "closed" && *count == 1)
        })
        .await;

    house.kill(DELIVERER, app.as_str());
    house.kill(SURVEYOR, "");
    house.until("a counted restart", async || survey().await.tree.roles[DELIVERER].restarts == 1).await;
    assert_eq!(survey().await.tree.roles[SURVEYOR].restarts, 1);
    let before = house.meter.measured().surveys;
    house.store.befall("backlog", Fault::Fails(StoreError::Unavailable("down".into())));
    house.until("looks after a failure", async || house.meter.measured().surveys > before + 2).await;
    house.transport.answer_path("a", None);
    house.until_held(&watch, head).await;
    house.until("no lag", async || survey().await.backlog.behind.iter().sum::<u64>() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_again_and_again_does_not_end_the_looks_at_due_tasks() {
    let house = House::running().await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(7)).await;
        house.set_clock_back(Duration::from_millis(50));
    }
    for _ in 0..3 {
        house.store.befall("wake_tasks", Fault::Fails(StoreError::Unavailable("down".into())));
        house.until("due tasks are looked for", async || !house.store.awaits_fault("wake_tasks")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_at_due_tasks_that_hangs_is_given_up_and_the_next_one_follows() {
    let house = House::running().await;
    house.store.befall("wake_tasks", Fault::Hangs);
    house.until("a look that hangs", async || !house.store.awaits_fault("wake_tasks")).await;
    let began = tokio::time::Instant::now();
    house.store.befall("wake_tasks", Fault::Fails(StoreError::Unavailable("down".into())));
    house.until("the next look", async || !house.store.awaits_fault("wake_tasks")).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(33), "no look for {took:?}");
}

#[tokio::test(start_paused = true)]
async fn tasks_for_workers_that_wait_are_looked_for_again_soon_after_a_failure() {
    let house = House::running().await;
    for _ in 0..3 {
        house.store.befall("claim_tasks", Fault::Fails(StoreError::Unavailable("down".into())));
    }
    let request = ClaimRequest {
        app: AppId::new(Ulid::from_parts(1, 1)),
        commands: vec!["work".into()],
        count: 1,
        claim: Duration::from_secs(60),
        worker: "tok_worker".into(),
    };
    let began = tokio::time::Instant::now();
    let handle = house.handle();
    tokio::select! {
        _ = handle.claim(request, true) => panic!("there is no task"),
        () = house.until("three looks", async || !house.store.awaits_fault("claim_tasks")) => {}
    }
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_end_of_a_task_does_not_look_all_the_time_where_nobody_could_tell() {
    let house = House::new();
    let began = tokio::time::Instant::now();
    house.handle().task_ended(&TaskId::new(Ulid::from_parts(1, 1))).await;
    assert!(began.elapsed() >= Duration::from_secs(1), "the line of workers does not run");
}

#[tokio::test(start_paused = true)]
async fn an_object_without_an_artifact_goes_once_it_is_a_day_old() {
    let house = House::running().await;
    let object = async |moment: u64, number: u128| {
        let id = ArtifactId::new(Ulid::from_parts(moment, number));
        let writer = house.objects.begin(&id, 0).await.unwrap_or_else(|error| panic!("begun: {error}"));
        writer.finish().await.expect("finished");
        id
    };
    let now = u64::try_from(house.context.now().0).expect("after 1970");
    let known = object(0, 1).await;
    house.store.know_artifact(&known);
    let (orphan, fresh) = (object(now, 2).await, object(now + 2 * 3_600_000, 3).await);
    // A jump: to wait through a day costs half a minute of work for all the other keepers.
    tokio::time::advance(Duration::from_secs(22 * 3_600)).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(house.objects.ids().len(), 3, "an upload may still be under way");
    house.store.befall("known_artifacts", Fault::Fails(StoreError::Unavailable("down".into())));
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    assert!(!house.store.awaits_fault("known_artifacts"), "it was asked");
    let left = house.objects.ids();
    assert!(!left.contains(&orphan) && left.contains(&fresh) && left.contains(&known), "{left:?}");
    house.kill(ARTIFACT_KEEPER, "");
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    assert_eq!(house.objects.ids(), [known], "a restart goes on");
}

#[tokio::test(start_paused = true)]
async fn statuses_are_told_when_they_are_written_here_or_by_another_replica() {
    const SOON: Duration = Duration::from_secs(1);
    let house = House::alone(Duration::from_secs(9)).await;
    let other = house.store.leases().seen_by(&ReplicaId::new(Ulid::from_parts(1, 99)));
    let await_a_look = || {
        house.store.befall("claim_statuses", Fault::Fails(StoreError::Unavailable("down".into())));
    };
    // From here on the next look by the clock is ten seconds away.
    await_a_look();
    house.until("a look by the clock", async || !house.store.awaits_fault("claim_statuses")).await;

    await_a_look();
    house.store.write_statuses();
    let told = async { while other.hear().await != Signal::Statuses {} };
    tokio::time::timeout(SOON, told).await.expect("the other replicas were told");
    tokio::time::sleep(SOON).await;
    assert!(!house.store.awaits_fault("claim_statuses"), "this process looked");

    await_a_look();
    other.tell(&Signal::Statuses).await.expect("told");
    tokio::time::sleep(SOON).await;
    assert!(!house.store.awaits_fault("claim_statuses"), "it looked for what the other replica wrote");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_waits_for_its_host_is_looked_for_at_its_moment() {
    let house = House::running().await;
    let await_a_look = || {
        house.store.befall("claim_statuses", Fault::Fails(StoreError::Unavailable("down".into())));
    };
    // From here on the next look by the clock is ten seconds away.
    await_a_look();
    house.until("a look by the clock", async || !house.store.awaits_fault("claim_statuses")).await;

    house.store.delay_status(house.context.now().after(Duration::from_secs(4)));
    house.store.write_statuses();
    tokio::time::sleep(Duration::from_secs(1)).await;
    await_a_look();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(house.store.awaits_fault("claim_statuses"), "nobody looks before that moment");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!house.store.awaits_fault("claim_statuses"), "the keeper looked at that moment");
}
