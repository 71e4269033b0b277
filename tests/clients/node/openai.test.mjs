// OpenAI's own library for Node, and the AI SDK's provider, unmodified.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, experimental_generateSpeech as generateSpeech } from "ai";
import OpenAI from "openai";
import { isClose, key, left, length, shown, until, url } from "./server.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const asked = { model: "tts-1", voice: "alloy", input: "Hello.", response_format: "pcm" };

test("the pages' programs speak", async () => {
  const wanted = await length("Hello from my own server.");
  for (const number of [0, 1]) {
    const sound = await shown("openai.md", number);
    assert.ok(isClose(sound.length / 48000, wanted), `${sound.length / 48000} s, not ${wanted}`);
  }
});

test("hanging up ends the turn", async () => {
  const before = await left("openai");
  const input = "This sentence is said again and again. ".repeat(400);
  const answer = await client.audio.speech.create({ ...asked, input });
  const reader = answer.body.getReader();
  assert.ok((await reader.read()).value.length);
  await reader.cancel();
  await until(async () => (await left("openai")) > before);
});

test("what is wrong is the library's own error", async () => {
  for (const [changes, kind, code] of [
    [{ input: "" }, OpenAI.BadRequestError, "no_text"],
    [{ voice: "nobody" }, OpenAI.NotFoundError, "voice_not_found"],
    [{ model: "gpt-5" }, OpenAI.NotFoundError, "model_not_found"],
    [{ response_format: "ogg" }, OpenAI.BadRequestError, "invalid_request"],
  ]) {
    await assert.rejects(client.audio.speech.create({ ...asked, ...changes }), (error) => {
      assert.ok(error instanceof kind);
      assert.equal(error.code, code);
      assert.match(error.requestID, /^req_/);
      return true;
    });
  }
  const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.audio.speech.create(asked), OpenAI.AuthenticationError);
});

test("the AI SDK throws an error of its own", async () => {
  const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "wrong" });
  const speaking = generateSpeech({ model: openai.speech("tts-1"), text: "Hello.", maxRetries: 0 });
  await assert.rejects(speaking, (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 401);
    return true;
  });
});
