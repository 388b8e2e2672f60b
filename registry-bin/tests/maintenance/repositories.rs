//! Deleting whole repositories.

use std::fs;

use serde_json::Value;

use crate::support::repository::Repository;
use crate::support::server::Server;
use crate::{failure, push, success};

#[test]
fn a_repository_is_deleted_beside_its_server_and_without_one() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let server = Server::on(&path.join("root"));
    let [a, below, b] = ["a", "a/below", "b"].map(|name| Repository::new(server.address(), name));
    let (_, layer) = push(&a, "1", 1);
    push(&a, "2", 2);
    push(&below, "1", 3);
    push(&b, "1", 4);
    let delete = |repository, more: &[&'static str]| {
        let arguments = ["repositories", "delete", repository, "--storage", "root"];
        [&arguments[..], more].concat()
    };
    let said = success(path, &delete("a", &["--purge"]));
    assert_eq!(
        said,
        "Deleted 2 tags, 2 manifests and 4 blobs (195.33 KiB) of a.\n"
    );
    a.get("tags/list").expect_error(&[404], &["NAME_UNKNOWN"]);
    a.get("manifests/1").expect_status(404);
    a.get(&format!("blobs/{layer}")).expect_status(404);
    below.get("manifests/1").expect_status(200);
    let said = failure(path, &delete("a", &[]));
    assert!(said.contains("there is no repository a"), "{said}");
    // It is a new repository when something is pushed.
    push(&a, "3", 1);
    a.get("manifests/3").expect_status(200);
    a.get("manifests/1").expect_status(404);
    let said = success(path, &delete("a", &[]));
    assert!(
        said.starts_with(
            "Deleted 1 tag, 1 manifest and 0 blobs (0 B) of a.\nIts tags can be restored until 20"
        ),
        "{said}"
    );
    // What is advised works as it is typed.
    assert!(
        said.contains("`tags history a --storage root` shows them")
            && said.contains("`repositories delete --purge a --storage root` gives"),
        "{said}"
    );
    success(path, &["tags", "history", "a", "--storage", "root"]);
    a.get("manifests/3").expect_status(404);
    assert!(success(path, &["check", "--storage", "root"]).contains("nothing is broken"));
    assert!(server.terminate().success());
    let json = success(path, &delete("b", &["--json"]));
    let json: Value = serde_json::from_str(&json).expect("it is a document");
    assert_eq!(
        (&json["tags"], &json["isGone"]),
        (&1.into(), &true.into()),
        "{json}"
    );
    let said = failure(path, &delete("b", &["--json"]));
    assert!(said.contains("there is no repository b"), "{said}");
}

#[test]
fn an_immutable_tag_of_the_configuration_keeps_a_repository_unless_it_is_forced() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let configuration = folder.path().join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:0}}\n\
         tags: {{immutable: [{{repositories: [a], tags: ['v*']}}]}}\n",
        folder.path().join("root").display()
    );
    fs::write(&configuration, text).expect("the file can be written");
    let server = Server::configured(&configuration);
    let repository = Repository::new(server.address(), "a");
    push(&repository, "latest", 1);
    push(&repository, "v1", 1);
    let delete = ["repositories", "delete", "a", "config.yml"];
    // The server has the rule, if the command has not.
    for of in [&["config.yml"][..], &["--storage", "root"]] {
        let said = failure(folder.path(), &[&delete[..3], of].concat());
        assert!(said.contains("the tag v1 is immutable"), "{said}");
    }
    repository.get("manifests/latest").expect_status(200);
    let said = success(folder.path(), &[&delete[..], &["--force"]].concat());
    assert!(
        said.starts_with("Deleted 2 tags, 1 manifest and 0 blobs"),
        "{said}"
    );
    repository.get("manifests/v1").expect_status(404);
    assert!(server.terminate().success());
}
