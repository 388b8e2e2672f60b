//! What an edit of a file opens while the server runs: nothing. A file that a writer has written by half, a section that
//! is gone or empty, another kind of `auth`: whoever could not do something before cannot do it after.

use std::fs;

use serde_json::json;

use crate::support::issuer::{Issuer, claims};
use crate::support::repository::{IMAGE, Image, Repository};
use crate::support::users::{GuardedServer, basic};

/// A file as people write them: keys in lines of their own, so that almost every prefix is YAML.
const HEAD: &str = "\
version: 0.1
log:
  accesslog:
    disabled: true
storage:
  inmemory:
  delete:
    enabled: true
";
const AUTH: &str = "\
auth:
  htpasswd:
    realm: Registry
    path: USERS
";
const ACCESS: &str = "\
access:
  rules:
    - repositories:
        - team/**
      actions:
        - pull
        - push
      identities:
        - alice
    - repositories:
        - '**'
      actions:
        - '*'
      identities:
        - root
        - anonymous-bot
";
const TAGS: &str = "\
tags:
  immutable:
    - repositories: ['**']
      tags:
        - v*
        - stable
";

fn good() -> String {
    [HEAD, AUTH, ACCESS, TAGS].concat()
}

/// What may be tried: a name, a method, a target, and whether an image is sent.
const TRIES: [(&str, &str, &str, bool); 5] = [
    ("pull", "GET", "manifests/latest", false),
    ("push", "POST", "blobs/uploads/", false),
    (
        "delete",
        "DELETE",
        "blobs/sha256:0000000000000000000000000000000000000000000000000000000000000000",
        false,
    ),
    ("move an immutable tag", "PUT", "manifests/stable", true),
    ("move a tag", "PUT", "manifests/latest", true),
];

/// A server with an image in each repository, and what nobody may do there.
struct Guarded {
    server: GuardedServer,
    image: Image,
    refused: Vec<(String, String, usize)>,
}

impl Guarded {
    fn start(configuration: &str, environment: &[(&str, &str)]) -> Self {
        let server = GuardedServer::start_with(configuration, environment);
        let mut other = None;
        for name in ["team/app", "else"] {
            let root = server.repository("root", name);
            root.push_image("latest", "image");
            root.push_image("stable", "image");
            other = Some(root.push_image("other", "another image"));
        }
        let mut guarded = Self {
            server,
            image: other.expect("there are repositories"),
            refused: Vec::new(),
        };
        guarded.refused = guarded.all().filter(|cell| !guarded.may(cell)).collect();
        guarded
    }

    fn all(&self) -> impl Iterator<Item = (String, String, usize)> + use<> {
        let users = ["", "alice", "bob", "root"].map(str::to_owned);
        users.into_iter().flat_map(|user| {
            ["team/app", "else"].into_iter().flat_map(move |name| {
                let user = user.clone();
                // Root may move a tag, and after that there is none for others to move.
                let tries = TRIES.len() - usize::from(user == "root");
                (0..tries).map(move |index| (user.clone(), name.to_owned(), index))
            })
        })
    }

    fn may(&self, (user, name, index): &(String, String, usize)) -> bool {
        let (_, method, target, sends) = TRIES[*index];
        let repository = self.server.repository(user, name);
        let request = repository.request(method, target);
        let request = if sends {
            request.header("Content-Type", IMAGE).body(&self.image.content)
        } else {
            request
        };
        !matches!(request.send().status, 401 | 403 | 409)
    }

    /// Writes the file and has it read. Returns whether it is in force.
    fn write(&self, text: &str) -> bool {
        self.server.write(text);
        self.server.server.read_again();
        let told = self.told();
        told.lines()
            .last()
            .is_some_and(|line| line.contains("is in force"))
    }

    /// Writes the file, has it read, and checks that nobody may do what nobody could.
    #[track_caller]
    fn edit(&self, text: &str) {
        self.write(text);
        for cell in &self.refused {
            assert!(
                !self.may(cell),
                "{:?} may {} in {} after this edit:\n{text}\n{}",
                cell.0,
                TRIES[cell.2].0,
                cell.1,
                self.told()
            );
        }
    }

    /// What the server said of the edits.
    fn told(&self) -> String {
        let output = self.server.server.output();
        let lines: Vec<_> = output
            .lines()
            .filter(|line| line.contains("the configuration was read"))
            .collect();
        lines.join("\n")
    }

    /// Makes an edit that is refused with a line that names the key and what to do.
    #[track_caller]
    fn refuses(&self, text: &str, key: &str) {
        let before = self.told().len();
        self.edit(text);
        let said = self.told().split_off(before);
        assert!(
            said.contains("the old one stays in force")
                && said.contains(key)
                && said.contains("restart the server"),
            "{key}: {text}\n{said}"
        );
    }
}

#[test]
fn no_prefix_of_a_file_gives_anybody_a_right() {
    let guarded = Guarded::start(&good(), &[]);
    assert!(guarded.refused.len() > 20, "{:?}", guarded.refused);
    // In each order another section is the one that is cut.
    for sections in [[HEAD, AUTH, ACCESS, TAGS], [HEAD, TAGS, AUTH, ACCESS]] {
        let text = sections.concat();
        for end in 0..text.len() {
            // What was refused is looked at now and then, because there are many.
            if guarded.write(&text[..end]) || end % 50 == 0 {
                guarded.edit(&text[..end]);
            }
        }
        guarded.edit(&text);
        assert!(guarded.write(&text), "{}", guarded.told());
    }
}

#[test]
fn no_section_that_is_gone_or_empty_gives_anybody_a_right() {
    let guarded = Guarded::start(&good(), &[]);
    for (name, key, others) in [
        ("auth", "auth", [HEAD, ACCESS, TAGS]),
        ("access", "access.rules", [HEAD, AUTH, TAGS]),
        ("tags", "tags.immutable", [HEAD, AUTH, ACCESS]),
    ] {
        let others = others.concat();
        guarded.refuses(&others, key);
        for value in ["", " ~", " null", " {}"] {
            guarded.refuses(&format!("{others}{name}:{value}\n"), key);
        }
    }
    for value in ["", " []", " ~"] {
        let (rules, immutable) = (
            format!("access:\n  rules:{value}\n"),
            format!("tags:\n  immutable:{value}\n"),
        );
        guarded.refuses(&[HEAD, AUTH, &rules, TAGS].concat(), "access.rules");
        guarded.refuses(&[HEAD, AUTH, ACCESS, &immutable].concat(), "tags.immutable");
    }
    guarded.refuses(&good().replace("        - stable\n", ""), "tags.immutable");
    guarded.refuses(&[HEAD, ACCESS, TAGS, "auth: none\n"].concat(), "auth");
    // All of it at once, and a file of which nothing is left.
    guarded.refuses(HEAD, "auth");
    guarded.edit("");
}

#[test]
fn a_pattern_of_immutable_tags_is_not_exchanged_for_another() {
    let guarded = Guarded::start(&good(), &[]);
    for (old, new) in [
        ("        - stable\n", "        - other\n"),
        (
            "        - stable\n",
            "        - other\n        - stables\n        - stabl\n",
        ),
        ("        - stable\n", "        - '*/stable'\n"),
        ("tags:\n        - v*", "tags:\n        - w*"),
        (
            "immutable:\n    - repositories: ['**']",
            "immutable:\n    - repositories: [team/*, else/*]",
        ),
        (
            "immutable:\n    - repositories: ['**']",
            "immutable:\n    - repositories: ['*']",
        ),
    ] {
        let text = good().replace(old, new);
        assert_ne!(text, good(), "{old}");
        guarded.refuses(&text, "tags.immutable");
    }
    // One that covers it may take its place.
    let text = good().replace("        - stable\n", "        - s*\n");
    guarded.edit(&text);
    assert!(guarded.write(&text), "{}", guarded.told());
}

#[test]
fn a_section_of_the_environment_stays_whatever_the_file_says() {
    let rules = "[{repositories: ['**'], identities: [root], actions: ['*']}]";
    let guarded = Guarded::start(&good(), &[("REGISTRY_ACCESS_RULES", rules)]);
    // The rules of the file do not count, so that they may go.
    guarded.edit(&[HEAD, AUTH, TAGS].concat());
    assert!(guarded.server.server.output().contains("is in force"));
    guarded.refuses(&[HEAD, TAGS].concat(), "auth");
}

#[test]
fn narrower_rules_and_other_rules_need_no_restart() {
    let guarded = Guarded::start(&good(), &[]);
    let as_user = |user| guarded.server.repository(user, "team/app");
    as_user("alice").get("manifests/latest").expect_status(200);
    let second = ACCESS
        .find("    - repositories:\n        - '**'")
        .expect("it is there");
    let without_alice = format!("access:\n  rules:\n{}", &ACCESS[second..]);
    guarded.edit(&[HEAD, AUTH, &without_alice, TAGS].concat());
    as_user("alice")
        .get("manifests/latest")
        .expect_error(&[403], &["DENIED"]);
    guarded.server.write(&good().replace("- alice", "- bob"));
    guarded.server.server.read_again();
    as_user("bob").get("manifests/latest").expect_status(200);
    as_user("alice")
        .get("manifests/latest")
        .expect_error(&[403], &["DENIED"]);
}

#[test]
fn the_kind_of_auth_is_that_of_the_start_and_no_rule_is_read_by_another() {
    const TOKENS: &str = "auth: {token: {service: registry, builtin: {users: USERS}}}\n";
    const RULES: &str = "access: {rules: [{repositories: ['**'], identities: [alice], actions: [pull]}]}\n";
    const WIDE: &str = "access: {rules: [{repositories: ['**'], identities: [anonymous], actions: ['*']}]}\n";
    const HTPASSWD: &str = "auth: {htpasswd: {realm: Registry, path: USERS}}\n";
    let head = "version: 0.1\nstorage: {inmemory: {}, delete: {enabled: true}}\n";
    let issuer = Issuer::start();
    let external = format!(
        "auth: {{token: {{realm: 'http://localhost/token', service: registry, issuer: issuer, jwks: '{}'}}}}\n",
        issuer.key_set().display()
    );
    let grant = json!([{"type": "repository", "name": "app", "actions": ["pull"]}]);
    let token = format!("Bearer {}", issuer.sign(&claims("alice", &grant), |_| {}));
    let kinds = [
        (HTPASSWD.to_owned(), basic("alice").to_owned()),
        (external.clone(), token),
        (TOKENS.to_owned(), String::new()),
    ];
    for (old, credentials) in &kinds {
        let server = GuardedServer::start(&format!("{head}{old}{RULES}"));
        let mut alice = Repository::new(server.server.address(), "app");
        let credentials = if credentials.is_empty() {
            let asked = server
                .server
                .request("GET", "/auth/token?scope=repository:app:pull");
            let answer = asked.header("Authorization", basic("alice")).send().json();
            format!("Bearer {}", answer["token"].as_str().expect("a token"))
        } else {
            credentials.clone()
        };
        alice = alice.with_authorization(&credentials);
        let nobody = Repository::new(server.server.address(), "app");
        for new in [HTPASSWD, TOKENS, external.as_str(), "", "auth: none\n"]
            .into_iter()
            .filter(|new| *new != old.as_str())
        {
            for rules in ["", RULES, WIDE] {
                server.write(&format!("{head}{new}{rules}"));
                server.server.read_again();
                alice.get("manifests/none").expect_status(404);
                for (who, method, target) in [
                    (&alice, "POST", "blobs/uploads/"),
                    (&alice, "DELETE", "manifests/none"),
                    (&nobody, "GET", "manifests/none"),
                    (&nobody, "POST", "blobs/uploads/"),
                    (&nobody, "DELETE", "manifests/none"),
                ] {
                    let status = who.request(method, target).send().status;
                    assert!(
                        matches!(status, 401 | 403),
                        "{method} {target} {status} from {old} to {new}{rules}:\n{}",
                        server.server.output()
                    );
                }
            }
        }
        assert!(
            server
                .server
                .output()
                .contains("another kind of `auth` waits for a restart")
        );
    }
}

#[test]
fn a_file_of_users_that_is_written_by_half_shuts_nobody_out() {
    let rules = "access: {rules: [{repositories: ['**'], identities: [authenticated], actions: ['*']}]}\n";
    let head = "version: 0.1\nstorage: {inmemory: {}}\nauth: {htpasswd: {realm: Registry, path: USERS}}\n";
    let server = GuardedServer::start(&format!("{head}{rules}"));
    let whole = fs::read_to_string(server.users()).expect("there are users");
    let last = whole.trim_end().rfind('\n').expect("there are several") + 1;
    let root = server.repository("root", "app");
    root.get("manifests/none").expect_status(404);
    let refused = |text: &str| {
        let before = server.server.output().len();
        fs::write(server.users(), text).expect("a file can be written");
        server.server.read_again();
        let said = server.server.output().split_off(before);
        assert!(
            said.contains("auth.htpasswd.path") && said.contains("stays in force"),
            "{text}\n{said}"
        );
        root.get("manifests/none").expect_status(404);
    };
    for text in ["", "\n", "# users\n"] {
        refused(text);
    }
    for end in last + 1..whole.trim_end().len() {
        refused(&whole[..end]);
    }
    // A line that is gone whole is a user who is gone, and named.
    fs::write(server.users(), &whole[..last]).expect("a file can be written");
    server.server.read_again();
    root.get("manifests/none").expect_status(401);
    let said = server.server.output();
    let line = said.lines().find(|line| line.contains("users are gone"));
    assert!(
        line.is_some_and(|line| line.contains("root") && !line.contains("alice")),
        "{said}"
    );
}
