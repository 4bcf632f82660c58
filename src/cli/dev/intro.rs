//! What `imgate dev` says before anything happens: where everything is, and what to try.

use super::DevArgs;
use super::screen::{Screen, Tone};
use super::stack::{KEEPALIVE, LOGIN_SPACING, SDK_APP_ID, Stack, TENANT};

/// Prints the addresses and the commands to try.
pub(super) fn show(screen: &Screen, stack: &Stack, args: &DevArgs) {
    let title = format!(
        "imgate dev {}: a gateway, its store and a simulated upstream, all in this process and on this machine only",
        env!("CARGO_PKG_VERSION")
    );
    screen.text(Tone::Title, &title);
    screen.text(Tone::Plain, &places(stack));
    for remark in &stack.remarks {
        screen.text(Tone::Away, &format!("  {remark}."));
    }
    screen.text(Tone::Plain, "");
    screen.text(Tone::Title, "To try, in another terminal, here:");
    screen.text(Tone::Plain, &commands(stack));
    if args.bots > 0 {
        let who = match args.bots {
            1 => "one bot logs in, talks to itself, and gets into trouble".to_owned(),
            bots => format!("{bots} bots log in, talk each to the next, and get into trouble"),
        };
        let end = args.seconds.map_or_else(
            || "Ctrl-C ends it with a verdict.".to_owned(),
            |seconds| format!("It ends after {seconds} s with a verdict."),
        );
        let bots = format!("Now {who}. {end}");
        screen.text(Tone::Title, &bots);
    }
}

fn places(stack: &Stack) -> String {
    let (grpc, ops) = (stack.app.grpc_address(), stack.app.ops_address());
    let (sim, control) = (stack.sim.listen_addr(), stack.sim.control_addr());
    let stays = if stack.folder.passing {
        "  goes when this ends; --data DIR keeps it"
    } else {
        "  stays when this ends"
    };
    format!(
        "
  {:<14}{:<32}tenant \"{TENANT}\", open: no API key is needed
  {:<14}{:<32}/metrics /ready /live
  {:<14}{:<32}simulated; app {SDK_APP_ID}, its secret key is made here
  {:<14}{:<32}/stats, and what makes trouble
  {:<14}{:<32}{stays}

  As in production but for two settings, for trouble comes quicker here: login_spacing is {} s (15 s), and keepalive
  finds a dead connection within {} s (13 s).",
        "gRPC API",
        format!("http://{grpc}"),
        "operations",
        format!("http://{ops}"),
        "upstream",
        format!("ws://{sim}"),
        "its control",
        format!("http://{control}"),
        "store",
        stack.folder.path.display().to_string(),
        LOGIN_SPACING.as_secs(),
        (KEEPALIVE.heartbeat + KEEPALIVE.answer_timeout).as_secs(),
    )
}

fn commands(stack: &Stack) -> String {
    let (grpc, control) = (stack.app.grpc_address(), stack.sim.control_addr());
    let release = if cfg!(debug_assertions) {
        ""
    } else {
        "--release "
    };
    format!(
        r#"
  log in       grpcurl -plaintext -d '{{"account":"alice"}}' {grpc} imgate.v1.SessionService/Login
               buf curl --protocol grpc --http2-prior-knowledge -d '{{"account":"alice"}}' \
                 http://{grpc}/imgate.v1.SessionService/Login
  follow       grpcurl -plaintext -d '{{"at":"START_AT_EARLIEST"}}' {grpc} imgate.v1.EventService/Subscribe
  echo bot     cargo run {release}--example echo_bot -- --gateway http://{grpc} --account alice
  in Python    python3 -m venv .venv && .venv/bin/pip install -r examples/python/requirements.txt
               .venv/bin/python examples/python/echo_bot.py --gateway {grpc} --account alice
  talk to it   curl -d '{{"user_id":"you"}}' http://{control}/account
               curl -d '{{"from":"you","to":"alice","text":"hello"}}' http://{control}/message
  trouble      curl -d '{{"user_id":"alice"}}' http://{control}/drop     (or /expire, or /kick)
  see          curl http://{control}/stats
"#
    )
}
