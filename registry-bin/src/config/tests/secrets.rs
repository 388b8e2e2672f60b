//! Secrets in the place of every value and of every name: neither what is said of them nor the listing has them.

use serde_json::{Value, json};

use super::assemble;
use super::keys::ACTING;
use crate::commands::config::listing;
use crate::config::Loaded;
use crate::config::schema::{Below, Description, schema};
use crate::config::tree::parse;

/// Stands in each of them.
const CANARY: &str = "Q7CANARYQ7xYzAbC";

/// Secrets as they are found where keys, tokens and addresses are kept.
fn secrets() -> Vec<String> {
    let pem = format!("-----BEGIN PRIVATE KEY-----\nMIGH{CANARY}AgEAMBMG\n-----END PRIVATE KEY-----\n");
    vec![
        format!("https://user:{CANARY}@registry.example/x"),
        format!("https://registry.example/x?token={CANARY}&X-Amz-Signature={CANARY}"),
        pem,
        format!("alice:$2y$05${CANARY}{}", "a".repeat(37)),
        format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ{CANARY}.{CANARY}sig"),
        format!("MHcCAQEEI{CANARY}").repeat(4),
        format!("DefaultEndpointsProtocol=https;AccountName=a;AccountKey={CANARY}abcd==;EndpointSuffix=core"),
        format!("Bearer {CANARY}"),
        format!("Basic {CANARY}=="),
        json!({ "kty": "EC", "d": CANARY, "crv": "P-256" }).to_string(),
        format!("user:{CANARY}"),
        format!("12{CANARY}"),
    ]
}

/// Collects the paths of what takes a value, a list of values or free names, each part a key or `[]`.
fn collect(schema: Description<'_>, path: &[String], leaves: &mut Vec<Vec<String>>) {
    let below = |part: &str| [path, &[part.to_owned()]].concat();
    match schema.below() {
        Below::Keys(keys) => {
            for (key, schema) in keys {
                collect(Description::new(schema), &below(key), leaves);
            }
        }
        Below::Items(items) => collect(items, &below("[]"), leaves),
        Below::AnyKey(values) => collect(values, &below("*"), leaves),
        Below::Anything | Below::Nothing => leaves.push(path.to_vec()),
    }
}

/// A configuration with a value at a path; `*` is a free name.
fn with_value(path: &[String], name: &str, value: &str) -> Value {
    let inner = path
        .iter()
        .rev()
        .fold(Value::from(value), |inner, part| match part.as_str() {
            "[]" => json!([inner]),
            "*" => json!({ name: inner }),
            key => json!({ key: inner }),
        });
    let mut whole = json!({ "version": "0.1" });
    if path.first().is_none_or(|first| first != "storage") || path.len() < 3 {
        whole["storage"] = json!({ "inmemory": {} });
    }
    for (key, value) in inner.as_object().unwrap() {
        whole[key] = value.clone();
    }
    whole
}

/// The listing, or what is wrong.
fn said(text: &str, variable: Option<(String, String)>) -> String {
    match assemble(Some(text), variable, None, &[]) {
        Ok((configuration, tree, variables)) => listing(&Loaded {
            configuration,
            tree,
            file: None,
            fingerprint: None,
            may_be_cut: false,
            variables,
        })
        .unwrap(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_secret_in_the_place_of_a_value_or_a_name_is_not_shown() {
    let schema = schema();
    let mut leaves = Vec::new();
    collect(Description::new(&schema), &[], &mut leaves);
    assert!(leaves.len() > 150, "{}", leaves.len());
    let mut shown = Vec::new();
    for path in leaves {
        let key = path.join(".");
        let place = key.replace(".[]", "[0]");
        // With all that belongs to it, so that the listing is made.
        let acting = ACTING
            .iter()
            .find(|text| parse(text, None).unwrap().find(&place).is_some());
        let variable = format!(
            "REGISTRY_{}",
            key.replace("[]", "0").replace('.', "_").to_uppercase()
        );
        for secret in secrets() {
            let mut listed = String::new();
            if let Some(text) = acting {
                listed = said(text, Some((variable.clone(), format!("'{secret}'"))));
            }
            if listed.contains(CANARY) {
                shown.push(format!("{key}: {secret}: {listed}"));
            }
            let mut tried = vec![with_value(&path, "name", &secret)];
            if path.iter().any(|part| part == "*") {
                tried.push(with_value(&path, &secret, "value"));
            }
            for configuration in tried {
                let said = said(&configuration.to_string(), None);
                if said.contains(CANARY) {
                    shown.push(format!("{key}: {secret}: {said}"));
                }
            }
        }
    }
    assert!(shown.is_empty(), "{}: {}", shown.len(), shown.join("\n"));
}
