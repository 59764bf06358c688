//! Rows of workloads, each with what every contender came to in every round.

use serde::{Deserialize, Serialize};

use crate::stats::Summary;

/// Where a row was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Group {
    /// System calls on a mount; ratios are to native.
    Mount,
    /// 9p requests to stock QEMU; ratios are to QEMU as root.
    P9,
}

/// What a rate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Operations.
    Operations,
    /// Octets.
    Octets,
    /// The whole of the work, once.
    Whole,
}

/// A workload.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) group: Group,
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) cells: Vec<Cell>,
}

/// One contender's rates at one workload, amount a second, a round each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) contender: String,
    pub(crate) rates: Vec<f64>,
    /// Why it could not do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

impl Row {
    /// A contender's cell.
    pub(crate) fn cell(&self, contender: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.contender == contender)
    }

    /// What a contender came to.
    pub(crate) fn summary(&self, contender: &str) -> Option<Summary> {
        Summary::of(&self.cell(contender)?.rates)
    }

    /// A contender's best rate.
    pub(crate) fn best(&self, contender: &str) -> Option<f64> {
        self.summary(contender).map(|summary| summary.best)
    }

    /// A contender's best rate in parts of another's.
    pub(crate) fn ratio(&self, contender: &str, to: &str) -> Option<f64> {
        Some(self.best(contender)? / self.best(to)?)
    }
}

/// All rows, in the order they were first measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
}

impl Results {
    /// Adds a round's rate.
    pub(crate) fn add(&mut self, row: (Group, &str, Unit), contender: &str, rate: f64) {
        self.cell(row, contender).rates.push(rate);
    }

    /// Notes that a contender cannot do it.
    pub(crate) fn fail(&mut self, row: (Group, &str, Unit), contender: &str, why: &str) {
        self.cell(row, contender).failure = Some(why.to_owned());
    }

    fn cell(&mut self, (group, title, unit): (Group, &str, Unit), contender: &str) -> &mut Cell {
        let found = self
            .rows
            .iter()
            .position(|row| row.group == group && row.title == title);
        let index = found.unwrap_or_else(|| {
            self.rows.push(Row {
                group,
                title: title.to_owned(),
                unit,
                cells: Vec::new(),
            });
            self.rows.len() - 1
        });
        let cells = &mut self.rows[index].cells;
        let found = cells.iter().position(|cell| cell.contender == contender);
        let index = found.unwrap_or_else(|| {
            cells.push(Cell {
                contender: contender.to_owned(),
                rates: Vec::new(),
                failure: None,
            });
            cells.len() - 1
        });
        &mut cells[index]
    }

    /// Rows that differ in their depth alone come together.
    pub(crate) fn settle(&mut self) {
        let kind = |row: &Row| {
            let title = row.title.split(", depth ").next().unwrap_or_default();
            (row.group, title.to_owned())
        };
        let mut kinds: Vec<_> = self.rows.iter().map(kind).collect();
        let mut seen = std::collections::HashSet::new();
        kinds.retain(|kind| seen.insert(kind.clone()));
        self.rows
            .sort_by_key(|row| kinds.iter().position(|known| *known == kind(row)));
    }

    /// Contenders of a group's rows, in `order`.
    pub(crate) fn contenders<'a>(&self, group: Group, order: &'a [String]) -> Vec<&'a str> {
        let has = |name: &String| {
            let mut rows = self.rows.iter().filter(|row| row.group == group);
            rows.any(|row| row.cells.iter().any(|cell| cell.contender == *name))
        };
        let found = order.iter().filter(|name| has(name));
        found.map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_of_a_kind_come_together() {
        let mut results = Results::default();
        for title in [
            "create, depth 1",
            "unlink, depth 1",
            "create, depth 8",
            "stat",
        ] {
            results.add((Group::P9, title, Unit::Operations), "native", 1.0);
        }
        results.settle();
        let titles: Vec<_> = results.rows.iter().map(|row| row.title.as_str()).collect();
        let expected = [
            "create, depth 1",
            "create, depth 8",
            "unlink, depth 1",
            "stat",
        ];
        assert_eq!(titles, expected);
    }

    #[test]
    fn rates_of_rounds_gather_in_their_cell() {
        let mut results = Results::default();
        let key = (Group::Mount, "stat", Unit::Operations);
        for (contender, rate) in [("native", 10.0), ("view", 4.0), ("native", 8.0)] {
            results.add(key, contender, rate);
        }
        results.add((Group::P9, "stat", Unit::Operations), "view", 1.0);
        let row = &results.rows[0];
        assert_eq!(row.ratio("view", "native"), Some(0.4));
        assert_eq!(row.ratio("bindfs", "native"), None);
        assert_eq!(results.rows.len(), 2);
        let order = ["view".to_owned(), "native".to_owned(), "bindfs".to_owned()];
        assert_eq!(results.contenders(Group::Mount, &order), ["view", "native"]);
    }
}
