//! The scripts of blogs, pages and charts, run against the distribution registry and this one: they print the same.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::distribution::{CONFIGURATION, Old, ROOT};
use crate::support::server::Server;
use crate::tools::find;

/// What pages on another origin need, in the file of both.
const HEADERS: &str = "  headers:
    Access-Control-Allow-Origin: ['https://ui.example']
    Access-Control-Allow-Methods: [HEAD, GET, OPTIONS, DELETE]
    Access-Control-Allow-Headers: [Authorization, Accept]
    Access-Control-Expose-Headers: [Docker-Content-Digest]
";

/// What each recipe begins with: `R` is the registry, `TYPE` an image's, `code` prints a status.
const PRELUDE: &str = r#"
set -eu
R=http://$REGISTRY
TYPE=application/vnd.docker.distribution.manifest.v2+json
code() { curl -s -o /dev/null -w '%{http_code}\n' "$@"; }
digest() { printf sha256:; sha256sum "$1" | cut -d' ' -f1; }
"#;

/// In this order: the later ones read, list and delete what the first ones pushed.
const RECIPES: [(&str, &str); 16] = [
    (
        "a push in one PUT, whose digest is appended to the Location",
        r#"
        printf '{"architecture":"amd64","os":"linux"}' > config
        LOCATION=$(curl -s -D - -o /dev/null -X POST $R/v2/team/app/blobs/uploads/ | grep '^Location' | awk '{print $2}' | tr -d '\r')
        code -X PUT -H 'Content-Type: application/octet-stream' --data-binary @config "$LOCATION&digest=$(digest config)"
        "#,
    ),
    (
        "a push in chunks, each at the Location of the one before",
        r#"
        head -c 300000 /dev/zero > one; head -c 200000 /dev/zero | tr '\0' x > two; cat one two > layer
        LOCATION=$(curl -si -X POST $R/v2/team/app/blobs/uploads/ | awk '$1 == "Location:" {print $2}' | tr -d '\r')
        for part in one two; do
            curl -si -X PATCH -H 'Content-Type: application/octet-stream' --data-binary @$part "$LOCATION" > answer
            head -1 answer | cut -d' ' -f2; awk '$1 == "Range:"' answer
            LOCATION=$(awk '$1 == "Location:" {print $2}' answer | tr -d '\r')
        done
        curl -si -X PUT "$LOCATION&digest=$(digest layer)" > answer
        head -1 answer | cut -d' ' -f2; awk '$1 == "Docker-Content-Digest:" {print $2}' answer
        "#,
    ),
    (
        "a push that asks how far it is before it goes on",
        r#"
        LOCATION=$(curl -si -X POST $R/v2/team/app/blobs/uploads/ | awk '$1 == "Location:" {print $2}' | tr -d '\r')
        LOCATION=$(curl -si -X PATCH -H 'Content-Type: application/octet-stream' --data-binary @one "$LOCATION" | awk '$1 == "Location:" {print $2}' | tr -d '\r')
        curl -si "$LOCATION" > answer; head -1 answer | cut -d' ' -f2; awk '$1 == "Range:"' answer
        LOCATION=$(awk '$1 == "Location:" {print $2}' answer | tr -d '\r')
        code -X PUT -H 'Content-Type: application/octet-stream' --data-binary @two "$LOCATION&digest=$(digest layer)"
        "#,
    ),
    (
        "a push with what Python brings",
        r#"
        command -v python3 > /dev/null || { echo there is none; exit; }
        python3 - $R config <<'SCRIPT'
import hashlib, sys, urllib.request
registry, file = sys.argv[1:]
content = open(file, "rb").read()
start = urllib.request.Request(registry + "/v2/team/app/blobs/uploads/", method="POST")
location = urllib.request.urlopen(start).headers["Location"]
digest = "sha256:" + hashlib.sha256(content).hexdigest()
kind = {"Content-Type": "application/octet-stream"}
end = urllib.request.Request(location + "&digest=" + digest, content, kind, method="PUT")
print(urllib.request.urlopen(end).status)
SCRIPT
        "#,
    ),
    (
        "a manifest under two tags, and in another repository after a mount",
        r#"
        printf '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":%d,"digest":"%s"},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":%d,"digest":"%s"}]}' \
            $TYPE "$(wc -c < config)" "$(digest config)" "$(wc -c < layer)" "$(digest layer)" > manifest
        for tag in v1 v2; do code -X PUT -H "Content-Type: $TYPE" --data-binary @manifest $R/v2/team/app/manifests/$tag; done
        for blob in config layer; do code -X POST "$R/v2/copy/blobs/uploads/?mount=$(digest $blob)&from=team/app"; done
        code -X PUT -H "Content-Type: $TYPE" --data-binary @manifest $R/v2/copy/manifests/v1
        code -X POST "$R/v2/copy/blobs/uploads/?mount=$(digest config)&from=base:v3"
        "#,
    ),
    (
        "the loop over the catalog and its tags",
        r#"
        for repository in $(curl -s $R/v2/_catalog | grep -o '"[a-z/]*"' | tr -d '"' | grep -v repositories); do
            for tag in $(curl -s $R/v2/$repository/tags/list | sed 's/.*\[\(.*\)\].*/\1/' | tr -d '"' | tr , ' '); do
                echo $repository:$tag
            done
        done
        "#,
    ),
    (
        "pages of the catalog by Link",
        r#"
        next="/v2/_catalog?n=1"
        while [ -n "$next" ]; do
            curl -si "$R$next" > page; echo "$(tail -1 page)"
            next=$(awk '$1 == "Link:" {print $2}' page | tr -d '<>;\r')
        done
        "#,
    ),
    (
        "the configuration of an image by its tag",
        r#"
        id=$(curl -s -H "Accept: $TYPE" $R/v2/team/app/manifests/v1 | grep -o '"config":{[^}]*}' | grep -o 'sha256:[0-9a-f]*')
        curl -sL $R/v2/team/app/blobs/$id
        "#,
    ),
    (
        "a download that goes on",
        r#"
        curl -s -r 0-399999 -o got $R/v2/team/app/blobs/$(digest layer)
        curl -s -C - -o got $R/v2/team/app/blobs/$(digest layer); cmp got layer
        curl -sI $R/v2/team/app/blobs/$(digest layer) | grep -E '^(HTTP|Content-Length|Docker-Content-Digest|Accept-Ranges)' | tr -d '\r' | sort
        "#,
    ),
    (
        "a page of another origin",
        r#"
        origin='Origin: https://ui.example'
        for path in /v2/ /v2/_catalog?n=10 /v2/team/app/tags/list /v2/team/app/manifests/v1; do
            code -X OPTIONS -H "$origin" -H 'Access-Control-Request-Method: DELETE' $R$path
            curl -si -H "$origin" -H "Accept: $TYPE" "$R$path" | tr -d '\r' | grep -E '^(HTTP|Access-Control|Docker-Content-Digest)' | sort
        done
        "#,
    ),
    (
        "probes of charts, balancers and compose",
        r#"
        for path in / /v2/ /v2; do code -L $R$path; code -LI $R$path; done
        curl -fsS $R/v2/ > /dev/null && echo healthy
        "#,
    ),
    (
        "unclean paths",
        r#"
        for path in /v2/_catalog/ /v2/team/app/tags/list/ //v2/ // /v2/./_catalog /v2/../v2/ /v2/x/../_catalog?n=1; do
            code --path-as-is -L $R$path
            for method in GET OPTIONS; do
                curl -s -o /dev/null --path-as-is -X $method -w '%{http_code} %header{location}\n' $R$path
            done
        done
        code -X OPTIONS --request-target '*' $R
        "#,
    ),
    (
        "what is there already, by its digest with quotes and without",
        r#"
        digest=$(digest manifest)
        for tag in "$digest" "\"$digest\"" "sha256:$(printf 0 | sha256sum | cut -d' ' -f1)"; do
            code -H "If-None-Match: $tag" -H "Accept: $TYPE" $R/v2/team/app/manifests/v1
        done
        "#,
    ),
    (
        "what is not there",
        r#"
        code $R/v2/none/manifests/v1
        for path in none/tags/list team/app/manifests/none; do
            curl -s -w '%{http_code}\n' $R/v2/$path | grep -oE '"code":"[A-Z_]*"|^[0-9]{3}$|[0-9]{3}$'
        done
        "#,
    ),
    (
        "a delete by tag, through the digest of its HEAD",
        r#"
        digest=$(curl -sI -H "Accept: $TYPE" $R/v2/team/app/manifests/v1 | awk '$1 == "Docker-Content-Digest:" {print $2}' | tr -d '\r')
        echo $digest
        code -X DELETE $R/v2/team/app/manifests/$digest
        for tag in v1 v2; do code -H "Accept: $TYPE" $R/v2/team/app/manifests/$tag; done
        code -H "Accept: $TYPE" $R/v2/copy/manifests/v1
        "#,
    ),
    (
        "a delete of a layer",
        r#"
        code -X DELETE $R/v2/team/app/blobs/$(digest layer); code -I $R/v2/team/app/blobs/$(digest layer)
        code -I $R/v2/copy/blobs/$(digest layer)
        "#,
    ),
];

/// Runs a recipe and returns what it printed.
fn run(folder: &Path, registry: SocketAddr, recipe: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!("{PRELUDE}{recipe}")])
        .current_dir(folder)
        .env("REGISTRY", registry.to_string())
        .output()
        .expect("there is a shell");
    let printed = String::from_utf8_lossy(&output.stdout).replace(&registry.to_string(), "REGISTRY");
    assert!(output.status.success(), "{output:?}");
    printed
}

#[test]
fn recipes_of_blogs_pages_and_charts_print_what_they_print_at_the_distribution_registry() {
    let (Some(program), Some(_)) = (find("docker-registry"), find("curl")) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let configuration = folder.path().join("config.yml");
    fs::write(&configuration, format!("{CONFIGURATION}{HEADERS}")).expect("a file can be written");
    let [old_root, our_root, old_work, our_work] =
        ["old", "ours", "old-work", "our-work"].map(|name| folder.path().join(name));
    for work in [&old_work, &our_work] {
        fs::create_dir(work).expect("a folder can be made");
    }
    let old = Old::start(&program, &configuration, &old_root);
    let ours = Server::configured_with(
        &configuration,
        &[(
            ROOT,
            our_root.to_str().expect("temporary folders have plain names"),
        )],
    );
    for (name, recipe) in RECIPES {
        let expected = run(&old_work, old.address, recipe);
        assert!(!expected.is_empty(), "{name} prints something");
        assert_eq!(run(&our_work, ours.address(), recipe), expected, "{name}");
    }
    // What cron does with it, while no server runs.
    drop((old, ours));
    let ours = Path::new(env!("CARGO_BIN_EXE_registry-bin"));
    for (program, root) in [(program.as_path(), &old_root), (ours, &our_root)] {
        let output = Command::new(program)
            .args(["garbage-collect", "--delete-untagged=true"])
            .arg(&configuration)
            .env(ROOT, root)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
    }
}
