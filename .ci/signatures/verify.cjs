// Verifies signed bodies with the library from npm: `verify.cjs FILE` reads what the story wrote.
"use strict";

const fs = require("node:fs");
const readline = require("node:readline");
const { Webhook, WebhookVerificationError } = require("standardwebhooks");

function verifies(secret, body, headers) {
  try {
    // Bodies of the story are any text, not only JSON.
    new Webhook(secret).verify(body, headers, { jsonParse: false });
    return true;
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false;
    throw error;
  }
}

function fail(number, what) {
  console.error(`javascript: line ${number}: ${what}`);
  process.exit(1);
}

async function main(path) {
  let bodies = 0;
  let checks = 0;
  for await (const text of readline.createInterface({ input: fs.createReadStream(path) })) {
    const line = JSON.parse(text);
    const [body, tampered] = [line.body, line.tampered].map((encoded) => Buffer.from(encoded, "base64"));
    bodies += 1;
    for (const secret of line.good) {
      if (!verifies(secret, body, line.headers)) fail(bodies, "a receiver with a key that signs refuses the body");
      if (verifies(secret, tampered, line.headers)) fail(bodies, "a body with a flipped bit is accepted");
    }
    for (const secret of line.bad) {
      if (verifies(secret, body, line.headers)) fail(bodies, "a receiver with a key that does not sign accepts the body");
    }
    checks += 2 * line.good.length + line.bad.length;
  }
  if (bodies === 0) throw new Error("javascript: there are no bodies");
  console.log(`javascript: ${bodies} bodies, ${checks} checks`);
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
