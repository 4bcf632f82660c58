//! Writes the reference: a commented file with every key, made of the same text that documents the code.

use super::options::Options;
use super::section::{Section, Visitor};
use super::setting::Setting;

const INTRODUCTION: &str = "\
# The configuration of imgate: every key, with its default.
#
# A key that is commented out shows its default, or an example where leaving it out means something of its own.
# Keys that are not commented out are required, or make this example whole. Unknown keys are refused. Durations
# are written as \"500ms\", \"30s\", \"5m\", \"1h\" or \"7d\". Relative paths start at the folder of this file.
# `imgate check-config --config FILE` names everything that is wrong with a file.
";

/// The reference: a valid file with one tenant, the defaults, and all other keys as comments.
pub fn reference() -> String {
    let mut writer = Writer {
        text: INTRODUCTION.to_owned(),
        path: String::new(),
        commented: false,
    };
    Options::visit(&mut writer);
    writer.text
}

/// Writes each key that it visits.
#[derive(Debug)]
struct Writer {
    text: String,
    /// The present table's full name; empty at the top.
    path: String,
    /// Whether the whole present table is an example only.
    commented: bool,
}

impl Writer {
    fn comment(&mut self, doc: &[&str]) {
        self.text.push('\n');
        for line in doc {
            let line = format!("#{line}");
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }

    fn key(&mut self, key: &str, doc: &[&str], value: &impl Setting, commented: bool) {
        self.comment(doc);
        if commented || self.commented {
            self.text.push_str("# ");
        }
        self.text
            .push_str(&format!("{key} = {}\n", value.to_toml()));
    }

    fn within<T: Section>(&mut self, name: &str, brackets: (&str, &str), commented: bool) -> T {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            outer => format!("{outer}.{name}"),
        };
        self.comment(T::DOC);
        let outer_commented = self.commented;
        self.commented |= commented;
        let mark = if self.commented { "# " } else { "" };
        let (open, close) = brackets;
        self.text.push_str(&format!("{mark}{open}{path}{close}\n"));
        let outer = std::mem::replace(&mut self.path, path);
        let section = T::visit(self);
        self.path = outer;
        self.commented = outer_commented;
        section
    }
}

impl Visitor for Writer {
    fn default<T: Setting>(&mut self, key: &'static str, doc: &[&str], value: T) -> T {
        self.key(key, doc, &value, true);
        value
    }

    fn required<T: Setting>(&mut self, key: &'static str, doc: &[&str], value: T) -> T {
        self.key(key, doc, &value, false);
        value
    }

    fn optional<T: Setting>(&mut self, key: &'static str, doc: &[&str], value: T) -> Option<T> {
        self.key(key, doc, &value, true);
        Some(value)
    }

    fn table<T: Section>(&mut self, name: &'static str) -> T {
        self.within(name, ("[", "]"), false)
    }

    fn optional_table<T: Section>(&mut self, name: &'static str) -> Option<T> {
        Some(self.within(name, ("[", "]"), true))
    }

    fn tables<T: Section>(&mut self, name: &'static str) -> Vec<T> {
        vec![self.within(name, ("[[", "]]"), false)]
    }

    fn optional_tables<T: Section>(&mut self, name: &'static str) -> Vec<T> {
        vec![self.within(name, ("[[", "]]"), true)]
    }
}
