// Runs one scenario of one SDK against a simulator.
//
//   node run.mjs --sim ws://127.0.0.1:9200 --control http://127.0.0.1:9201 --sdk-app-id 1400000001 \
//     --secret-key KEY --sdk chat --scenario login

import { check } from "./client.mjs";
import { command } from "./command.mjs";
import { scenarios } from "./scenarios.mjs";

const options = { scenario: { type: "string" } };

if (process.argv.includes("--list")) {
  process.stdout.write(`${JSON.stringify(Object.keys(scenarios))}\n`);
} else {
  await command({ name: "run", options }, async (world, { scenario }) => {
    const names = Object.keys(scenarios);
    check(names.includes(scenario), `--scenario ${scenario}: give one of ${names.join(", ")}`);
    await scenarios[scenario](world);
  });
}
