//! From which size on a binary file goes in chunks is a setting.

use crate::support::{api::App, project::Project, server::Server, subscriber::Subscriber};

#[test]
fn a_file_above_the_threshold_of_the_settings_goes_in_chunks_that_say_where_they_begin() {
    let requests = |threshold: &str| {
        let mut server = Server::prepare().with("delivery.chunk_threshold", threshold);
        server.run();
        let subscriber = Subscriber::start();
        let app = App::onboard(&server, &subscriber);
        let project = Project::new();
        project.write("film.mp4", &[0xff; 500_000]);
        let head = project.commit("a film");
        let id = app.watch(&server, &project);
        app.wait_until_held(&server, &id, &head);
        subscriber.wait_for_tree(&id, &project.tree("HEAD"));
        // The model of the subscriber checks index, offset and content of each chunk.
        subscriber.assert_straight();
        subscriber.model().requests
    };
    assert_eq!(requests("400000"), 2);
    assert_eq!(requests("1048576"), 1);
}
