// The server that tests/clients/run started, and the programs that the pages show.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const url = process.env.CLIENTS_URL;
export const secureUrl = process.env.CLIENTS_TLS_URL;
export const key = process.env.CLIENTS_KEY;
export const pages = process.env.CLIENTS_PAGES;

// The sound that a page's program leaves: the nth block of JavaScript, run as a module.
export async function shown(page, number) {
  const text = readFileSync(join(pages, page), "utf8");
  const program = [...text.matchAll(/^```js\n(.*?)^```$/gms)][number][1]
    .replaceAll("http://localhost:8000", url)
    .replaceAll("https://voice.example", secureUrl)
    .replaceAll("ws://localhost:8000", url.replace("http", "ws"))
    .replaceAll("YOUR_KEY", key);
  const file = join(import.meta.dirname, `shown-${page}-${number}.mjs`);
  writeFileSync(file, `${program}\nexport { sound };\n`);
  return (await import(file)).sound;
}

// Seconds of a text, spoken by the server's own door.
export async function length(text) {
  const answer = await fetch(`${url}/tts`, {
    method: "POST",
    headers: { "X-API-Key": key, "Content-Type": "application/json" },
    body: JSON.stringify({ text, voice: "en-us", format: "pcm" }),
  });
  return (await answer.arrayBuffer()).byteLength / 2 / 24000;
}

export function isClose(found, wanted) {
  return Math.abs(found - wanted) <= 0.02 * wanted;
}

// How many turns of this door a client left.
export const left = (door) => turns(door, "dropped");

// How many turns of this door ended in this way.
export async function turns(door, outcome) {
  const answer = await fetch(`${url}/metrics`, { headers: { "X-API-Key": key } });
  const lines = (await answer.text()).split("\n").filter((line) =>
    line.startsWith("voice_server_turns_total{") && line.includes(`door="${door}"`) &&
    line.includes(`outcome="${outcome}"`));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

export async function until(condition) {
  const deadline = Date.now() + 60_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error("not within 60 s");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
