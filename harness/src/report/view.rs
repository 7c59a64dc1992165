//! The cells of a collection as plots see them: curves with names and colours, grouped by what may be compared.

use std::collections::BTreeMap;

use crate::load::load_file::Load;
use crate::report::picture::{CurveStyle, Marker};
use crate::report::theme::{self, Role};
use crate::results::{Collection, Figure, LoadedCell};

pub struct View<'a> {
    pub collection: &'a Collection,
    pub entries: Vec<Entry<'a>>,
}

/// A cell with its curve.
#[derive(Clone)]
pub struct Entry<'a> {
    pub loaded: &'a LoadedCell,
    pub series: Series,
    pub conditions: Conditions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    pub name: String,
    pub role: Role,
    pub style: CurveStyle,
}

/// What has to be the same for figures to stand in one plot, but for the load and the size of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conditions {
    pub payload_bytes: u32,
    pub state_machine: String,
    /// The kinds of what was done to the cluster, empty for none.
    pub faults: String,
}

impl Conditions {
    fn of(loaded: &LoadedCell) -> Conditions {
        Conditions {
            payload_bytes: loaded.cell.payload_bytes,
            state_machine: loaded.cell.state_machine.clone(),
            faults: loaded.faults(),
        }
    }
}

impl<'a> View<'a> {
    pub fn new(collection: &'a Collection) -> View<'a> {
        let names = series_names(collection);
        let mut systems: Vec<&str> = Vec::new();
        let mut entries = Vec::new();
        for (loaded, name) in collection.cells.iter().zip(names) {
            let system = loaded.cell.system.as_str();
            let known = systems.iter().position(|other| *other == system);
            let index = known.unwrap_or_else(|| {
                systems.push(system);
                systems.len() - 1
            });
            let series = Series {
                name,
                role: theme::of_system(system, index),
                style: style(&loaded.cell.transport),
            };
            entries.push(Entry {
                loaded,
                series,
                conditions: Conditions::of(loaded),
            });
        }
        View {
            collection,
            entries,
        }
    }

    /// The conditions of a plot in words, as far as they are not the same for all of the report.
    pub fn place(
        &self,
        conditions: &Conditions,
        replicas: Option<u8>,
        load: Option<Load>,
    ) -> String {
        let mut words = Vec::new();
        if let Some(load) = load
            && self.varies(|entry| load_order(&entry.loaded.cell.load))
        {
            words.push(load_label(&load));
        }
        if let Some(replicas) = replicas
            && self.varies(|entry| entry.loaded.cell.replicas)
        {
            words.push(replicas_label(replicas));
        }
        if self.varies(|entry| entry.conditions.payload_bytes) {
            words.push(format!("{} B", conditions.payload_bytes));
        }
        if !conditions.state_machine.is_empty()
            && self.varies(|entry| entry.conditions.state_machine.clone())
        {
            words.push(format!("state machine {}", conditions.state_machine));
        }
        if !conditions.faults.is_empty() {
            words.push(conditions.faults.clone());
        }
        words.join(", ")
    }

    /// Words in front of a place that may be empty.
    pub fn title(&self, words: &str, place: &str) -> String {
        if place.is_empty() {
            words.to_owned()
        } else {
            format!("{words}, {place}")
        }
    }

    /// All conditions of a set of cells.
    pub fn full_place(conditions: &Conditions, replicas: u8) -> String {
        let mut words = vec![
            replicas_label(replicas),
            format!("{} B", conditions.payload_bytes),
        ];
        if !conditions.state_machine.is_empty() {
            words.push(format!("state machine {}", conditions.state_machine));
        }
        if !conditions.faults.is_empty() {
            words.push(conditions.faults.clone());
        }
        words.join(" · ")
    }

    fn varies<T: PartialEq>(&self, of: impl Fn(&Entry<'a>) -> T) -> bool {
        self.entries
            .windows(2)
            .any(|pair| of(&pair[0]) != of(&pair[1]))
    }

    /// Cells that differ in their system only, the largest groups of loads in order.
    pub fn by_point(&self) -> Vec<(Conditions, u8, Load, Vec<&Entry<'a>>)> {
        let mut groups: BTreeMap<_, Vec<&Entry<'a>>> = BTreeMap::new();
        for entry in &self.entries {
            let cell = &entry.loaded.cell;
            let key = (
                entry.conditions.clone(),
                cell.replicas,
                load_order(&cell.load),
            );
            groups.entry(key).or_default().push(entry);
        }
        groups
            .into_iter()
            .map(|((conditions, replicas, _), entries)| {
                (conditions, replicas, entries[0].loaded.cell.load, entries)
            })
            .collect()
    }

    /// Cells that differ in system and in how high the load is. Closed and open loops are different questions.
    pub fn by_size(&self) -> Vec<(Conditions, u8, Vec<&Entry<'a>>)> {
        let mut groups: BTreeMap<_, Vec<&Entry<'a>>> = BTreeMap::new();
        for entry in &self.entries {
            let cell = &entry.loaded.cell;
            let (kind, _, _) = load_order(&cell.load);
            let key = (entry.conditions.clone(), cell.replicas, kind);
            groups.entry(key).or_default().push(entry);
        }
        groups
            .into_iter()
            .map(|((conditions, replicas, _), entries)| (conditions, replicas, entries))
            .collect()
    }

    /// Cells that differ in system and size of the cluster.
    pub fn by_load(&self) -> Vec<(Conditions, Load, Vec<&Entry<'a>>)> {
        let mut groups: BTreeMap<_, Vec<&Entry<'a>>> = BTreeMap::new();
        for entry in &self.entries {
            let key = (
                entry.conditions.clone(),
                load_order(&entry.loaded.cell.load),
            );
            groups.entry(key).or_default().push(entry);
        }
        groups
            .into_iter()
            .map(|((conditions, _), entries)| (conditions, entries[0].loaded.cell.load, entries))
            .collect()
    }
}

impl Entry<'_> {
    /// A figure of each run that told it.
    pub fn runs(&self, figure: Figure) -> Vec<f64> {
        let runs = self.loaded.runs.iter();
        runs.filter_map(|run| figure.of_run(&run.result)).collect()
    }
}

/// The curves among entries, each with its entries, in order of appearance.
pub fn curves<'e, 'a>(entries: &[&'e Entry<'a>]) -> Vec<(Series, Vec<&'e Entry<'a>>)> {
    let mut curves: Vec<(Series, Vec<&Entry<'a>>)> = Vec::new();
    for entry in entries {
        match curves
            .iter_mut()
            .find(|(series, _)| *series == entry.series)
        {
            Some((_, members)) => members.push(entry),
            None => curves.push((entry.series.clone(), vec![entry])),
        }
    }
    curves
}

/// Closed loops by what is outstanding, then open ones by their rate.
pub fn load_order(load: &Load) -> (u8, u64, u32) {
    match load {
        Load::Closed {
            outstanding,
            clients,
        } => (0, u64::from(*outstanding), *clients),
        Load::Open { rate, clients } => (1, *rate, *clients),
    }
}

/// Without the number of clients, which is a setting and no axis.
pub fn load_label(load: &Load) -> String {
    match load {
        Load::Closed { outstanding, .. } => {
            format!(
                "{} outstanding",
                crate::report::format::thousands(u64::from(*outstanding))
            )
        }
        Load::Open { rate, .. } => {
            format!(
                "open loop of {}/s",
                crate::report::format::count(*rate as f64)
            )
        }
    }
}

pub fn replicas_label(replicas: u8) -> String {
    format!("{replicas} replica{}", if replicas == 1 { "" } else { "s" })
}

/// Plaintext is dashed, encrypted is not.
fn style(transport: &str) -> CurveStyle {
    match transport {
        "tcp" => CurveStyle {
            marker: Marker::Triangle,
            dashed: true,
        },
        "quic" => CurveStyle {
            marker: Marker::Dot,
            dashed: false,
        },
        _ => CurveStyle {
            marker: Marker::Cross,
            dashed: false,
        },
    }
}

/// System and transport; the version and the durability as well where those alone would not tell curves apart.
fn series_names(collection: &Collection) -> Vec<String> {
    let cells = || collection.cells.iter().map(|loaded| &loaded.cell);
    cells()
        .map(|cell| {
            let alike = || cells().filter(|other| other.series() == cell.series());
            let mut extras = vec![cell.transport.clone()];
            if alike().any(|other| other.version != cell.version) {
                extras.push(cell.version.clone());
            }
            if alike().any(|other| other.durability != cell.durability) {
                extras.push(format!("durability {}", cell.durability));
            }
            format!("{} ({})", cell.system, extras.join(", "))
        })
        .collect()
}
