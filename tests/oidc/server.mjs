// A real OAuth server for tests: npm `oidc-provider` on loopback, with rotation, PKCE, revocation
// and introspection. It owns the provider's side of an end-to-end test and the log of what the
// provider saw; it must never listen beyond 127.0.0.1, and keeps everything in memory.
//
//   node server.mjs [--log FILE] [--before-ms N] [--after-ms N]
//
// prints one JSON line once it listens, and exits when its standard input closes:
//
//   {"url", "token_endpoint", "revocation_endpoint", "introspection_endpoint",
//    "client_id", "client_secret", "redirect_uri", "pid"}
//
// Each request waits a random time of up to N milliseconds before it is handled (--before-ms), and
// between its commit and its answer (--after-ms), so that a kill can land on either side.
//
// Routes of the provider: /token, /token/revocation, /token/introspection, and the rest of OpenID.
//
// Routes for tests only; bodies and answers are JSON:
//   POST /test/code    {user, code_challenge?, nonce?, scope?} -> {code, grant}  an approval, no browser
//   POST /test/refresh {user, scope?} -> {refresh_token, grant}            a pair got elsewhere
//   POST /test/lose    {count}        -> {}  the next answers are lost after their commit
//   GET  /test/grants?user=U          -> [{grant, live, generation, refresh}]  what it holds
//
// The log has one JSON line an event, written before the answer leaves. Tokens appear as SHA-256
// in hexadecimal. `n` counts requests, `at` is milliseconds since 1970.
//   {n, at, event: "started", route, grant_type, presented, spent}       spent: already, on arrival
//   {n, at, event: "committed", grant, generation, refresh, access}   or, with an error's status,
//   {n, at, event: "refused", status, error, detail}
//   {n, at, event: "answered"}      the whole answer was handed to the kernel, or
//   {n, at, event: "aborted"}       the connection went first; it may stand before "committed"

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import Provider from 'oidc-provider';

import { memory } from './memory.mjs';

const { values: options } = parseArgs({
  options: {
    log: { type: 'string', default: '/dev/stderr' },
    'before-ms': { type: 'string', default: '0' },
    'after-ms': { type: 'string', default: '0' },
  },
});
// Standard output is for the one line above.
console.info = console.error;

const CLIENT = {
  client_id: 'tokenwal-test',
  client_secret: randomBytes(24).toString('base64url'),
  redirect_uris: ['http://127.0.0.1/callback'],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  application_type: 'native',
  token_endpoint_auth_method: 'client_secret_basic',
};
const ROUTES = new Map([
  ['/token', 'token'],
  ['/token/revocation', 'revocation'],
  ['/token/introspection', 'introspection'],
]);

const store = memory();
let requests = 0;
let answersToLose = 0;

const server = createServer();
// An idle connection that the server closes under a client would be an accident, not a test.
server.keepAliveTimeout = 600_000;
server.listen(0, '127.0.0.1', () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  const provider = makeProvider(url);
  const handle = provider.callback();
  server.on('request', (req, res) => {
    if (req.url.startsWith('/test/')) return testRoute(provider, req, res);
    return handle(req, res);
  });
  console.log(JSON.stringify({
    url,
    token_endpoint: `${url}/token`,
    revocation_endpoint: `${url}/token/revocation`,
    introspection_endpoint: `${url}/token/introspection`,
    client_id: CLIENT.client_id,
    client_secret: CLIENT.client_secret,
    redirect_uri: CLIENT.redirect_uris[0],
    pid: process.pid,
  }));
});
// A test that dies takes its server with it.
process.stdin.resume().on('end', () => process.exit(0));

function makeProvider(issuer) {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const provider = new Provider(issuer, {
    adapter: store.adapter,
    clients: [{ ...CLIENT, id_token_signed_response_alg: 'ES256' }],
    cookies: { keys: [randomBytes(16).toString('hex')] },
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256' }] },
    findAccount: async (_ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    features: {
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
    },
    issueRefreshToken: async () => true,
    pkce: { required: () => true },
    rotateRefreshToken: true,
    scopes: ['openid', 'offline_access'],
    ttl: {
      AccessToken: 600, AuthorizationCode: 600, IdToken: 600, Grant: 86400, RefreshToken: 86400,
    },
  });
  provider.use(observe);
  // The error's detail, which the answer hides ("refresh token already used").
  for (const event of ['grant.error', 'revocation.error', 'introspection.error']) {
    provider.on(event, (ctx, error) => { ctx.state.detail = error.error_detail; });
  }
  return provider;
}

// Logs a request around the provider, and delays or loses what it was told to.
async function observe(ctx, next) {
  const route = ROUTES.get(ctx.path);
  if (!route) return next();

  const n = (requests += 1);
  const body = await readBody(ctx.req);
  const form = Object.fromEntries(new URLSearchParams(body));
  ctx.req.body = form;
  const presented = form.refresh_token ?? form.code ?? form.token;
  log(n, 'started', {
    route,
    grant_type: form.grant_type,
    presented: hash(presented),
    spent: store.consumed(presented),
  });
  ctx.res.once('finish', () => log(n, 'answered'));
  ctx.res.once('close', () => { if (!ctx.res.writableFinished) log(n, 'aborted'); });

  await wait(options['before-ms']);
  // One token, one request at a time, as a row lock in a provider's database would have it.
  await oneAtATime(presented, next);
  if (ctx.status < 400) log(n, 'committed', outcome(ctx));
  else log(n, 'refused', { status: ctx.status, error: ctx.body?.error, detail: ctx.state.detail });
  await wait(options['after-ms']);

  if (answersToLose > 0) {
    answersToLose -= 1;
    ctx.respond = false;
    ctx.res.destroy();
  }
}

function outcome(ctx) {
  const { entities } = ctx.oidc;
  const token = entities.RefreshToken ?? entities.AccessToken;
  return {
    grant: token?.grantId,
    generation: token?.rotations === undefined ? undefined : token.rotations + 1,
    refresh: hash(ctx.body?.refresh_token),
    access: hash(ctx.body?.access_token),
  };
}

const turns = new Map();

async function oneAtATime(key, work) {
  const before = turns.get(key) ?? Promise.resolve();
  const turn = before.then(work);
  const settled = turn.catch(() => {});
  turns.set(key, settled);
  try {
    await turn;
  } finally {
    if (turns.get(key) === settled) turns.delete(key);
  }
}

async function testRoute(provider, req, res) {
  const { pathname, searchParams } = new URL(req.url, 'http://127.0.0.1');
  const routes = {
    'POST /test/code': async () => mint(provider, 'AuthorizationCode', await json(req)),
    'POST /test/refresh': async () => mint(provider, 'RefreshToken', await json(req)),
    'POST /test/lose': async () => {
      answersToLose = (await json(req)).count;
      return {};
    },
    'GET /test/grants': async () => store.grants(searchParams.get('user')).map(
      ({ grant, live, refresh }) => ({
        grant,
        live,
        generation: refresh && refresh.rotations + 1,
        refresh: refresh && hash(refresh.jti),
      }),
    ),
  };
  try {
    const route = routes[`${req.method} ${pathname}`];
    const [status, answer] = route ? [200, await route()] : [404, { error: 'no such route' }];
    res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
  } catch (error) {
    res.writeHead(400, { 'content-type': 'application/json' })
      .end(JSON.stringify({ error: error.message }));
  }
}

// Saves an approval of `user`, and a code or a refresh token under it, as the consent page would.
async function mint(provider, model, options) {
  const { user, scope = 'openid offline_access', code_challenge, nonce } = options;
  if (typeof user !== 'string' || user === '') throw new TypeError('user is missing');
  const client = await provider.Client.find(CLIENT.client_id);
  const grant = new provider.Grant({ accountId: user, clientId: client.clientId });
  grant.addOIDCScope(scope);
  const grantId = await grant.save();
  const common = { accountId: user, client, grantId, gty: 'authorization_code', scope };
  if (model === 'RefreshToken') {
    const token = await new provider.RefreshToken({ ...common, rotations: 0 }).save();
    return { refresh_token: token, grant: grantId };
  }
  const code = await new provider.AuthorizationCode({
    ...common,
    redirectUri: CLIENT.redirect_uris[0],
    codeChallenge: code_challenge,
    codeChallengeMethod: code_challenge && 'S256',
    nonce,
  }).save();
  return { code, grant: grantId };
}

function log(n, event, fields = {}) {
  appendFileSync(options.log, `${JSON.stringify({ n, at: Date.now(), event, ...fields })}\n`);
}

function hash(token) {
  return token && createHash('sha256').update(token).digest('hex');
}

function wait(limit) {
  const milliseconds = Math.random() * Number(limit);
  return milliseconds > 0 ? sleep(milliseconds) : undefined;
}

async function readBody(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function json(req) {
  return JSON.parse(await readBody(req));
}
