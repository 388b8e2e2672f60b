//! Types of single values.

mod address;
mod address_range;
mod byte_size;
mod content;
mod duration;
mod file_mode;
mod file_or_url;
mod file_path;
mod header_fields;
mod secret;
mod secret_fields;
mod secret_url;
mod shown;
mod url_path;

pub(crate) use self::address::HostPort;
pub(crate) use self::address_range::AddressRange;
pub(crate) use self::byte_size::ByteSize;
pub(crate) use self::content::{is_secret, no_path};
pub(crate) use self::duration::GoDuration;
pub(crate) use self::file_mode::FileMode;
pub(crate) use self::file_or_url::FileOrUrl;
pub(crate) use self::file_path::FilePath;
pub(crate) use self::header_fields::HeaderFields;
pub(crate) use self::secret::{MASK, Secret};
pub(crate) use self::secret_fields::SecretFields;
pub(crate) use self::secret_url::SecretUrl;
pub(crate) use self::shown::shown;
pub(crate) use self::url_path::{UrlPath, is_url_path, plain_path};
