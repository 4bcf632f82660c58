// What must hold between the vendor's SDK and the simulator, one function each.
//
// Each scenario has users of its own, waits on events and on the simulator's counts with a deadline, and fails
// with a reason.

import { link } from "./environment.mjs";
import { check } from "./client.mjs";

const is = (state) => (data) => data.state === state;

// Logs two users in, so that they can talk.
async function pair(world) {
  const [alice, bob] = [world.client("alice"), world.client("bob")];
  await Promise.all([alice.login(), bob.login()]);
  return [alice, bob];
}

// The same, with a group that both are in.
async function pairInGroup(world) {
  const [alice, bob, group] = [world.client("alice"), world.client("bob"), world.name("group")];
  await world.group(group, [alice.user, bob.user]);
  await Promise.all([alice.loginWith(group), bob.loginWith(group)]);
  return [alice, bob, group];
}

// Waits until the connection is of an age at which the SDK redials by itself: one that is lost within its first
// second is redialled only when the application next asks for something.
async function settled() {
  const end = link.openedAt + 1200;
  while (Date.now() < end) await new Promise((resolve) => setTimeout(resolve, end - Date.now()));
}

// Makes the SDK's login fail with the code, and checks that the next one works.
async function refused(alice, signature, ...codes) {
  const code = await alice.refusedLogin(signature);
  check(codes.includes(code), `the login was refused with ${code} instead of ${codes.join(" or ")}`);
  await alice.login();
}

export const scenarios = {
  // Logs in and gets ready; the simulator counts one login.
  async login(world) {
    const alice = world.client("alice");
    await alice.login();
    const { online, logins, resumes, connections } = await world.stats(alice.user);
    check(online, "ready, but not online at the simulator");
    check(logins === 1 && resumes === 0, `one login counts as ${logins} logins and ${resumes} resumes`);
    check(connections >= 1, `online on ${connections} connections`);
  },

  // One-to-one messages in both directions, in order, and one that the control port sends.
  async c2c(world) {
    const [alice, bob] = await pair(world);
    for (const text of ["one", "two", "三 🐟"]) {
      const sent = await bob.sendTo(alice.user, text);
      const got = await alice.message(text);
      check(got.from === bob.user, `"${text}" came from ${got.from}`);
      check(got.id === sent.ID, `the sender's ID ${sent.ID} is not the receiver's ${got.id}`);
    }
    await alice.sendTo(bob.user, "answer");
    await bob.message("answer");
    await world.tell("/message", { from: bob.user, to: alice.user, text: "by control" });
    await alice.message("by control");
    const order = alice.messages.entries.map(({ text }) => text).join();
    check(order === "one,two,三 🐟,by control", `received as ${order}`);
  },

  // Group messages in both directions; the sender does not hear itself.
  async group(world) {
    const [alice, bob, group] = await pairInGroup(world);
    await bob.sendToGroup(group, "to all");
    const got = await alice.message("to all");
    check(got.from === bob.user && got.group === group, `came as ${JSON.stringify(got)}`);
    await alice.sendToGroup(group, "to all again");
    await bob.message("to all again");
    await world.tell("/message", { from: bob.user, group, text: "by control" });
    await alice.message("by control");
    check(bob.count("to all") === 0, "the sender received its own message");
  },

  // Every push is acknowledged once, and counted.
  async acked(world) {
    const [alice, bob] = await pair(world);
    for (const text of ["one", "two", "three"]) await bob.sendTo(alice.user, text);
    await alice.message("three");
    const { acked, delivered } = await world.statsUntil(alice.user, "three acknowledgements", ({ acked }) => acked >= 3);
    check(acked === 3 && delivered === 3, `${delivered} delivered, ${acked} acknowledged`);
    const { sent } = await world.stats(bob.user);
    check(sent === 3, `${sent} sent`);
  },

  // A push whose acknowledgement is lost is repeated, and is one event all the same.
  async duplicate_push(world) {
    const [alice, bob] = await pair(world);
    let pushes = 0;
    let again;
    const repeated = new Promise((resolve) => (again = resolve));
    link.loseSent = ({ head }) => head.servcmd === "openim.ws_msg_push_ack";
    link.loseReceived = (frame) => {
      if (JSON.stringify(frame).includes('"twice"') && ++pushes === 2) again();
      return false;
    };
    await bob.sendTo(alice.user, "twice");
    await alice.message("twice");
    await alice.within("repeated push", repeated);
    const { acked } = await world.stats(alice.user);
    check(acked === 0, `${acked} acknowledged, though none arrived`);
    link.loseSent = () => false;
    await world.statsUntil(alice.user, "the acknowledgement", ({ acked }) => acked === 1);
    await bob.sendTo(alice.user, "last");
    await alice.message("last");
    check(alice.count("twice") === 1, `a repeated push gave ${alice.count("twice")} events`);
  },

  // A message whose answer is lost with the connection is sent again by the SDK, and arrives once.
  async resent_message(world) {
    const [alice, bob] = await pair(world);
    await settled();
    let answered;
    const answer = new Promise((resolve) => (answered = resolve));
    link.loseReceived = ({ head }) => head.servcmd === "openim.sendmsg" && (answered(), true);
    const sending = bob.sendTo(alice.user, "once");
    await bob.within("lost answer", answer);
    link.loseReceived = () => false;
    await world.tell("/drop", { user_id: bob.user });
    await sending;
    await bob.sendTo(alice.user, "last");
    await alice.message("last");
    check(alice.count("once") === 1, `a message sent again arrived ${alice.count("once")} times`);
  },

  // A second login of the same user kicks the first, which stays out.
  async kicked_by_second_login(world) {
    const [alice, bob] = await pair(world);
    const again = world.client("alice");
    await again.login();
    const { data } = await alice.event("KICKED_OUT");
    check(data.type === alice.sdk.TYPES.KICKED_OUT_MULT_ACCOUNT, `kicked out as ${data.type}`);
    await alice.event("SDK_NOT_READY");
    await bob.sendTo(alice.user, "to the second");
    await again.message("to the second");
    check(alice.count("to the second") === 0, "the kicked client still receives");
    const { online, kicked, logins } = await world.stats(alice.user);
    check(online && kicked === 1 && logins === 2, JSON.stringify({ online, kicked, logins }));
  },

  // The operator's kick; a new login is possible at once.
  async kicked_by_operator(world) {
    const alice = world.client("alice");
    await alice.login();
    await world.tell("/kick", { user_id: alice.user });
    await alice.event("KICKED_OUT");
    await world.statsUntil(alice.user, "the kick", ({ online, kicked }) => !online && kicked === 1);
    await alice.event("SDK_NOT_READY");
    alice.forget();
    await alice.login();
  },

  // An expired signature is 70001 at login.
  async signature_expired_at_login(world) {
    const alice = world.client("alice");
    await refused(alice, alice.signature({ age: 600, expire: 300 }), 70001);
  },

  // A signature that ends while online is 70001 on the next request, and a fresh one logs in again.
  async signature_expired_online(world) {
    const [alice, bob] = await pair(world);
    await world.tell("/expire", { user_id: alice.user });
    const failed = await alice.sendTo(bob.user, "too late").then(
      () => undefined,
      (error) => error,
    );
    check(failed, "a message was accepted after the signature had expired");
    const { data } = await alice.event("KICKED_OUT");
    check(data.type === alice.sdk.TYPES.KICKED_OUT_USERSIG_EXPIRED, `kicked out as ${data.type}`);
    alice.forget();
    await alice.login();
    await alice.sendTo(bob.user, "renewed");
    await bob.message("renewed");
    const { logins } = await world.stats(alice.user);
    check(logins === 2, `${logins} logins`);
  },

  // The same without the control port: a signature of three seconds ends, and an idle client hears of it.
  async short_signature(world) {
    const alice = world.client("alice");
    await alice.login(alice.signature({ expire: 3 }));
    const { data } = await alice.event("KICKED_OUT");
    check(data.type === alice.sdk.TYPES.KICKED_OUT_USERSIG_EXPIRED, `kicked out as ${data.type}`);
  },

  // A dropped connection comes back by the ticket; no second login is counted.
  async reconnect(world) {
    const [alice, bob] = await pair(world);
    await settled();
    alice.forget();
    await world.tell("/drop", { user_id: alice.user });
    await alice.event("NET_STATE_CHANGE", is(alice.sdk.TYPES.NET_STATE_CONNECTED));
    const { logins, online } = await world.statsUntil(alice.user, "the resume", ({ resumes }) => resumes === 1);
    check(online && logins === 1, `${logins} logins, ${online ? "online" : "offline"}`);
    await bob.sendTo(alice.user, "after");
    await alice.message("after");
    await alice.sendTo(bob.user, "answer");
    await bob.message("answer");
  },

  // A link that falls silent is given up and replaced.
  async stalled_link(world) {
    const alice = world.client("alice");
    await alice.login();
    await world.tell("/stall", { user_id: alice.user, seconds: 120 });
    const { logins } = await world.statsUntil(alice.user, "the resume", ({ resumes }) => resumes === 1);
    check(logins === 1, `${logins} logins`);
  },

  // An idle client stays online: its heartbeats are answered, for an unanswered one costs it the connection.
  async heartbeat(world) {
    const alice = world.client("alice");
    await alice.login();
    const before = (await world.stats(alice.user)).connections;
    let beats = 0;
    let enough;
    const beaten = new Promise((resolve) => (enough = resolve));
    link.loseSent = ({ head }) => {
      if (head.servcmd === "heartbeat.alive" && ++beats === 2) enough();
      return false;
    };
    await alice.within("second heartbeat", beaten);
    const { online, connections } = await world.stats(alice.user);
    check(online && connections === before, `${connections - before} new connections while idle`);
  },

  // One-to-one and group messages that were sent while a client was away arrive when it is back: each once, in order.
  async catch_up(world) {
    const [alice, bob, group] = await pairInGroup(world);
    await bob.sendTo(alice.user, "c0");
    await bob.sendToGroup(group, "g0");
    await Promise.all([alice.message("c0"), alice.message("g0")]);
    await settled();

    link.down = true;
    await world.tell("/drop", { user_id: alice.user });
    await alice.event("NET_STATE_CHANGE", is(alice.sdk.TYPES.NET_STATE_DISCONNECTED));
    for (const n of [1, 2, 3]) {
      await bob.sendTo(alice.user, `c${n}`);
      await bob.sendToGroup(group, `g${n}`);
    }
    link.down = false;
    // The SDK redials when it is next asked for something.
    await alice.sendTo(bob.user, "back");
    await Promise.all(["c3", "g3"].map((text) => alice.message(text)));
    await bob.sendTo(alice.user, "c4");
    await alice.message("c4");

    const texts = alice.messages.entries.map(({ text }) => text);
    for (const kind of ["c", "g"]) {
      const got = texts.filter((text) => text.startsWith(kind)).join();
      const want = [0, 1, 2, 3, ...(kind === "c" ? [4] : [])].map((n) => kind + n).join();
      check(got === want, `received ${got} instead of ${want}`);
    }
    const { logins, resumes } = await world.stats(alice.user);
    check(logins === 1 && resumes === 1, `${logins} logins, ${resumes} resumes`);
  },

  // Messages to a user that is logged out are there after the next login.
  async waiting_messages(world) {
    const [alice, bob] = await pair(world);
    await alice.logout();
    for (const text of ["w1", "w2"]) await bob.sendTo(alice.user, text);
    const back = world.client("alice");
    await back.login();
    const texts = await back.history(bob.user);
    check(texts.join() === "w1,w2", `the history is ${JSON.stringify(texts)}`);
  },

  // After a logout the user is offline and hears nothing; it can log in again.
  async logout(world) {
    const [alice, bob] = await pair(world);
    await alice.logout();
    await world.statsUntil(alice.user, "the logout", ({ online }) => !online);
    await bob.sendTo(alice.user, "unheard");
    alice.forget();
    await alice.login();
    await bob.sendTo(alice.user, "heard");
    await alice.message("heard");
    const { logins, kicked } = await world.stats(alice.user);
    check(logins === 2 && kicked === 0, `${logins} logins, ${kicked} kicks`);
  },

  // A signature by another key is 70009.
  async wrong_key(world) {
    const alice = world.client("alice");
    await refused(alice, alice.signature({ key: "not the key of this app" }), 70009);
  },

  // A signature of another user is 70013.
  async wrong_user(world) {
    const alice = world.client("alice");
    await refused(alice, alice.signature({ user: world.name("bob") }), 70013);
  },

  // A signature of another app is 70014.
  async wrong_app(world) {
    const alice = world.client("alice");
    await refused(alice, alice.signature({ sdkAppId: world.sdkAppId + 1 }), 70014);
  },

  // A signature cut short does not parse.
  async broken_signature(world) {
    const alice = world.client("alice");
    await refused(alice, alice.signature().slice(0, 40), 70003, 70005);
  },

  // Whatever code the upstream refuses with reaches the application, as often as told.
  async refused_logins(world) {
    const alice = world.client("alice");
    await world.tell("/account", { user_id: alice.user });
    await world.tell("/refuse", { user_id: alice.user, code: 70050, times: 2 });
    const code = await alice.refusedLogin(alice.signature());
    check(code === 70050, `refused with ${code}`);
    await refused(alice, alice.signature(), 70050);
  },
};
