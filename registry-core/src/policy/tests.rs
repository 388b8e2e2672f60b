use alloc::sync::Arc;
use alloc::vec;

use super::*;
use crate::operation::AllowAll;

fn rules(json: &str) -> Rules {
    serde_json::from_str(json).unwrap()
}

fn team() -> Rules {
    rules(
        r#"{"groups": {"developers": ["alice", "bob"]}, "rules": [
            {"repositories": ["public/**"], "identities": ["anonymous"], "actions": ["pull", "list"]},
            {"repositories": ["team/**"], "identities": ["group:developers"], "actions": ["pull", "push", "list"]},
            {"repositories": ["team/app"], "identities": ["alice"], "actions": ["overwrite", "delete"]},
            {"repositories": ["**"], "identities": ["root"], "actions": ["*"]},
            {"repositories": ["shared/*"], "identities": ["authenticated"], "actions": ["pull"]}
        ]}"#,
    )
}

fn who(name: &str) -> Principal {
    Principal::new(name)
}

fn on(repository: &RepositoryName, action: Action) -> Operation<'_> {
    Operation::within(repository, action, Target::Repository)
}

const ACTIONS: [Action; 5] = [
    Action::Pull,
    Action::Push,
    Action::Overwrite,
    Action::Delete,
    Action::List,
];

#[test]
fn each_right_is_given_by_a_rule_and_by_nothing_else() {
    use Action::{List, Pull, Push};
    let rules = team();
    for (name, repository, allowed) in [
        ("", "public/a/b", &[Pull, List][..]),
        ("", "public", &[]),
        ("", "team/app", &[]),
        ("", "shared/x", &[]),
        ("mallory", "team/app", &[]),
        ("mallory", "public/x", &[Pull, List]),
        ("mallory", "shared/x", &[Pull]),
        ("mallory", "shared/x/y", &[]),
        ("bob", "team/app", &[Pull, Push, List]),
        ("alice", "team/app", &ACTIONS),
        ("alice", "team/other", &[Pull, Push, List]),
        ("root", "anything/at/all", &ACTIONS),
        ("group:developers", "team/app", &[]),
        ("anonymous", "team/app", &[]),
    ] {
        let repository = repository.parse().unwrap();
        for action in ACTIONS {
            let result = rules.authorize(&who(name), &on(&repository, action));
            assert_eq!(
                result.is_ok(),
                allowed.contains(&action),
                "{name} {action:?} {repository}"
            );
            let expected = if name.is_empty() {
                ErrorCode::Unauthorized
            } else {
                ErrorCode::Denied
            };
            assert!(result.err().is_none_or(|error| error.code() == expected));
        }
    }
}

#[test]
fn the_first_rule_that_allows_is_named() {
    let (rules, app) = (team(), "team/app".parse().unwrap());
    for (name, action, rule) in [
        ("alice", Action::Pull, Some(1)),
        ("alice", Action::Delete, Some(2)),
        ("root", Action::Push, Some(3)),
        ("mallory", Action::Pull, None),
    ] {
        assert_eq!(
            rules.first_that_allows(&who(name), &on(&app, action)),
            rule,
            "{name}"
        );
    }
}

#[test]
fn without_rules_those_who_are_known_may_do_everything() {
    let (rules, app) = (Rules::default(), "app".parse().unwrap());
    for action in ACTIONS {
        assert!(rules.authorize(&who("alice"), &on(&app, action)).is_ok());
        assert!(rules.authorize(&who(""), &on(&app, action)).is_err());
    }
}

#[test]
fn listing_is_not_pulling() {
    let digest = crate::Digest::of(crate::Algorithm::Sha256, b"");
    let repository = "a".parse().unwrap();
    let referrers = Operation::within(&repository, Action::List, Target::Manifest(&digest));
    let entry = Operation::within(&repository, Action::List, Target::Catalog);
    let pull = on(&repository, Action::Pull);
    for (right, referrers_allowed, entry_allowed, pull_allowed) in [
        ("pull", true, false, true),
        ("list", true, true, false),
        ("push", false, false, false),
    ] {
        let rule =
            r#"{"rules": [{"repositories": ["a"], "identities": ["anonymous"], "actions": ["RIGHT"]}]}"#;
        let rules = rules(&rule.replace("RIGHT", right));
        let allows = |operation| rules.authorize(&who(""), operation).is_ok();
        assert_eq!(
            (allows(&referrers), allows(&entry), allows(&pull)),
            (referrers_allowed, entry_allowed, pull_allowed),
            "{right}"
        );
    }
}

#[test]
fn the_list_of_repositories_is_for_those_who_may_see_one() {
    let catalog = Operation {
        repository: None,
        action: Action::List,
        target: Target::Catalog,
    };
    assert!(team().authorize(&who(""), &catalog).is_ok());
    assert!(team().authorize(&who("mallory"), &catalog).is_ok());
    let rules =
        rules(r#"{"rules": [{"repositories": ["a"], "identities": ["anonymous"], "actions": ["pull"]}]}"#);
    assert_eq!(
        rules.authorize(&who(""), &catalog).unwrap_err().code(),
        ErrorCode::Unauthorized
    );
    let connect = Operation {
        repository: None,
        action: Action::Connect,
        target: Target::Registry,
    };
    assert!(rules.authorize(&who(""), &connect).is_ok());
}

#[test]
fn cve_2025_23208_a_group_that_the_credentials_no_longer_name_gives_nothing() {
    let (rules, app) = (team(), "team/app".parse().unwrap());
    let with = |groups: &[&str]| {
        let groups = groups.iter().map(|group| group.to_string()).collect();
        who("carol").with_claims(Arc::new(Claims { groups, access: None }))
    };
    let push = on(&app, Action::Push);
    assert!(rules.authorize(&with(&["developers"]), &push).is_ok());
    assert!(rules.authorize(&with(&["other"]), &push).is_err());
    assert!(rules.authorize(&with(&[]), &push).is_err());
    let nameless = Principal::anonymous().with_claims(Arc::new(Claims {
        groups: vec!["developers".to_string()],
        access: None,
    }));
    assert!(rules.authorize(&nameless, &push).is_err());
}

fn token(name: &str, scopes: &str) -> Principal {
    who(name).with_claims(Arc::new(Claims {
        groups: Vec::new(),
        access: Some(Scope::parse_list(scopes).unwrap()),
    }))
}

#[test]
fn ghsa_qg67_7m6v_qg25_a_token_grants_its_actions_and_no_others() {
    use Action::{Delete, List, Overwrite, Pull, Push};
    let authorizer = TokenScopes::new();
    let (app, other) = ("team/app".parse().unwrap(), "team/app2".parse().unwrap());
    for (actions, allowed) in [
        ("pull", &[Pull, List][..]),
        ("push", &[Push, Overwrite]),
        ("pull,push", &[Pull, List, Push, Overwrite]),
        ("delete", &[Delete]),
        ("*", &ACTIONS),
        ("none", &[]),
    ] {
        let principal = token("alice", &alloc::format!("repository:team/app:{actions}"));
        for action in ACTIONS {
            let result = authorizer.authorize(&principal, &on(&app, action));
            assert_eq!(result.is_ok(), allowed.contains(&action), "{actions} {action:?}");
            assert!(
                result
                    .err()
                    .is_none_or(|error| error.code() == ErrorCode::Unauthorized)
            );
            assert!(authorizer.authorize(&principal, &on(&other, action)).is_err());
        }
    }
    for principal in [
        token("alice", "registry:team/app:* other:team/app:*"),
        who("alice"),
        who(""),
    ] {
        assert!(authorizer.authorize(&principal, &on(&app, Pull)).is_err());
    }
    let entry = Operation::within(&app, List, Target::Catalog);
    assert!(
        authorizer
            .authorize(&token("alice", "repository:team/app:*"), &entry)
            .is_err()
    );
    assert!(
        authorizer
            .authorize(&token("alice", "registry:catalog:*"), &entry)
            .is_ok()
    );
}

#[test]
fn a_token_does_not_go_beyond_the_rules() {
    let authorizer = TokenScopes::within(Arc::new(team()));
    let app = "team/app".parse().unwrap();
    let mut push = on(&app, Action::Push);
    let everything = "repository:team/app:*";
    assert!(authorizer.authorize(&token("bob", everything), &push).is_ok());
    assert_eq!(
        authorizer
            .authorize(&token("mallory", everything), &push)
            .unwrap_err()
            .code(),
        ErrorCode::Denied
    );
    assert_eq!(
        authorizer
            .authorize(&token("", everything), &push)
            .unwrap_err()
            .code(),
        ErrorCode::Unauthorized
    );
    let narrow = token("bob", "repository:team/app:pull");
    assert_eq!(
        authorizer.authorize(&narrow, &push).unwrap_err().code(),
        ErrorCode::Unauthorized
    );
    push.action = Action::Overwrite;
    assert_eq!(
        authorizer
            .authorize(&token("bob", everything), &push)
            .unwrap_err()
            .code(),
        ErrorCode::Denied
    );
}

#[test]
fn a_scope_is_reduced_to_what_the_rules_allow() {
    for (name, asked, left) in [
        (
            "bob",
            "repository:team/app:pull,push,delete",
            "repository:team/app:pull,push",
        ),
        (
            "alice",
            "repository:team/app:*",
            "repository:team/app:delete,pull,push",
        ),
        ("", "repository:public/x:pull,push", "repository:public/x:pull"),
        ("", "repository:team/app:pull", "repository:team/app:"),
        ("root", "repository:Not/a/Name:pull", "repository:Not/a/Name:"),
        ("mallory", "registry:catalog:*", "registry:catalog:*"),
        ("root", "registry:other:*", "registry:other:"),
    ] {
        let reduced = reduce(&asked.parse().unwrap(), &team(), &who(name));
        assert_eq!(reduced.to_string(), left, "{name} {asked}");
    }
}

#[test]
fn an_immutable_tag_is_neither_moved_nor_deleted_by_anybody() {
    let rule = r#"[{"repositories": ["team/**"], "tags": ["v*"]}]"#;
    let authorizer = ImmutableTags::new(serde_json::from_str(rule).unwrap(), Arc::new(AllowAll));
    for (repository, tag, action, is_allowed) in [
        ("team/app", "v1", Action::Overwrite, false),
        ("team/app", "v1", Action::Delete, false),
        ("team/app", "v1", Action::Push, true),
        ("team/app", "v1", Action::Pull, true),
        ("team/app", "latest", Action::Overwrite, true),
        ("other/app", "v1", Action::Delete, true),
    ] {
        let (repository, tag) = (repository.parse().unwrap(), tag.parse().unwrap());
        let operation = Operation::within(&repository, action, Target::Tag(&tag));
        let result = authorizer.authorize(&who("root"), &operation);
        assert_eq!(result.is_ok(), is_allowed, "{operation:?}");
        assert!(
            result
                .err()
                .is_none_or(|error| error.code() == ErrorCode::TagConflict)
        );
    }
}

#[test]
fn a_delete_of_content_learns_which_tags_are_immutable() {
    let rules =
        r#"[{"repositories": ["team/**"], "tags": ["v*"]}, {"repositories": ["team/app"], "tags": ["x"]}]"#;
    let inner = r#"[{"repositories": ["team/app"], "tags": ["inner"]}]"#;
    let inner = ImmutableTags::new(serde_json::from_str(inner).unwrap(), Arc::new(AllowAll));
    let authorizer = ImmutableTags::new(serde_json::from_str(rules).unwrap(), Arc::new(inner));
    assert!(authorizer.immutable_tags(&"other/app".parse().unwrap()).is_none());
    for (repository, immutable) in [("team/app", &["v1", "x", "inner"][..]), ("team/other", &["v1"])] {
        let filter = authorizer.immutable_tags(&repository.parse().unwrap()).unwrap();
        for tag in ["v1", "x", "inner", "latest"] {
            assert_eq!(
                filter(&tag.parse().unwrap()),
                immutable.contains(&tag),
                "{repository} {tag}"
            );
        }
    }
}

#[test]
fn rules_that_cannot_be_meant_are_refused() {
    let rule = r#"{"repositories": ["a"], "identities": ["anonymous"], "actions": ["pull"]}"#;
    assert!(serde_json::from_str::<Rule>(rule).is_ok());
    for (from, to) in [
        ("[\"a\"]", "[\"a b\"]"),
        ("anonymous", ""),
        ("anonymous", "group:"),
        ("anonymous", "*"),
        ("pull", "fetch"),
        ("actions", "action"),
    ] {
        assert!(
            serde_json::from_str::<Rule>(&rule.replace(from, to)).is_err(),
            "{from} {to}"
        );
    }
    let rules =
        rules(r#"{"rules": [{"repositories": ["a"], "identities": ["group:gone"], "actions": ["pull"]}]}"#);
    assert_eq!(rules.unknown_groups(), BTreeSet::from(["gone"]));
    for text in ["anonymous", "authenticated", "group:a", "alice"] {
        assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
    }
}

#[test]
fn words_with_a_meaning_in_rules_are_no_names_of_users() {
    for name in [
        "anonymous",
        "authenticated",
        "group:developers",
        "group:",
        "*",
        "",
    ] {
        assert!(!Identity::is_name_of_user(name), "{name}");
    }
    for name in ["alice", "Anonymous", "groups", "a:b", "robot$ci"] {
        assert!(Identity::is_name_of_user(name), "{name}");
    }
}
