//! Which upstream commands a tenant may send by itself.

/// Beginnings of the commands that only the gateway sends: login, logout, proof of life, acknowledgement.
const RESERVED: [&str; 3] = ["im_open_status.", "heartbeat.", "openim.ws_msg_push_ack"];
/// The longest name of a command, in bytes.
const MAX_NAME: usize = 128;

/// The commands that a tenant may send by itself. None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandList(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Name(String),
    /// Every command that begins so.
    Beginning(String),
}

/// Why a list of commands is refused. The texts are remedies, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandListError {
    /// It is not the name of a command.
    #[error(
        "must have names of upstream commands such as \"profile.portrait_get_all\", or beginnings of them with a star at \
         the end such as \"profile.*\"; {0:?} is neither"
    )]
    NotACommand(String),
    /// Only the gateway sends it.
    #[error(
        "{0:?} is the gateway's own, which logs in and out and keeps sessions alive: take it out"
    )]
    Reserved(String),
}

impl CommandList {
    /// Every command.
    pub fn every() -> Self {
        Self(vec![Pattern::Beginning(String::new())])
    }

    /// Whole names, or beginnings of names followed by a star; a star alone stands for every command.
    ///
    /// # Errors
    ///
    /// The first entry that is no command, or that stands for nothing but the gateway's own commands.
    pub fn parse(entries: &[String]) -> Result<Self, CommandListError> {
        let pattern = |entry: &String| {
            let (name, is_beginning) = match entry.strip_suffix('*') {
                Some(beginning) => (beginning, true),
                None => (entry.as_str(), false),
            };
            if is_reserved(name) {
                return Err(CommandListError::Reserved(entry.clone()));
            }
            let named = if is_beginning {
                name.is_empty() || can_begin(name)
            } else {
                is_name(name)
            };
            if !named {
                return Err(CommandListError::NotACommand(entry.clone()));
            }
            Ok(if is_beginning {
                Pattern::Beginning(name.into())
            } else {
                Pattern::Name(name.into())
            })
        };
        entries
            .iter()
            .map(pattern)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether a command is on the list. Case counts. The gateway's own commands may be: see [`is_reserved`].
    pub fn has(&self, command: &str) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Name(name) => name == command,
            Pattern::Beginning(beginning) => command.starts_with(beginning),
        })
    }
}

/// Whether only the gateway sends this command. Case does not count, for the upstream might not look at it.
pub fn is_reserved(command: &str) -> bool {
    let begins = |reserved: &&str| {
        command
            .get(..reserved.len())
            .is_some_and(|beginning| beginning.eq_ignore_ascii_case(reserved))
    };
    RESERVED.iter().any(begins)
}

/// Whether this can be the name of a command: words of letters, digits, dashes and underscores, with single dots between
/// them. It can be neither a path nor anything that ends a header or a line.
pub fn is_name(command: &str) -> bool {
    can_begin(command) && !command.ends_with('.')
}

fn can_begin(command: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !command.is_empty()
        && command.len() <= MAX_NAME
        && command.bytes().all(known)
        && !command.starts_with('.')
        && !command.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Result<CommandList, CommandListError> {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.into()).collect();
        CommandList::parse(&entries)
    }

    #[test]
    fn nothing_is_allowed_that_is_not_listed() {
        assert!(!CommandList::default().has("profile.get"));
        let some = list(&["profile.*", "openim.getmsg"]).unwrap();
        for (command, allowed) in [
            ("profile.get", true),
            ("profile.", true),
            ("openim.getmsg", true),
            ("profile", false),
            ("profiles.get", false),
            ("openim.getmsg2", false),
            ("openim", false),
            ("Profile.get", false),
            ("openim.GETMSG", false),
            ("", false),
        ] {
            assert_eq!(some.has(command), allowed, "{command}");
        }
        assert_eq!(list(&["*"]), Ok(CommandList::every()));
        assert!(CommandList::every().has("any.thing"));
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for bad in [
            "",
            " ",
            "a b",
            "a..b",
            "../a",
            ".a",
            "a.",
            "a/b",
            "a*b",
            "**",
            "..*",
            ".*",
            "a\n",
            "\0",
            "ü.x",
            "a\\b",
            "%2e%2e",
            &"x".repeat(129),
        ] {
            assert_eq!(
                list(&["profile.get", bad]),
                Err(CommandListError::NotACommand(bad.into())),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn the_gateway_s_own_commands_cannot_be_listed() {
        for own in [
            "im_open_status.wslogin",
            "im_open_status.*",
            "im_open_status.ws*",
            "IM_Open_Status.wslogout",
            "heartbeat.alive",
            "openim.ws_msg_push_ack",
            "openim.ws_msg_push_ack*",
        ] {
            assert_eq!(list(&[own]), Err(CommandListError::Reserved(own.into())));
        }
        // A list that has them among others is one of the others.
        assert!(list(&["openim.*", "im_*", "*"]).is_ok());
        assert!(is_reserved("Heartbeat.alive") && is_reserved("openim.WS_msg_push_ack2"));
        assert!(
            !is_reserved("openim.getmsg")
                && !is_reserved("heart")
                && !is_reserved("h\u{e9}artbeat.x")
        );
    }
}
