//! The look of every plot and of the page: one colour per system, everywhere, in a light and a dark variant.
//!
//! The colours differ in lightness as well as in hue, so that they stay apart for colour-blind readers and in print;
//! markers and dashes repeat what colour says.

use plotters::style::RGBColor;

/// A colour with its name in the style sheet. Plots are drawn in the light variant; no two roles share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    pub name: &'static str,
    light: u32,
    dark: u32,
}

const fn role(name: &'static str, light: u32, dark: u32) -> Role {
    Role { name, light, dark }
}

pub const PAPER: Role = role("paper", 0xFFFFFF, 0x14181D);
pub const INK: Role = role("ink", 0x1C2127, 0xE7EAEE);
pub const MUTED: Role = role("muted", 0x59626D, 0xA3ACB7);
pub const GRID: Role = role("grid", 0xE4E7EB, 0x2B323A);
pub const AXIS: Role = role("axis", 0x9AA3AD, 0x5C6670);
pub const FAULT: Role = role("fault", 0xB3261E, 0xFF8A80);
pub const FAULT_BAND: Role = role("fault-band", 0xF9E7E5, 0x3A2422);

const SYNOD: Role = role("s-synod", 0x0B5FC0, 0x63AEFF);
const KNOWN: [(&str, Role); 8] = [
    ("synod", SYNOD),
    ("raft-rs", role("s-raft-rs", 0xC8501E, 0xFF9763)),
    ("openraft", role("s-openraft", 0x0F8A64, 0x46D3A4)),
    ("omnipaxos", role("s-omnipaxos", 0x9A4394, 0xE594DF)),
    ("etcd", role("s-etcd", 0xA97B00, 0xE6BE4B)),
    ("zookeeper", role("s-zookeeper", 0x2E9CCA, 0x7FD6F7)),
    ("nats", role("s-nats", 0x5D4037, 0xC9A896)),
    ("rabbitmq", role("s-rabbitmq", 0x7A8A1E, 0xC5D65A)),
];
/// For systems that are not known by name, in the order in which they come.
const OTHERS: [Role; 3] = [
    role("s-other-1", 0x6A3FC0, 0xB79CFF),
    role("s-other-2", 0xC2185B, 0xFF84B0),
    role("s-other-3", 0x455A64, 0xB0C4CE),
];

impl Role {
    pub fn colour(self) -> RGBColor {
        let [_, red, green, blue] = self.light.to_be_bytes();
        RGBColor(red, green, blue)
    }
}

/// The colour of a system. `index` is its place among the systems of the report.
pub fn of_system(system: &str, index: usize) -> Role {
    let name = system.to_lowercase();
    let exact = KNOWN.iter().find(|(known, _)| name == *known);
    // `nats-default` is nats.
    let found = exact.or_else(|| KNOWN.iter().find(|(known, _)| name.starts_with(known)));
    found.map_or(OTHERS[index % OTHERS.len()], |(_, role)| *role)
}

fn roles() -> impl Iterator<Item = Role> {
    let plain = [PAPER, INK, MUTED, GRID, AXIS, FAULT, FAULT_BAND];
    let systems = KNOWN.iter().map(|(_, role)| *role);
    plain.into_iter().chain(systems).chain(OTHERS)
}

/// Replaces the colours of a drawing by those of the style sheet, so that it follows the reader's choice.
pub fn follow_style_sheet(svg: &str) -> String {
    roles().fold(svg.to_owned(), |svg, role| {
        let drawn = format!("\"#{:06X}\"", role.light);
        svg.replace(&drawn, &format!("\"var(--{})\"", role.name))
    })
}

/// The declarations of one variant.
pub fn variables(dark: bool) -> String {
    roles()
        .map(|role| {
            let value = if dark { role.dark } else { role.light };
            format!("--{}:#{value:06X};", role.name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luminance(colour: u32) -> f64 {
        let [_, red, green, blue] = colour.to_be_bytes();
        let linear = |channel: u8| {
            let share = f64::from(channel) / 255.0;
            if share <= 0.040_45 {
                share / 12.92
            } else {
                ((share + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }

    fn contrast(a: u32, b: u32) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// WCAG 2: 4.5 for text, 3 for what is drawn.
    #[test]
    fn everything_stands_out_from_the_paper() {
        for role in roles() {
            let least = match role.name {
                "ink" | "muted" | "fault" => 4.5,
                "paper" | "grid" | "axis" | "fault-band" => continue,
                _ => 3.0,
            };
            for (colour, paper) in [(role.light, PAPER.light), (role.dark, PAPER.dark)] {
                let found = contrast(colour, paper);
                assert!(found >= least, "{}: {found:.2}", role.name);
            }
        }
    }

    #[test]
    fn a_drawn_colour_is_one_role() {
        let mut lights: Vec<u32> = roles().map(|role| role.light).collect();
        let count = lights.len();
        lights.sort_unstable();
        lights.dedup();
        assert_eq!(lights.len(), count);
        let svg = r##"<line stroke="#0B5FC0" opacity="1"/>"##;
        assert_eq!(
            follow_style_sheet(svg),
            r##"<line stroke="var(--s-synod)" opacity="1"/>"##
        );
        assert_eq!(of_system("NATS-default", 5), of_system("nats", 0));
    }
}
