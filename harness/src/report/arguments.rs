//! The command line of `synod report`.

use std::path::PathBuf;

use clap::Args;

#[derive(Args)]
#[command(
    after_help = REPORT_EXAMPLES
)]
pub struct ReportArguments {
    /// A run's folder, a folder of several, or one of a comparison
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The page; its plots and summary.csv go beside it [default: DIR/report.html]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

const REPORT_EXAMPLES: &str = "\
Examples:\n\
\x20 synod report results/run-20261122-101500   of one run\n\
\x20 synod report results                       of all runs in it; repeats of the same conditions are put together\n\
\n\
Writes report.html (opens offline), plots/*.svg and summary.csv. A file that is damaged or of another version is\n\
named, and nothing is written.";
