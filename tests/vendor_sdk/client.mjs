// One user on one of the vendor's SDKs, with everything that happens to it kept so that a scenario can wait
// for it: nothing is missed that comes before somebody waits.

import { createRequire } from "node:module";

const { Api } = createRequire(import.meta.url)("tls-sig-api-v2");
// Taken before the environment closes the network for the SDKs.
const nativeFetch = globalThis.fetch;

// Fails a scenario with its reason.
export class Failure extends Error {}

// Throws unless the condition holds.
export function check(condition, reason) {
  if (!condition) throw new Failure(reason);
}

// A record of happenings that can be waited on.
class Journal {
  entries = [];
  #waiting = new Set();

  add(entry) {
    this.entries.push(entry);
    for (const look of this.#waiting) look();
  }

  // The first entry that `matches`, now or within `seconds`.
  async first(what, matches, seconds) {
    let look;
    let timer;
    try {
      return await new Promise((resolve, reject) => {
        look = () => {
          const found = this.entries.find(matches);
          if (found !== undefined) resolve(found);
        };
        this.#waiting.add(look);
        timer = setTimeout(() => {
          const seen = JSON.stringify(this.entries).slice(0, 1500);
          reject(new Failure(`no ${what} within ${seconds} s; seen: ${seen}`));
        }, seconds * 1000);
        look();
      });
    } finally {
      this.#waiting.delete(look);
      clearTimeout(timer);
    }
  }
}

export class Client {
  // The user's happenings: {event, data} of the SDK's events, in order.
  events = new Journal();
  // The user's groups, each time that the SDK says they changed.
  groups = new Journal();
  // The user's received messages: {id, from, to, group, text}, in order.
  messages = new Journal();

  constructor(world, user) {
    this.world = world;
    this.user = user;
    this.sdk = world.load();
    this.chat = this.sdk.create({ SDKAppID: world.sdkAppId, proxyServer: world.sim });
    this.chat.setLogLevel(4);
    for (const event of ["SDK_READY", "SDK_NOT_READY", "KICKED_OUT", "NET_STATE_CHANGE", "ERROR"]) {
      this.chat.on(this.sdk.EVENT[event], ({ data }) => this.events.add({ event, data: data ?? {} }));
    }
    this.chat.on(this.sdk.EVENT.GROUP_LIST_UPDATED, ({ data }) => this.groups.add(data.map(({ groupID }) => groupID)));
    this.chat.on(this.sdk.EVENT.MESSAGE_RECEIVED, ({ data }) => data.forEach((message) => this.#received(message)));
  }

  #received(message) {
    const group = message.conversationType === this.sdk.TYPES.CONV_GROUP ? message.to : undefined;
    this.messages.add({ id: message.ID, from: message.from, to: message.to, group, text: message.payload?.text });
  }

  // A signature as the vendor's own package mints it: `age` seconds ago, for `expire` seconds.
  signature({ user = this.user, key, sdkAppId, expire = 86400, age = 0 } = {}) {
    const now = Date.now;
    Date.now = () => now() - age * 1000;
    try {
      return new Api(sdkAppId ?? this.world.sdkAppId, key ?? this.world.secretKey).genUserSig(user, expire);
    } finally {
      Date.now = now;
    }
  }

  // Logs in and waits until the SDK says that it is ready.
  async login(signature = this.signature()) {
    const { data } = await this.within("answer to login", this.chat.login({ userID: this.user, userSig: signature }));
    check(data.actionStatus === "OK" || data.repeatLogin, `login answered ${JSON.stringify(data)}`);
    await this.event("SDK_READY");
  }

  // Logs in, and waits until the SDK knows that the user is in this group.
  async loginWith(group) {
    await this.login();
    await this.groups.first(`group ${group} for ${this.user}`, (groups) => groups.includes(group), this.world.deadline);
  }

  // Logs in with a signature that must be refused, and returns the code of the refusal.
  async refusedLogin(signature) {
    const login = this.chat.login({ userID: this.user, userSig: signature });
    const outcome = login.then(
      () => undefined,
      (error) => error.code ?? `an error without a code: ${error}`,
    );
    const code = await this.within("answer to login", outcome);
    check(code !== undefined, "the login was accepted, though it had to be refused");
    return code;
  }

  // Sends a text to a user; returns the message as the SDK has it after the server's answer.
  sendTo(user, text) {
    return this.#send(user, this.sdk.TYPES.CONV_C2C, text);
  }

  // Sends a text to a group.
  sendToGroup(group, text) {
    return this.#send(group, this.sdk.TYPES.CONV_GROUP, text);
  }

  async #send(to, conversationType, text) {
    const message = this.chat.createTextMessage({ to, conversationType, payload: { text } });
    const { data } = await this.within(`answer to the message to ${to}`, this.chat.sendMessage(message));
    return data.message;
  }

  // Waits for one of the SDK's events.
  event(name, matches = () => true) {
    const what = `${name} for ${this.user}`;
    return this.events.first(what, ({ event, data }) => event === name && matches(data), this.world.deadline);
  }

  // Forgets the events so far, to wait for new ones.
  forget() {
    this.events.entries = [];
  }

  // Waits for a message with this text; returns it.
  message(text) {
    return this.messages.first(`message "${text}" for ${this.user}`, (message) => message.text === text, this.world.deadline);
  }

  // How many messages with this text have been received.
  count(text) {
    return this.messages.entries.filter((message) => message.text === text).length;
  }

  // The texts of the one-to-one conversation with a user, as the server has kept them.
  async history(user) {
    const list = this.chat.getMessageList({ conversationID: `C2C${user}` });
    const { data } = await this.within(`history with ${user}`, list);
    return data.messageList.map((message) => message.payload.text);
  }

  logout() {
    return this.within("answer to logout", this.chat.logout());
  }

  // The promise, or a failure when it takes longer than a wait may.
  async within(what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
      const { deadline } = this.world;
      timer = setTimeout(() => reject(new Failure(`no ${what} for ${this.user} within ${deadline} s`)), deadline * 1000);
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

// What the scenarios act in: the SDK, the simulator and its control port.
export class World {
  constructor({ load, sim, control, sdkAppId, secretKey, deadline, prefix }) {
    Object.assign(this, { load, sim, control, sdkAppId, secretKey, deadline, prefix });
  }

  // A user of this scenario alone, so that scenarios can share a simulator.
  client(name) {
    return this.clientNamed(this.name(name));
  }

  clientNamed(user) {
    return new Client(this, user);
  }

  name(name) {
    return `${this.prefix}-${name}`;
  }

  // Tells the simulator to do something.
  async tell(path, body) {
    const response = await this.#http(path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });
    check(response.ok, `the control port answered ${response.status} to ${path}: ${await response.text()}`);
  }

  // Makes a group, and the users in it, who may never have logged in.
  async group(group, members) {
    for (const user of members) await this.tell("/account", { user_id: user });
    await this.tell("/group", { group, members });
  }

  // What the simulator has counted for a user.
  async stats(user) {
    const response = await this.#http("/stats", {});
    check(response.ok, `the control port answered ${response.status} to /stats`);
    const stats = await response.json();
    check(stats.users[user], `the simulator does not know ${user}`);
    return stats.users[user];
  }

  // Polls the simulator's counts until they satisfy `matches`.
  async statsUntil(user, what, matches) {
    const end = Date.now() + this.deadline * 1000;
    for (;;) {
      const stats = await this.stats(user);
      if (matches(stats)) return stats;
      check(Date.now() < end, `${what} did not come within ${this.deadline} s: ${JSON.stringify(stats)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  #http(path, options) {
    return nativeFetch(new URL(path, this.control), { ...options, signal: AbortSignal.timeout(this.deadline * 1000) });
  }
}
