//! Writing the text format. Source: `docs/instrumenting/exposition_formats.md` of Prometheus.

use std::fmt::{self, Write};

use jiff::Timestamp;

/// What the text is.
pub(in super::super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Families with their samples.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
    family: &'static str,
}

/// What the values of a family do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// They are counted by their size.
    Histogram,
}

/// A number of seconds, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nanoseconds(pub(super) u64);

impl fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rest) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if rest == 0 { seconds.fmt(f) } else { write!(f, "{seconds}.{rest:09}") }
    }
}

impl Exposition {
    /// Begins a family; the samples that follow are its.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        self.family = name;
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A sample of the last family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl fmt::Display) {
        self.write("", labels, &value);
        self.text.push('\n');
    }

    /// A sample of a part of the last family, such as `_sum`.
    pub(super) fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        self.write(suffix, labels, &value);
        self.text.push('\n');
    }

    /// A sample that was taken at a certain time.
    pub(super) fn sample_at(
        &mut self,
        labels: &[(&str, &str)],
        value: impl fmt::Display,
        at: Timestamp,
    ) {
        self.write("", labels, &value);
        let _ = writeln!(self.text, " {}", at.as_millisecond());
    }

    fn write(&mut self, suffix: &str, labels: &[(&str, &str)], value: &dyn fmt::Display) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{name}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = write!(self.text, " {value}");
    }
}

impl From<Exposition> for String {
    fn from(exposition: Exposition) -> Self {
        exposition.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_prometheus() {
        let mut out = Exposition::default();
        out.family("a_total", Kind::Counter, "All\nof it.");
        out.sample(&[("file", "a\"b\\c\nd"), ("x", "")], Nanoseconds(1_500_000_000));
        out.sample_at(&[], Nanoseconds(2_000_000_000), Timestamp::from_second(3).unwrap());
        let expected = "# HELP a_total All\\nof it.\n# TYPE a_total counter\n\
                        a_total{file=\"a\\\"b\\\\c\\nd\",x=\"\"} 1.500000000\na_total 2 3000\n";
        assert_eq!(String::from(out), expected);
    }
}
