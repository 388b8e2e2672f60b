//! Where Amazon's own tools find an access key and this program does not: profiles, and the files that have them.

use std::path::PathBuf;

use crate::failure::Failure;

/// What to do instead.
const REMEDY: &str = "give the access key as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or as `storage.s3.accesskey` and \
                      `secretkey`; `aws configure export-credentials --format env` prints those of a profile";

/// Returns whether the environment has an access key.
#[expect(
    clippy::disallowed_methods,
    reason = "the variables AWS_* that the client of buckets reads itself"
)]
pub(crate) fn has_access_key() -> bool {
    std::env::var_os("AWS_ACCESS_KEY_ID").is_some_and(|value| !value.is_empty())
}

/// Refuses profiles, and files of them, that Amazon's tools would take the access key of a bucket from. To ignore them
/// would be to ask another account's bucket, or none.
///
/// # Errors
/// If the environment names one and no access key, or there is one at its usual place and nothing in the environment is
/// used before it.
pub(crate) fn refuse_profiles() -> Result<(), Failure> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the variables AWS_* that the client of buckets does not know are read here"
    )]
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    refuse(&|name| variable(name).map(PathBuf::from), &|path| path.exists())
}

fn refuse(
    variable: &dyn Fn(&str) -> Option<PathBuf>,
    exists: &dyn Fn(&PathBuf) -> bool,
) -> Result<(), Failure> {
    if variable("AWS_ACCESS_KEY_ID").is_some() {
        return Ok(());
    }
    let names_none = |value: &PathBuf| value.as_os_str() == "/dev/null";
    for name in [
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_CONFIG_FILE",
    ] {
        if variable(name).is_some_and(|value| !names_none(&value)) {
            return Err(Failure::new(format!(
                "environment variable {name}: profiles of Amazon's tools are not read; {REMEDY}"
            )));
        }
    }
    let has_other = [
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    if has_other.into_iter().any(|name| variable(name).is_some()) {
        return Ok(());
    }
    match variable("HOME").map(|home| home.join(".aws/credentials")) {
        Some(file) if exists(&file) => Err(Failure::new(format!(
            "{} is not read, though Amazon's tools would take the access key from it; {REMEDY}; if this machine's role is meant, \
             set AWS_SHARED_CREDENTIALS_FILE=/dev/null",
            file.display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(variables: &[(&str, &str)], files: &[&str]) -> Option<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| PathBuf::from(value))
        };
        let exists = |path: &PathBuf| files.iter().any(|file| path == &PathBuf::from(file));
        refuse(&variable, &exists)
            .err()
            .map(|failure| failure.to_string())
    }

    #[test]
    fn a_profile_is_refused_by_name_unless_there_is_a_key() {
        let key = ("AWS_ACCESS_KEY_ID", "key");
        for name in [
            "AWS_PROFILE",
            "AWS_DEFAULT_PROFILE",
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_CONFIG_FILE",
        ] {
            let text = refused(&[(name, "x")], &[]).unwrap();
            assert!(
                text.contains(name) && text.contains("AWS_ACCESS_KEY_ID"),
                "{text}"
            );
            assert_eq!(refused(&[(name, "x"), key], &[]), None);
        }
    }

    #[test]
    fn a_file_of_keys_is_refused_where_it_would_be_used() {
        let (home, file) = (("HOME", "/home/a"), "/home/a/.aws/credentials");
        assert_eq!(refused(&[home], &[]), None);
        assert!(refused(&[home], &[file]).unwrap().contains(file));
        for other in [
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ] {
            assert_eq!(refused(&[home, other], &[file]), None, "{other:?}");
        }
    }
}
