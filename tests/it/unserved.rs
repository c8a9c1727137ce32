//! Addresses that are not served: an app and a person at the keyboard are told in one sentence what is wrong
//! and which way works.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    api::App,
    remote::Host,
    server::{Server, bare_command},
};

/// A server of plain files: whatever is asked for, it sends a list of refs as a file.
fn plain_files() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in socket.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 4096];
            drop(stream.read(&mut head));
            let body = format!("{}\trefs/heads/main\n", "1".repeat(40));
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    address
}

#[test]
fn an_address_that_is_not_served_is_refused_with_the_way_around() {
    let (server, host, home) = (Server::start(), Host::start(), TempDir::new().expect("a folder"));
    let app = App::onboard_alone(&server);
    let other_ids = host.repository("sha256");
    std::fs::remove_dir_all(other_ids.path()).expect("removable");
    std::fs::create_dir_all(other_ids.path()).expect("writable");
    other_ids.git(["init", "--quiet", "--bare", "--object-format=sha256", "."]);
    for (address, wrong, way) in [
        ("git://git.example/o/r".to_owned(), "git:// is not served", "the https address"),
        ("ssh://git@127.0.0.1/o/r".to_owned(), "never over ssh", "https://127.0.0.1/o/r"),
        (format!("http://{}/o/r", plain_files()), "it serves plain files", "git http-backend"),
        (host.url("sha256"), "SHA-256 object ids", "git fast-export"),
    ] {
        let reply = app.ask(&server, "POST", "/api/repositories", Some(&json!({ "url": address })));
        let told = reply.json().to_string();
        assert!((400..=504).contains(&reply.status), "{address}: {} {told}", reply.status);
        let output = bare_command(home.path()).args(["watch", &address, "--once"]).output().expect("it ran");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(!output.status.success() && output.stdout.is_empty(), "{address}: {said}");
        for text in [&told, &said] {
            assert!(text.contains(wrong) && text.contains(way), "{address}: {text}");
        }
    }
    let watched = app.ask(&server, "GET", "/api/repositories", None).json();
    assert_eq!(watched["items"], json!([]), "none is watched");
}
