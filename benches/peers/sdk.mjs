// What a bot's author does without a gateway: the vendor's SDK, one instance per account, all in this one process.
//
//   node sdk.mjs --sim ws://127.0.0.1:9200 --sdk-app-id 1400000001 --secret-key KEY [--accounts 50,200 [--listen 10]]
//
// With --accounts it logs in so many, in steps, receives for --listen seconds after each, and ends. Without, it does what
// lines on its standard input say, until that ends:
//
//   raise 50     logs in until there are 50 accounts, bot000000 and those that follow; with --expose-gc, collects garbage
//   report       does nothing else
//
// Each step and each line is answered by a line of JSON: the accounts that are logged in, the messages that they have
// received so far, the CPU that the process has used so far in microseconds, and its resident memory in KiB.
//
// The SDK is unmodified, and everything is as much in its favour as can be: its logging is off; the WebSocket is the plain
// `ws` one, by which nothing but the simulator can be dialled; and its code is compiled once for all instances. One copy of
// it holds one account of an app, so that each account needs one: by `require` that would be 3 MiB more for each.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { compileFunction } from "node:vm";

import { prepare } from "../../tests/vendor_sdk/environment.mjs";

const require = createRequire(new URL("../../tests/vendor_sdk/package.json", import.meta.url));
const WebSocket = require("ws");
const { Api } = require("tls-sig-api-v2");

// How many logins are on their way at a time, and how many seconds each may take.
const IN_FLIGHT = 10;
const LOGIN = 60;

const { values: args } = parseArgs({
  options: {
    sim: { type: "string" },
    "sdk-app-id": { type: "string" },
    "secret-key": { type: "string" },
    accounts: { type: "string" },
    listen: { type: "string", default: "10" },
  },
});
const appId = Number(args["sdk-app-id"]);
const signer = new Api(appId, args["secret-key"]);

prepare("chat", args.sim);
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    if (!url.startsWith(`${args.sim}/`)) throw new Error(`the SDK dials ${url}, outside of ${args.sim}`);
    super(url, protocols);
  }
};

const file = require.resolve("@tencentcloud/chat");
const code = compileFunction(readFileSync(file, "utf8"), ["module", "exports", "require"], { filename: file });

// A copy of the SDK.
function load() {
  const module = { exports: {} };
  code.call(module.exports, module, module.exports, require);
  return module.exports;
}

// The instances, by the numbers of their accounts.
const chats = [];
let events = 0;

async function logIn(number) {
  const sdk = load();
  const user = `bot${String(number).padStart(6, "0")}`;
  const chat = sdk.create({ SDKAppID: appId, proxyServer: args.sim });
  chat.setLogLevel(4);
  chat.on(sdk.EVENT.MESSAGE_RECEIVED, ({ data }) => (events += data.length));
  const ready = new Promise((resolve) => chat.on(sdk.EVENT.SDK_READY, resolve));
  await chat.login({ userID: user, userSig: signer.genUserSig(user, 86400) });
  await ready;
  chats[number] = chat;
}

// Logs in until there are so many.
async function raise(count) {
  let next = chats.length;
  const worker = async () => {
    while (next < count) {
      const number = next++;
      const late = sleep(LOGIN * 1000, undefined, { ref: false }).then(() => {
        throw new Error(`account ${number} is not logged in within ${LOGIN} s`);
      });
      await Promise.race([logIn(number), late]);
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
  globalThis.gc?.();
}

function report() {
  const { user, system } = process.cpuUsage();
  const rss = Math.round(process.memoryUsage.rss() / 1024);
  process.stdout.write(`${JSON.stringify({ accounts: chats.length, events, cpu_us: user + system, rss_kib: rss })}\n`);
}

if (args.accounts) {
  report();
  for (const count of args.accounts.split(",").map(Number)) {
    await raise(count);
    report();
    await sleep(Number(args.listen) * 1000);
    report();
  }
} else {
  for await (const line of createInterface({ input: process.stdin })) {
    const [order, count] = line.split(" ");
    if (order === "raise") await raise(Number(count));
    report();
  }
}
process.exit(0);
