//! Messages and raw commands, checked.

use serde_json::{Map, Value};

use super::Invalid;
use crate::proto::v1;
use crate::runtime::handle::{Conversation, OutgoingMessage, is_command};
use crate::types::AccountId;

/// The most elements in a message.
const MAX_ELEMENTS: usize = 50;
/// The most bytes of a message: its elements and its custom data.
const MAX_MESSAGE: usize = 12 * 1024;
const MAX_CLIENT_MESSAGE_ID: usize = 64;
/// The longest group ID, in bytes; the upstream's own IDs are shorter, those of topics longer.
const MAX_GROUP: usize = 128;
/// The longest name of an element type, in bytes.
const MAX_NAME: usize = 128;
/// The largest body of a raw command, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// A message to send.
pub(in crate::grpc) fn outgoing(request: v1::SendRequest) -> Result<OutgoingMessage, Invalid> {
    let conversation = conversation(request.conversation)?;
    let bytes = elements(&request.elements)? + request.cloud_custom_data.len();
    if bytes > MAX_MESSAGE {
        let remedy = format!(
            "{bytes} bytes with cloud_custom_data; must be at most {MAX_MESSAGE}: send several messages"
        );
        return Err(Invalid::new("elements", remedy));
    }
    let id = &request.client_message_id;
    if id.len() > MAX_CLIENT_MESSAGE_ID || id.chars().any(char::is_control) {
        let remedy = "must be at most 64 bytes without control characters";
        return Err(Invalid::new("client_message_id", remedy));
    }
    Ok(OutgoingMessage {
        conversation,
        elements: request.elements,
        client_message_id: request.client_message_id,
        cloud_custom_data: request.cloud_custom_data,
        online_only: request.online_only,
    })
}

/// The command and the body of a raw command.
pub(in crate::grpc) fn invocation(
    command: String,
    body_json: String,
) -> Result<(String, String), Invalid> {
    if !is_command(&command) {
        let remedy = "must be the upstream's command, such as profile.portrait_get_all";
        return Err(Invalid::new("command", remedy));
    }
    if body_json.len() > MAX_BODY {
        return Err(Invalid::new("body_json", "must be at most 64 KiB"));
    }
    json_object("body_json", &body_json)?;
    Ok((command, body_json))
}

fn conversation(
    conversation: Option<v1::send_request::Conversation>,
) -> Result<Conversation, Invalid> {
    use v1::send_request::Conversation as Asked;
    match conversation {
        None => Err(Invalid::new(
            "conversation",
            "must be set: give the receiver in `to` or the group in `group`",
        )),
        Some(Asked::To(user)) => match AccountId::parse(&user) {
            Ok(_) => Ok(Conversation::User(user)),
            Err(remedy) => Err(Invalid::new("to", remedy)),
        },
        Some(Asked::Group(group)) => {
            let good = !group.is_empty()
                && group.len() <= MAX_GROUP
                && !group.chars().any(char::is_control);
            if good {
                Ok(Conversation::Group(group))
            } else {
                let remedy = "must be 1 to 128 bytes without control characters";
                Err(Invalid::new("group", remedy))
            }
        }
    }
}

/// Checks the elements and answers how many bytes they have.
fn elements(elements: &[v1::Element]) -> Result<usize, Invalid> {
    if elements.is_empty() || elements.len() > MAX_ELEMENTS {
        return Err(Invalid::new("elements", "must be 1 to 50"));
    }
    let mut bytes = 0;
    for (index, element) in elements.iter().enumerate() {
        let field = |name: &str| format!("elements[{index}].{name}");
        bytes += match element.kind.as_ref() {
            None => {
                let remedy = "must be set to text, custom or raw";
                return Err(Invalid::new(field("kind"), remedy));
            }
            Some(v1::element::Kind::Text(text)) => {
                if text.text.is_empty() {
                    return Err(Invalid::new(field("text.text"), "must not be empty"));
                }
                text.text.len()
            }
            Some(v1::element::Kind::Custom(custom)) => {
                custom.data.len() + custom.desc.len() + custom.ext.len()
            }
            Some(v1::element::Kind::Raw(raw)) => {
                let name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                let known = !raw.r#type.is_empty() && raw.r#type.len() <= MAX_NAME;
                if !known || !raw.r#type.bytes().all(name) {
                    let remedy = "must be the upstream's MsgType, such as TIMFaceElem";
                    return Err(Invalid::new(field("raw.type"), remedy));
                }
                // No use in parsing what is too large anyway.
                if raw.content_json.len() <= MAX_MESSAGE {
                    json_object(&field("raw.content_json"), &raw.content_json)?;
                }
                raw.r#type.len() + raw.content_json.len()
            }
        };
    }
    Ok(bytes)
}

fn json_object(field: &str, text: &str) -> Result<(), Invalid> {
    match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            // Without the library's quote of the input.
            let place = format!("line {} column {}", error.line(), error.column());
            let remedy = format!("must be a JSON object; see {place}");
            Err(Invalid::new(field, remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::element::Kind;
    use v1::send_request::Conversation as Asked;

    fn text(text: &str) -> v1::Element {
        v1::Element {
            kind: Some(Kind::Text(v1::TextElement { text: text.into() })),
        }
    }

    fn raw(name: &str, json: &str) -> v1::Element {
        v1::Element {
            kind: Some(Kind::Raw(v1::RawElement {
                r#type: name.into(),
                content_json: json.into(),
            })),
        }
    }

    fn good() -> v1::SendRequest {
        v1::SendRequest {
            account: "bot".into(),
            conversation: Some(Asked::To("user".into())),
            elements: vec![text("hi")],
            ..v1::SendRequest::default()
        }
    }

    fn field(request: v1::SendRequest) -> String {
        let result = outgoing(request);
        result.err().map(|error| error.field).unwrap_or_default()
    }

    #[test]
    fn a_good_message_passes_unchanged() {
        let message = outgoing(v1::SendRequest {
            client_message_id: "x".repeat(64),
            cloud_custom_data: "{}".into(),
            elements: vec![
                text(&"x".repeat(12_000)),
                raw("TIMFaceElem", r#"{"Index":1}"#),
            ],
            ..good()
        });
        let message = message.unwrap();
        assert_eq!(message.conversation, Conversation::User("user".into()));
        assert_eq!(message.elements.len(), 2);
        assert_eq!(message.cloud_custom_data, "{}");
    }

    #[test]
    fn a_receiver_is_needed_and_checked() {
        let to = |conversation| v1::SendRequest {
            conversation,
            ..good()
        };
        assert_eq!(field(to(None)), "conversation");
        assert_eq!(field(to(Some(Asked::To(String::new())))), "to");
        assert_eq!(field(to(Some(Asked::To("x".repeat(65))))), "to");
        assert_eq!(field(to(Some(Asked::Group(String::new())))), "group");
        assert_eq!(field(to(Some(Asked::Group("a\n".into())))), "group");
        assert_eq!(field(to(Some(Asked::Group("@TGS#1".into())))), "");
    }

    #[test]
    fn elements_are_counted_measured_and_checked() {
        let with = |elements| v1::SendRequest { elements, ..good() };
        assert_eq!(field(with(vec![])), "elements");
        assert_eq!(field(with(vec![text("a"); 51])), "elements");
        assert_eq!(field(with(vec![text("a"); 50])), "");
        let large = MAX_MESSAGE + 1;
        assert_eq!(field(with(vec![text(&"x".repeat(large))])), "elements");
        assert_eq!(
            field(with(vec![text("a"), text("")])),
            "elements[1].text.text"
        );
        let none = v1::Element { kind: None };
        assert_eq!(field(with(vec![none])), "elements[0].kind");
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
        for bad in ["", "1", "[]", "{", r#"{"a":}"#, &deep] {
            let element = raw("TIMFaceElem", bad);
            assert_eq!(field(with(vec![element])), "elements[0].raw.content_json");
        }
        for bad in ["", "TIM Face", "TIM\"", &"x".repeat(129)] {
            assert_eq!(field(with(vec![raw(bad, "{}")])), "elements[0].raw.type");
        }
        let huge = raw("TIMFaceElem", &"x".repeat(large));
        assert_eq!(field(with(vec![huge])), "elements");
    }

    #[test]
    fn ids_and_custom_data_are_bounded() {
        let id = |id: &str| v1::SendRequest {
            client_message_id: id.into(),
            ..good()
        };
        assert_eq!(field(id(&"x".repeat(65))), "client_message_id");
        assert_eq!(field(id("a\r")), "client_message_id");
        let custom = v1::SendRequest {
            cloud_custom_data: "x".repeat(MAX_MESSAGE),
            ..good()
        };
        assert_eq!(field(custom), "elements");
    }

    #[test]
    fn a_raw_command_has_a_name_and_an_object() {
        let field = |command: &str, body: &str| {
            let result = invocation(command.into(), body.into());
            result.err().map(|error| error.field).unwrap_or_default()
        };
        assert_eq!(field("profile.portrait_get_all", "{}"), "");
        for bad in ["", "a b", "a\n", "a/b", &"x".repeat(129)] {
            assert_eq!(field(bad, "{}"), "command");
        }
        for bad in ["", "null", "[1]", "{"] {
            assert_eq!(field("a.b", bad), "body_json");
        }
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_BODY));
        assert_eq!(field("a.b", &large), "body_json");
    }
}
