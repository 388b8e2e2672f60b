//! `config.yml` in the form of the distribution registry.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::StorageLocation;
use crate::cli::LogLevel;

/// What a configuration file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigFile {
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) access_log: bool,
    pub(crate) listen: Option<String>,
    pub(crate) storage: StorageLocation,
    pub(crate) delete_enabled: bool,
}

/// Reads a file.
///
/// # Errors
/// What is wrong, with the line, the key and the values that would be right.
pub(crate) fn parse(text: &str) -> Result<ConfigFile, String> {
    let raw: RawFile = serde_saphyr::from_str(text)
        .map_err(|error| error.render().trim_start_matches("error: ").to_owned())?;
    let version = raw
        .version
        .ok_or("the key `version` is missing; write `version: 0.1`")?;
    if version.value != "0.1" {
        let line = version.referenced.line();
        return Err(format!(
            "line {line}: version: {:?} is not known; write `version: 0.1`",
            version.value
        ));
    }
    let storage = raw
        .storage
        .ok_or("the key `storage` is missing; name `filesystem` or `inmemory` below it")?;
    let location = match (&storage.value.filesystem, &storage.value.inmemory) {
        (Some(filesystem), None) => {
            let root = filesystem
                .as_ref()
                .and_then(|filesystem| filesystem.rootdirectory.clone());
            StorageLocation::Folder(root.unwrap_or_else(|| "/var/lib/registry".into()))
        }
        (None, Some(_)) => StorageLocation::Memory,
        (None, None) => {
            let line = storage.referenced.line();
            return Err(format!(
                "line {line}: storage: name one of `filesystem` and `inmemory`"
            ));
        }
        (Some(_), Some(_)) => {
            let line = storage.referenced.line();
            return Err(format!(
                "line {line}: storage: `filesystem` and `inmemory` exclude each other; keep one"
            ));
        }
    };
    let log = raw.log.unwrap_or_default();
    Ok(ConfigFile {
        log_level: log.level,
        access_log: !log.accesslog.unwrap_or_default().disabled,
        listen: raw.http.unwrap_or_default().addr,
        storage: location,
        delete_enabled: storage.value.delete.unwrap_or_default().enabled,
    })
}

/// The file as it stands.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    version: Option<Spanned<String>>,
    log: Option<RawLog>,
    http: Option<RawHttp>,
    storage: Option<Spanned<RawStorage>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    level: Option<LogLevel>,
    accesslog: Option<RawAccessLog>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccessLog {
    #[serde(default)]
    disabled: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHttp {
    addr: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStorage {
    /// A driver is chosen by its key, which may have no value.
    #[serde(default, deserialize_with = "present")]
    filesystem: Option<Option<RawFilesystem>>,
    #[serde(default, deserialize_with = "present")]
    inmemory: Option<Option<BTreeMap<String, ()>>>,
    delete: Option<RawDelete>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFilesystem {
    rootdirectory: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDelete {
    #[serde(default)]
    enabled: bool,
}

/// Tells a key without a value from no key.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "version: 0.1\nstorage:\n  inmemory:\n";

    fn refusal(text: &str) -> String {
        parse(text).expect_err("the configuration must be refused")
    }

    #[test]
    fn all_keys_are_read() {
        let text = "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\nhttp:\n  addr: :5001\n\
                    storage:\n  filesystem:\n    rootdirectory: /srv/registry\n  delete:\n    enabled: true\n";
        let expected = ConfigFile {
            log_level: Some(LogLevel::Warn),
            access_log: false,
            listen: Some(":5001".into()),
            storage: StorageLocation::Folder("/srv/registry".into()),
            delete_enabled: true,
        };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn deletes_are_off_and_the_access_log_is_on_unless_the_file_says_otherwise() {
        let config = parse(SMALLEST).unwrap();
        assert!(!config.delete_enabled);
        assert!(config.access_log);
        assert_eq!(config.storage, StorageLocation::Memory);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_name_and_line() {
        let message = refusal("version: 0.1\nhttp:\n  adr: :5000\nstorage:\n  inmemory:\n");
        assert!(
            message.contains("adr") && message.contains("line 3") && message.contains("addr"),
            "{message}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_with_its_line() {
        let message = refusal("version: 0.1\nstorage:\n  inmemory:\n  delete:\n    enabled: perhaps\n");
        assert!(message.contains("line 5"), "{message}");
        let message = refusal("version: 0.1\nlog:\n  level: loud\nstorage:\n  inmemory:\n");
        assert!(
            message.contains("line 3") && message.contains("warn"),
            "{message}"
        );
    }

    #[test]
    fn two_storages_none_and_another_version_are_refused() {
        let message = refusal("version: 0.1\nstorage:\n  inmemory:\n  filesystem:\n");
        assert!(message.contains("exclude each other"), "{message}");
        assert!(refusal("version: 0.1\nstorage: {}\n").contains("name one of"));
        assert!(refusal("version: 0.1\n").contains("`storage` is missing"));
        assert!(refusal("version: 0.2\nstorage:\n  inmemory:\n").contains("line 1"));
        assert!(refusal("storage:\n  inmemory:\n").contains("`version` is missing"));
    }
}
