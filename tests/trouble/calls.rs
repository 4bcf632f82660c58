//! Calls that ask for what cannot be, or ask twice.

use imgate::config::{CommandList, Tenant};
use imgate::proto::v1;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::fixture::*;
use crate::proxy::Proxy;

#[tokio::test]
async fn a_message_that_is_sent_while_the_session_reconnects_goes_out_after() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(upstream.sim.listen_addr(), None).await;
    let gateway = Gateway::with(vec![tenant("acme", proxy.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    client.online("friend").await;
    proxy.hold();
    upstream.sim.drop_connections(Some("bot")).unwrap();
    client
        .until("bot", |bot| bot.state() != SessionState::Online)
        .await;
    let sent = client.send("bot", "friend", "late", "id-1");
    let goes_on = async {
        client.until_state("bot", SessionState::Connecting).await;
        assert_eq!(upstream.user("bot").sent, 0);
        proxy.release();
    };
    let (sent, ()) = tokio::join!(sent, goes_on);
    let sent = sent.unwrap();
    assert_eq!(sent.code, 0, "{sent:?}");
    assert!(!sent.message_id.is_empty());
    assert_eq!(events.text("friend").await, "late");
    let user = upstream.user("bot");
    assert_eq!((user.sent, user.logins), (1, 1));
}

#[tokio::test]
async fn messages_that_wait_go_out_in_order_and_no_more_than_may_wait_and_none_too_late() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(upstream.sim.listen_addr(), None).await;
    let mut tenant = tenant("acme", proxy.url());
    tenant.limits.pending_sends_per_session = 4;
    let gateway = Gateway::with(vec![tenant]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    client.online("friend").await;
    proxy.hold();
    upstream.sim.drop_connections(Some("bot")).unwrap();
    client
        .until("bot", |bot| bot.state() != SessionState::Online)
        .await;
    let short = std::time::Duration::from_millis(300);
    assert_late(
        client
            .send_within(short, "bot", "friend", "too late", "")
            .await,
    );

    let texts = numbered("text", 4);
    let send = async |text: &String| client.send("bot", "friend", text, "").await;
    // Polled in order, on one connection.
    let waiting = futures_util::future::join_all(texts.iter().map(send));
    let then = async {
        let one_more = poll(async || {
            let refused = client
                .send_within(short, "bot", "friend", "too many", "")
                .await;
            refused
                .err()
                .filter(|status| status.code() == Code::ResourceExhausted)
        });
        let refused = refusal(Err::<(), _>(one_more.await.unwrap()));
        assert_eq!(refused.1, "SENDS_PENDING");
        proxy.release();
    };
    let (sent, ()) = tokio::join!(waiting, then);
    for sent in sent {
        assert_eq!(sent.unwrap().code, 0);
    }
    assert_eq!(events.texts_until("friend", "text-3").await, texts);
    assert_eq!(upstream.user("bot").sent, 4);
}

#[tokio::test]
async fn a_tenant_has_no_more_sessions_than_it_may_also_when_they_come_at_once() {
    let upstream = Upstream::start().await;
    let mut tenant = tenant("acme", upstream.url());
    tenant.limits.sessions = 3;
    let gateway = Gateway::with(vec![tenant]).await;
    let client = gateway.client().await;
    let accounts = numbered("bot", 10);
    let login = async |account: &String| client.login(account, &sig(account)).await;
    let answers = futures_util::future::join_all(accounts.iter().map(login)).await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (3, 7));
    for refused in bad {
        let (code, reason, _) = refusal(refused);
        assert_eq!(
            (code, reason.as_str()),
            (Code::ResourceExhausted, "SESSIONS")
        );
    }
    assert_eq!(upstream.sim.stats().logins, 3);
    // One that leaves makes room for one other.
    let held = client.list(0, "").await.unwrap().sessions;
    client.logout(&held[0].account).await.unwrap();
    client.online("another").await;
    let refused = client.login("one-more", &sig("one-more")).await;
    assert_eq!(refusal(refused).1, "SESSIONS");
}

#[tokio::test]
async fn a_repeated_message_is_sent_once() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    let mut events = client.subscribe().await;
    client.online("bot").await;
    client.online("friend").await;
    let again = || client.send("bot", "friend", "once", "id-1");
    let (first, second) = tokio::join!(again(), again());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.code, 0);
    assert_eq!(first, second);
    upstream.sim.drop_connections(Some("bot")).unwrap();
    assert_eq!(again().await.unwrap(), first);
    let next = client.send("bot", "friend", "once", "id-2").await.unwrap();
    assert_ne!(next.message_id, first.message_id);
    assert_eq!(upstream.user("bot").sent, 2);
    let ids = async |events: &mut Events| {
        let pick = |kind| match kind {
            v1::event::Kind::Message(message) => Some(message.id),
            _ => None,
        };
        events.next_of("friend", pick).await
    };
    assert_eq!(ids(&mut events).await, first.message_id);
    assert_eq!(ids(&mut events).await, next.message_id);
}

#[tokio::test]
async fn raw_commands_that_log_in_or_out_are_refused_whatever_is_listed() {
    let upstream = Upstream::start().await;
    let acme = Tenant {
        invoke_commands: CommandList::every(),
        ..tenant("acme", upstream.url())
    };
    let gateway = Gateway::with(vec![acme]).await;
    let client = gateway.client().await;
    client.online("bot").await;
    for command in [
        "im_open_status.wslogin",
        "im_open_status.wslogout",
        "im_open_status.wshello",
        "IM_OPEN_STATUS.wslogout",
        "x/../im_open_status.wslogout",
        "..im_open_status.wslogout",
        "im_open_status..wslogout",
        "profile.get\r\n",
        "heartbeat.alive",
        "openim.ws_msg_push_ack",
        "",
    ] {
        let (code, _, field) = refusal(client.invoke("bot", command).await);
        assert_eq!((code, field.as_str()), (Code::InvalidArgument, "command"));
    }
    let other = client.invoke("bot", "some_service.command").await.unwrap();
    assert!(other.body_json.starts_with('{'), "{other:?}");
    let user = upstream.user("bot");
    assert_eq!((user.connections, user.online), (1, true));
}

#[tokio::test]
async fn raw_commands_that_are_not_listed_are_refused_and_do_not_go_upstream() {
    let upstream = Upstream::start().await;
    let listed = ["some_service.*", "profile.get"].map(String::from);
    let acme = Tenant {
        invoke_commands: CommandList::parse(&listed).unwrap(),
        ..tenant("acme", upstream.url())
    };
    let gateway = Gateway::with(vec![acme, tenant("globex", upstream.url())]).await;
    let acme = gateway.client().await;
    acme.online("bot").await;
    for command in ["some_service.one", "some_service.two", "profile.get"] {
        acme.invoke("bot", command).await.unwrap();
    }
    let globex = gateway.client_of("globex").await;
    for (client, command) in [
        (&acme, "profile.get2"),
        (&acme, "Profile.get"),
        (&acme, "some_service"),
        (&acme, "openim.getmsg"),
        // By default there is no list.
        (&globex, "some_service.one"),
    ] {
        // Whether there is such a session is not looked at.
        for account in ["bot", "nobody"] {
            let status = client.invoke(account, command).await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied);
            assert!(status.message().contains(command), "{status:?}");
            assert!(status.message().contains("tenants.invoke_commands"));
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!(info.reason, "COMMAND_NOT_ALLOWED");
            assert_eq!(info.metadata["command"], command);
        }
    }
}

#[tokio::test]
async fn what_the_upstream_refuses_to_send_is_answered_with_its_code() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::with(vec![tenant("acme", upstream.url())]).await;
    let client = gateway.client().await;
    client.online("bot").await;
    let refused = client.send("bot", "nobody", "hello", "id-1").await.unwrap();
    assert_eq!(refused.code, 20003);
    assert!(!refused.desc.is_empty());
    assert_eq!((refused.message_id.as_str(), refused.sent_at), ("", None));
    // The same ID is not used up by a refusal.
    upstream.sim.account("nobody").unwrap();
    let sent = client.send("bot", "nobody", "hello", "id-1").await.unwrap();
    assert_eq!(sent.code, 0);
    let session = client.session("bot").await.unwrap();
    assert_eq!((session.state(), session.code), (SessionState::Online, 0));
}

#[tokio::test]
async fn sessions_are_listed_page_by_page_in_order() {
    let upstream = Upstream::start().await;
    let tenants = vec![
        tenant("acme", upstream.url()),
        tenant("other", upstream.url()),
    ];
    let gateway = Gateway::with(tenants).await;
    let client = gateway.client().await;
    let mut accounts = numbered("bot", 5);
    for account in accounts.iter().rev() {
        client.online(account).await;
    }
    client.logout("bot-3").await.unwrap();
    gateway.client_of("other").await.online("bot-2-other").await;
    accounts.sort();

    let (mut listed, mut sizes, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = client.list(2, &token).await.unwrap();
        sizes.push(page.sessions.len());
        listed.extend(page.sessions.into_iter().map(|session| session.account));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, accounts);
    assert_eq!(sizes, [2, 2, 1]);
    let all = client.list(5, "").await.unwrap();
    assert_eq!((all.sessions.len(), all.next_page_token.as_str()), (5, ""));

    let theirs = gateway.client_of("other").await;
    let mine = client.list(1, "").await.unwrap().next_page_token;
    for (answer, wrong) in [
        (client.list(0, "garbage").await, "page_token"),
        (theirs.list(0, &mine).await, "page_token"),
        (client.list(-1, "").await, "page_size"),
        (client.list(1001, "").await, "page_size"),
    ] {
        let (code, _, field) = refusal(answer);
        assert_eq!((code, field.as_str()), (Code::InvalidArgument, wrong));
    }
}

#[tokio::test]
async fn one_tenant_sees_nothing_of_another() {
    let upstream = Upstream::start().await;
    let tenants = vec![
        tenant("acme", upstream.url()),
        tenant("other", upstream.url()),
    ];
    let gateway = Gateway::with(tenants).await;
    let (mine, theirs) = (gateway.client().await, gateway.client_of("other").await);
    let (mut my_events, mut their_events) = (mine.subscribe().await, theirs.subscribe().await);
    mine.online("my-bot").await;
    theirs.online("their-bot").await;
    upstream.texts("friend", "my-bot", ["mine".into()]);
    assert_eq!(my_events.text("my-bot").await, "mine");
    upstream.texts("friend", "their-bot", ["theirs".into()]);
    loop {
        let event = their_events.next().await;
        assert_eq!(event.account, "their-bot");
        if event.kind.and_then(text_of).is_some() {
            break;
        }
    }

    assert_eq!(refusal(theirs.session("my-bot").await).0, Code::NotFound);
    assert_eq!(refusal(theirs.logout("my-bot").await).0, Code::NotFound);
    let renewed = theirs.renew("my-bot", &sig("my-bot")).await;
    assert_eq!(refusal(renewed).0, Code::NotFound);
    let sent = theirs.send("my-bot", "friend", "x", "").await;
    assert_eq!(refusal(sent).0, Code::NotFound);
    let cursor = v1::subscribe_request::Start::Cursor(my_events.cursor.clone());
    let (code, reason, _) = refusal(theirs.subscribe_from(cursor).await.map(|_| ()));
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(reason, "INVALID_CURSOR");
    let listed = theirs.list(0, "").await.unwrap().sessions;
    let listed: Vec<_> = listed.iter().map(|session| &session.account).collect();
    assert_eq!(listed, ["their-bot"]);
    assert!(upstream.user("my-bot").online);
}
