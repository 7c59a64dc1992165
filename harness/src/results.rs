//! Reads what `synod run` and `synod compare` wrote. Nothing is written here, and nothing is guessed: a file that is
//! cut off, of another version or of another kind is refused in one line.

mod collection;
mod figure;
pub mod file;
mod grouping;
mod latencies;
mod run_folder;
mod run_result;
mod steadiness;
pub mod timeline;

pub use collection::{Collection, LoadedCell, Source};
pub use figure::{Better, Figure};
pub use latencies::Latencies;
pub use run_folder::RunFolder;
pub use run_result::RunResult;
pub use timeline::{Percentiles, Timeline};
