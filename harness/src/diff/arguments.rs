//! The command line of `synod diff`.

use std::path::PathBuf;

use clap::Args;

#[derive(Args)]
#[command(
    after_help = DIFF_EXAMPLES
)]
pub struct DiffArguments {
    /// The result before: a run's folder, a folder of several, or one of a comparison
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// The result after
    #[arg(value_name = "B")]
    pub after: PathBuf,
    /// Print one JSON object to stdout instead of a table
    #[arg(long)]
    pub json: bool,
    /// Exit with 1 if a figure is certainly worse by at least the threshold, or if a run of B failed its checks
    #[arg(long)]
    pub fail_on_regression: bool,
    /// How many runs each side needs for --fail-on-regression to judge: of a single run nobody knows the scatter
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_000), requires = "fail_on_regression")]
    pub min_runs: u32,
    /// Changes smaller than this are ignored
    #[arg(long, default_value = "5%", value_name = "PERCENT", value_parser = percent)]
    pub threshold: f64,
}

/// `5%` or `5` as 0.05.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=1_000.0).contains(&percent) => Ok(percent / 100.0),
        Ok(_) | Err(_) => Err("a percentage from 0 to 1000, such as 5%".into()),
    }
}

const DIFF_EXAMPLES: &str = "\
Examples:\n\
\x20 synod diff results/before results/after                        what moved\n\
\x20 synod diff before after --fail-on-regression --threshold 10%   for CI\n\
\n\
How much runs scatter is learned from the runs of both sides and never assumed, so a single run tells nothing and never\n\
passes the gate. Where no change was seen, the line says how many runs would find one of the size of the threshold.\n\
Exit codes: 0 done, 1 a regression with --fail-on-regression, 2 wrong usage, a bad file or too few runs to judge.";
