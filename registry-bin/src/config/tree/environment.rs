//! Applies environment variables to a tree, by the rules of distribution.
//!
//! `REGISTRY_HTTP_TLS_KEY` is the key `http.tls.key`; its value is YAML. Variables are applied in the order of their
//! names, so that a longer one changes what a shorter one set. A number is the index of a list, at most one past its
//! end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Node, Value, parse};
use crate::config::origin::Origin;
use crate::config::problem::{Problem, alternatives, near};
use crate::config::protection;
use crate::config::schema::{Below, Description, VARIABLE};

/// The prefix of our variables.
pub(crate) const PREFIX: &str = "REGISTRY_";

/// The variable that names the file, which is not a key.
pub(crate) const FILE_VARIABLE: &str = "REGISTRY_CONFIGURATION_PATH";

/// The version determines how a file is read, so only the file can set it.
const VERSION_VARIABLE: &str = "REGISTRY_VERSION";

/// The result of applying the variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The variables that set a key.
    pub(crate) used: Vec<String>,
    /// The variables without effect. As in distribution, this is not an error, because Kubernetes sets such variables
    /// for a service named `registry`.
    pub(crate) unused: Vec<UnusedVariable>,
}

/// A variable without effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnusedVariable {
    pub(crate) name: String,
    /// Why, and what may have been meant.
    pub(crate) reason: String,
}

/// The result of applying one variable.
enum Placed {
    Yes,
    /// The path leads nowhere.
    Nowhere {
        /// How many parts of the path are left, including the unknown one.
        left: usize,
        /// The parts that are known in its place.
        known: Vec<String>,
    },
}

/// Applies each variable with our prefix and ignores the others.
///
/// # Errors
/// If a value is not YAML, an index is invalid or beyond the end of its list, or an empty value replaces one that
/// [protects](protection).
pub(crate) fn apply_variables(
    root: &mut Node,
    schema: &serde_json::Value,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Applied, Problem> {
    let mut variables: Vec<(String, String)> = variables
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && name != FILE_VARIABLE)
        .collect();
    variables.sort();
    let mut applied = Applied::default();
    for (name, text) in variables {
        if name == VERSION_VARIABLE {
            let reason = "the version of the configuration's form is what the file says".to_owned();
            applied.unused.push(UnusedVariable { name, reason });
            continue;
        }
        if let Some(service) = service_of_kubernetes(&name, &text) {
            let reason = format!(
                "Kubernetes sets it for the service `{service}`; write `enableServiceLinks: false` in the pod's `spec` to be \
                 without such variables"
            );
            applied.unused.push(UnusedVariable { name, reason });
            continue;
        }
        let origin = Origin::Variable(Arc::from(name.as_str()));
        let (value, wrong) = match read(&text, &origin) {
            Ok(value) => (value, None),
            Err(problem) => (Node::null(&origin), Some(problem)),
        };
        let path: Vec<&str> = name.strip_prefix(PREFIX).unwrap_or_default().split('_').collect();
        let before = root.clone();
        let placed =
            place(root, Description::new(schema), &path, value).map_err(|problem| problem.at(&origin))?;
        match placed {
            Placed::Yes => {
                if let Some(problem) = wrong {
                    return Err(problem.at(&origin));
                }
                protection::check(&before, root, &origin)?;
                applied.used.push(name);
            }
            Placed::Nowhere { left, known } => {
                let reason = reason(&path, left, &known);
                applied.unused.push(UnusedVariable { name, reason });
            }
        }
    }
    Ok(applied)
}

/// Reads the value of a variable.
///
/// # Errors
/// If it is not YAML, or would not be read as text: `#abc` is a comment, `!abc` a type, `&abc` an anchor. Passwords and
/// keys may begin with any character, and people who set one in a shell only think of the shell's quotes.
fn read(text: &str, origin: &Origin) -> Result<Node, Problem> {
    let written = text.trim();
    let mut characters = written.chars();
    if let Some(first) = characters.next().filter(|first| "#!&".contains(*first))
        && characters
            .next()
            .is_some_and(|second| second != '!' && !second.is_whitespace())
    {
        return Err(Problem::new(format!(
            "begins with `{first}`, which YAML takes for something else than text; {IN_QUOTES}"
        )));
    }
    parse(text, Some(origin)).map_err(|problem| problem.with_remedy(&format!("if it is text, {IN_QUOTES}")))
}

/// What to do with text that YAML reads as something else.
const IN_QUOTES: &str = "put the value in quotes of its own, inside those of a shell: `'\"…\"'`";

/// Describes why a variable has no effect, and which one may have been meant.
fn reason(path: &[&str], left: usize, known: &[String]) -> String {
    let (above, unknown) = path
        .split_at_checked(path.len().saturating_sub(left))
        .unwrap_or((path, &[]));
    let unknown = unknown.first().copied().unwrap_or_default();
    let place = match above {
        [] => String::new(),
        _ => format!(" below `{}`", above.join(".").to_lowercase()),
    };
    let near = near(&unknown.to_uppercase(), known);
    let full: Vec<String> = near
        .iter()
        .map(|part| format!("{PREFIX}{}", [above, &[*part]].concat().join("_")))
        .collect();
    let meant = match full.as_slice() {
        [] => String::new(),
        full => format!("; did you mean {}?", alternatives(full)),
    };
    format!("there is no key `{}`{place}{meant}", unknown.to_lowercase())
}

/// Returns the service for which Kubernetes set a variable. It does so for each service of the namespace, and one that
/// is called `registry-auth` looks like the key `auth`. Both name and value have a form that only such variables have.
fn service_of_kubernetes(name: &str, value: &str) -> Option<String> {
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    let is_url = |text: &str| {
        let rest = ["tcp://", "udp://", "sctp://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        rest.is_some_and(|rest| rest.parse::<SocketAddr>().is_ok())
    };
    let service = if let Some((service, _)) = name.split_once("_SERVICE_PORT").filter(|_| is_number(value)) {
        service
    } else if let Some(service) = name.strip_suffix("_SERVICE_HOST").filter(|_| is_address(value)) {
        service
    } else if let Some(service) = name.strip_suffix("_PORT").filter(|_| is_url(value)) {
        service
    } else {
        // REGISTRY_PORT_5000_TCP, and the same followed by _PROTO, _PORT or _ADDR.
        let (service, port) = name.split_once("_PORT_")?;
        let mut parts = port.split('_');
        let (number, protocol, what) = (parts.next()?, parts.next()?, parts.next());
        let fits = match what {
            None => is_url(value),
            Some("PROTO") => value.eq_ignore_ascii_case(protocol),
            Some("PORT") => is_number(value),
            Some("ADDR") => is_address(value),
            Some(_) => false,
        };
        let is_protocol = matches!(protocol, "TCP" | "UDP" | "SCTP");
        if !(fits && is_protocol && is_number(number) && parts.next().is_none()) {
            return None;
        }
        service
    };
    Some(service.to_lowercase().replace('_', "-"))
}

/// Sets the value at a path below `node`.
fn place(
    node: &mut Node,
    description: Description<'_>,
    path: &[&str],
    value: Node,
) -> Result<Placed, Problem> {
    let Some((part, rest)) = path.split_first() else {
        *node = value;
        return Ok(Placed::Yes);
    };
    let nowhere = |known: Vec<String>| Placed::Nowhere {
        left: path.len(),
        known,
    };
    if description.is_open() {
        node.settle_word();
    }
    match description.below() {
        Below::Keys(keys) => {
            let key = keys
                .iter()
                .find(|(key, schema)| variable_name(key, schema) == *part);
            match key {
                Some((key, schema)) => place_below(node, key, Description::new(schema), rest, value),
                None if description.is_open() => {
                    let anything = serde_json::Value::Bool(true);
                    let key = part.to_lowercase();
                    place_below(node, &key, Description::new(&anything), rest, value)
                }
                None => Ok(nowhere(
                    keys.iter()
                        .map(|(key, schema)| variable_name(key, schema))
                        .collect(),
                )),
            }
        }
        Below::AnyKey(values) => place_below(node, &key_like(node, part), values, rest, value),
        Below::Anything => {
            let anything = serde_json::Value::Bool(true);
            if let Value::List(_) = node.value {
                return place_in_list(node, Description::new(&anything), part, rest, value);
            }
            place_below(
                node,
                &key_like(node, part),
                Description::new(&anything),
                rest,
                value,
            )
        }
        Below::Items(items) => place_in_list(node, items, part, rest, value),
        Below::Nothing => Ok(nowhere(Vec::new())),
    }
}

/// Sets a value below a key, which is created if the path leads somewhere.
fn place_below(
    node: &mut Node,
    key: &str,
    description: Description<'_>,
    rest: &[&str],
    value: Node,
) -> Result<Placed, Problem> {
    let mut child = node
        .child(key)
        .cloned()
        .unwrap_or_else(|| Node::null(&value.origin));
    let placed = place(&mut child, description, rest, value).map_err(|problem| problem.below(key))?;
    if matches!(placed, Placed::Yes) {
        node.set_key(key, child);
    }
    Ok(placed)
}

fn place_in_list(
    node: &mut Node,
    items: Description<'_>,
    part: &str,
    rest: &[&str],
    value: Node,
) -> Result<Placed, Problem> {
    let index: usize = part
        .parse()
        .map_err(|_| Problem::new(format!("takes the index of a list, but has {part:?}")))?;
    let mut list = match &mut node.value {
        Value::List(list) => std::mem::take(list),
        Value::Scalar { .. } | Value::Map(_) => Vec::new(),
    };
    if index > list.len() {
        let message = format!(
            "has {} items, so the next index is {}, not {index}",
            list.len(),
            list.len()
        );
        return Err(Problem::new(message));
    }
    if index == list.len() {
        list.push(Node::null(&value.origin));
    }
    let placed = match list.get_mut(index) {
        Some(item) => place(item, items, rest, value).map_err(|problem| problem.below_index(index))?,
        None => Placed::Nowhere {
            left: rest.len() + 1,
            known: Vec::new(),
        },
    };
    node.value = Value::List(list);
    Ok(placed)
}

/// Returns the key of a map that a part of a variable's name refers to: an existing one, or a new one in lower case.
fn key_like(node: &Node, part: &str) -> String {
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        Value::Scalar { .. } | Value::List(_) => &[],
    };
    entries
        .iter()
        .map(|entry| entry.key.as_str())
        .find(|key| key.to_uppercase() == part)
        .map_or_else(|| part.to_lowercase(), str::to_owned)
}

/// Returns the part that refers to a key in the names of variables.
fn variable_name(key: &str, schema: &serde_json::Value) -> String {
    match schema.get(VARIABLE).and_then(serde_json::Value::as_str) {
        Some(name) => name.to_owned(),
        None => key.to_uppercase(),
    }
}
