//! Every key is in exactly one class: it acts, it is noticed, or it is refused.
//!
//! The configurations below contain every key of the schema, so a key that is added to it must be added here.

use std::collections::{BTreeMap, BTreeSet};

use super::try_load;
use crate::config::schema::{Below, Description, schema};
use crate::config::supported::without_effect;
use crate::config::tree::{self, Node};

const GCS: &str = "
version: 0.1
storage:
  gcs: {bucket: a, rootdirectory: b, keyfile: /key.json, credentials: {type: service_account}}
";

const AZURE: &str = "
version: 0.1
storage:
  azure:
    container: a
    rootdirectory: b
    accountname: c
    accountkey: d
    realm: e
    serviceurl: f
    skipverify: true
    credentials: {type: client_secret, clientid: g, tenantid: h, secret: i}
";

/// Configurations of keys that act, each with a value other than its default. There are several because some keys
/// exclude others.
pub(super) const ACTING: &[&str] = &[
    "
version: 0.1
log:
  level: debug
  formatter: json
  fields: {service: registry}
  accesslog: {disabled: true, format: json}
  audit: {enabled: true, level: warn, path: /var/log/audit}
storage:
  filesystem: {rootdirectory: /srv}
  delete: {enabled: true}
  maintenance:
    uploadpurging: {enabled: false, age: 1h, maxopen: 5, interval: 2h, dryrun: true}
    readonly: {enabled: true}
backup: {folder: /srv/backups, every: 1h, keep: 2}
collector: {enabled: false, interval: 2h, grace: 1h, keepdeleted: 1h, emptyrepositories: remove}
retention:
  - repositories: ['team/**']
    tags: ['*']
    pulledwithin: 24h
    keep: [{tags: ['v*'], newest: 1, pushedwithin: 1h, pulledwithin: 2h, newestpulled: 3, versionspermajor: 2, versionsperminor: 3}]
    untagged: 168h
quotas: [{repositories: ['team/**'], bytes: 50GiB, manifests: 5, tags: 500}]
scrub: {enabled: true, rate: 1048576, every: 1h}
auth:
  token:
    realm: https://example.com/token
    service: registry
    issuer: issuer
    rootcertbundle: /bundle
    jwks: /keys.json
    signingalgorithms: [ES256]
    autoredirect: true
    autoredirectpath: /tokens
access:
  groups: {developers: [alice]}
  rules: [{repositories: ['**'], identities: ['group:developers'], actions: [pull]}]
http:
  addr: 127.0.0.1:0
  draindelay: 5s
  draintimeout: 5s
  secret: a
  headers: {X-Content-Type-Options: [nosniff]}
  limits: {memory: 50000000, connections: 100, requests: 100, streams: 10, header: 20000}
  timeouts: {handshake: 1s, header: 2s, body: 3s, answer: 4s, idle: 5s}
  ratelimit:
    address: {requests: 1, per: 2s, burst: 3}
    identity: {requests: 1, per: 2s, burst: 3}
  debug:
    addr: 127.0.0.1:0
    prometheus: {enabled: true, path: /numbers, repositories: 7}
notifications:
  events: {includereferences: true}
  endpoints:
    - name: a
      disabled: false
      url: http://example.com
      headers: {Authorization: [Bearer token]}
      timeout: 2s
      threshold: 2
      backoff: 2s
      ignoredmediatypes: [a/b]
      ignore: {mediatypes: [a/b], actions: [pull]}
      format: cloudevents
  outbox: {limit: 5, bytes: 2000000, path: /outbox}
health:
  storagedriver: {enabled: true, interval: 1s, threshold: 2}
  file: [{file: /down, interval: 1s, threshold: 2}]
  http: [{uri: http://example.com, headers: {A: [b]}, statuscode: 204, timeout: 1s, interval: 1s, threshold: 2}]
  tcp: [{addr: 'example.com:1', timeout: 1s, interval: 1s, threshold: 2}]
catalog: {maxentries: 5}
tags:
  maxtags: 5
  immutable: [{repositories: ['**'], tags: ['v*']}]
validation:
  enabled: true
  disabled: true
  allowmissingcontent: true
  manifests: {indexes: {platforms: none}, maxdescriptors: 100}
",
    "
version: 0.1
loglevel: debug
storage:
  s3:
    accesskey: a
    secretkey: b
    sessiontoken: c
    region: d
    regionendpoint: e
    forcepathstyle: false
    bucket: f
    rootdirectory: g
    encrypt: true
    keyid: h
    secure: false
    skipverify: true
    useragent: i
    usedualstack: true
    accelerate: true
    usefipsendpoint: true
    chunksize: 5242880
    singlewriter: true
    conditionaldeletes: true
    redirectendpoint: 'https://j'
  redirect: {disable: false, networks: [10.0.0.0/8], minimumsize: 64KiB}
  cache: {folder: /cache, size: 1GiB, maxage: 10s}
auth:
  htpasswd: {realm: Registry, path: /users}
",
    "
version: 0.1
storage: {inmemory: {}}
auth:
  token:
    service: registry
    builtin: {users: /users, lifetime: 1m, keys: /keys.json}
",
    "
version: 0.1
storage: inmemory
auth: none
http:
  addr: /run/registry.sock
  net: unix
  unix: {mode: 0660, group: staff}
  host: https://example.com
  prefix: /registry/
  relativeurls: true
  http2: {disabled: true}
  h2c: {enabled: true}
  trustedproxies: [10.0.0.0/8]
  proxyfields: [forwarded]
  tls:
    certificate: /certificate
    key: /key
    clientcas: [/authorities]
    clientauth: verify-client-cert-if-given
    minimumtls: tls1.3
    ciphersuites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
",
    #[cfg(feature = "gcs")]
    GCS,
    #[cfg(feature = "azure")]
    AZURE,
];

const GCS_NOTICED: &str = "
version: 0.1
storage:
  gcs: {bucket: a, chunksize: 1, maxconcurrency: 1, useragent: a}
";

const AZURE_NOTICED: &str = "
version: 0.1
storage:
  azure: {container: a, max_retries: 1, retry_delay: 1s}
";

/// Configurations that start and of which a notice names the keys, because they need no effect.
const NOTICED: &[&str] = &[
    "
version: 0.1
log: {reportcaller: true}
storage:
  filesystem: {maxthreads: 100}
  cache: {blobdescriptor: redis, blobdescriptorsize: 5}
  tag: {concurrencylimit: 8}
redis:
  addr: a
  addrs: [a]
  clientname: a
  db: 1
  protocol: 3
  username: a
  password: a
  sentinelusername: a
  sentinelpassword: a
  maxretries: 1
  minretrybackoff: 1s
  maxretrybackoff: 1s
  dialtimeout: 1s
  readtimeout: 1s
  writetimeout: 1s
  contexttimeoutenabled: true
  poolfifo: true
  poolsize: 1
  pooltimeout: 1s
  minidleconns: 1
  maxidleconns: 1
  maxactiveconns: 1
  connmaxidletime: 1s
  connmaxlifetime: 1s
  maxredirects: 1
  readonly: true
  routebylatency: true
  routerandomly: true
  mastername: a
  disableidentity: true
  identitysuffix: a
  unstableresp3: true
  pool: {maxidle: 1, maxactive: 1, idletimeout: 1s}
  tls: {enabled: true, certificate: a, key: a, rootcas: [a]}
compatibility: {schema1: {signingkeyfile: a}}
reporting:
  bugsnag: {apikey: a, releasestage: a, endpoint: a}
  newrelic: {licensekey: a, name: a, verbose: true}
validation:
  manifests: {indexes: {platformlist: [{architecture: amd64, os: linux}]}}
",
    "
version: 0.1
storage:
  s3:
    bucket: b
    multipartcopychunksize: 1
    multipartcopymaxconcurrency: 1
    multipartcopythresholdsize: 1
    loglevel: debug
",
    #[cfg(feature = "gcs")]
    GCS_NOTICED,
    #[cfg(feature = "azure")]
    AZURE_NOTICED,
];

/// Keys that a noticed key needs, and that are not noticed themselves.
const BESIDE: &[&str] = &[
    "version",
    "storage.s3.bucket",
    "storage.gcs.bucket",
    "storage.azure.container",
];

/// What is refused: the key that the message names, and an otherwise valid configuration.
const REFUSED: &[(&str, &str)] = &[
    (
        "auth.silly",
        "auth: {silly: {realm: a, service: b}}\nstorage: inmemory",
    ),
    (
        "http.tls.letsencrypt",
        "http: {tls: {letsencrypt: {cachefile: a, email: b, hosts: [c], directoryurl: d}}}\nstorage: inmemory",
    ),
    (
        "log.hooks[0]",
        "log: {hooks: [{disabled: false, type: mail, levels: [panic], options: {from: a, to: [b], smtp: {addr: c, username: d, password: e, insecure: true}}}]}\nstorage: inmemory",
    ),
    (
        "middleware.registry[0]",
        "middleware: {registry: [{name: a, disabled: false, options: {b: c}}]}\nstorage: inmemory",
    ),
    (
        "middleware.repository[0]",
        "middleware: {repository: [{name: a, disabled: false, options: {b: c}}]}\nstorage: inmemory",
    ),
    (
        "middleware.storage[0]",
        "middleware: {storage: [{name: a, disabled: false, options: {b: c}}]}\nstorage: inmemory",
    ),
    (
        "proxy",
        "proxy: {remoteurl: a, username: b, password: c, exec: {command: d, lifetime: 1s}, ttl: 1h, cachewritetimeout: 1m}\nstorage: inmemory",
    ),
    (
        "policy.repository.classes",
        "policy: {repository: {classes: [image]}}\nstorage: inmemory",
    ),
    (
        "compatibility.schema1.enabled",
        "compatibility: {schema1: {enabled: true}}\nstorage: inmemory",
    ),
    ("storage.swift", "storage: {swift: {container: a}}"),
    ("storage.oss", "storage: {oss: {bucket: a}}"),
    (
        "storage.s3.storageclass",
        "storage: {s3: {bucket: a, storageclass: GLACIER}}",
    ),
    (
        "storage.s3.objectacl",
        "storage: {s3: {bucket: a, objectacl: public-read}}",
    ),
    ("storage.s3.v4auth", "storage: {s3: {bucket: a, v4auth: false}}"),
    (
        "storage.azure.connectionstring",
        "storage: {azure: {container: a, connectionstring: b}}",
    ),
    (
        "validation.manifests.urls",
        "validation: {manifests: {urls: {allow: [a], deny: [b]}}}\nstorage: inmemory",
    ),
    #[cfg(not(feature = "gcs"))]
    ("storage.gcs", GCS),
    #[cfg(not(feature = "gcs"))]
    ("storage.gcs", GCS_NOTICED),
    #[cfg(not(feature = "azure"))]
    ("storage.azure", AZURE),
    #[cfg(not(feature = "azure"))]
    ("storage.azure", AZURE_NOTICED),
];

/// Returns the keys of the schema that have no keys below them.
fn keys_of_the_schema() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    collect("", Description::new(&schema()), &mut keys);
    keys
}

fn collect(path: &str, description: Description<'_>, keys: &mut BTreeSet<String>) {
    match description.below() {
        Below::Keys(below) if !below.is_empty() => {
            for (key, schema) in below {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                collect(&path, Description::new(schema), keys);
            }
        }
        Below::Items(items) if matches!(items.below(), Below::Keys(_)) => {
            collect(&format!("{path}[]"), items, keys);
        }
        _ => {
            keys.insert(path.to_owned());
        }
    }
}

/// Returns the keys that a configuration sets.
fn given(tree: &Node, all: &BTreeSet<String>) -> Vec<String> {
    let is_given = |key: &&String| tree.has(&key.replace("[]", "[0]"));
    all.iter().filter(is_given).cloned().collect()
}

fn is_below(key: &str, path: &str) -> bool {
    key.strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[test]
fn every_key_acts_or_is_noticed_or_is_refused() {
    let all = keys_of_the_schema();
    let mut classes: BTreeMap<String, &str> = BTreeMap::new();
    let mut classify = |key: String, class: &'static str| {
        let other = *classes.entry(key.clone()).or_insert(class);
        assert_eq!(other, class, "{key}");
    };
    for text in ACTING {
        let (_, tree, _) = try_load(Some(text), &[]).unwrap();
        assert!(without_effect(&tree).is_empty(), "{text}");
        for key in given(&tree, &all) {
            classify(key, "acts");
        }
    }
    for text in NOTICED {
        let (_, tree, _) = try_load(Some(text), &[]).unwrap();
        let noticed = without_effect(&tree);
        for key in given(&tree, &all) {
            if !BESIDE.contains(&key.as_str()) {
                let is_noticed = noticed.iter().any(|notice| is_below(&key, notice));
                assert!(is_noticed, "{key} is ignored silently");
                classify(key, "is noticed");
            }
        }
    }
    for (path, text) in REFUSED {
        let text = if text.starts_with("\nversion") {
            (*text).to_owned()
        } else {
            format!("version: 0.1\n{text}\n")
        };
        let message = try_load(Some(&text), &[]).unwrap_err();
        assert!(message.contains(&format!(": {path}: ")), "{path}: {message}");
        let tree = tree::parse(&text, None).unwrap();
        let keys = given(&tree, &all).into_iter();
        for key in keys.filter(|key| is_below(key, &path.replace("[0]", "[]"))) {
            classify(key, "is refused");
        }
    }
    let classified: BTreeSet<String> = classes.into_keys().collect();
    assert_eq!(classified, all);
}
