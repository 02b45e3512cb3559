//! What is printed in the end.

use std::fmt;

/// The table, as Markdown.
#[derive(Default)]
pub(crate) struct Table(String);

impl Table {
    /// A line before the table.
    pub(crate) fn say(&mut self, line: &str) {
        println!("{line}");
        self.0 += &format!("{line}\n");
    }

    pub(crate) fn head(&mut self) {
        self.0 += "\n| work | measured | promised | |\n| --- | --- | --- | --- |\n";
    }

    /// What stands beside for comparison.
    pub(crate) fn compare(&mut self, work: &str, measured: &str) {
        self.line(work, measured, "", "");
    }

    /// What is promised, and whether it is kept.
    pub(crate) fn row(&mut self, work: &str, measured: &str, promised: &str, kept: bool) {
        self.line(work, measured, promised, if kept { "kept" } else { "**missed**" });
    }

    /// Memory that is promised to be no more than so many bytes.
    pub(crate) fn memory(&mut self, work: &str, bytes: u64, limit: u64) {
        let promised = format!("≤ {} MB", megabytes(limit));
        self.row(work, &format!("{} MB", megabytes(bytes)), &promised, bytes <= limit);
    }

    fn line(&mut self, work: &str, measured: &str, promised: &str, verdict: &str) {
        let measured = measured.trim_end_matches("; ");
        self.0 += &format!("| {work} | {measured} | {promised} | {verdict} |\n");
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
