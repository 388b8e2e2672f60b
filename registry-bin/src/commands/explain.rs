//! `registry-bin explain`.

use std::sync::Arc;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use registry_core::operation::{Action, Operation, Target};
use registry_core::policy::{Claims, InvalidRight, Right, Rules};
use registry_core::{Authorizer as _, Principal, RepositoryName};

use crate::arguments::ConfigArguments;
use crate::config::load;
use crate::control::show::print_bytes;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The repository.
    pub(crate) repository: String,

    /// The user. [default: a client that is not logged in]
    #[arg(long)]
    pub(crate) user: Option<String>,

    /// A group named by the user's token, in addition to those of `access.groups`.
    #[arg(long)]
    pub(crate) group: Vec<String>,

    /// The action.
    #[arg(long, value_parser = action())]
    pub(crate) action: Action,

    #[command(flatten)]
    pub(crate) configuration: ConfigArguments,
}

/// Returns the parser of an action that a rule can allow.
fn action() -> impl TypedValueParser<Value = Action> {
    let values = [
        (Action::Pull, "Read content"),
        (Action::Push, "Add content and new tags"),
        (Action::Overwrite, "Move a tag"),
        (Action::Delete, "Delete content or a tag"),
        (Action::List, "List tags, and see the repository in the catalog"),
    ]
    .map(|(action, help)| PossibleValue::new(action.as_str()).help(help));
    PossibleValuesParser::new(values).try_map(|word| match word.parse()? {
        Right::Only(action) => Ok(action),
        Right::All => Err(InvalidRight(word)),
    })
}

/// Prints which rule decides.
pub(crate) fn run(explain: &Explain) -> Result<(), Failure> {
    let loaded = load(&explain.configuration.store(), &[])?;
    let rules = loaded.configuration.access.rules()?;
    let repository: RepositoryName = explain.repository.parse().map_err(|cause| {
        Failure::new(format!("{:?} is no repository", explain.repository)).because(cause_of(&cause))
    })?;
    let claims = Claims {
        groups: explain.group.clone(),
        access: None,
    };
    let principal = match explain.user.as_deref() {
        None | Some("anonymous") => Principal::anonymous(),
        Some(user) => Principal::new(user).with_claims(Arc::new(claims)),
    };
    let auth = &loaded.configuration.auth;
    let is_open = auth.htpasswd.is_none() && auth.token.is_none() && rules.rules.is_empty();
    let text = answer(&rules, &principal, explain.action, &repository, is_open);
    print_bytes(format!("{text}\n").as_bytes())
}

fn cause_of(error: &registry_core::Error) -> String {
    error.message().to_owned()
}

fn answer(
    rules: &Rules,
    principal: &Principal,
    action: Action,
    repository: &RepositoryName,
    is_open: bool,
) -> String {
    let who = if principal.is_anonymous() {
        "anonymous"
    } else {
        principal.name()
    };
    let operation = Operation::within(repository, action, Target::Repository);
    if is_open {
        return format!(
            "allowed: {who} may {action} {repository}: there is neither `auth` nor a rule, so everybody may do everything"
        );
    }
    if rules.rules.is_empty() {
        let verdict = if principal.is_anonymous() {
            "denied"
        } else {
            "allowed"
        };
        return format!(
            "{verdict}: there are no rules, so who is logged in may do everything, and nobody else anything"
        );
    }
    match rules.first_that_allows(principal, &operation) {
        Some(index) => format!("allowed: {who} may {action} {repository} by access.rules[{index}]"),
        None => {
            let needs_login = rules
                .authorize(principal, &operation)
                .is_err_and(|error| error.code() == registry_core::ErrorCode::Unauthorized);
            let hint = if needs_login {
                "; somebody who is logged in may be allowed"
            } else {
                ""
            };
            format!("denied: no rule lets {who} {action} {repository}{hint}")
        }
    }
}
