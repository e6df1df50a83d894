// What the end-to-end test relies on: that this server rotates, tells its log the truth, and
// kills a family when a spent token comes again. Run by `tests/run oidc`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';

const directory = mkdtempSync(join(tmpdir(), 'tokenwal-oidc-'));
const logFile = join(directory, 'log');
let child;
let server;

before(async () => {
  const program = new URL('server.mjs', import.meta.url).pathname;
  child = spawn(process.execPath, [program, '--log', logFile, '--after-ms', '5'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  for await (const line of createInterface({ input: child.stdout })) {
    server = JSON.parse(line);
    break;
  }
});

after(async () => {
  const closed = new Promise((resolve) => { child.once('exit', resolve); });
  child.stdin.end();
  assert.equal(await closed, 0, 'the server goes when its input closes');
  rmSync(directory, { recursive: true });
});

async function call(url, form) {
  const secret = Buffer.from(`${server.client_id}:${server.client_secret}`).toString('base64');
  const response = await fetch(url, {
    method: 'POST',
    headers: { authorization: `Basic ${secret}` },
    body: new URLSearchParams(form),
  });
  const text = await response.text();
  return { status: response.status, ...(text ? JSON.parse(text) : {}) };
}

const token = (form) => call(server.token_endpoint, form);
const refresh = (value) => token({ grant_type: 'refresh_token', refresh_token: value });
const active = async (value) => (await call(server.introspection_endpoint, { token: value })).active;

async function route(path, body) {
  const response = await fetch(`${server.url}/test/${path}`, {
    method: body ? 'POST' : 'GET',
    body: body && JSON.stringify(body),
  });
  return response.json();
}

const hash = (value) => createHash('sha256').update(value).digest('hex');

function events(presented) {
  const lines = readFileSync(logFile, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  const numbers = new Set(lines.filter((l) => l.presented === hash(presented)).map((l) => l.n));
  return lines.filter((line) => numbers.has(line.n));
}

test('a code is exchanged once, with its verifier', async () => {
  const verifier = randomBytes(32).toString('base64url');
  const challenge = createHash('sha256').update(verifier).digest('base64url');
  const { code, grant } = await route('code', { user: 'ada', code_challenge: challenge });
  const form = { grant_type: 'authorization_code', code, redirect_uri: server.redirect_uri };
  assert.equal((await token({ ...form, code_verifier: `${verifier}x` })).status, 400);
  const pair = await token({ ...form, code_verifier: verifier });
  assert.equal(pair.status, 200);
  assert.ok(pair.access_token && pair.refresh_token && pair.id_token && pair.expires_in);
  assert.deepEqual(await route('grants?user=ada'), [
    { grant, live: true, generation: 1, refresh: hash(pair.refresh_token) },
  ]);
});

test('a spent refresh token kills the family', async () => {
  const { refresh_token: first } = await route('refresh', { user: 'bob' });
  const pair = await refresh(first);
  assert.notEqual(pair.refresh_token, first);
  assert.equal(await active(pair.refresh_token), true);
  assert.equal((await refresh(first)).error, 'invalid_grant');
  assert.equal(await active(pair.refresh_token), false);
  assert.equal(await active(pair.access_token), false);
  const [spent] = events(first).filter((event) => event.event === 'refused');
  assert.equal(spent.detail, 'refresh token already used');
});

test('of two requests at once with one token, one wins', async () => {
  const { refresh_token: value } = await route('refresh', { user: 'cy' });
  const answers = await Promise.all([refresh(value), refresh(value)]);
  assert.deepEqual(answers.map((answer) => answer.status).sort(), [200, 400]);
});

test('revoking a refresh token ends the grant', async () => {
  const { refresh_token: value } = await route('refresh', { user: 'di' });
  const pair = await refresh(value);
  const revoked = await call(server.revocation_endpoint, { token: pair.refresh_token });
  assert.equal(revoked.status, 200);
  assert.equal(await active(pair.access_token), false);
  assert.deepEqual(await route('grants?user=di'), []);
});

test('a lost answer was committed, and the log says that it was not given', async () => {
  const { refresh_token: value, grant } = await route('refresh', { user: 'eve' });
  await route('lose', { count: 1 });
  await assert.rejects(refresh(value));
  const [state] = await route('grants?user=eve');
  assert.deepEqual([state.grant, state.generation], [grant, 2]);
  const seen = events(value);
  assert.deepEqual(seen.map((event) => event.event), ['started', 'committed', 'aborted']);
  assert.equal(seen[1].refresh, state.refresh);
  assert.equal(seen[0].spent, false);
});

test('no token stands in the log', async () => {
  const { refresh_token: value } = await route('refresh', { user: 'fay' });
  const pair = await refresh(value);
  const log = readFileSync(logFile, 'utf8');
  for (const secret of [value, pair.refresh_token, pair.access_token, server.client_secret]) {
    assert.ok(!log.includes(secret));
  }
});
