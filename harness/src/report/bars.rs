//! Horizontal bars with intervals: one row per system, with its figures written beside it.

use plotters::prelude::{Circle, PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, ShapeStyle};

use crate::report::picture::{WIDTH, draw, drawing, text_style, text_width, write};
use crate::report::theme::{self, Role};

const ROW_HEIGHT: i32 = 34;
const BAR_HEIGHT: i32 = 16;
const MARGIN: i32 = 12;
const TOP: i32 = 26;
/// More runs than this would be a smear.
const DOTS_MAX: usize = 30;

#[derive(Clone, Debug)]
pub struct Bars {
    pub title: String,
    /// What is measured, in which unit, and which way is better.
    pub label: String,
    pub rows: Vec<Bar>,
}

#[derive(Clone, Debug)]
pub struct Bar {
    pub name: String,
    pub role: Role,
    pub value: f64,
    pub interval: Option<(f64, f64)>,
    /// Single runs.
    pub runs: Vec<f64>,
    pub text: String,
}

impl Bars {
    pub fn svg(&self, with_title: bool) -> anyhow::Result<String> {
        let height = TOP + self.rows.len() as i32 * ROW_HEIGHT + 8;
        let title = with_title.then_some(self.title.as_str());
        draw(height, title, |root, top| {
            let caption = text_style(theme::MUTED, HPos::Left, VPos::Top, false);
            write(root, &self.label, (MARGIN, top + 4), &caption)?;
            let widest = |text: fn(&Bar) -> &str| {
                let widths = self.rows.iter().map(|bar| text_width(text(bar)));
                widths.fold(0.0, f64::max) as i32
            };
            let left = MARGIN + widest(|bar| &bar.name) + 10;
            let right = WIDTH as i32 - MARGIN - widest(|bar| &bar.text) - 12;
            let highest = self.rows.iter().map(Bar::reach).fold(0.0, f64::max);
            let place = |value: f64| {
                let share = if highest > 0.0 { value / highest } else { 0.0 };
                left + (share * f64::from((right - left).max(40))) as i32
            };
            for (index, bar) in self.rows.iter().enumerate() {
                let y = top + TOP + index as i32 * ROW_HEIGHT + ROW_HEIGHT / 2;
                let name = text_style(theme::INK, HPos::Right, VPos::Center, false);
                write(root, &bar.name, (left - 8, y), &name)?;
                bar.draw(root, y, left, &place)?;
                let text = text_style(theme::INK, HPos::Left, VPos::Center, false);
                write(root, &bar.text, (place(bar.reach()) + 10, y), &text)?;
            }
            let foot = top + TOP + self.rows.len() as i32 * ROW_HEIGHT;
            let axis = ShapeStyle::from(&theme::AXIS.colour()).stroke_width(1);
            let axis = PathElement::new(vec![(left, top + TOP), (left, foot)], axis);
            root.draw(&axis).map_err(drawing)
        })
    }
}

impl Bar {
    /// The farthest thing drawn.
    fn reach(&self) -> f64 {
        let high = self.interval.map_or(self.value, |(_, high)| high);
        let dots = self.dots().iter().copied().fold(0.0, f64::max);
        self.value.max(high).max(dots)
    }

    fn dots(&self) -> &[f64] {
        if self.runs.len() > 1 && self.runs.len() <= DOTS_MAX {
            &self.runs
        } else {
            &[]
        }
    }

    fn draw(
        &self,
        root: &crate::report::picture::Area<'_>,
        y: i32,
        left: i32,
        place: &dyn Fn(f64) -> i32,
    ) -> anyhow::Result<()> {
        let (above, below) = (y - BAR_HEIGHT / 2, y + BAR_HEIGHT / 2);
        let fill = self.role.colour().filled();
        let body = Rectangle::new([(left, above), (place(self.value), below)], fill);
        root.draw(&body).map_err(drawing)?;
        let ink = ShapeStyle::from(&theme::INK.colour()).stroke_width(2);
        if let Some((low, high)) = self.interval {
            let (low, high) = (place(low), place(high));
            for line in [
                vec![(low, y), (high, y)],
                vec![(low, y - 5), (low, y + 5)],
                vec![(high, y - 5), (high, y + 5)],
            ] {
                root.draw(&PathElement::new(line, ink)).map_err(drawing)?;
            }
        }
        // Below the bar, where neither it nor the interval hides them.
        for run in self.dots() {
            let dot = Circle::new((place(*run), below + 5), 2, theme::MUTED.colour().filled());
            root.draw(&dot).map_err(drawing)?;
        }
        Ok(())
    }
}
