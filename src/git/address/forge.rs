//! The product that a Git host runs, as far as its name tells. It decides the form of web links and the user
//! name with which a bare token is sent.

/// A family of Git hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forge {
    /// github.com, and GitHub Enterprise in the cloud.
    GitHub,
    /// gitlab.com, and hosts that are called `gitlab`.
    GitLab,
    /// bitbucket.org, and no other host.
    Bitbucket,
    /// Gitea and Forgejo: codeberg.org, gitea.com, and hosts whose name says gitea or forgejo.
    Gitea,
    /// A host whose name tells no family.
    Other,
}

/// The public hosts, which ignore case in paths.
const PUBLIC: [(&str, Forge); 5] = [
    ("github.com", Forge::GitHub),
    ("gitlab.com", Forge::GitLab),
    ("bitbucket.org", Forge::Bitbucket),
    ("codeberg.org", Forge::Gitea),
    ("gitea.com", Forge::Gitea),
];

impl Forge {
    /// The family of a host, whose name is in lower case.
    pub(crate) fn of(host: &str) -> Self {
        if let Some(forge) = Self::public(host) {
            return forge;
        }
        if host.ends_with(".ghe.com") {
            return Self::GitHub;
        }
        match host.split('.').next().unwrap_or_default() {
            "gitlab" => Self::GitLab,
            "gitea" | "forgejo" => Self::Gitea,
            _ => Self::Other,
        }
    }

    /// The family of one of the well-known public hosts.
    pub(crate) fn public(host: &str) -> Option<Self> {
        PUBLIC.iter().find(|(name, _)| *name == host).map(|(_, forge)| *forge)
    }
}

#[cfg(test)]
mod tests {
    use super::Forge;

    #[test]
    fn a_name_tells_the_family_only_where_it_is_one() {
        for (host, forge) in [
            ("github.com", Forge::GitHub),
            ("octo.ghe.com", Forge::GitHub),
            ("github.example.com", Forge::Other),
            ("notgithub.com", Forge::Other),
            ("gitlab.com", Forge::GitLab),
            ("gitlab.example.com", Forge::GitLab),
            ("mygitlab.example.com", Forge::Other),
            ("bitbucket.org", Forge::Bitbucket),
            ("codeberg.org", Forge::Gitea),
            ("forgejo.example.org", Forge::Gitea),
            ("git.example.org", Forge::Other),
        ] {
            assert_eq!(Forge::of(host), forge, "{host}");
        }
    }
}
