//! The result of a file, variables and flags.

use std::time::Duration;

use proptest::prelude::*;

mod documentation;
mod keys;
mod secrets;

use super::load::assemble;
use super::origin::Origin;
use super::sections::log::{LogFormat, LogLevel};
use super::supported::without_effect;
use super::tree::{Applied, Node};
use super::values::FilePath;
use super::{Configuration, Flag};

const SMALLEST: &str = "version: 0.1\nstorage:\n  inmemory:\n";

type Variables<'a> = &'a [(&'a str, &'a str)];

fn try_load(text: Option<&str>, variables: Variables<'_>) -> Result<(Configuration, Node, Applied), String> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    assemble(text, variables, None, &[]).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

fn load(text: &str, variables: Variables<'_>) -> Configuration {
    try_load(Some(text), variables)
        .expect("the configuration must be accepted")
        .0
}

fn refusal(text: &str, variables: Variables<'_>) -> String {
    try_load(Some(text), variables).expect_err("the configuration must be refused")
}

fn root(configuration: &Configuration) -> String {
    let filesystem = configuration.storage.filesystem.as_ref().expect("a folder");
    filesystem.root.display().to_string()
}

#[test]
fn the_smallest_file_has_distributions_defaults() {
    let configuration = load(SMALLEST, &[]);
    assert!(configuration.storage.in_memory.is_some());
    assert!(!configuration.storage.delete.enabled);
    assert_eq!(configuration.log.level, LogLevel::Info);
    assert_eq!(configuration.log.formatter, LogFormat::Text);
    assert_eq!(configuration.catalog.most_entries, 1000);
    assert_eq!(configuration.tags.most_tags, 1000);
    let purging = &configuration.storage.maintenance.upload_purging;
    assert!(purging.enabled);
    assert_eq!(purging.age.0, Duration::from_hours(168));
}

#[test]
fn keys_without_a_value_are_as_good_as_no_keys() {
    let text = "version: 0.1\nlog:\nhttp:\n  addr:\n  tls:\n    certificate: ~\nstorage:\n  inmemory:\n  delete:\n    enabled:\n";
    assert_eq!(load(text, &[]), load(SMALLEST, &[]));
    assert!(refusal("version: 0.1\nhttp:\n  adr:\nstorage: inmemory\n", &[]).contains("adr"));
}

#[test]
fn a_driver_may_be_a_word() {
    assert!(
        load("version: 0.1\nstorage: inmemory\n", &[])
            .storage
            .in_memory
            .is_some()
    );
    assert_eq!(
        root(&load("version: 0.1\nstorage: filesystem\n", &[])),
        "/var/lib/registry"
    );
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let text = "version: 0.1\nstorage:\n  filesystem: &disk\n    rootdirectory: &root /srv\nlog:\n  fields:\n    <<: *disk\n    root: *root\n";
    let tree = super::tree::parse(text, None).unwrap();
    let field = |path: &str| tree.find(path).unwrap().read::<String>().unwrap();
    assert_eq!(field("log.fields.root"), "/srv");
    assert_eq!(field("log.fields.rootdirectory"), "/srv");
}

#[test]
fn variables_replace_what_the_file_says() {
    let text = "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: /old\n";
    let configuration = load(
        text,
        &[
            ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/new"),
            ("REGISTRY_STORAGE_DELETE_ENABLED", "true"),
            ("REGISTRY_LOG_LEVEL", "DEBUG"),
            ("REGISTRY_HTTP_ADDR", ":5001"),
            ("HOME", "/root"),
        ],
    );
    assert_eq!(root(&configuration), "/new");
    assert!(configuration.storage.delete.enabled);
    assert_eq!(configuration.log.level, LogLevel::Debug);
    assert_eq!(configuration.http.addr, ":5001");
}

#[test]
fn a_shorter_variable_is_applied_before_a_longer_one() {
    let configuration = load(
        SMALLEST,
        &[
            ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/longer"),
            (
                "REGISTRY_STORAGE",
                "{filesystem: {rootdirectory: /shorter}, delete: {enabled: true}}",
            ),
        ],
    );
    assert_eq!(root(&configuration), "/longer");
    assert!(configuration.storage.delete.enabled && configuration.storage.in_memory.is_none());
}

#[test]
fn variables_alone_are_enough_and_deletes_are_off_as_with_a_file() {
    let (configuration, _, _) =
        try_load(None, &[("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/srv")]).unwrap();
    assert_eq!(root(&configuration), "/srv");
    assert!(!configuration.storage.delete.enabled);
    let (configuration, ..) = try_load(None, &[]).unwrap();
    assert_eq!(root(&configuration), "registry-data");
    assert!(configuration.storage.delete.enabled);
}

#[test]
fn a_second_driver_by_a_variable_is_refused_as_in_distribution() {
    let message = refusal(SMALLEST, &[("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/srv")]);
    assert!(
        message.contains("exclude each other")
            && message.contains("line 3")
            && message.contains("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"),
        "{message}"
    );
}

#[test]
fn unknown_variables_are_told_and_do_nothing() {
    let (configuration, _, applied) = try_load(
        Some(SMALLEST),
        &[
            ("REGISTRY_PORT", "tcp://10.0.0.1:5000"),
            ("REGISTRY_HTTP_ADR", ":5001"),
            ("REGISTRY_CATALOG_PAGES", "5"),
            ("REGISTRY_NOTIFICATIONS_ENDPOINTS_0_ULR", "http://a"),
            ("REGISTRY_VERSION", "2.8.3"),
            ("REGISTRY_storage", "s3"),
            ("REGISTRY_HTTP_ADDR_MORE", ":5001"),
            ("REGISTRY_CONFIGURATION_PATH", "/etc/config.yml"),
        ],
    )
    .unwrap();
    assert_eq!(configuration, load(SMALLEST, &[]));
    let unused = applied.unused.iter();
    let unused: Vec<(&str, &str)> = unused.map(|unused| (&*unused.name, &*unused.reason)).collect();
    let expected = [
        (
            "REGISTRY_CATALOG_PAGES",
            "there is no key `pages` below `catalog`",
        ),
        (
            "REGISTRY_HTTP_ADDR_MORE",
            "there is no key `more` below `http.addr`",
        ),
        (
            "REGISTRY_HTTP_ADR",
            "there is no key `adr` below `http`; did you mean `REGISTRY_HTTP_ADDR`?",
        ),
        (
            "REGISTRY_NOTIFICATIONS_ENDPOINTS_0_ULR",
            "there is no key `ulr` below `notifications.endpoints.0`; did you mean `REGISTRY_NOTIFICATIONS_ENDPOINTS_0_URL`?",
        ),
        (
            "REGISTRY_PORT",
            "Kubernetes sets it for the service `registry`; write `enableServiceLinks: false` in the pod's `spec` to be \
             without such variables",
        ),
        (
            "REGISTRY_VERSION",
            "the version of the configuration's form is what the file says",
        ),
        (
            "REGISTRY_storage",
            "there is no key `storage`; did you mean `REGISTRY_STORAGE`?",
        ),
    ];
    assert_eq!(unused, expected);
    assert!(applied.used.is_empty());
}

#[test]
fn an_empty_variable_is_as_good_as_no_key_whatever_the_file_says() {
    let text = "version: 0.1\nstorage: {filesystem: {rootdirectory: /srv}, delete: {enabled: true}}\nhttp: {addr: ':1', secret: a}\nlog: {level: debug}\n";
    for empty in ["", " ", "~", "# nothing"] {
        let configuration = load(
            text,
            &[
                ("REGISTRY_HTTP_ADDR", empty),
                ("REGISTRY_HTTP_SECRET", empty),
                ("REGISTRY_LOG_LEVEL", empty),
                ("REGISTRY_STORAGE_DELETE_ENABLED", empty),
                ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", empty),
                ("REGISTRY_HEALTH_HTTPCHECKERS", empty),
                ("REGISTRY_HTTP_TLS", empty),
                ("REGISTRY_ACCESS", empty),
            ],
        );
        assert_eq!(
            configuration,
            load("version: 0.1\nstorage: filesystem\n", &[]),
            "{empty:?}"
        );
    }
    let message = refusal(text, &[("REGISTRY_STORAGE", "")]);
    assert!(message.contains("where to store is missing"), "{message}");
}

/// Sets each protecting key.
const PROTECTED: &str = "\
version: 0.1
storage:
  s3: {bucket: b, region: r, encrypt: true, keyid: k, usefipsendpoint: true}
  maintenance: {readonly: {enabled: true}}
auth:
  token: {realm: 'https://a/t', service: s, issuer: i, rootcertbundle: /b, signingalgorithms: [ES256]}
access:
  groups: {g: [u]}
  rules:
    - {repositories: [a], identities: ['group:g'], actions: [pull]}
tags:
  immutable:
    - {repositories: ['**'], tags: ['v*']}
http:
  headers: {Strict-Transport-Security: [max-age=1]}
  ratelimit:
    address: {requests: 1}
    identity: {requests: 1}
  tls:
    certificate: /c
    key: /k
    clientcas: [/ca]
    clientauth: require-and-verify-client-cert
    minimumtls: tls1.3
    ciphersuites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
  trustedproxies: []
log:
  audit: {path: /a}
";

#[test]
fn no_empty_variable_takes_away_what_protects() {
    let empties = ["", " ", "\t", "# nothing", "''", "\"\"", "\" \"", "[]", "{}"];
    for path in super::protection::PROTECTING {
        let keys: Vec<&str> = path.split('.').collect();
        let mut names = vec![path.to_uppercase().replace('.', "_")];
        // A variable for a key above removes it too, except for the storage, which would be missing then.
        names.extend(
            (1..keys.len())
                .filter(|_| keys[0] != "storage")
                .map(|end| keys[..end].join("_").to_uppercase()),
        );
        for name in names {
            for empty in empties {
                let is_value = *path == "http.trustedproxies" && name.ends_with("PROXIES") && empty == "[]";
                let variable = format!("REGISTRY_{name}");
                let loaded = try_load(Some(PROTECTED), &[(&variable, empty)]);
                if is_value {
                    assert!(loaded.is_ok());
                    continue;
                }
                let message = loaded.expect_err(&variable);
                assert!(
                    message.starts_with(&format!("environment variable {variable}: "))
                        && message.contains("of the file says")
                        && message.contains("write `~`"),
                    "{variable}={empty}: {message}"
                );
            }
        }
    }
}

#[test]
fn an_empty_variable_is_refused_wherever_it_takes_a_part_of_what_protects() {
    for (variable, value, said) in [
        (
            "REGISTRY_AUTH",
            "",
            "REGISTRY_AUTH: auth: is empty, and would take away what line 6 of the file says",
        ),
        ("REGISTRY_AUTH_TOKEN", "", "auth.token: is empty"),
        (
            "REGISTRY_AUTH_TOKEN_SIGNINGALGORITHMS",
            "",
            "auth.token.signingalgorithms: is empty",
        ),
        ("REGISTRY_ACCESS_RULES", "", "access.rules: is empty"),
        ("REGISTRY_ACCESS_RULES_0", "", "access.rules[0]: is empty"),
        (
            "REGISTRY_ACCESS_RULES_0_IDENTITIES",
            "",
            "access.rules[0].identities: is empty",
        ),
        ("REGISTRY_ACCESS", "{rules: }", "access.rules: is empty"),
        (
            "REGISTRY_TAGS_IMMUTABLE_0_TAGS",
            "[]",
            "tags.immutable[0].tags: is empty",
        ),
        (
            "REGISTRY_HTTP_TLS",
            "{certificate: /c, key: /k, clientcas: }",
            "http.tls.clientcas: is empty",
        ),
        (
            "REGISTRY_HTTP_TLS_CLIENTCAS_0",
            "",
            "http.tls.clientcas[0]: is empty",
        ),
        (
            "REGISTRY_HTTP_RATELIMIT_ADDRESS",
            "",
            "http.ratelimit.address: is empty",
        ),
        (
            "REGISTRY_STORAGE_MAINTENANCE",
            "",
            "storage.maintenance.readonly: is empty",
        ),
        (
            "REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED",
            "",
            "storage.maintenance.readonly.enabled: is empty",
        ),
    ] {
        let message = refusal(PROTECTED, &[(variable, value)]);
        assert!(message.contains(said), "{variable}: {message}");
    }
    // Also if both are variables.
    let message = refusal(
        SMALLEST,
        &[
            ("REGISTRY_AUTH_HTPASSWD", "{realm: r, path: /users}"),
            ("REGISTRY_AUTH_HTPASSWD_PATH", ""),
        ],
    );
    assert!(
        message.contains("what environment variable REGISTRY_AUTH_HTPASSWD says"),
        "{message}"
    );
}

#[test]
fn what_protects_is_taken_away_by_who_says_so() {
    for none in ["~", "null"] {
        let configuration = load(
            PROTECTED,
            &[
                ("REGISTRY_AUTH", none),
                ("REGISTRY_ACCESS", none),
                ("REGISTRY_TAGS_IMMUTABLE", none),
                ("REGISTRY_HTTP_TLS", none),
                ("REGISTRY_HTTP_RATELIMIT", none),
            ],
        );
        assert_eq!(configuration.auth, Default::default());
        assert_eq!(configuration.access, Default::default());
        assert!(configuration.tags.immutable.is_empty());
        assert_eq!(configuration.http.tls, Default::default());
    }
    let open = load(PROTECTED, &[("REGISTRY_AUTH", "none")]);
    assert!(open.auth.none.is_some() && open.auth.token.is_none());
    // A value that protects nothing may be empty, and so may one that replaces it.
    load(
        "version: 0.1\nstorage: inmemory\nauth: none\n",
        &[("REGISTRY_AUTH", "")],
    );
    load(
        PROTECTED,
        &[
            ("REGISTRY_HTTP_TLS", "{certificate: /c, key: /k}"),
            ("REGISTRY_LOG_LEVEL", ""),
        ],
    );
}

#[test]
fn an_empty_value_where_nothing_protects_is_told() {
    let told = |text: &str, variables: Variables<'_>| {
        let (_, tree, _) = try_load(Some(text), variables).unwrap();
        let empty = super::protection::empty(&tree);
        empty
            .iter()
            .map(|(key, origin)| format!("{key} ({origin})"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(
            SMALLEST,
            &[
                ("REGISTRY_AUTH", ""),
                ("REGISTRY_HTTP_TLS_CLIENTCAS", "[]"),
                ("REGISTRY_ACCESS", "~")
            ]
        ),
        [
            "auth (environment variable REGISTRY_AUTH)",
            "http.tls.clientcas (environment variable REGISTRY_HTTP_TLS_CLIENTCAS)"
        ]
    );
    assert_eq!(
        told(
            "version: 0.1\nstorage: inmemory\nauth:\naccess: {rules: []}\nhttp: {trustedproxies: []}\n",
            &[]
        ),
        ["access.rules (line 4)", "auth (line 3)"]
    );
    assert!(told("version: 0.1\nstorage: inmemory\nauth: none\naccess: ~\n", &[]).is_empty());
    assert!(told(PROTECTED, &[]).is_empty());
}

#[test]
fn a_word_by_one_variable_gets_its_keys_by_others() {
    let configuration = load(
        SMALLEST,
        &[
            ("REGISTRY_AUTH", "htpasswd"),
            ("REGISTRY_AUTH_HTPASSWD_PATH", "/auth/htpasswd"),
            ("REGISTRY_AUTH_HTPASSWD_REALM", "Registry Realm"),
            ("REGISTRY_STORAGE", "s3"),
            ("REGISTRY_STORAGE_S3_BUCKET", "images"),
            ("REGISTRY_STORAGE_S3_SECRETKEY", "0123"),
            ("REGISTRY_STORAGE_S3_ACCESSKEY", "1_0"),
        ],
    );
    let users = configuration.auth.htpasswd.expect("users are named");
    assert_eq!(users.realm, "Registry Realm");
    assert_eq!(users.path.to_str(), Some("/auth/htpasswd"));
    let s3 = configuration.storage.s3.expect("a bucket is named");
    // A value that looks like a number is kept as written.
    assert_eq!(s3.secret_key.expect("a key is given").reveal(), "0123");
    assert!(configuration.storage.in_memory.is_none());
    // A word stays in force alongside another one.
    let message = refusal(
        SMALLEST,
        &[
            ("REGISTRY_AUTH", "token"),
            ("REGISTRY_AUTH_HTPASSWD_REALM", "Realm"),
            ("REGISTRY_AUTH_HTPASSWD_PATH", "/users"),
        ],
    );
    assert!(
        message.contains("exclude each other") && message.contains("REGISTRY_AUTH)"),
        "{message}"
    );
}

#[test]
fn a_value_is_yaml() {
    let configuration = load(
        SMALLEST,
        &[
            ("REGISTRY_HTTP_HEADERS", "{X-Content-Type-Options: [nosniff]}"),
            ("REGISTRY_HTTP_TLS_CLIENTCAS", "[/a, /b]"),
            ("REGISTRY_HTTP_TLS_CERTIFICATE", "'/c'"),
            ("REGISTRY_HTTP_TLS_KEY", "/d # the key"),
            ("REGISTRY_STORAGE_DELETE_ENABLED", "yes"),
            ("REGISTRY_HTTP_DRAINTIMEOUT", "1m30s"),
            ("REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMS", "None"),
        ],
    );
    assert_eq!(
        configuration.http.headers.to_map()["x-content-type-options"],
        "nosniff"
    );
    let tls = &configuration.http.tls;
    assert_eq!(tls.client_authorities, ["/a", "/b"].map(FilePath::from));
    assert_eq!(tls.certificate.as_deref(), Some("/c".as_ref()));
    assert_eq!(tls.key.as_deref(), Some("/d".as_ref()));
    assert!(configuration.storage.delete.enabled);
    let message = refusal(SMALLEST, &[("REGISTRY_AUTH_HTPASSWD", "{realm: a: b, path: /c}")]);
    assert!(message.contains("REGISTRY_AUTH_HTPASSWD: "), "{message}");
    let message = refusal(
        SMALLEST,
        &[
            ("REGISTRY_AUTH_HTPASSWD_REALM", "Registry: mine"),
            ("REGISTRY_AUTH_HTPASSWD_PATH", "/c"),
        ],
    );
    assert!(
        message.contains("auth.htpasswd.realm: takes text, but has keys below it; put it in quotes"),
        "{message}"
    );
}

#[test]
fn a_misspelt_authentication_by_a_variable_does_not_start_without_protection() {
    let message = refusal(SMALLEST, &[("REGISTRY_AUTH_HTPASWD_PATH", "/users")]);
    assert!(
        message.contains("REGISTRY_AUTH_HTPASWD_PATH") && message.contains("`htpasswd`"),
        "{message}"
    );
}

/// Returns the tree after variables, for keys whose meaning is tested elsewhere.
fn tree(variables: Variables<'_>) -> Node {
    let mut tree = super::tree::parse(SMALLEST, None).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    super::tree::apply_variables(&mut tree, &super::schema::schema(), variables).unwrap();
    tree
}

#[test]
fn the_names_of_gos_fields_are_known_and_lists_have_indices() {
    let tree = tree(&[
        ("REGISTRY_HEALTH_HTTPCHECKERS_0_URI", "http://a"),
        ("REGISTRY_HEALTH_HTTPCHECKERS_1_URI", "http://b"),
        ("REGISTRY_HEALTH_FILECHECKERS_0_FILE", "/down"),
        ("REGISTRY_HEALTH_TCPCHECKERS_0_ADDR", "a:1"),
        ("REGISTRY_HEALTH_HTTP_0_URI", "http://ignored"),
        ("REGISTRY_NOTIFICATIONS_EVENTCONFIG_INCLUDEREFERENCES", "true"),
        ("REGISTRY_LOG_HOOKS_0_MAILOPTIONS_SMTP_ADDR", "mail:25"),
        ("REGISTRY_HTTP_TLS_CLIENTCAS", "[/one.pem]"),
        ("REGISTRY_HTTP_TLS_CLIENTCAS_1", "/two.pem"),
        ("REGISTRY_HTTP_HEADERS_X-FRAME-OPTIONS", "[deny]"),
    ]);
    let text = |path: &str| tree.find(path).map(|node| node.read::<String>().unwrap());
    for (path, expected) in [
        ("health.http[0].uri", "http://a"),
        ("health.http[1].uri", "http://b"),
        ("health.file[0].file", "/down"),
        ("health.tcp[0].addr", "a:1"),
        ("notifications.events.includereferences", "true"),
        ("log.hooks[0].options.smtp.addr", "mail:25"),
        ("http.tls.clientcas[0]", "/one.pem"),
        ("http.tls.clientcas[1]", "/two.pem"),
        ("http.headers.x-frame-options[0]", "deny"),
    ] {
        assert_eq!(text(path).as_deref(), Some(expected), "{path}");
    }
    assert_eq!(
        tree.origin_of("http.tls.clientcas[1]"),
        Origin::Variable("REGISTRY_HTTP_TLS_CLIENTCAS_1".into())
    );
}

#[test]
fn an_index_beyond_the_end_of_a_list_is_refused() {
    let message = refusal(SMALLEST, &[("REGISTRY_HTTP_TLS_CLIENTCAS_1", "/two.pem")]);
    assert!(
        message.contains("http.tls.clientcas") && message.contains("next index is 0"),
        "{message}"
    );
    let message = refusal(SMALLEST, &[("REGISTRY_HTTP_TLS_CLIENTCAS_FIRST", "/two.pem")]);
    assert!(message.contains("index"), "{message}");
}

#[test]
fn flags_go_before_variables() {
    let flag = Flag {
        path: "http.addr",
        name: "--listen",
        value: ":1".into(),
    };
    let variables = [("REGISTRY_HTTP_ADDR".to_owned(), ":2".to_owned())];
    let (configuration, tree, _) =
        assemble(Some(SMALLEST), variables, Some("s3://images/a/b"), &[flag]).unwrap();
    assert_eq!(configuration.http.addr, ":1");
    assert_eq!(tree.origin_of("http.addr"), Origin::Flag("--listen"));
    let s3 = configuration.storage.s3.expect("a bucket");
    assert_eq!((s3.bucket.as_str(), s3.root.as_deref()), ("images", Some("a/b")));
    assert!(configuration.storage.in_memory.is_none());
}

#[test]
fn what_has_no_effect_is_named() {
    let text = "version: 0.1\nredis:\n  addrs: [a:6379]\nhttp:\n  secret: x\nstorage:\n  inmemory:\n  cache:\n    layerinfo: redis\n";
    let (_, tree, _) = try_load(Some(text), &[]).unwrap();
    assert_eq!(without_effect(&tree), ["redis", "storage.cache.blobdescriptor"]);
}

#[test]
fn secrets_are_in_no_output() {
    let text = "version: 0.1\nhttp:\n  secret: canary-1\nredis:\n  password: canary-2\n  addrs: ['redis://u:canary@r']\nstorage:\n  s3:\n    bucket: b\n    accesskey: canary-3\n    secretkey: canary-4\nnotifications:\n  endpoints: [{name: a, url: 'https://u:canary@a/?canary', headers: {Authorization: [canary]}}]\nhealth:\n  http: [{uri: 'https://u:canary@a/?canary', headers: {Authorization: [canary]}}]\nauth:\n  token: {service: s, issuer: i, realm: 'https://a', jwks: 'https://u:canary@keys/?canary'}\nreporting: {bugsnag: {endpoint: 'https://canary@b'}}\n";
    let (configuration, ..) = try_load(Some(text), &[]).unwrap();
    assert!(!format!("{configuration:?}").contains("canary"));
    assert!(!serde_json::to_string(&configuration).unwrap().contains("canary"));
    for text in [
        "version: 0.1\nstorage:\n  s3: canary-5\n",
        "version: 0.1\nstorage: {s3: {bucket: b, regionendpoint: 'https://u:canary@s3/?canary'}}\n",
    ] {
        let message = refusal(text, &[]);
        assert!(!message.contains("canary"), "{message}");
    }
}

#[test]
fn every_path_of_the_tables_is_in_the_schema() {
    let schema = super::schema::schema();
    let paths = super::supported::WITHOUT_EFFECT
        .iter()
        .chain(super::supported::REFUSED)
        .map(|(path, _)| *path)
        .chain(super::protection::PROTECTING.iter().copied());
    for path in paths {
        let mut place = &schema;
        for key in path.split('.') {
            let properties = place
                .get("properties")
                .or_else(|| place.pointer("/anyOf/0/properties"));
            place = properties
                .and_then(|keys| keys.get(key))
                .unwrap_or_else(|| panic!("{path}"));
        }
    }
}

proptest! {
    #[test]
    fn a_variable_sets_what_the_file_would(path in "/[a-z]{1,20}", level in 0_usize..4, deletes: bool) {
        let level = ["error", "warn", "info", "debug"][level];
        let file = format!(
            "version: 0.1\nlog:\n  level: {level}\nstorage:\n  filesystem:\n    rootdirectory: {path}\n  delete:\n    enabled: {deletes}\n"
        );
        let deletes = deletes.to_string();
        let by_variables = load(
            "version: 0.1\nstorage: filesystem\n",
            &[
                ("REGISTRY_LOG_LEVEL", level),
                ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", &path),
                ("REGISTRY_STORAGE_DELETE_ENABLED", &deletes),
            ],
        );
        prop_assert_eq!(load(&file, &[]), by_variables);
    }

    #[test]
    fn no_file_and_no_variable_makes_it_panic(
        text in "(version: 0\\.1\n)?([a-z]{0,8}:( [\\[\\]{}&*!|>'\"a-z0-9-]{0,6})?\n( {2}[a-z]{0,8}: ?[a-z0-9]{0,4}\n)?){0,6}",
        name in "REGISTRY_(STORAGE|HTTP|AUTH|LOG|HEALTH)(_[A-Z0-9]{0,12}){0,4}",
        value in "\\PC{0,20}",
    ) {
        drop(try_load(Some(&text), &[(&name, &value)]));
        drop(try_load(Some(SMALLEST), &[(&name, &value)]));
    }
}
