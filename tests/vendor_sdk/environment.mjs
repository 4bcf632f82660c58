// Gives the vendor's SDKs the browser they expect, with the WebSocket as the only way out, and loads them.
//
// The SDKs themselves are unmodified. Everything on their link goes through `Link`, which can also lose
// acknowledgements and spoil fields on purpose: a check that cannot fail shows nothing.

import { createRequire } from "node:module";
import { inflateSync, constants, gunzipSync } from "node:zlib";
import WebSocket from "ws";

const require = createRequire(import.meta.url);

// Where each SDK is, and whether it wants more of a browser than a WebSocket.
const SDKS = {
  chat: { package: "@tencentcloud/chat", browser: false },
  tim: { package: "tim-js-sdk", browser: true },
};

// How the links of this process behave, and what went wrong on them.
export const link = {
  // The only origin that may be dialled, such as "ws://127.0.0.1:9200".
  origin: "",
  // A field to take out of every frame of the server, such as "A2Key".
  spoil: "",
  // Called with each frame that an SDK sends; true loses it.
  loseSent: () => false,
  // Called with each frame that comes for an SDK; true loses it.
  loseReceived: () => false,
  // True while nothing can be dialled.
  down: false,
  // When the youngest connection was opened.
  openedAt: 0,
  // Exceptions inside an SDK's message handler: the server pushed something that it cannot read.
  faults: [],
};

// A WebSocket as a browser has it: an exception in a handler is reported and does not jam the socket.
class Link extends WebSocket {
  constructor(url, protocols) {
    if (!url.startsWith(`${link.origin}/`)) {
      throw new Error(`the SDK dials ${url}, outside of ${link.origin}`);
    }
    super(url, protocols);
    if (link.down) queueMicrotask(() => this.terminate());
    this.once("open", () => (link.openedAt = Date.now()));
  }

  set onmessage(handler) {
    super.onmessage = (event) => {
      try {
        const data = passed(event.data);
        if (data !== undefined) handler?.({ type: event.type, target: this, data });
      } catch (fault) {
        link.faults.push(fault.stack);
      }
    };
  }

  get onmessage() {
    return super.onmessage;
  }

  send(data, ...rest) {
    if (!link.loseSent(JSON.parse(Buffer.from(data).toString()))) super.send(data, ...rest);
  }
}

// What an SDK gets to see of a frame: as a rule the very bytes of the server.
function passed(data) {
  if (typeof data === "string") return data;
  const frame = JSON.parse(plain(Buffer.from(data)).toString());
  if (link.loseReceived(frame)) return undefined;
  if (!link.spoil) return data;
  const spoiled = JSON.stringify(frame, (key, value) => (key === link.spoil ? undefined : value));
  return new Uint8Array(Buffer.from(spoiled)).buffer;
}

// Undoes the wire's compression: "COMP", then gzip or zlib that may lack its end.
function plain(bytes) {
  if (bytes.subarray(0, 4).toString("latin1") !== "COMP") return bytes;
  const packed = bytes.subarray(4);
  const unpack = packed[0] === 0x1f ? gunzipSync : inflateSync;
  return unpack(packed, { finishFlush: constants.Z_SYNC_FLUSH });
}

// An XMLHttpRequest without a network behind it.
class NoRequest {
  open() {}
  setRequestHeader() {}
  abort() {}
  send() {
    queueMicrotask(() => this.onerror?.(new Error("no network but the WebSocket")));
  }
}

// The page that the older SDK looks at.
function page() {
  const stored = new Map();
  return {
    window: globalThis,
    self: globalThis,
    navigator: { userAgent: "node", onLine: true, cookieEnabled: true, language: "en" },
    location: { href: "http://localhost/", protocol: "http:", host: "localhost", hostname: "localhost" },
    document: { charset: "UTF-8", visibilityState: "visible", addEventListener() {}, removeEventListener() {} },
    localStorage: {
      getItem: (key) => stored.get(key) ?? null,
      setItem: (key, value) => void stored.set(key, String(value)),
      removeItem: (key) => void stored.delete(key),
    },
    addEventListener() {},
    removeEventListener() {},
  };
}

// Prepares this process for one of the SDKs and returns a function that loads a fresh copy of it:
// one copy holds one instance, so each user needs a copy.
export function prepare(name, origin) {
  const sdk = SDKS[name];
  if (!sdk) throw new Error(`--sdk ${name}: give one of ${Object.keys(SDKS).join(", ")}`);
  link.origin = origin;

  const shims = { WebSocket: Link, XMLHttpRequest: NoRequest, ...(sdk.browser ? page() : {}) };
  for (const [key, value] of Object.entries(shims)) {
    Object.defineProperty(globalThis, key, { value, configurable: true, writable: true });
  }
  globalThis.fetch = () => Promise.reject(new Error("no network but the WebSocket"));
  // Standard output carries the result; what the SDKs print goes to standard error.
  for (const level of ["log", "info", "debug", "warn"]) console[level] = console.error;

  const file = require.resolve(sdk.package);
  return () => {
    delete require.cache[file];
    return require(file);
  };
}
