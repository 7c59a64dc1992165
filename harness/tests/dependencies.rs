//! The offline half of `cargo deny`: every dependency has a licence that `deny.toml` allows, and comes from crates.io.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Whether an SPDX expression can be met with licences that are allowed: any of an OR, all of an AND.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    // Older manifests write a slash for OR.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (met, rest) = either(&words, allowed);
    met && rest.is_empty()
}

fn either<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = all(words, allowed);
    while let ["OR", more @ ..] = rest {
        let (other, left) = all(more, allowed);
        (met, rest) = (met || other, left);
    }
    (met, rest)
}

fn all<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = one(words, allowed);
    while let ["AND", more @ ..] = rest {
        let (other, left) = one(more, allowed);
        (met, rest) = (met && other, left);
    }
    (met, rest)
}

fn one<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => match either(inner, allowed) {
            (met, [")", rest @ ..]) => (met, rest),
            (_, rest) => (false, rest),
        },
        [licence, "WITH", exception, rest @ ..] => (
            allowed.contains(&format!("{licence} WITH {exception}")),
            rest,
        ),
        [licence, rest @ ..] => (allowed.contains(*licence), rest),
        [] => (false, words),
    }
}

fn names(value: &toml::Value) -> impl Iterator<Item = String> + '_ {
    let names = value.as_array().expect("a list").iter();
    names.map(|name| name.as_str().expect("a name").to_owned())
}

#[test]
fn every_dependency_has_an_allowed_licence_and_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("deny.toml")).expect("deny.toml");
    let deny: toml::Value = toml::from_str(&text).expect("TOML");
    let allowed: BTreeSet<String> = names(&deny["licenses"]["allow"]).collect();
    let exceptions = deny["licenses"]["exceptions"].as_array().expect("a list");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(&root)
        .output()
        .expect("cargo starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    assert!(packages.len() > 50, "these are not all: {}", packages.len());
    for package in packages {
        let (name, licence) = (&package["name"], &package["license"]);
        // Our own have none.
        if let Some(source) = package["source"].as_str() {
            assert_eq!(source, CRATES_IO, "{name}");
        }
        let mut allowed = allowed.clone();
        for exception in exceptions {
            if exception["crate"].as_str() == name.as_str() {
                allowed.extend(names(&exception["allow"]));
            }
        }
        let licence = licence.as_str().unwrap_or("none");
        assert!(
            is_met(licence, &allowed),
            "{name} has the licence {licence}"
        );
    }
}

#[test]
fn an_expression_is_read_as_spdx_has_it() {
    let allowed =
        BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned));
    for (expression, met) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("(GPL-3.0 OR AGPL-3.0) AND ISC", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("MIT AND (ISC", false),
        ("", false),
    ] {
        assert_eq!(is_met(expression, &allowed), met, "{expression}");
    }
}
