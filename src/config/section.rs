//! Sections of the file: each is declared once, with its documentation and defaults, and is visited by a reader
//! of files and by the writer of the reference.

use toml::{Table, Value};

use super::error::Problems;
use super::setting::Setting;

/// Goes over the keys of a section. `key`, its documentation and a value come with each.
pub(super) trait Visitor {
    /// A key that may be left out; `value` then stands.
    fn default<T: Setting>(&mut self, key: &'static str, doc: &[&str], value: T) -> T;

    /// A key that must be there; `value` is an example.
    fn required<T: Setting>(&mut self, key: &'static str, doc: &[&str], value: T) -> T;

    /// A key that may be left out, which means something of its own; `value` is an example.
    fn optional<T: Setting>(&mut self, key: &'static str, doc: &[&str], value: T) -> Option<T>;

    /// A table within this one; absent, all of its defaults stand.
    fn table<T: Section>(&mut self, name: &'static str) -> T;

    /// A table within this one that may be left out, which means something of its own.
    fn optional_table<T: Section>(&mut self, name: &'static str) -> Option<T>;

    /// Any number of tables of one name. Messages call each by its `id`.
    fn tables<T: Section>(&mut self, name: &'static str) -> Vec<T>;

    /// Any number of tables of one name that most files do without.
    fn optional_tables<T: Section>(&mut self, name: &'static str) -> Vec<T>;
}

/// A table of the file.
pub(super) trait Section: Sized {
    /// What the table is for.
    const DOC: &'static [&'static str];

    /// Goes over all its keys and makes the section of what the visitor answers.
    fn visit(visitor: &mut impl Visitor) -> Self;
}

/// Declares a section: a struct with, for each field, its documentation, `default`, `required` or `optional` and
/// a value; then, after `tables`, the tables within it.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field_vis:vis $field:ident: $type:ty = $presence:ident($value:expr $(,)?),
            )*
        }
        $(tables {
            $(
                $(#[doc = $table_doc:literal])*
                $table_vis:vis $table:ident: $table_type:ty = $how:ident,
            )*
        })?
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $($(#[doc = $doc])* $field_vis $field: $type,)*
            $($($(#[doc = $table_doc])* $table_vis $table: $table_type,)*)?
        }

        impl $crate::config::section::Section for $name {
            const DOC: &'static [&'static str] = &[$($section_doc),*];

            fn visit(visitor: &mut impl $crate::config::section::Visitor) -> Self {
                $(let $field = visitor.$presence(stringify!($field), &[$($doc),*], $value);)*
                $($(let $table = visitor.$how(stringify!($table));)*)?
                Self { $($field,)* $($($table,)*)? }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $crate::config::section::defaults()
            }
        }
    };
}
pub(super) use section;

/// Reads sections out of a file and notes everything that is wrong.
#[derive(Debug)]
pub(super) struct Reader {
    problems: Problems,
    /// What is left to read of the present table.
    table: Table,
    /// The present table's full name with a dot at its end; empty at the top.
    prefix: String,
    /// The keys of the present table visited so far.
    known: Vec<&'static str>,
}

impl Reader {
    /// Reads a whole file as one section. Where a value is missing or wrong, a stand-in is in the result.
    pub(super) fn read<T: Section>(file: Table) -> (T, Problems) {
        let mut reader = Self {
            problems: Problems::default(),
            table: Table::new(),
            prefix: String::new(),
            known: Vec::new(),
        };
        let section = reader.within(String::new(), file);
        (section, reader.problems)
    }

    fn within<T: Section>(&mut self, prefix: String, table: Table) -> T {
        let outer_table = std::mem::replace(&mut self.table, table);
        let outer_prefix = std::mem::replace(&mut self.prefix, prefix);
        let outer_known = std::mem::take(&mut self.known);
        let section = T::visit(self);
        self.refuse_unknown();
        self.table = outer_table;
        self.prefix = outer_prefix;
        self.known = outer_known;
        section
    }

    fn refuse_unknown(&mut self) {
        for (key, value) in std::mem::take(&mut self.table) {
            let name = format!("{}{key}", self.prefix);
            // A misspelt key of a secret holds the secret: only what cannot be one is shown.
            let shown = match value {
                Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
                Value::String(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
            };
            let remedy = format!("is not a known key; known here: {}", self.known.join(", "));
            self.problems.report(&[&name], shown, remedy);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn value<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let value = self.take(key)?;
        match T::from_toml(&value) {
            Ok(read) => Some(read),
            Err(remedy) => {
                let shown = (!T::SECRET).then(|| value.to_string());
                let name = self.name(key);
                self.problems.report(&[&name], shown, remedy);
                None
            }
        }
    }

    fn subtable(&mut self, name: String, value: Option<Value>) -> Option<Table> {
        match value {
            Some(Value::Table(table)) => Some(table),
            None => None,
            Some(_) => {
                let remedy = format!("must be a table: write [{name}] and its keys below it");
                self.problems.report(&[&name], None, remedy);
                None
            }
        }
    }
}

impl Visitor for Reader {
    fn default<T: Setting>(&mut self, key: &'static str, _: &[&str], value: T) -> T {
        self.value(key).unwrap_or(value)
    }

    fn required<T: Setting>(&mut self, key: &'static str, _: &[&str], value: T) -> T {
        if self.table.contains_key(key) {
            return self.value(key).unwrap_or(value);
        }
        self.known.push(key);
        let name = self.name(key);
        let remedy = format!(
            "is required: set it, for example {key} = {}",
            value.to_toml()
        );
        self.problems.report(&[&name], None, remedy);
        value
    }

    fn optional<T: Setting>(&mut self, key: &'static str, _: &[&str], _: T) -> Option<T> {
        self.value(key)
    }

    fn table<T: Section>(&mut self, name: &'static str) -> T {
        let value = self.take(name);
        let name = self.name(name);
        let table = self.subtable(name.clone(), value).unwrap_or_default();
        self.within(format!("{name}."), table)
    }

    fn optional_table<T: Section>(&mut self, name: &'static str) -> Option<T> {
        let value = self.take(name);
        let name = self.name(name);
        let table = self.subtable(name.clone(), value)?;
        Some(self.within(format!("{name}."), table))
    }

    fn tables<T: Section>(&mut self, name: &'static str) -> Vec<T> {
        let value = self.take(name);
        let name = self.name(name);
        let list = match value {
            None => Vec::new(),
            Some(Value::Array(list)) if list.iter().all(Value::is_table) => list,
            Some(_) => {
                let remedy = format!("must be tables: write [[{name}]] and the keys of each below");
                self.problems.report(&[&name], None, remedy);
                Vec::new()
            }
        };
        let mut sections = Vec::with_capacity(list.len());
        for (place, item) in list.into_iter().enumerate() {
            let Value::Table(table) = item else { continue };
            let id = table.get("id").and_then(Value::as_str);
            let prefix = element(&name, id, place);
            sections.push(self.within(format!("{prefix}."), table));
        }
        sections
    }

    fn optional_tables<T: Section>(&mut self, name: &'static str) -> Vec<T> {
        self.tables(name)
    }
}

/// A section as it is where the file has nothing; what is required is as in its example.
pub(super) fn defaults<T: Section>() -> T {
    Reader::read(Table::new()).0
}

/// How messages call one of several tables: by its `id`, or by its place, from 1, if that cannot be.
pub(super) fn element(name: &str, id: Option<&str>, place: usize) -> String {
    match id {
        Some(id) if !id.is_empty() => format!("{name}[{id}]"),
        _ => format!("{name}[#{}]", place.saturating_add(1)),
    }
}
