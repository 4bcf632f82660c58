// Mints with the vendor's package what another implementation has minted, and decodes both.
//
// Reads lines of JSON, {sdkAppId, key, user, expire, time, userbuf, ours}, from standard input; `userbuf` may be null, and
// `time` is taken from our signature when it is null. Answers a line each: {theirs, theirJson, ourJson}.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { inflateSync } from "node:zlib";

const { Api } = createRequire(import.meta.url)("tls-sig-api-v2");

function decode(signature) {
  const base64 = signature.replaceAll("*", "+").replaceAll("-", "/").replaceAll("_", "=");
  return inflateSync(Buffer.from(base64, "base64")).toString();
}

for await (const line of createInterface({ input: process.stdin })) {
  const { sdkAppId, key, user, expire, time, userbuf, ours } = JSON.parse(line);
  const ourJson = decode(ours);
  // The package reads the clock; both must be of the same second.
  const seconds = time ?? JSON.parse(ourJson)["TLS.time"];
  Date.now = () => seconds * 1000;
  const theirs = new Api(sdkAppId, key).genSig(user, expire, userbuf);
  process.stdout.write(`${JSON.stringify({ theirs, theirJson: decode(theirs), ourJson })}\n`);
}
