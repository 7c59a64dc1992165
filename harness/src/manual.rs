//! The command line for other programs: completions for shells and man pages, both made from its definition.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::{Cli, VERSION};
use crate::output::{make_folder, say};

const NAME: &str = "synod";

#[derive(Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub struct CompletionsArguments {
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

#[derive(Args)]
#[command(after_help = MAN_EXAMPLES)]
pub struct ManArguments {
    /// Write one page per command into this directory; without it, the first page goes to stdout
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

pub fn completions(arguments: &CompletionsArguments) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition(), NAME, &mut script);
    print(script)
}

pub fn man(arguments: &ManArguments) -> anyhow::Result<()> {
    let Some(out) = &arguments.out else {
        let mut page = Vec::new();
        Man::new(definition())
            .render(&mut page)
            .context("the page cannot be made")?;
        return print(page);
    };
    let out = make_folder(out)?;
    clap_mangen::generate_to(definition(), &out)
        .with_context(|| format!("{}: cannot be written", out.display()))
}

/// What people see of the command line: the commands that are hidden from `--help` are not completed either.
fn definition() -> Command {
    let whole = Cli::command();
    let visible = whole.get_subcommands().filter(|below| !below.is_hide_set());
    let mut definition = Command::new(NAME)
        .version(VERSION)
        .disable_help_subcommand(true)
        .subcommands(visible.cloned());
    if let Some(about) = whole.get_about() {
        definition = definition.about(about.clone());
    }
    if let Some(examples) = whole.get_after_help() {
        definition = definition.after_help(examples.clone());
    }
    definition
}

fn print(text: Vec<u8>) -> anyhow::Result<()> {
    let text = String::from_utf8(text).context("what was made is text")?;
    say!("{}", text.trim_end_matches('\n'))
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:\n\
\x20 synod completions bash > /etc/bash_completion.d/synod\n\
\x20 synod completions zsh > ~/.zfunc/_synod                     with `fpath+=~/.zfunc` before compinit in ~/.zshrc\n\
\x20 synod completions fish > ~/.config/fish/completions/synod.fish";

const MAN_EXAMPLES: &str = "\
Examples:\n\
\x20 synod man | man -l -\n\
\x20 synod man --out ~/.local/share/man/man1   then `man synod`, `man synod-run`, `man synod-cluster-up`";

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_the_visible_commands_and_only_these() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut definition(), NAME, &mut script);
            let script = String::from_utf8(script).expect("a script is text");
            for below in Cli::command().get_subcommands() {
                let mentioned = script.contains(below.get_name());
                // Names of hidden commands may occur in what is visible; this one does not.
                assert!(
                    mentioned || below.is_hide_set(),
                    "{shell}: {}",
                    below.get_name()
                );
            }
            assert!(!script.contains("replay-loop"), "{shell}");
        }
    }

    #[test]
    fn every_visible_command_has_a_page_with_its_flags() {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = ManArguments {
            out: Some(folder.path().join("man1")),
        };
        man(&arguments).expect("pages are made");
        let page = |name: &str| std::fs::read_to_string(folder.path().join("man1").join(name));
        assert!(
            page("synod.1")
                .expect("the first page")
                .contains("synod\\-run")
        );
        let run = page("synod-run.1").expect("a page");
        assert!(run.contains("\\-\\-outstanding") && run.contains("Exit codes"));
        assert!(page("synod-cluster-up.1").is_ok(), "commands of commands");
        assert!(page("synod-replay-loop.1").is_err(), "hidden");
    }
}
