// Asks the vendors' SDKs for node, and independent implementations, for their verdict on a request.
//
//   node judge.cjs FOLDER-OF-NODE_MODULES FOLDER-OF-UNPACKED-PACKAGES
//
// Reads one JSON object a line: {judge, act: "verify" | "sign", secret, method, url, headers, body (base64), now_ms, options}, and
// answers each with a line: {ok} or {headers} or {error}.  Whatever an SDK throws is a no.
"use strict";
const { createRequire, registerHooks } = require("node:module");
const path = require("node:path");
const readline = require("node:readline");

const [modules, packs] = process.argv.slice(2);
const fromModules = createRequire(path.join(modules, "package.json"));
const loaded = new Map();
const sdk = (name) => loaded.get(name) ?? loaded.set(name, fromModules(name)).get(name);
const inside = (name, file) => sdk(path.join(modules, "node_modules", name, file));

// The instant of the question is now, for every SDK.
let now = 0;
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...given) {
    super(...(given.length ? given : [now]));
  }
  static now() {
    return now;
  }
};

// What an unpacked package wants of its host is not there; the functions that are asked do without.
const anything = new Proxy(function () {}, { get: (_, name) => (name === "__esModule" ? true : anything), apply: () => anything, construct: () => anything });
let config = {};
globalThis.__host = {
  anything,
  getRequestHeaders: (event) => event.headers,
  readRawBody: async (event) => event.text,
  useRuntimeConfig: () => ({ webhook: new Proxy({}, { get: () => config }) }),
};
const stubs = {
  h3: "export const getRequestHeaders = globalThis.__host.getRequestHeaders, readRawBody = globalThis.__host.readRawBody, createError = (given) => new Error(given.message)",
  "#imports": "export const useRuntimeConfig = globalThis.__host.useRuntimeConfig",
  scule: "export const snakeCase = (text) => text",
  "n8n-workflow": "module.exports = globalThis.__host.anything",
};
registerHooks({
  resolve(name, context, next) {
    if (name in stubs) return { url: `stub:${name}`, format: name === "n8n-workflow" ? "commonjs" : "module", shortCircuit: true };
    const outside = context.parentURL?.includes(path.basename(packs)) && !/^[./]|^node:|^file:/.test(name);
    if (outside && name !== "crypto") return { url: require("node:url").pathToFileURL(fromModules.resolve(name)).href, shortCircuit: true };
    return next(name, context);
  },
  load(url, context, next) {
    if (url.startsWith("stub:")) return { format: url.endsWith("n8n-workflow") ? "commonjs" : "module", source: stubs[url.slice(5)], shortCircuit: true };
    return next(url, context);
  },
});

const header = (q, name) => q.headers[name] ?? "";
const json = (q) => JSON.parse(q.text);
const form = (q) => Object.fromEntries(new URLSearchParams(q.text));
const request = (q) => new Request(q.url, { method: "POST", headers: q.headers, body: q.body });

// n8n: a node's own check, with the secret wherever that node looks for one.
const n8n = (file, name = "verifySignature") => async (q) => {
  const node = sdk(path.join(packs, "n8n-nodes-base/package/dist/nodes", file));
  const secrets = new Proxy({}, { get: (_, key) => (key === "then" || key === "signingKeySecondary" ? undefined : q.secret) });
  const raw = { header: (of) => q.headers[of], headers: q.headers, rawBody: q.body, get body() { return json(q); } };
  const host = {
    getRequestObject: () => raw,
    getWorkflowStaticData: () => secrets,
    getCredentials: async () => secrets,
    getNodeParameter: (_, otherwise) => otherwise,
    getNodeWebhookUrl: () => q.url,
    getHeaderData: () => q.headers,
    getBodyData: () => json(q),
    helpers: { returnJsonArray: (given) => given },
  };
  if (name === "verifySignature") return node.verifySignature.call(host);
  return Boolean((await node[name].prototype.webhook.call(host)).workflowData);
};
const nuxt = (file, name, fields) => async (q) => {
  const found = await import(path.join(packs, "nuxt-webhook-validators/package/dist/runtime/server/lib/validators", file));
  config = fields(q);
  return found[name]({ headers: q.headers, text: q.text });
};
const tern = (platform) => async (q) => {
  const found = await sdk("@hookflo/tern").WebhookVerificationService.verify(request(q), { platform, secret: q.secret, toleranceInSeconds: 10 ** 9 });
  return found.isValid;
};
const octokit = async () => (loaded.get("octokit") ?? loaded.set("octokit", await import(path.join(modules, "node_modules/@octokit/webhooks-methods/dist-node/index.js"))).get("octokit"));
const standardHeaders = (q) => Object.fromEntries(["id", "timestamp", "signature"].map((name) => [`webhook-${name}`, header(q, `webhook-${name}`)]));
const slack = async (q) => void sdk("@slack/bolt/dist/receivers/verify-request").verifySlackRequest({ signingSecret: q.secret, body: q.text, headers: q.headers });
const hubspot = (version) => async (q) => {
  const three = version === "v3";
  return sdk("@hubspot/api-client").Signature.isValid({
    signatureVersion: version, signature: header(q, three ? "x-hubspot-signature-v3" : "x-hubspot-signature"), clientSecret: q.secret,
    requestBody: q.text, url: q.url, method: q.method, timestamp: three ? q.headers["x-hubspot-request-timestamp"] : undefined,
  });
};
const shopify = async (q) => {
  inside("@shopify/shopify-api", "dist/cjs/adapters/node/index.js");
  const { shopifyApi } = sdk("@shopify/shopify-api");
  const api = shopifyApi({ apiKey: "k", apiSecretKey: q.secret, scopes: [], hostName: "h.example.com", apiVersion: "2025-07", isEmbeddedApp: false, logger: { level: 0, log: () => {} } });
  const found = await api.webhooks.validate({ rawBody: q.text, rawRequest: { method: "POST", url: "/", headers: q.headers }, rawResponse: {} });
  return found.valid || found.reason === "missing_headers"; // the rest of the headers is none of the proof
};
const discord = async (q) => sdk("discord-interactions").verifyKey(q.body, header(q, "x-signature-ed25519"), header(q, "x-signature-timestamp"), q.secret);
const certificates = (q, run) => {
  // The validators fetch the certificate themselves: it is handed to them by the client that they use.
  const https = require("node:https");
  const real = https.get;
  https.get = (...given) => {
    const { Readable } = require("node:stream");
    const answer = Object.assign(Readable.from([Buffer.from(q.options.certificate)]), { statusCode: 200, headers: {} });
    given.at(-1)(answer);
    return { on: () => ({ on: () => {} }) };
  };
  return run().finally(() => { https.get = real; });
};

const verify = {
  "@octokit/webhooks-methods": async (q) => (await octokit()).verify(q.secret, q.text, header(q, "x-hub-signature-256")),
  standardwebhooks: async (q) => void new (sdk("standardwebhooks").Webhook)(q.secret).verify(q.text, standardHeaders(q)),
  "standardwebhooks, text": async (q) => void new (sdk("standardwebhooks").Webhook)(Buffer.from(q.secret).toString("base64")).verify(q.text, standardHeaders(q)),
  svix: async (q) => void new (sdk("svix").Webhook)(q.secret).verify(q.text, q.headers),
  resend: async (q) => void new (sdk("resend").Resend)("re_none").webhooks.verify({ payload: q.text, headers: { id: header(q, "svix-id"), timestamp: header(q, "svix-timestamp"), signature: header(q, "svix-signature") }, webhookSecret: q.secret }),
  "@clerk/backend": async (q) => void (await sdk("@clerk/backend/webhooks").verifyWebhook(request(q), { signingSecret: q.secret })),
  openai: async (q) => void (await new (sdk("openai").OpenAI)({ apiKey: "none" }).webhooks.verifySignature(q.text, new Headers(q.headers), q.secret)),
  "@anthropic-ai/sdk": async (q) => void new (sdk("@anthropic-ai/sdk").Anthropic)({ apiKey: "none" }).beta.webhooks.unwrap(q.text, { headers: q.headers, key: q.secret }),
  replicate: async (q) => sdk("replicate").validateWebhook({ id: header(q, "webhook-id"), timestamp: header(q, "webhook-timestamp"), signature: header(q, "webhook-signature"), body: q.text, secret: q.secret }),
  stripe: async (q) => void sdk("stripe").webhooks.constructEvent(q.body, header(q, "stripe-signature"), q.secret),
  "stripe, thin": async (q) => void new (sdk("stripe"))("sk_test_1").parseEventNotification(q.body, header(q, "stripe-signature"), q.secret),
  "@paddle/paddle-node-sdk": async (q) => new (sdk("@paddle/paddle-node-sdk").Paddle)("k").webhooks.isSignatureValid(q.text, q.secret, header(q, "paddle-signature")),
  "@workos-inc/node": async (q) => new (sdk("@workos-inc/node").WorkOS)("sk_none").webhooks.verifyHeader({ payload: json(q), sigHeader: header(q, "workos-signature"), secret: q.secret, tolerance: 180000 }),
  "@elevenlabs/elevenlabs-js": async (q) => void (await new (sdk("@elevenlabs/elevenlabs-js").ElevenLabsClient)({ apiKey: "none" }).webhooks.constructEvent(q.text, header(q, "elevenlabs-signature"), q.secret)),
  square: async (q) => sdk("square").WebhooksHelper.verifySignature({ requestBody: q.text, signatureHeader: header(q, "x-square-hmacsha256-signature"), signatureKey: q.secret, notificationUrl: q.url }),
  "@adyen/api-library, item": async (q) => {
    const judge = new (sdk("@adyen/api-library").hmacValidator)();
    const items = json(q).notificationItems;
    return items.length > 0 && items.every((item) => judge.validateHMAC(item.NotificationRequestItem, q.secret));
  },
  "@adyen/api-library": async (q) => new (sdk("@adyen/api-library").hmacValidator)().validateHMACSignature(q.secret, header(q, "hmacsignature"), q.text),
  braintree: async (q) => {
    const { BraintreeGateway, Environment } = sdk("braintree");
    const gateway = new BraintreeGateway({ environment: Environment.Sandbox, merchantId: "m", publicKey: "integration_public_key", privateKey: q.secret });
    return void (await gateway.webhookNotification.parse(form(q).bt_signature, form(q).bt_payload));
  },
  razorpay: async (q) => sdk("razorpay").validateWebhookSignature(q.text, header(q, "x-razorpay-signature"), q.secret),
  chargebee: async (q) => void (await inside("chargebee", "cjs/resources/webhook/auth.js").basicAuthValidator((user, password) => user === "hook" && password === q.secret)(q.headers)),
  "gocardless-nodejs": async (q) => sdk("gocardless-nodejs/webhooks").verifySignature(q.text, q.secret, header(q, "webhook-signature")),
  "coinbase-commerce-node": async (q) => sdk("coinbase-commerce-node").Webhook.verifySigHeader(q.text, header(q, "x-cc-webhook-signature"), q.secret),
  "@shopify/shopify-api": shopify,
  "@slack/bolt": slack,
  "discord-interactions": discord,
  "twilio, form": async (q) => sdk("twilio").validateRequest(q.secret, header(q, "x-twilio-signature"), q.url, form(q)),
  "twilio, json": async (q) => sdk("twilio").validateRequestWithBody(q.secret, header(q, "x-twilio-signature"), q.url, q.text),
  "@sendgrid/eventwebhook": async (q) => {
    const judge = new (sdk("@sendgrid/eventwebhook").EventWebhook)();
    const head = "x-twilio-email-event-webhook";
    return judge.verifySignature(judge.convertPublicKeyToECDSA(q.secret), q.body, header(q, `${head}-signature`), header(q, `${head}-timestamp`));
  },
  "@vonage/jwt": async (q) => {
    const token = header(q, "authorization").replace(/^Bearer /, "");
    if (!sdk("@vonage/jwt").verifySignature(token, q.secret)) return false;
    const said = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
    return said.payload_hash === require("node:crypto").createHash("sha256").update(q.body).digest("hex");
  },
  "@zoom/rivet": async (q) => {
    const { CommonHttpRequest } = rivet();
    return new CommonHttpRequest(q.headers, json(q), q.secret).isEventVerified();
  },
  "@twurple/eventsub-http": async (q) => {
    const { EventSubHttpBase } = await import(path.join(modules, "node_modules/@twurple/eventsub-http/lib/EventSubHttpBase.js"));
    const head = "twitch-eventsub-message";
    return EventSubHttpBase.prototype._verifyData.call({ _secret: q.secret }, header(q, `${head}-id`), header(q, `${head}-timestamp`), q.text, header(q, `${head}-signature`));
  },
  "twitter-autohook": async (q) => autohook().validateSignature(q.headers, { consumer_secret: q.secret }, q.body),
  "@hubspot/api-client, v1": hubspot("v1"),
  "@hubspot/api-client, v2": hubspot("v2"),
  "@hubspot/api-client, v3": hubspot("v3"),
  "atlassian-jwt": async (q) => {
    const jwt = sdk("atlassian-jwt");
    const claims = jwt.decodeSymmetric(header(q, "authorization").replace(/^JWT /, ""), q.secret, "HS256");
    return claims.qsh === jwt.createQueryStringHash(jwt.fromMethodAndUrl(q.method, q.url), false, q.options.base_url) && now / 1000 < claims.exp;
  },
  "@linear/sdk": async (q) => {
    const { LinearWebhookClient } = await import(fromModules.resolve("@linear/sdk/webhooks"));
    return void new LinearWebhookClient(q.secret).parseData(q.body, header(q, "linear-signature"), json(q).webhookTimestamp);
  },
  "@notionhq/client": async (q) => sdk("@notionhq/client").verifyWebhookSignature({ body: q.text, signature: header(q, "x-notion-signature"), verificationToken: q.secret }),
  "@dropbox/sign": async (q) => {
    const { EventCallbackHelper, EventCallbackRequest } = sdk("@dropbox/sign");
    return EventCallbackHelper.isValid(q.secret, EventCallbackRequest.init(JSON.parse(form(q).json)));
  },
  "box-node-sdk": async (q) => inside("box-node-sdk", "lib/managers/webhooks.js").WebhooksManager.validateMessage(q.text, q.headers, q.secret),
  "sns-validator": async (q) => certificates(q, () => new Promise((yes, no) => new (sdk("sns-validator"))().validate(json(q), (error) => (error ? no(error) : yes(true))))),
  "@contentful/node-apps-toolkit": async (q) => {
    const split = new URL(q.url);
    return sdk("@contentful/node-apps-toolkit").verifyRequest(q.secret, { method: q.method, path: split.pathname + split.search, headers: q.headers, body: q.text }, Number(q.options.tolerance_s ?? 30));
  },
  "@sanity/webhook": async (q) => sdk("@sanity/webhook").isValidSignature(q.text, header(q, "sanity-webhook-signature"), q.secret),
  "webflow-api": async (q) => inside("webflow-api", "wrapper/WebhooksClient.js").Client.prototype.verifySignature.call({}, { headers: q.headers, body: q.text, secret: q.secret }),
  "sign-payload": async (q) => header(q, "x-npm-signature") !== "" && signPayload()(q.body, q.secret) === header(q, "x-npm-signature"),
  "tern, lemonsqueezy": tern("lemonsqueezy"),
  "tern, woocommerce": tern("woocommerce"),
  "tern, sentry": tern("sentry"),
  "tern, grafana": tern("grafana"),
  "n8n, asana": n8n("Asana/AsanaTriggerHelpers.js"),
  "n8n, box": n8n("Box/BoxTriggerHelpers.js"),
  "n8n, cal": n8n("Cal/CalTriggerHelpers.js"),
  "n8n, calendly": n8n("Calendly/CalendlyTriggerHelpers.js"),
  "n8n, clickup": n8n("ClickUp/ClickUpTrigger.node.js", "ClickUpTrigger"),
  "n8n, figma": n8n("Figma/FigmaTriggerHelpers.js"),
  "n8n, github": n8n("Github/GithubTriggerHelpers.js"),
  "n8n, gitlab": n8n("Gitlab/GitlabTriggerHelpers.js"),
  "n8n, helpscout": n8n("HelpScout/HelpScoutTrigger.node.js", "HelpScoutTrigger"),
  "n8n, linear": n8n("Linear/LinearTriggerHelpers.js"),
  "n8n, netlify": n8n("Netlify/NetlifyTriggerHelpers.js"),
  "n8n, slack": n8n("Slack/SlackTriggerHelpers.js"),
  "n8n, stripe": n8n("Stripe/StripeTriggerHelpers.js"),
  "n8n, trello": n8n("Trello/TrelloTriggerHelpers.js"),
  "n8n, typeform": n8n("Typeform/TypeformTriggerHelpers.js"),
  "n8n, webflow": n8n("Webflow/WebflowTriggerHelpers.js"),
  "n8n, zendesk": n8n("Zendesk/ZendeskTriggerHelpers.js"),
  "nuxt, bitbucket": nuxt("bitbucket.js", "isValidBitbucketWebhook", (q) => ({ secretKey: q.secret })),
  "nuxt, docusign": nuxt("docusign.js", "isValidDocusignWebhook", (q) => ({ secretKey: q.secret })),
  "nuxt, dropbox": nuxt("dropbox.js", "isValidDropboxWebhook", (q) => ({ appSecret: q.secret })),
  "nuxt, gitlab": nuxt("gitlab.js", "isValidGitLabWebhook", (q) => ({ secretToken: q.secret })),
  "nuxt, heroku": nuxt("heroku.js", "isValidHerokuWebhook", (q) => ({ secretKey: q.secret })),
  "nuxt, meta": nuxt("meta.js", "isValidMetaWebhook", (q) => ({ appSecret: q.secret })),
  "nuxt, vercel": nuxt("vercel.js", "isValidVercelWebhook", (q) => ({ secretKey: q.secret })),
};

// Two keep their check to themselves: their file is read as it is, with one more line that hands it out.
const handedOut = (name, file, line) => {
  const place = path.join(modules, "node_modules", name, file);
  const wrapped = new (require("node:module"))(place);
  wrapped.filename = place;
  wrapped.paths = require("node:module")._nodeModulePaths(path.dirname(place));
  wrapped._compile(`${require("node:fs").readFileSync(place, "utf8")}\n${line}`, place);
  return wrapped.exports;
};
const once = (make) => { let made; return () => (made ??= make()); };
const rivet = once(() => handedOut("@zoom/rivet", "meetings/meetings.cjs", "exports.CommonHttpRequest = CommonHttpRequest;"));
const autohook = once(() => handedOut("twitter-autohook", "index.js", "module.exports = { validateSignature };"));

const signPayload = once(() => sdk(path.join(packs, "sign-payload/package/index.js")));

const seconds = () => Math.floor(now / 1000);
const sign = {
  "@octokit/webhooks-methods": async (q) => ({ "x-hub-signature-256": await (await octokit()).sign(q.secret, q.text) }),
  standardwebhooks: async (q) => ({ "webhook-id": "msg_1", "webhook-timestamp": `${seconds()}`, "webhook-signature": new (sdk("standardwebhooks").Webhook)(q.secret).sign("msg_1", new Date(now), q.text) }),
  svix: async (q) => ({ "svix-id": "msg_1", "svix-timestamp": `${seconds()}`, "svix-signature": new (sdk("svix").Webhook)(q.secret).sign("msg_1", new Date(now), q.text) }),
  stripe: async (q) => ({ "stripe-signature": sdk("stripe").webhooks.generateTestHeaderString({ payload: q.text, secret: q.secret, timestamp: seconds() }) }),
  "@workos-inc/node": async (q) => ({ "workos-signature": `t=${now}, v1=${await new (sdk("@workos-inc/node").WorkOS)("sk_none").webhooks.computeSignature(now, json(q), q.secret)}` }),
  "@adyen/api-library": async (q) => ({ hmacsignature: new (sdk("@adyen/api-library").hmacValidator)().calculateHmac(q.text, q.secret) }),
  "coinbase-commerce-node": async (q) => ({ "x-cc-webhook-signature": sdk("coinbase-commerce-node").Webhook.computeSignature(q.text, q.secret) }),
  "sign-payload": async (q) => ({ "x-npm-signature": signPayload()(q.body, q.secret) }),
  "twilio, form": async (q) => ({ "x-twilio-signature": sdk("twilio").getExpectedTwilioSignature(q.secret, q.url, form(q)) }),
  "@notionhq/client": async (q) => ({ "x-notion-signature": await sdk("@notionhq/client").signWebhookPayload({ body: q.text, verificationToken: q.secret }) }),
  "@sanity/webhook": async (q) => ({ "sanity-webhook-signature": await sdk("@sanity/webhook").encodeSignatureHeader(q.text, now, q.secret) }),
  "@contentful/node-apps-toolkit": async (q) => {
    const split = new URL(q.url);
    return sdk("@contentful/node-apps-toolkit").signRequest(q.secret, { method: q.method, path: split.pathname + split.search, headers: {}, body: q.text }, now);
  },
  "atlassian-jwt": async (q) => {
    const jwt = sdk("atlassian-jwt");
    const qsh = jwt.createQueryStringHash(jwt.fromMethodAndUrl(q.method, q.url), false, q.options.base_url);
    return { authorization: `JWT ${jwt.encodeSymmetric({ iss: "client-key-1", aud: "client-key-1", iat: seconds(), exp: seconds() + 180, qsh }, q.secret)}` };
  },
};

const answer = async (q) => {
  now = q.now_ms;
  q.body = Buffer.from(q.body, "base64");
  q.text = q.body.toString();
  if (q.act === "sign") return { headers: await sign[q.judge](q) };
  return { ok: (await verify[q.judge](q)) !== false };
};

if (modules === "--list") {
  console.log(JSON.stringify({ verify: Object.keys(verify), sign: Object.keys(sign) }));
} else {
  for (const name of ["log", "warn", "error", "debug", "info"]) console[name] = () => {};
  const lines = readline.createInterface({ input: process.stdin });
  let turn = Promise.resolve();
  lines.on("line", (line) => {
    turn = turn
      .then(() => answer(JSON.parse(line)))
      .catch((error) => ({ error: `${error?.name}: ${error?.message ?? error}`.slice(0, 300) }))
      .then((found) => process.stdout.write(`${JSON.stringify(found)}\n`));
  });
}
