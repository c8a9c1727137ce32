//! Tables of what people paste, and what becomes of it.

use std::path::PathBuf;

use proptest::prelude::*;
use tidings_actors::ports::{GitError, Location};

use super::{ADDRESS_BYTES_MAX, Address, InvalidAddress};

fn parse(text: &str) -> Result<Address, InvalidAddress> {
    Address::parse(text, false, false)
}

/// The key, owner, name, and all spellings of one repository; a spelling with `>` names a branch.
type Spellings = (&'static str, &'static str, &'static str, &'static [&'static str]);

const REPOSITORIES: &[Spellings] = &[
    (
        "https://github.com/rust-lang/rust",
        "rust-lang",
        "rust",
        &[
            "https://github.com/rust-lang/rust",
            "https://github.com/rust-lang/rust/",
            "https://github.com/rust-lang/rust.git",
            "https://github.com/rust-lang/rust.git/",
            "https://github.com//rust-lang//rust",
            "https://GitHub.com:443/rust-lang/rust/",
            "HTTPS://GITHUB.COM/rust-lang/rust",
            "https://github.com./rust-lang//rust.git/",
            "https://www.github.com/rust-lang/rust",
            "https://github.com/rust-lang/rust?tab=readme-ov-file",
            "https://github.com/rust-lang/rust/tree/master > master",
            "https://github.com/rust-lang/rust/tree/master/ > master",
            "https://github.com/rust-lang/rust/tree/release/1.90 > release/1.90",
            "https://github.com/rust-lang/rust/tree/a%20b > a b",
            "https://github.com/rust-lang/rust/tree/caf%C3%A9 > café",
            "github.com/rust-lang/rust",
            "www.github.com/rust-lang/rust",
            "GitHub.com/rust-lang/rust.git",
            "github.com/rust-lang/rust/tree/beta > beta",
            "github.com:443/rust-lang/rust",
            "git@github.com:rust-lang/rust.git",
            "git@github.com:rust-lang/rust",
            "git@GITHUB.com:rust-lang/rust.git",
            "git@github.com:/rust-lang/rust.git",
            "github.com:rust-lang/rust",
            "git@ssh.github.com:rust-lang/rust.git",
            "ssh://git@github.com/rust-lang/rust.git",
            "ssh://git@github.com:22/rust-lang/rust",
            "ssh://git@ssh.github.com:443/rust-lang/rust.git",
            "ssh://github.com/rust-lang/rust",
            "SSH://git@github.com/rust-lang/rust.git",
            "git+ssh://git@github.com/rust-lang/rust",
            "ssh+git://git@github.com/rust-lang/rust",
            "git+https://github.com/rust-lang/rust.git",
            "git+https://github.com/rust-lang/rust",
            "Git+HTTPS://github.com/rust-lang/rust",
            " https://github.com/rust-lang/rust ",
            "\thttps://github.com/rust-lang/rust\n",
            "https://github.com/rust-lang/./rust",
            "https://github.com/rust-lang/x/../rust",
        ],
    ),
    (
        "https://github.com/o/my.dotted.repo",
        "o",
        "my.dotted.repo",
        &[
            "https://github.com/o/my.dotted.repo",
            "https://github.com/o/my.dotted.repo.git",
            "git@github.com:o/my.dotted.repo.git",
        ],
    ),
    (
        "https://github.com/o/.github",
        "o",
        ".github",
        &["https://github.com/o/.github", "git@github.com:o/.github.git"],
    ),
    ("https://github.com/o/r.wiki", "o", "r.wiki", &["https://github.com/o/r.wiki.git"]),
    ("https://github.com/o/x.github.io", "o", "x.github.io", &["https://github.com/o/x.github.io"]),
    (
        "https://octo.ghe.com/o/r",
        "o",
        "r",
        &[
            "https://octo.ghe.com/o/r",
            "git@octo.ghe.com:o/r.git",
            "https://octo.ghe.com/o/r/tree/main > main",
        ],
    ),
    (
        "https://github.example.com/o/r",
        "o",
        "r",
        &[
            "https://github.example.com/o/r",
            "https://github.example.com/o/r/tree/main > main",
            "github.example.com/o/r",
        ],
    ),
    (
        "https://gitlab.com/group/sub/deep/project",
        "group/sub/deep",
        "project",
        &[
            "https://gitlab.com/group/sub/deep/project",
            "https://gitlab.com/group/sub/deep/project.git",
            "https://gitlab.com/group/sub/deep/project/",
            "https://gitlab.com/group/sub/deep/project/-/tree/main > main",
            "https://gitlab.com/group/sub/deep/project/-/tree/feature/x?ref_type=heads > feature/x",
            "https://gitlab.com/group/sub/deep/project/tree/main > main",
            "https://www.gitlab.com/group/sub/deep/project",
            "git@gitlab.com:group/sub/deep/project.git",
            "ssh://git@altssh.gitlab.com:443/group/sub/deep/project.git",
            "gitlab.com/group/sub/deep/project",
        ],
    ),
    (
        "https://gitlab.example.com:8443/Group/Project",
        "Group",
        "Project",
        &[
            "https://gitlab.example.com:8443/Group/Project.git",
            "https://GITLAB.example.com:8443/Group/Project",
            "https://gitlab.example.com:8443/Group/Project/-/tree/main > main",
            "gitlab.example.com:8443/Group/Project",
        ],
    ),
    (
        "https://bitbucket.org/team/repo",
        "team",
        "repo",
        &[
            "https://bitbucket.org/team/repo",
            "https://bitbucket.org/team/repo.git",
            "https://bitbucket.org/team/repo/src/main/ > main",
            "https://bitbucket.org/team/repo/src/feature%2Fx > feature/x",
            "git@bitbucket.org:team/repo.git",
            "ssh://git@altssh.bitbucket.org:443/team/repo.git",
            "bitbucket.org/team/repo",
        ],
    ),
    (
        "https://codeberg.org/forgejo/forgejo",
        "forgejo",
        "forgejo",
        &[
            "https://codeberg.org/forgejo/forgejo",
            "https://codeberg.org/forgejo/forgejo/src/branch/forgejo > forgejo",
            "https://codeberg.org/forgejo/forgejo/src/branch/v11.0/forgejo > v11.0/forgejo",
            "ssh://git@codeberg.org/forgejo/forgejo.git",
        ],
    ),
    (
        "https://gitea.example.org:3000/o/r",
        "o",
        "r",
        &[
            "https://gitea.example.org:3000/o/r.git",
            "https://gitea.example.org:3000/o/r/src/branch/main > main",
        ],
    ),
    (
        "https://git.example.org/o/r",
        "o",
        "r",
        &["https://git.example.org/o/r/src/branch/main > main", "ssh://git@git.example.org:2222/o/r.git"],
    ),
    (
        "https://git.example.org:8443/Group/Sub/My.Repo",
        "Group/Sub",
        "My.Repo",
        &["https://Git.Example.org:8443/Group/Sub/My.Repo.git"],
    ),
    (
        "https://git.example.org/a/b/src/c",
        "a/b/src",
        "c",
        &["https://git.example.org/a/b/src/c", "https://git.example.org/a/b/src/c.git"],
    ),
    ("https://git.example.org/a/b/tree/c.git", "a/b/tree", "c", &["https://git.example.org/a/b/tree/c.git"]),
    (
        "https://dev.azure.com/org/project/_git/repo",
        "org/project/_git",
        "repo",
        &["https://dev.azure.com/org/project/_git/repo", "git@ssh.dev.azure.com:v3/org/project/repo"],
    ),
    (
        "https://gist.github.com/0123456789abcdef",
        "",
        "0123456789abcdef",
        &["https://gist.github.com/0123456789abcdef.git", "git@gist.github.com:0123456789abcdef.git"],
    ),
    ("https://[::1]/r", "", "r", &["https://[::1]/r", "https://[0:0::1]/r.git"]),
    ("https://127.0.0.1:8443/o/r", "o", "r", &["https://127.0.0.1:8443/o/r", "https://0x7f.1:8443/o/r"]),
    ("https://h.example/a%20b/c", "a b", "c", &["https://h.example/a b/c", "https://h.example/a%20b/c"]),
    (
        "https://xn--bcher-kva.example/o/r",
        "o",
        "r",
        &["https://bücher.example/o/r", "https://BÜCHER.example/o/r"],
    ),
    ("https://localhost/o/r", "o", "r", &["git@localhost:o/r", "ssh://git@localhost/o/r"]),
    ("https://h.example/~user/r", "~user", "r", &["https://h.example/~user/r", "git@h.example:~user/r.git"]),
    ("https://h.example/o/r@v1", "o", "r@v1", &["https://h.example/o/r@v1"]),
    (
        "https://h.example/o/r",
        "o",
        "r",
        &["git@h.example:o/r.git", "h.example/o/r", "https://@h.example/o/r"],
    ),
];

#[test]
fn all_ways_of_writing_one_repository_have_one_key() {
    let mut count = 0;
    for (key, owner, name, ways) in REPOSITORIES {
        for way in *ways {
            count += 1;
            let (text, branch) = match way.split_once(" > ") {
                Some((text, branch)) => (text, Some(branch)),
                None => (*way, None),
            };
            let address = parse(text).expect(way);
            assert_eq!(
                (address.normalised.as_str(), address.owner.as_str(), address.name.as_str()),
                (*key, *owner, *name),
                "{way}"
            );
            assert_eq!(address.branch.as_deref(), branch, "{way}");
            for again in [&address.normalised, &address.display] {
                let again = parse(again).expect("what it shows and its key are addresses");
                assert_eq!(
                    (&again.normalised, &again.location),
                    (&address.normalised, &address.location),
                    "{way}"
                );
                assert_eq!(again.branch, None, "{way}");
            }
        }
    }
    assert!(count + REFUSED.len() >= 120, "{count} spellings");
}

#[test]
fn what_is_shown_is_what_was_given() {
    for (given, shown) in [
        ("https://GitHub.com/Owner/Repo.git", "https://GitHub.com/Owner/Repo.git"),
        (" git@github.com:Owner/Repo.git ", "git@github.com:Owner/Repo.git"),
        ("https://github.com/Owner/Repo/tree/main", "https://github.com/Owner/Repo"),
        ("https://github.com/Owner/Repo?tab=readme-ov-file", "https://github.com/Owner/Repo"),
        ("github.com/Owner/Repo", "https://github.com/Owner/Repo"),
    ] {
        assert_eq!(parse(given).expect(given).display, shown);
    }
}

#[test]
fn case_is_folded_only_where_the_host_does_not_know_it() {
    let key = |text| parse(text).expect("valid").normalised;
    assert_eq!(key("https://github.com/A/B"), key("https://github.com/a/b"));
    assert_eq!(key("https://github.com/A/B.GIT"), key("https://github.com/a/b"));
    assert_eq!(parse("https://github.com/A/B").expect("valid").owner, "A");
    assert_ne!(key("https://git.example/A/B"), key("https://git.example/a/b"));
}

const REFUSED: &[(&str, InvalidAddress)] = &[
    ("", InvalidAddress::Length),
    ("   ", InvalidAddress::Length),
    ("--upload-pack=x", InvalidAddress::Characters),
    ("-oProxyCommand=x", InvalidAddress::Characters),
    ("https://h.example/a\nb", InvalidAddress::Characters),
    ("https://h.example/a\0b", InvalidAddress::Characters),
    ("https://h.example/a%00b", InvalidAddress::Characters),
    ("https://h.example/a%0ab", InvalidAddress::Characters),
    ("https://h.example/o%2Fr", InvalidAddress::Characters),
    ("https://h.example/o%5Cr", InvalidAddress::Characters),
    ("https://h.example\\@evil.example/r", InvalidAddress::Characters),
    ("https://user:token@h.example/o/r", InvalidAddress::Credential),
    ("https://token@h.example/o/r", InvalidAddress::Credential),
    ("https://:token@h.example/o/r", InvalidAddress::Credential),
    ("https://x-access-token:ghs_x@github.com/o/r.git", InvalidAddress::Credential),
    ("https://oauth2:glpat-x@gitlab.com/o/r.git", InvalidAddress::Credential),
    ("https://org@dev.azure.com/org/project/_git/repo", InvalidAddress::Credential),
    ("git+https://token@github.com/o/r.git", InvalidAddress::Credential),
    ("https://token@github.com/o/r?x=1", InvalidAddress::Credential),
    ("token@github.com/o/r", InvalidAddress::Credential),
    ("user:token@github.com/o/r", InvalidAddress::Credential),
    ("ssh://git:pw@h.example/o/r", InvalidAddress::Credential),
    ("ssh://root@h.example/o/r", InvalidAddress::Credential),
    ("root@h.example:o/r", InvalidAddress::Credential),
    ("ext::sh -c id", InvalidAddress::Scheme),
    ("ext::https://h.example/r", InvalidAddress::Scheme),
    ("git://h.example/o/r", InvalidAddress::GitProtocol),
    ("ftp://h.example/o/r", InvalidAddress::Scheme),
    ("javascript://h.example/o/r", InvalidAddress::Scheme),
    ("git+ext://h.example/o/r", InvalidAddress::Scheme),
    ("github:o/r", InvalidAddress::Scheme),
    ("http://h.example/o/r", InvalidAddress::PlainHttp),
    ("git+http://h.example/o/r", InvalidAddress::PlainHttp),
    ("HTTP://github.com/o/r", InvalidAddress::PlainHttp),
    ("file:///srv/r", InvalidAddress::Local),
    ("/srv/r", InvalidAddress::Local),
    ("../r", InvalidAddress::Local),
    ("./github.com/o/r", InvalidAddress::Local),
    ("~/r", InvalidAddress::Local),
    ("owner/name", InvalidAddress::Local),
    ("//github.com/o/r", InvalidAddress::Local),
    ("https:///o/r", InvalidAddress::NoRepository),
    ("https:////evil.example/o/r", InvalidAddress::NoRepository),
    ("https://", InvalidAddress::NoRepository),
    ("https://h.example", InvalidAddress::NoRepository),
    ("https://h.example/", InvalidAddress::NoRepository),
    ("https://h.example/.git", InvalidAddress::NoRepository),
    ("https://0x7f000001../o/r", InvalidAddress::NoRepository),
    ("https://h.example/o/..git", InvalidAddress::NoRepository),
    ("https://h.example/o/...git", InvalidAddress::NoRepository),
    ("https://h.example:99999/o/r", InvalidAddress::NoRepository),
    ("https://github.com", InvalidAddress::NoRepository),
    ("https://github.com/owner", InvalidAddress::NoRepository),
    ("https://gitlab.com/group", InvalidAddress::NoRepository),
    ("https://gitlab.com/group/-/tree/main", InvalidAddress::NoRepository),
    ("git clone https://github.com/o/r", InvalidAddress::NoRepository),
    ("git@ssh.dev.azure.com:v3/org/repo", InvalidAddress::NoRepository),
    ("https://h.example/o/r?x=1", InvalidAddress::Query),
    ("https://h.example/o/r?private_token=x", InvalidAddress::Query),
    ("https://h.example/o/r?tab=a&token=x", InvalidAddress::Query),
    ("https://h.example/o/r#x", InvalidAddress::Query),
    ("https://github.com/o/r.git#main", InvalidAddress::Query),
    ("git@h.example:o/r?x", InvalidAddress::Query),
    ("ssh://git@h.example/o/r#x", InvalidAddress::Query),
    ("github.com/o/r#readme", InvalidAddress::Query),
    ("https://github.com/o/r/blob/main/README.md", InvalidAddress::WebPage),
    ("https://github.com/o/r/tree", InvalidAddress::WebPage),
    ("https://github.com/o/r/tree/0123456789012345678901234567890123456789", InvalidAddress::WebPage),
    ("https://github.com/o/r/pull/7", InvalidAddress::WebPage),
    ("https://github.com/o/r/commits/main", InvalidAddress::WebPage),
    ("https://gitlab.com/g/s/p/-/blob/main/a", InvalidAddress::WebPage),
    ("https://gitlab.com/g/s/p/-/merge_requests/1", InvalidAddress::WebPage),
    ("https://gitlab.example.com/g/p/-/tree/", InvalidAddress::WebPage),
    ("https://bitbucket.org/t/r/pull-requests/", InvalidAddress::WebPage),
    ("https://codeberg.org/o/r/src/commit/0123", InvalidAddress::WebPage),
    ("https://codeberg.org/o/r/issues", InvalidAddress::WebPage),
    ("git+https://github.com/o/r@v1.2", InvalidAddress::Reference),
    ("git+https://github.com/o/r.git@main", InvalidAddress::Reference),
];

#[test]
fn what_could_do_harm_tell_a_secret_or_mean_two_things_is_refused() {
    for (text, error) in REFUSED {
        assert_eq!(parse(text).map(|address| address.normalised), Err(*error), "{text}");
    }
    let long = format!("https://h.example/{}", "a".repeat(ADDRESS_BYTES_MAX));
    assert_eq!(parse(&long), Err(InvalidAddress::Length));
}

#[test]
fn paths_are_made_absolute_where_they_are_allowed() {
    let local = |text| Address::parse(text, true, true).expect("valid");
    let address = local("/srv/git/group/r.git");
    assert_eq!((address.owner.as_str(), address.name.as_str()), ("group", "r"));
    assert_eq!(address.location, Location::Local(PathBuf::from("/srv/git/group/r.git")));
    assert_eq!(local("file:///srv/git/group/./x/../r.git").normalised, address.normalised);
    assert_eq!(local(&address.normalised).location, address.location);
    assert_eq!(local("/srv/work/.git").name, "work");
    assert!(matches!(local("some/folder").location, Location::Local(path) if path.is_absolute()));
    assert!(matches!(local("some.folder/r").location, Location::Local(_)), "it may be a folder");
    assert_eq!(local("github.com/o/r").normalised, "https://github.com/o/r");
    assert_eq!(local("http://127.0.0.1:8000/r").normalised, "http://127.0.0.1:8000/r");
    assert_eq!(local("git+http://127.0.0.1:8000/r").normalised, "http://127.0.0.1:8000/r");
}

proptest! {
    /// Whatever is accepted keeps its key, asks the host it seems to ask, and holds no userinfo.
    #[test]
    fn an_accepted_address_is_its_own_key(
        text in "(https://|http://|ssh://|git\\+https://|git@|)[a-zA-Z0-9.@:%/_~?#-]{0,40}",
        local: bool,
    ) {
        if let Ok(address) = Address::parse(&text, local, true) {
            let again = Address::parse(&address.normalised, true, true).expect("its own key");
            prop_assert_eq!(&again.normalised, &address.normalised);
            prop_assert_eq!(&again.location, &address.location);
            if let Location::Http(url) = &address.location {
                prop_assert!(url.username().is_empty() && url.password().is_none() && url.query().is_none());
            }
        }
    }
}

#[test]
fn an_ssh_address_that_is_not_served_over_https_is_explained() {
    let unreachable = GitError::Unreachable("dns error".into());
    for text in
        ["git@git.corp.example:o/r.git", "ssh://git@git.corp.example:2222/o/r", "git.corp.example:o/r"]
    {
        let address = parse(text).expect("an address");
        let words = address.way_around(&unreachable).expect("words");
        assert!(
            words.contains("never over ssh") && words.contains("https://git.corp.example/o/r"),
            "{words}"
        );
        assert_eq!(
            address.way_around(&GitError::TooLarge("a pack".into())),
            None,
            "not the fault of the way"
        );
    }
    for text in ["https://git.corp.example/o/r", "git.corp.example/o/r"] {
        assert_eq!(parse(text).expect("an address").way_around(&unreachable), None, "{text}");
    }
}
