// The vendor's SDK talks with a bot that is logged in elsewhere: sends it one-to-one and group messages, and expects
// each text back.
//
//   node bot_and_sdk.mjs --sim ws://127.0.0.1:9200 --control http://127.0.0.1:9201 --sdk-app-id 1400000001 \
//     --secret-key KEY --sdk chat --user alice --bot bot1 [--messages 5]

import { check } from "./client.mjs";
import { command } from "./command.mjs";

const options = {
  // The user of the SDK, and the account of the bot.
  user: { type: "string" },
  bot: { type: "string" },
  // How many messages of each kind.
  messages: { type: "string", default: "5" },
};

await command({ name: "bot_and_sdk", options }, async (world, args) => {
  const user = world.clientNamed(args.user);
  // A group and texts that no other run has used.
  const run = `${args.user}-${Date.now()}`;
  const group = `group-${run}`;
  await world.group(group, [args.user, args.bot]);
  await user.loginWith(group);

  for (let n = 0; n < Number(args.messages); n += 1) {
    await user.sendTo(args.bot, `${run} c${n}`);
    await user.sendToGroup(group, `${run} g${n}`);
    const [one, all] = [await user.message(`${run} c${n}`), await user.message(`${run} g${n}`)];
    check(one.from === args.bot && one.group === undefined, `the one-to-one echo came as ${JSON.stringify(one)}`);
    check(all.from === args.bot && all.group === group, `the group echo came as ${JSON.stringify(all)}`);
  }
  // An echo that comes twice would have come before the echo of a later message.
  const twice = user.messages.entries.find(({ text }) => user.count(text) > 1);
  check(!twice, `an echo came twice: ${JSON.stringify(twice)}`);
});
