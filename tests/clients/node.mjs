// Clients for Node against a running server: node node.mjs BASE KEY. test_clients.py starts it.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import Anthropic from '@anthropic-ai/sdk';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, streamText, embed, tool } from 'ai';
import { z } from 'zod';

const [base, apiKey] = process.argv.slice(2);
const messages = [{ role: 'user', content: 'Hello' }];

async function openai() {
  const client = new OpenAI({ baseURL: `${base}/v1`, apiKey, maxRetries: 0 });
  const ask = { model: 'caller', messages, max_tokens: 8, temperature: 0 };
  const whole = await client.chat.completions.create(ask);
  let text = '';
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? '';
  }
  assert.equal(text, whole.choices[0].message.content);
  const vectors = await client.embeddings.create({ model: 'caller', input: ['a', 'b'] });
  assert.equal(vectors.data[1].embedding.length, 256);
  const response = await client.responses.create({ model: 'caller', input: 'Hello', max_output_tokens: 4 });
  assert.equal(response.status, 'incomplete');
  await assert.rejects(client.chat.completions.create({ ...ask, temperature: -1 }), OpenAI.BadRequestError);
}

async function anthropic() {
  const client = new Anthropic({ baseURL: base, apiKey, maxRetries: 0 });
  const ask = { model: 'caller', messages, max_tokens: 8, temperature: 0 };
  const whole = await client.messages.create(ask);
  const streamed = await client.messages.stream(ask).finalMessage();
  assert.equal(streamed.content[0].text, whole.content[0].text);
  await assert.rejects(client.messages.create({ ...ask, temperature: -1 }), Anthropic.BadRequestError);
}

async function ai() {
  const provider = createOpenAICompatible({ name: 'upg', baseURL: `${base}/v1`, apiKey, includeUsage: true });
  const ask = { model: provider('caller'), prompt: 'Hello', maxOutputTokens: 8, temperature: 0, maxRetries: 0 };
  const whole = await generateText(ask);
  let text = '';
  for await (const piece of streamText(ask).textStream) text += piece;
  assert.equal(text, whole.text);
  const weather = tool({ description: 'Tells the weather', inputSchema: z.looseObject({}) });
  let calls = [];
  for (let seed = 0; seed < 6 && calls.length === 0; ++seed) {
    const called = await generateText({ ...ask, tools: { weather }, toolChoice: 'required', maxOutputTokens: 200,
                                        temperature: 0.4, seed });
    calls = called.toolCalls;
  }
  assert.equal(calls[0].toolName, 'weather');
  const { embedding } = await embed({ model: provider.textEmbeddingModel('caller'), value: 'a', maxRetries: 0 });
  assert.equal(embedding.length, 256);
}

for (const client of [openai, anthropic, ai]) {
  await client();
  console.log(`${client.name} passed`);
}
console.log('all clients passed');
