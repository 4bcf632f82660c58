//! What the control port and the handle can do to the simulator.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc::error::TrySendError;

use super::accounts::{Account, Seat};
use super::commands::{C2cSend, GroupSend};
use super::connection::Outgoing;
use super::groups::Group;
use super::world::World;
use crate::error::{Classified, ErrorKind};
use crate::types::{AccountId, UnixMillis};

/// Why the simulator does not do what the control port asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No such account.
    #[error("unknown user {0:?}: it has never logged in (POST /account makes it)")]
    UnknownUser(String),
    /// No such group.
    #[error("unknown group {0:?}: POST /group makes it")]
    UnknownGroup(String),
    /// The account has no connection, or no login, that this could be done to.
    #[error("user {0:?} is not online")]
    NotOnline(String),
    /// The account's connection takes nothing more at present.
    #[error("the connection of user {0:?} has a full queue: it reads too slowly")]
    QueueFull(String),
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
}

impl Classified for ControlError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownUser(_) | Self::UnknownGroup(_) => ErrorKind::NotFound,
            Self::NotOnline(_) => ErrorKind::Precondition,
            Self::QueueFull(_) => ErrorKind::Exhausted,
            Self::Invalid(_) => ErrorKind::InvalidInput,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

fn invalid(text: impl Into<String>) -> ControlError {
    ControlError::Invalid(text.into())
}

impl World {
    fn known(&self, user_id: &str) -> Result<Arc<Account>, ControlError> {
        self.find(user_id)
            .ok_or_else(|| ControlError::UnknownUser(user_id.to_owned()))
    }

    fn known_group(&self, group: &str) -> Result<Arc<Group>, ControlError> {
        self.find_group(group)
            .ok_or_else(|| ControlError::UnknownGroup(group.to_owned()))
    }

    fn seats_of(&self, user_id: &str) -> Result<Vec<Seat>, ControlError> {
        let seats = self.known(user_id)?.seats();
        if seats.is_empty() {
            return Err(ControlError::NotOnline(user_id.to_owned()));
        }
        Ok(seats)
    }

    /// Hands something to every connection of the account.
    fn tell(&self, user_id: &str, what: impl Fn() -> Outgoing) -> Result<(), ControlError> {
        for seat in self.seats_of(user_id)? {
            seat.queue.try_send(what()).map_err(|error| match error {
                TrySendError::Full(_) => ControlError::QueueFull(user_id.to_owned()),
                TrySendError::Closed(_) => ControlError::NotOnline(user_id.to_owned()),
            })?;
        }
        Ok(())
    }

    pub(super) fn import(&self, user_id: &str) -> Result<(), ControlError> {
        let id =
            AccountId::parse(user_id).map_err(|problem| invalid(format!("user_id {problem}")))?;
        self.find_or_create(&id);
        Ok(())
    }

    pub(super) fn kick(&self, user_id: &str, kick_type: u8) -> Result<(), ControlError> {
        let account = self.known(user_id)?;
        if !(1..=3).contains(&kick_type) {
            return Err(invalid("kick_type must be 1, 2 or 3"));
        }
        if account.kick(kick_type) {
            Ok(())
        } else {
            Err(ControlError::NotOnline(user_id.to_owned()))
        }
    }

    pub(super) fn expire(&self, user_id: &str, now: UnixMillis) -> Result<(), ControlError> {
        if self.known(user_id)?.expire(now) {
            Ok(())
        } else {
            Err(ControlError::NotOnline(user_id.to_owned()))
        }
    }

    pub(super) fn drop_connections(&self, user_id: Option<&str>) -> Result<u64, ControlError> {
        let Some(user_id) = user_id else {
            return Ok(self.cut_all());
        };
        let seats = self.known(user_id)?.seats();
        for seat in &seats {
            seat.cut.cancel();
        }
        Ok(seats.len() as u64)
    }

    pub(super) fn stall(&self, user_id: &str, duration: Duration) -> Result<(), ControlError> {
        self.tell(user_id, || Outgoing::Stall(duration))
    }

    pub(super) fn refuse(
        &self,
        user_id: Option<&str>,
        code: u32,
        times: u32,
    ) -> Result<(), ControlError> {
        let account = match user_id {
            Some(user_id) => Some(self.known(user_id)?.id.clone()),
            None => None,
        };
        if code == 0 || times == 0 {
            return Err(invalid("code and times must be greater than 0"));
        }
        self.add_refusal(account, code, times);
        Ok(())
    }

    pub(super) fn message(
        &self,
        from: &str,
        to: &str,
        text: &str,
        now: UnixMillis,
    ) -> Result<(), ControlError> {
        let (from, to) = (self.known(from)?, self.known(to)?);
        let send = C2cSend::text(to.id.as_str(), next_seq(&from), text, now);
        self.send_c2c(&from, send, now)
            .map_err(|refused| invalid(refused.text))?;
        Ok(())
    }

    pub(super) fn group_message(
        &self,
        from: &str,
        group: &str,
        text: &str,
        now: UnixMillis,
    ) -> Result<(), ControlError> {
        let (from, group) = (self.known(from)?, self.known_group(group)?);
        let send = GroupSend::text(&group.id, next_seq(&from), text, now);
        self.send_group(&from, send, now)
            .map_err(|refused| invalid(refused.text))?;
        Ok(())
    }

    pub(super) fn set_group(
        &self,
        group: &str,
        members: &[String],
        now: UnixMillis,
    ) -> Result<(), ControlError> {
        if group.is_empty() {
            return Err(invalid("group must not be empty"));
        }
        let accounts: Result<Vec<_>, _> = members.iter().map(|id| self.known(id)).collect();
        self.find_or_create_group(group, now.as_secs())
            .set_members(accounts?, now);
        Ok(())
    }

    pub(super) fn overload(
        &self,
        user_id: &str,
        command: &str,
        seconds: u64,
    ) -> Result<(), ControlError> {
        let body = json!({ "OverLoadServCmd": command, "DelaySecs": seconds }).to_string();
        self.push(user_id, "OverLoadPush.notify2", body)
    }

    pub(super) fn push(
        &self,
        user_id: &str,
        servcmd: &str,
        body: String,
    ) -> Result<(), ControlError> {
        if servcmd.is_empty() {
            return Err(invalid("servcmd must not be empty"));
        }
        self.tell(user_id, || Outgoing::Push {
            servcmd: servcmd.to_owned(),
            body: body.clone(),
        })
    }

    pub(super) fn raw(&self, user_id: &str, frame: &[u8]) -> Result<(), ControlError> {
        self.tell(user_id, || Outgoing::Raw(frame.to_vec()))
    }
}

fn next_seq(account: &Account) -> u64 {
    let mut state = account.state();
    state.last_seq += 1;
    state.last_seq
}
