//! Stamps the binary with what it was built from, because no number counts without its commit.

use std::process::Command;

fn main() {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    let output = |program: &str, arguments: &[&str]| -> Option<String> {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(&manifest)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]).map(|commit| {
        // No optional locks: a build must never touch the index of the person's repository.
        let changes = output("git", &["--no-optional-locks", "status", "--porcelain"]);
        match changes {
            Some(changes) if !changes.is_empty() => format!("{commit}+dirty"),
            _ => commit,
        }
    });
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let variable = |name: &str, value: Option<String>| {
        let value = value.unwrap_or_else(|| "unknown".into());
        println!("cargo::rustc-env={name}={value}");
    };
    variable("SYNOD_COMMIT", commit);
    variable("SYNOD_RUSTC", output(&rustc, &["--version"]));
    variable("SYNOD_PROFILE", std::env::var("PROFILE").ok());

    // The stamp is stale when a source file or the checked-out commit changes.
    for path in [
        "engine",
        "storage",
        "transport",
        "harness",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed=../{path}");
    }
    if let Some(git) = output("git", &["rev-parse", "--absolute-git-dir"]) {
        for file in ["HEAD", "logs/HEAD"] {
            if std::path::Path::new(&git).join(file).exists() {
                println!("cargo::rerun-if-changed={git}/{file}");
            }
        }
    }
}
