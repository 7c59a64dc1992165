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
    /// Exit with 1 if a figure is certainly worse by at least the threshold
    #[arg(long)]
    pub fail_on_regression: bool,
    /// Changes below this do not matter
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
Five runs on each side tell changes apart that matter; of one run each the noise between runs is unknown, so 5 % is\n\
assumed. Exit codes: 0 done, 1 a certain regression with --fail-on-regression, 2 wrong usage or a bad file.";
