//! Axes: where a value lies, and which values are written beside them.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

use crate::report::format::tick;

/// How values become positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Log,
    /// Of a quantile: each further nine takes the same room.
    Nines,
}

impl Scale {
    pub fn position(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.log10(),
            Scale::Nines => -(1.0 - value).log10(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Axis {
    pub label: String,
    pub scale: Scale,
    /// The values at both ends.
    pub from: f64,
    pub to: f64,
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to a little above the highest value.
    pub fn from_zero(label: &str, highest: f64, show: impl Fn(f64) -> String) -> Axis {
        let to = if highest > 0.0 { highest * 1.08 } else { 1.0 };
        Axis::linear(label, 0.0, to, show)
    }

    pub fn linear(label: &str, from: f64, to: f64, show: impl Fn(f64) -> String) -> Axis {
        let step = nice_step((to - from) / 5.0);
        let first = (from / step).ceil() as i64;
        let last = (to / step + 1e-9).floor() as i64;
        Axis {
            label: label.into(),
            scale: Scale::Linear,
            from,
            to,
            ticks: (first..=last)
                .map(|index| index as f64 * step)
                .map(|value| (value, tick(&show(value))))
                .collect(),
        }
    }

    /// Around all `values` above 0; decades are marked, and parts of them if there are few.
    pub fn log(
        label: &str,
        values: impl Iterator<Item = f64>,
        show: impl Fn(f64) -> String,
    ) -> Axis {
        let (mut low, mut high) = (f64::MAX, 0.0f64);
        for value in values.filter(|value| *value > 0.0 && value.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if high == 0.0 {
            (low, high) = (1.0, 10.0);
        }
        // Room of 8 % on both sides, and at least a factor of 3 in all.
        let room = ((high / low).log10() * 0.08).max((3.0f64.log10() - (high / low).log10()) / 2.0);
        let room = room.max(0.03);
        let (from, to) = (low / 10f64.powf(room), high * 10f64.powf(room));
        let decades = (to / from).log10();
        let parts: &[f64] = match decades {
            decades if decades > 3.2 => &[1.0],
            decades if decades > 2.2 => &[1.0, 3.0],
            decades if decades > 0.9 => &[1.0, 2.0, 5.0],
            _ => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
        };
        let exponents = from.log10().floor() as i32..=to.log10().ceil() as i32;
        let all = exponents
            .flat_map(|exponent| parts.iter().map(move |part| part * 10f64.powi(exponent)));
        let ticks: Vec<(f64, String)> = all
            .filter(|value| (from..=to).contains(value))
            .map(|value| (value, tick(&show(value))))
            .collect();
        Axis {
            label: label.into(),
            scale: Scale::Log,
            from,
            to,
            ticks,
        }
    }

    /// Quantiles up to `to`, such as 0.9999.
    pub fn nines(label: &str, to: f64) -> Axis {
        let marks = [
            (0.0, "0 %"),
            (0.5, "50 %"),
            (0.9, "90 %"),
            (0.99, "99 %"),
            (0.999, "99.9 %"),
            (0.9999, "99.99 %"),
        ];
        Axis {
            label: label.into(),
            scale: Scale::Nines,
            from: 0.0,
            to,
            ticks: marks.map(|(value, text)| (value, text.to_owned())).into(),
        }
    }

    /// 0 at one end and 1 at the other.
    pub fn place(&self, value: f64) -> f64 {
        let (from, to) = (self.scale.position(self.from), self.scale.position(self.to));
        ((self.scale.position(value) - from) / (to - from)).clamp(0.0, 1.0)
    }

    /// Takes ticks out until labels of `room` (a share of the axis) do not touch.
    pub fn thin_out(&mut self, room: impl Fn(&str) -> f64) {
        let mut kept: Vec<(f64, String)> = Vec::new();
        for (value, text) in std::mem::take(&mut self.ticks) {
            let free = kept.last().is_none_or(|(last, before)| {
                self.place(value) - self.place(*last) >= (room(&text) + room(before)) / 2.0
            });
            if free {
                kept.push((value, text));
            }
        }
        self.ticks = kept;
    }
}

/// An axis is a coordinate of plotters: values are drawn as they are.
impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        start + (self.place(*value) * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(value, _)| *value).collect()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|part| part * power);
    steps
        .into_iter()
        .find(|step| *step >= least * 0.999)
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ticks_are_on_the_axis_and_apart(low in 1e-3..1e7f64, factor in 1.0..1e6f64) {
            let high = low * factor;
            for mut axis in [
                Axis::from_zero("", high, |value| value.to_string()),
                Axis::log("", [low, high].into_iter(), |value| value.to_string()),
            ] {
                prop_assert!((2..=13).contains(&axis.ticks.len()), "{} {:?}", high, axis.ticks);
                axis.thin_out(|_| 0.1);
                let places: Vec<f64> = axis.ticks.iter().map(|(value, _)| axis.place(*value)).collect();
                prop_assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= 0.099));
                prop_assert!(axis.place(high) <= 1.0 && axis.place(low) >= 0.0);
                prop_assert!(axis.place(high) >= axis.place(low));
            }
        }
    }

    #[test]
    fn each_nine_takes_the_same_room() {
        let axis = Axis::nines("", 0.9999);
        assert!((axis.place(0.9) - 0.25).abs() < 1e-9);
        assert!((axis.place(0.99) - 0.5).abs() < 1e-9);
    }
}
