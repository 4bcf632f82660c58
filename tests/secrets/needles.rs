//! Secrets in all the forms that they could be written in.

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A secret of the life, with a name for messages.
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Known {
    pub(crate) fn new(name: impl Into<String>, bytes: impl AsRef<[u8]>) -> Self {
        let (name, bytes) = (name.into(), bytes.as_ref().to_vec());
        assert!(bytes.len() >= 12, "{name} is too short to be looked for");
        Self { name, bytes }
    }
}

/// All that is looked for at once.
pub(crate) struct Needles {
    names: Vec<String>,
    forms: Vec<Vec<u8>>,
    search: AhoCorasick,
}

impl Needles {
    pub(crate) fn of(secrets: &[Known]) -> Self {
        let (mut names, mut forms) = (Vec::new(), Vec::new());
        for secret in secrets {
            for (form, bytes) in forms_of(&secret.bytes) {
                names.push(format!("{} ({form})", secret.name));
                forms.push(bytes);
            }
        }
        let search = AhoCorasick::new(&forms).unwrap();
        Self {
            names,
            forms,
            search,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.forms.len()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.names
            .iter()
            .zip(&self.forms)
            .map(|(name, form)| (name.as_str(), form.as_slice()))
    }

    /// The names of what is in there, each with what is around it.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        for at in self.search.find_overlapping_iter(bytes) {
            let name = self.names[at.pattern()].as_str();
            if !found.contains(&name) {
                let around = &bytes[at.start().saturating_sub(150)..bytes.len().min(at.end() + 50)];
                eprintln!("{name}: ...{}...", around.escape_ascii());
                found.push(name);
            }
        }
        found
    }
}

fn forms_of(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<String> = secret.iter().map(u8::to_string).collect();
    let mut forms = vec![
        ("plain", secret.to_vec()),
        ("hex", hex.clone().into_bytes()),
        ("HEX", hex.to_uppercase().into_bytes()),
        ("a list of numbers", numbers.join(", ").into_bytes()),
        ("a compact list of numbers", numbers.join(",").into_bytes()),
    ];
    // It may stand anywhere in what was encoded: at each of the three places there are digits that it alone decides.
    for before in 0..3 {
        let whole = [&[0; 2][..before], secret].concat();
        let (from, to) = ((8 * before).div_ceil(6), 8 * whole.len() / 6);
        let standard = STANDARD_NO_PAD.encode(&whole);
        let url_safe = URL_SAFE_NO_PAD.encode(&whole);
        forms.push(("base64", standard.as_bytes()[from..to].to_vec()));
        forms.push(("base64 for URLs", url_safe.as_bytes()[from..to].to_vec()));
    }
    let url = |upper: bool, all: bool| -> Vec<u8> {
        let escape = |&byte: &u8| {
            let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            match (unreserved && !all, upper) {
                (true, _) => char::from(byte).to_string(),
                (false, true) => format!("%{byte:02X}"),
                (false, false) => format!("%{byte:02x}"),
            }
        };
        secret.iter().map(escape).collect::<String>().into_bytes()
    };
    forms.push(("URL", url(true, false)));
    forms.push(("url", url(false, false)));
    forms.push(("URL, every byte", url(true, true)));
    forms.push(("escaped", secret.escape_ascii().to_string().into_bytes()));
    forms.sort_by(|one, other| one.1.cmp(&other.1));
    forms.dedup_by(|one, other| one.1 == other.1);
    forms
}
