//! Configurations for the tests of commands.

use super::Loaded;
use super::load::assemble;

/// Returns the configuration of a file `config.yml` with this text, and variables.
pub(crate) fn loaded(text: &str, variables: &[(&str, &str)]) -> Loaded {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let (configuration, tree, variables) = assemble(Some(text), variables, None, &[]).unwrap();
    Loaded {
        configuration,
        tree,
        file: Some("config.yml".into()),
        fingerprint: None,
        may_be_cut: false,
        variables,
    }
}
