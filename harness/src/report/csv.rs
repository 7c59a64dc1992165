//! `summary.csv`: one row per cell and figure, for people's own tools.

use crate::report::view::{View, load_label};
use crate::results::Figure;

pub fn summary(view: &View<'_>) -> String {
    let mut csv = String::from(
        "system,version,transport,replicas,payload_bytes,load,durability,state_machine,faults,\
         figure,median,low,high,min,max,runs\n",
    );
    for entry in &view.entries {
        let cell = &entry.loaded.cell;
        for figure in Figure::ALL {
            let Some(spread) = figure.of_summary(&cell.summary) else {
                continue;
            };
            let fields = [
                cell.system.clone(),
                cell.version.clone(),
                cell.transport.clone(),
                cell.replicas.to_string(),
                cell.payload_bytes.to_string(),
                load_label(&cell.load),
                cell.durability.clone(),
                cell.state_machine.clone(),
                entry.conditions.faults.clone(),
                figure.key().to_owned(),
                spread.median.to_string(),
                spread.low.to_string(),
                spread.high.to_string(),
                spread.min.to_string(),
                spread.max.to_string(),
                spread.n.to_string(),
            ];
            let quoted = fields.map(|field| quote(&field));
            csv.push_str(&quoted.join(","));
            csv.push('\n');
        }
    }
    csv
}

/// As RFC 4180 has it. What a spreadsheet would take for a formula gets an apostrophe: names and versions are those of a
/// folder that may be somebody else's.
fn quote(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if formula && field.parse::<f64>().is_err() {
        return quote(&format!("'{field}"));
    }
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn fields_with_commas_and_quotes() {
        assert_eq!(quote("a"), "a");
        for formula in ["=1+1", "@x", "+cmd", "-cmd|' /c'!A0", "\t=1"] {
            assert_eq!(quote(formula), format!("'{formula}"));
        }
        assert_eq!(quote("=A1,B1"), "\"'=A1,B1\"");
        assert_eq!(quote("-1.5"), "-1.5");
        assert_eq!(quote("1,024 \"x\""), "\"1,024 \"\"x\"\"\"");
    }
}
