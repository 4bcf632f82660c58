//! What the simulator answers to each command.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::accounts::{Account, Refused, Seat};
use super::login::{Claim, ClientName};
use super::world::World;
use crate::connectors::tencent::frame::Incoming;
use crate::types::UnixMillis;

mod lists;
mod sends;

pub(super) use self::sends::{C2cSend, GroupSend, c2c_message};

/// What a connection does about a request.
#[derive(Debug)]
pub(super) enum Reply {
    /// Answers with this body.
    Answer(String),
    /// Answers, and then pushes the bits that say which features the app has bought, as clients expect after a login.
    AnswerThenBits(String),
    /// Notes that the push with this session data has arrived. There is no answer.
    Acknowledged(String),
    /// Answers, and forgets its unacknowledged pushes: nobody is logged in any more.
    LoggedOut(String),
}

/// The client of one connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) world: Arc<World>,
    pub(super) name: ClientName,
    pub(super) seat: Seat,
    /// Whose connection it is, or was last.
    pub(super) account: Option<Arc<Account>>,
}

/// The answer to a request that is granted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Granted<T: Serialize> {
    action_status: &'static str,
    error_info: &'static str,
    error_code: u32,
    #[serde(flatten)]
    rest: T,
}

/// The body of an answer that says yes, with `rest` in it.
fn ok(rest: impl Serialize) -> String {
    to_json(&Granted {
        action_status: "OK",
        error_info: "",
        error_code: 0,
        rest,
    })
}

fn refusal(refused: &Refused) -> String {
    let body = json!({
        "ActionStatus": "FAIL",
        "ErrorInfo": refused.text,
        "ErrorCode": refused.code,
    });
    body.to_string()
}

/// Our own answers are made of strings and numbers, which always can be written.
pub(super) fn to_json(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap_or_else(|_| String::from("{}"))
}

/// The body of the push (and answer) that says which features the app has bought: none.
pub(super) fn purchase_bits() -> Value {
    json!({
        "int32_error_code": 0,
        "str_error_message": "",
        "str_purchase_bits": "0",
        "uint32_expired_time": 3600,
    })
}

impl Client {
    /// Answers a request.
    pub(super) fn answer(&mut self, request: &Incoming, now: UnixMillis) -> Reply {
        let claim = Claim::of(&request.head);
        if let Err(refused) = check_sum(request) {
            return Reply::Answer(refusal(&refused));
        }
        match request.servcmd.as_str() {
            "im_open_status.wslogin" => self.log_in(claim, now),
            "im_open_status.wslogout" => self.log_out(claim),
            "openim.ws_msg_push_ack" => {
                let body: Value = serde_json::from_str(request.body.get()).unwrap_or_default();
                let data = body.get("SessionData").and_then(Value::as_str);
                Reply::Acknowledged(data.unwrap_or_default().to_owned())
            }
            // These come before a login and after a logout too, and then say nothing of who it is.
            "heartbeat.alive" => match self.world.authenticate(claim, now) {
                Err(refused) if refused.code != Refused::NOT_LOGGED_IN => {
                    Reply::Answer(refusal(&refused))
                }
                Ok(_) | Err(_) => Reply::Answer(ok(json!({}))),
            },
            command if command.starts_with("imopenstat.") => Reply::Answer(ok(json!({}))),
            command if command.starts_with("im_sdk_config_mgr.") && claim.a2().is_empty() => {
                self.config(command)
            }
            command => match self.world.authenticate(claim, now) {
                Ok(account) => self.serve(&account, command, request, now),
                Err(refused) => Reply::Answer(refusal(&refused)),
            },
        }
    }

    fn log_in(&mut self, claim: Claim<'_>, now: UnixMillis) -> Reply {
        let done = self.world.log_in(claim, &self.name, self.seat.clone(), now);
        let (account, accepted) = match done {
            Ok(done) => done,
            Err(refused) => return Reply::Answer(refusal(&refused)),
        };
        let same = self
            .account
            .as_ref()
            .is_some_and(|old| old.id == account.id);
        if let Some(old) = self.account.replace(account).filter(|_| !same) {
            old.leave(self.seat.connection);
        }
        Reply::AnswerThenBits(ok(json!({
            "A2Key": accepted.a2,
            "TinyId": accepted.tiny_id.to_string(),
            "InstId": accepted.inst_id,
            "HelloInterval": self.world.options.hello_interval.as_secs(),
            "TimeStamp": now.as_secs(),
            "CustomStatus": "",
            "PurchaseBits": "",
            "RichMsgAuthKey": "",
        })))
    }

    /// Always says yes: a client that was kicked logs out by a ticket that is no longer good.
    fn log_out(&self, claim: Claim<'_>) -> Reply {
        if let Some(account) = &self.account {
            account.log_out(claim.a2());
        }
        Reply::LoggedOut(ok(json!({})))
    }

    fn config(&self, command: &str) -> Reply {
        match command {
            "im_sdk_config_mgr.fetch_imsdk_purchase_bitsv2" => {
                Reply::AnswerThenBits(purchase_bits().to_string())
            }
            _ => {
                let body = json!({
                    "int32_error_code": 0,
                    "str_error_message": "",
                    "str_json_config": "{}",
                    "uint32_expired_time": 3600,
                    "uint32_sdkappid": self.world.options.sdk_app_id,
                    "uint64_version": 1,
                });
                Reply::Answer(body.to_string())
            }
        }
    }

    /// Answers a request of somebody who is logged in.
    fn serve(
        &self,
        account: &Arc<Account>,
        command: &str,
        request: &Incoming,
        now: UnixMillis,
    ) -> Reply {
        let world = &self.world;
        let body = request.body.get();
        let answer = match command {
            "openim.sendmsg" => world.on_send_c2c(account, body, now),
            "group_open_http_svc.send_group_msg" => world.on_send_group(account, body, now),
            "openim.getmsg" => world.on_getmsg(account, body),
            "openim.getroammsg" => world.on_roam(account, body),
            "group_open_http_svc.group_msg_get" => world.on_group_read(account, body),
            "group_open_http_svc.get_joined_group_list" => world.on_joined_groups(account, body),
            "group_open_http_svc.get_group_self_member_info" => world.on_group_infos(account, body),
            "recentcontact.page_get" => Ok(world.on_recent(account)),
            "profile.portrait_get_all" => Ok(lists::profiles(body)),
            command if command.starts_with("im_sdk_config_mgr.") => return self.config(command),
            command => Ok(ok(lists::empty(command))),
        };
        Reply::Answer(answer.unwrap_or_else(|refused| refusal(&refused)))
    }
}

/// Refuses a body that is not what its checksum says. 0 and nothing are no checksum. It is not known whether the real service looks at it.
fn check_sum(request: &Incoming) -> Result<(), Refused> {
    match request.head.get("cs").and_then(Value::as_u64) {
        None | Some(0) => Ok(()),
        Some(cs) if cs == u64::from(crc32fast::hash(request.body.get().as_bytes())) => Ok(()),
        Some(_) => Err(Refused::new(70402, "cs is not the checksum of the body")),
    }
}
