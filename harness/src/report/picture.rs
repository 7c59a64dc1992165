//! Draws panels of curves. Everything that is written stands outside of the plot area, so that nothing overlaps.

use anyhow::anyhow;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::prelude::{
    Cartesian2d, Circle, Cross, DashedLineSeries, DrawingArea, IntoDrawingArea, LineSeries,
    PathElement, Polygon, Rectangle, SVGBackend, Text, TriangleMarker,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, ShapeStyle, TextStyle};

use crate::report::scale::Axis;
use crate::report::theme::{self, Role};

/// Drawn at this width, a plot is legible at its own size and in a column of the page.
pub const WIDTH: u32 = 600;
const TITLE_HEIGHT: i32 = 30;
const LEGEND_ROW_HEIGHT: i32 = 20;
const MARGIN: i32 = 12;
/// Of a letter at [`TEXT_SIZE`], wide ones included.
const LETTER_WIDTH: f64 = 6.7;
const TEXT_SIZE: f64 = 12.0;
/// The SVG backend divides sizes by this.
const BACKEND_SIZE_FACTOR: f64 = 1.24;

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

#[derive(Clone, Debug)]
pub struct Picture {
    pub title: String,
    pub panels: Vec<Panel>,
}

#[derive(Clone, Debug)]
pub struct Panel {
    /// Of the plot area alone.
    pub height: u32,
    pub x: Axis,
    pub y: Axis,
    pub curves: Vec<Curve>,
    pub bands: Vec<Band>,
}

#[derive(Clone, Debug)]
pub struct Curve {
    pub name: String,
    pub role: Role,
    pub style: CurveStyle,
    pub points: Vec<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurveStyle {
    pub marker: Marker,
    pub dashed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    None,
    Dot,
    Triangle,
    Cross,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    /// Of `y`.
    pub interval: Option<(f64, f64)>,
}

/// A stretch of time in which something was broken.
#[derive(Clone, Debug)]
pub struct Band {
    pub from: f64,
    pub to: f64,
    pub label: String,
}

pub fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER_WIDTH
}

pub fn text_style(role: Role, horizontal: HPos, vertical: VPos, bold: bool) -> TextStyle<'static> {
    let style = if bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    let font = ("sans-serif", TEXT_SIZE * BACKEND_SIZE_FACTOR, style).into_font();
    TextStyle {
        font,
        color: role.colour().to_backend_color(),
        pos: Pos::new(horizontal, vertical),
    }
}

/// Draws into a string. With a title the drawing can stand alone; the page has titles of its own.
pub fn draw(
    height: i32,
    title: Option<&str>,
    paint: impl FnOnce(&Area<'_>, i32) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let top = title.map_or(4, |_| TITLE_HEIGHT);
    let mut svg = String::new();
    {
        let size = (WIDTH, (height + top) as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&theme::PAPER.colour()).map_err(drawing)?;
        if let Some(title) = title {
            let style = text_style(theme::INK, HPos::Left, VPos::Top, true);
            write(&root, title, (MARGIN, 8), &style)?;
        }
        paint(&root, top)?;
        root.present().map_err(drawing)?;
    }
    Ok(svg)
}

pub fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    style: &TextStyle<'static>,
) -> anyhow::Result<()> {
    area.draw(&Text::new(text.to_owned(), at, style.clone()))
        .map_err(drawing)
}

pub fn drawing<E: std::fmt::Display>(error: E) -> anyhow::Error {
    anyhow!("a plot cannot be drawn: {error}")
}

impl Picture {
    pub fn svg(&self, with_title: bool) -> anyhow::Result<String> {
        let legends: Vec<Legend> = self.panels.iter().map(Legend::of).collect();
        let heights: Vec<i32> = self
            .panels
            .iter()
            .zip(&legends)
            .map(|(panel, legend)| panel.outer_height() + legend.height())
            .collect();
        let title = with_title.then_some(self.title.as_str());
        // One left edge for all panels, so that what happened at one time stands in one line.
        let left = self.panels.iter().map(Panel::left).max().unwrap_or(0);
        draw(heights.iter().sum(), title, |root, top| {
            let mut top = top;
            for ((panel, legend), height) in self.panels.iter().zip(&legends).zip(&heights) {
                legend.draw(root, top)?;
                let from = top + legend.height();
                let size = (WIDTH, (height - legend.height()) as u32);
                panel.draw(&root.clone().shrink((0, from), size), left)?;
                top += height;
            }
            Ok(())
        })
    }
}

const LABEL_TOP: i32 = 28;
const TICKS_BOTTOM: i32 = 24;
const RIGHT: i32 = 20;

impl Panel {
    fn outer_height(&self) -> i32 {
        self.height as i32 + LABEL_TOP + self.band_height() + TICKS_BOTTOM + self.label_bottom()
    }

    fn label_bottom(&self) -> i32 {
        if self.x.label.is_empty() { 4 } else { 20 }
    }

    fn band_height(&self) -> i32 {
        if self.bands.iter().all(|band| band.label.is_empty()) {
            0
        } else {
            16
        }
    }

    /// The room for what is written beside the vertical axis.
    fn left(&self) -> i32 {
        let widest = self.y.ticks.iter().map(|(_, text)| text_width(text));
        widest.fold(24.0, f64::max) as i32 + MARGIN + 8
    }

    fn draw(&self, area: &Area<'_>, left: i32) -> anyhow::Result<()> {
        let mut x = self.x.clone();
        let inner = f64::from(WIDTH as i32 - left - RIGHT);
        x.thin_out(|text| (text_width(text) + 10.0) / inner);
        let mut y = self.y.clone();
        y.thin_out(|_| 17.0 / f64::from(self.height));
        let mut chart = ChartBuilder::on(area)
            .margin_right(RIGHT)
            .margin_top(LABEL_TOP + self.band_height())
            .margin_bottom(self.label_bottom())
            .x_label_area_size(TICKS_BOTTOM)
            .y_label_area_size(left)
            .build_cartesian_2d(x.clone(), y.clone())
            .map_err(drawing)?;
        self.draw_bands(&mut chart, area, left)?;
        draw_mesh(&mut chart, &x, &y)?;
        // The first one, the baseline, comes to lie on top.
        for curve in self.curves.iter().rev() {
            self.draw_curve(&mut chart, curve)?;
        }
        let caption = text_style(theme::MUTED, HPos::Left, VPos::Top, false);
        write(area, &self.y.label, (MARGIN, 4), &caption)?;
        let caption = text_style(theme::MUTED, HPos::Right, VPos::Bottom, false);
        let bottom = self.outer_height() - 2;
        write(
            area,
            &self.x.label,
            (WIDTH as i32 - RIGHT, bottom),
            &caption,
        )
    }

    /// Their labels stand above the plot area, each at the beginning of its band.
    fn draw_bands(
        &self,
        chart: &mut Chart<'_, '_>,
        area: &Area<'_>,
        left: i32,
    ) -> anyhow::Result<()> {
        let inner = f64::from(WIDTH as i32 - left - RIGHT);
        let fill = ShapeStyle::from(&theme::FAULT_BAND.colour()).filled();
        let line = ShapeStyle::from(&theme::FAULT.colour()).stroke_width(1);
        for band in &self.bands {
            let (low, high) = (self.y.from, self.y.to);
            let area_broken = [(band.from, low), (band.to, high)];
            chart
                .draw_series([Rectangle::new(area_broken, fill)])
                .map_err(drawing)?;
            for edge in [band.from, band.to] {
                let edge = PathElement::new(vec![(edge, low), (edge, high)], line);
                chart.draw_series([edge]).map_err(drawing)?;
            }
            let wide = text_width(&band.label);
            let start = (f64::from(left) + self.x.place(band.from) * inner)
                .min(f64::from(WIDTH as i32 - RIGHT) - wide);
            let style = text_style(theme::FAULT, HPos::Left, VPos::Top, false);
            write(
                area,
                &band.label,
                (start.max(f64::from(MARGIN)) as i32, LABEL_TOP),
                &style,
            )?;
        }
        Ok(())
    }

    fn draw_curve(&self, chart: &mut Chart<'_, '_>, curve: &Curve) -> anyhow::Result<()> {
        let colour = curve.role.colour();
        let style = ShapeStyle::from(&colour).stroke_width(2);
        let line: Vec<(f64, f64)> = curve
            .points
            .iter()
            .map(|point| (point.x, point.y))
            .collect();
        if curve.style.dashed {
            let dashes = DashedLineSeries::new(line.clone(), 6, 4, style);
            chart.draw_series(dashes).map_err(drawing)?;
        } else {
            chart
                .draw_series(LineSeries::new(line.clone(), style))
                .map_err(drawing)?;
        }
        let thin = ShapeStyle::from(&colour).stroke_width(1);
        for point in &curve.points {
            let Some((low, high)) = point.interval else {
                continue;
            };
            let whisker = vec![(point.x, low), (point.x, high)];
            chart
                .draw_series([PathElement::new(whisker, thin)])
                .map_err(drawing)?;
        }
        draw_markers(chart, &line, curve.style.marker, &colour)
    }
}

fn draw_markers(
    chart: &mut Chart<'_, '_>,
    points: &[(f64, f64)],
    marker: Marker,
    colour: &RGBColor,
) -> anyhow::Result<()> {
    let points = points.iter().copied();
    let fill = colour.filled();
    match marker {
        Marker::None => return Ok(()),
        Marker::Dot => chart
            .draw_series(points.map(|at| Circle::new(at, 4, fill)))
            .map(drop),
        Marker::Triangle => chart
            .draw_series(points.map(|at| TriangleMarker::new(at, 6, fill)))
            .map(drop),
        Marker::Cross => {
            let stroke = ShapeStyle::from(colour).stroke_width(2);
            chart
                .draw_series(points.map(|at| Cross::new(at, 4, stroke)))
                .map(drop)
        }
    }
    .map_err(drawing)
}

fn draw_mesh(chart: &mut Chart<'_, '_>, x: &Axis, y: &Axis) -> anyhow::Result<()> {
    let label = |axis: &Axis, value: f64| {
        let found = axis.ticks.iter().find(|(tick, _)| *tick == value);
        found.map_or(String::new(), |(_, text)| text.clone())
    };
    chart
        .configure_mesh()
        .bold_line_style(theme::GRID.colour())
        .light_line_style(theme::GRID.colour())
        .axis_style(theme::AXIS.colour())
        .label_style(text_style(theme::MUTED, HPos::Center, VPos::Center, false))
        .x_labels(x.ticks.len().max(1))
        .y_labels(y.ticks.len().max(1))
        .x_label_formatter(&|value| label(x, *value))
        .y_label_formatter(&|value| label(y, *value))
        .draw()
        .map_err(drawing)
}

/// Names of curves above their panel, in as many rows as they need.
struct Legend {
    /// Each with its left edge and its row.
    entries: Vec<(Curve, i32, i32)>,
    rows: i32,
}

const SWATCH: i32 = 26;

impl Legend {
    fn of(panel: &Panel) -> Legend {
        let named: Vec<&Curve> = panel
            .curves
            .iter()
            .filter(|curve| !curve.name.is_empty())
            .collect();
        let widest = named
            .iter()
            .map(|curve| text_width(&curve.name))
            .fold(0.0, f64::max);
        let column = SWATCH + 6 + widest as i32 + 10;
        let columns = ((WIDTH as i32 - 2 * MARGIN) / column).max(1);
        let entries = named.iter().zip(0..).map(|(curve, index)| {
            let unplaced = Curve {
                points: Vec::new(),
                ..(*curve).clone()
            };
            (unplaced, MARGIN + index % columns * column, index / columns)
        });
        Legend {
            entries: entries.collect(),
            rows: (named.len() as i32 + columns - 1) / columns,
        }
    }

    fn height(&self) -> i32 {
        if self.rows == 0 {
            0
        } else {
            self.rows * LEGEND_ROW_HEIGHT + 6
        }
    }

    fn draw(&self, root: &Area<'_>, top: i32) -> anyhow::Result<()> {
        for (curve, left, row) in &self.entries {
            let y = top + row * LEGEND_ROW_HEIGHT + LEGEND_ROW_HEIGHT / 2;
            let stroke = ShapeStyle::from(&curve.role.colour()).stroke_width(2);
            let middle = (left + SWATCH / 2, y);
            let lines = if curve.style.dashed {
                vec![
                    (*left, left + 7),
                    (left + 10, left + 16),
                    (left + 19, left + SWATCH),
                ]
            } else {
                vec![(*left, left + SWATCH)]
            };
            for (from, to) in lines {
                root.draw(&PathElement::new(vec![(from, y), (to, y)], stroke))
                    .map_err(drawing)?;
            }
            let fill = curve.role.colour().filled();
            match curve.style.marker {
                Marker::None => Ok(()),
                Marker::Dot => root.draw(&Circle::new(middle, 4, fill)),
                Marker::Triangle => root.draw(&Polygon::new(triangle(middle), fill)),
                Marker::Cross => root.draw(&Cross::new(middle, 4, stroke)),
            }
            .map_err(drawing)?;
            let style = text_style(theme::INK, HPos::Left, VPos::Center, false);
            write(root, &curve.name, (left + SWATCH + 6, y), &style)?;
        }
        Ok(())
    }
}

fn triangle((x, y): (i32, i32)) -> Vec<(i32, i32)> {
    vec![(x, y - 6), (x + 5, y + 3), (x - 5, y + 3)]
}
