//! The first user, where the file of users is missing.

use std::io::{self, Write as _};
use std::path::Path;

use registry_http::auth::HtpasswdLine;
use uuid::Uuid;

use crate::failure::Failure;
use crate::secret_file;

/// The user that is made, as distribution calls it.
const USER: &str = "docker";

/// Makes a file of users with one user, if there is none, and tells the password once, on the standard output and not in
/// the log.
pub(super) fn provide(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    let failed = || Failure::new(format!("cannot make a file of users at {}", path.display()));
    // 122 random bits.
    let password = Uuid::new_v4().simple().to_string();
    let line = HtpasswdLine::new(USER, &password).map_err(|cause| failed().because(cause))?;
    let is_made = secret_file::create(path, &line.put_into("")).map_err(|cause| failed().because(cause))?;
    if is_made {
        let text = format!(
            "There was no file of users, so {} was made, with the user {USER} and the password {password}\n\
             It is not shown again; set another with: registry-bin htpasswd add {} {USER}\n",
            path.display(),
            path.display()
        );
        io::stdout()
            .write_all(text.as_bytes())
            .map_err(|cause| failed().because(cause))?;
    }
    Ok(())
}
