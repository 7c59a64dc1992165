//! A plot with its figures: a drawing for the eye, a table for everything else.

use crate::report::bars::Bars;
use crate::report::picture::Picture;

pub struct Plot {
    /// The stem of its file.
    pub name: String,
    pub title: String,
    /// What holds for this one alone; may be empty.
    pub caption: String,
    pub drawing: Drawing,
    pub table: Table,
}

pub enum Drawing {
    Curves(Picture),
    Bars(Bars),
}

#[derive(Clone, Debug, Default)]
pub struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Plots that belong together, under a heading of the page.
pub struct Section {
    pub heading: &'static str,
    /// What holds for all of them.
    pub note: &'static str,
    pub plots: Vec<Plot>,
    /// How many there were beyond what a page holds.
    pub left_out: usize,
}

impl Plot {
    pub fn svg(&self, with_title: bool) -> anyhow::Result<String> {
        match &self.drawing {
            Drawing::Curves(picture) => picture.svg(with_title),
            Drawing::Bars(bars) => bars.svg(with_title),
        }
    }
}

impl Table {
    pub fn new(header: &[&str]) -> Table {
        Table {
            header: header.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }
}

/// A file name from words: lower case, digits and dashes.
pub fn stem(words: &str) -> String {
    let mut stem = String::new();
    for letter in words.chars() {
        if letter.is_ascii_alphanumeric() {
            stem.push(letter.to_ascii_lowercase());
        } else if !stem.ends_with('-') && !stem.is_empty() {
            stem.push('-');
        }
    }
    stem.trim_end_matches('-').to_owned()
}
