// What the scripts of this folder have in common: arguments, a world to act in, and one line of JSON on standard
// output that says how it went, with the exit code to match.

import { parseArgs } from "node:util";
import { link, prepare } from "./environment.mjs";
import { Failure, World } from "./client.mjs";

const COMMON = {
  sim: { type: "string" },
  control: { type: "string" },
  "sdk-app-id": { type: "string" },
  "secret-key": { type: "string" },
  sdk: { type: "string" },
  // Seconds that one wait may take.
  deadline: { type: "string", default: "30" },
  // Takes this field out of all that the server sends: the script is then expected to fail.
  spoil: { type: "string", default: "" },
};

// What an error says: the SDKs' errors carry a code, and not always a text.
function reason(error) {
  if (link.faults.length > 0) return `the SDK could not read a push: ${link.faults[0]}`;
  if (error instanceof Failure) return error.message;
  return error.code === undefined ? String(error.stack) : `the SDK answered ${error.code} ${error.message}`;
}

// Runs `body(world, args)` and ends the process.
export async function command({ name, options }, body) {
  const { values: args } = parseArgs({ options: { ...COMMON, ...options } });
  const missing = Object.keys(COMMON).find((key) => args[key] === undefined);
  const about = { script: name, sdk: args.sdk, scenario: args.scenario };

  // The SDKs leave rejections of their own unhandled when a re-login fails; the scripts look at what follows from it.
  process.on("unhandledRejection", (error) => console.error("unhandled in the SDK:", error));

  let result;
  try {
    if (missing) throw new Failure(`--${missing} is missing`);
    link.spoil = args.spoil;
    const world = new World({
      load: prepare(args.sdk, args.sim.replace(/\/$/, "")),
      sim: args.sim.replace(/\/$/, ""),
      control: args.control,
      sdkAppId: Number(args["sdk-app-id"]),
      secretKey: args["secret-key"],
      deadline: Number(args.deadline),
      prefix: `${args.sdk}-${args.scenario}`,
    });
    await body(world, args);
    if (link.faults.length > 0) throw new Failure();
    result = { ...about, ok: true };
  } catch (error) {
    result = { ...about, ok: false, reason: reason(error) };
  }
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(result.ok ? 0 : 1));
}
