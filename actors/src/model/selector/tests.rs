//! Tables of selectors: what a text means, what is asked of a host, and what no ref can be called.

use super::*;

#[test]
fn each_set_of_refs_is_written_in_one_way() {
    for (text, kind, value) in [
        ("main", SelectorKind::Branch, "main"),
        ("refs/heads/a/b", SelectorKind::Branch, "a/b"),
        ("refs", SelectorKind::Branch, "refs"),
        ("{x}", SelectorKind::Branch, "{x}"),
        ("release/*", SelectorKind::BranchPattern, "release/*"),
        ("refs/heads/release/*", SelectorKind::BranchPattern, "release/*"),
        ("refs/tags/v*", SelectorKind::TagPattern, "v*"),
        ("refs/tags/v1", SelectorKind::Ref, "refs/tags/v1"),
        ("refs/notes/x", SelectorKind::Ref, "refs/notes/x"),
        ("refs/pull/*/head", SelectorKind::RefPattern, "refs/pull/*/head"),
        ("refs/heads/refs/pull/1/head", SelectorKind::Branch, "refs/pull/1/head"),
    ] {
        let selector = Selector::named(text).expect(text);
        assert_eq!((selector.kind, selector.value.as_str()), (kind, value), "{text}");
    }
    assert_eq!(Selector::of_tags("v1"), Selector::of_tags("refs/tags/v1"));
    assert_eq!(Selector::of_tags("v*"), Selector::named("refs/tags/v*"));
}

#[test]
fn what_is_asked_of_a_host_covers_what_a_selector_follows() {
    for (kind, value, asked) in [
        (SelectorKind::DefaultBranch, "", None),
        (SelectorKind::Branch, "a/b", Some("refs/heads/a/b")),
        (SelectorKind::BranchPattern, "release/*", Some("refs/heads/release/")),
        (SelectorKind::BranchPattern, "rel*", Some("refs/heads/")),
        (SelectorKind::BranchPattern, "rel*/x", Some("refs/heads/")),
        (SelectorKind::BranchPattern, "plain", Some("refs/heads/plain")),
        (SelectorKind::TagPattern, "v*", Some("refs/tags/")),
        (SelectorKind::Ref, "refs/notes/x", Some("refs/notes/x")),
        (SelectorKind::RefPattern, "refs/pull/*/head", Some("refs/pull/")),
        (SelectorKind::RefPattern, "refs/p*/1", Some("refs/")),
        (SelectorKind::RefPattern, "refs/{pull,notes}/*", Some("refs/")),
    ] {
        let selector = Selector { kind, value: value.into() };
        assert_eq!(selector.ref_pattern().as_deref(), asked, "{value}");
    }
}

#[test]
fn a_pattern_below_any_folder_follows_full_names() {
    for (pattern, name, follows) in [
        ("refs/pull/*/head", "refs/pull/12/head", true),
        ("refs/pull/*/head", "refs/pull/12/merge", false),
        ("refs/pull/*/head", "refs/heads/refs/pull/12/head", false),
        ("refs/pull/*/head", "refs/pull/1/2/head", false),
        ("refs/**", "refs/notes/x", true),
        ("pull/*/head", "refs/pull/12/head", false),
        ("pull/*/head", "refs/heads/pull/12/head", true),
    ] {
        let matcher = Selector::named(pattern).expect(pattern).matcher().expect("a pattern");
        assert_eq!(matcher.matches(name), follows, "{pattern} {name}");
    }
    assert!(Selector::named("refs/notes/x").expect("valid").matcher().is_none());
    assert_eq!(
        Selector::named("refs/notes/x").expect("valid").single_ref(Some("refs/heads/main")).as_deref(),
        Some("refs/notes/x")
    );
}

#[test]
fn what_git_does_not_allow_as_a_name_is_refused_with_the_rule() {
    for (name, rule) in [
        ("", "it is empty"),
        ("-x", "must not begin with `-`"),
        ("a..b", "must not contain `..`"),
        ("a b", "must not contain ' '"),
        ("a~1", "must not contain '~'"),
        ("a^", "must not contain '^'"),
        ("a:b", "must not contain ':'"),
        ("a\\b", "must not contain '\\\\'"),
        ("a\u{7f}", "must not contain '\\u{7f}'"),
        ("a/", "begin or end with `/`"),
        ("/a", "begin or end with `/`"),
        ("a//b", "must not contain `//`"),
        (".a", "begin with `.`"),
        ("a/.b", "begin with `.`"),
        ("a.lock", "end with `.lock`"),
        ("a.lock/b", "end with `.lock`"),
        ("@", "must not be `@`"),
        ("a@{1}", "must not contain `@{`"),
        ("a.", "must not end with `.`"),
        ("refs/", "begin or end with `/`"),
        ("refs/heads/", "it is empty"),
        ("refs/notes/a b", "must not contain ' '"),
        ("refs/pull/*/.head", "begin with `.`"),
        ("refs/pull//*", "must not contain `//`"),
        ("refs/pull/*/", "begin or end with `/`"),
        ("release *", "must not contain ' '"),
        ("*.lock", "end with `.lock`"),
        ("[", "not closed"),
        ("refs/pull/[", "not closed"),
        ("{a,*", "not closed"),
    ] {
        let fault = Selector::named(name).expect_err(name);
        assert!(fault.contains(rule), "{name:?}: {fault}");
    }
    for name in ["refs/pull/[0-9]*/head", "refs/{pull,notes}/*", "v[!^]*", "a\\*b*", "@/x", "refs/x/-y", "**"]
    {
        assert!(Selector::named(name).is_ok(), "{name}");
    }
    assert!(Selector::of_tags("a b").is_err() && Selector::of_tags("").is_err());
}

#[test]
fn pull_and_merge_requests_are_numbered() {
    for (text, is_numbered) in [
        ("refs/pull/*/head", true),
        ("refs/merge-requests/*/head", true),
        ("refs/changes/*/*/*", false),
        ("refs/pull/1/head", false),
        ("pull/*", false),
    ] {
        assert_eq!(Selector::named(text).expect(text).is_numbered(), is_numbered, "{text}");
    }
}
