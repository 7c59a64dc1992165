//! In which order the runs are done.

use super::{Matrix, Point};

/// One run to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub point: Point,
    /// From 0.
    pub repeat: u32,
}

/// Conditions one after the other; under each, the systems take turns (A B C, B C A, C A B, …), so that what changes
/// on the machine meanwhile meets all of them, and nobody always runs after the same neighbour.
pub fn schedule(matrix: &Matrix) -> Vec<Turn> {
    let points = matrix.points();
    let each = matrix.contestants().len();
    let mut turns = Vec::new();
    for group in points.chunks(each) {
        for repeat in 0..matrix.repeat {
            let first = repeat as usize % group.len();
            let rotated = group[first..].iter().chain(&group[..first]);
            turns.extend(rotated.map(|point| Turn {
                point: *point,
                repeat,
            }));
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::System;

    #[test]
    fn systems_take_turns_and_the_order_rotates() {
        let matrix = Matrix {
            systems: vec![System::Synod, System::RaftRs, System::Openraft],
            outstanding: vec![1, 64],
            repeat: 2,
            ..Matrix::default()
        };
        let folders: Vec<String> = schedule(&matrix)
            .iter()
            .map(|turn| turn.point.folder(turn.repeat))
            .collect();
        let expected: Vec<String> = ["c1", "c64"]
            .iter()
            .flat_map(|load| {
                [
                    format!("synod-quic-n3-128B-{load}-1"),
                    format!("raft-rs-quic-n3-128B-{load}-1"),
                    format!("openraft-quic-n3-128B-{load}-1"),
                    format!("raft-rs-quic-n3-128B-{load}-2"),
                    format!("openraft-quic-n3-128B-{load}-2"),
                    format!("synod-quic-n3-128B-{load}-2"),
                ]
            })
            .collect();
        assert_eq!(folders, expected);
    }
}
