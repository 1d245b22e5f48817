// Requests to this origin. Every failure becomes a Trouble with a message to show and the invalid fields.

import { askToken, forgetToken, keptToken } from "./token.js";

const TIMEOUT_MS = 30_000;

/** `status` is 0 without a response. `errors` are `{field, message}`. */
export class Trouble extends Error {
  constructor(status, title, detail, errors = [], waitS = null) {
    super(detail ?? title);
    Object.assign(this, { status, title, detail, errors, waitS });
  }
}

/** Run `work`. A failed request goes to `onTrouble`; errors of this page itself propagate. */
export async function attempt(work, onTrouble) {
  try {
    return await work();
  } catch (trouble) {
    if (!(trouble instanceof Trouble)) throw trouble;
    return onTrouble(trouble);
  }
}

/** Send a request and return `{body, headers, status}`. `accept` lists statuses besides 2xx that are not failures. */
export async function ask(method, path, { body, headers = {}, accept = [], timeoutMs = TIMEOUT_MS } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(timeoutMs),
      credentials: "omit",
      cache: "no-store",
    });
  } catch {
    throw new Trouble(0, "No answer", "Can't reach Sluice, or it took too long.");
  }
  const document = await response.json().catch(() => null);
  if (!response.ok && !(accept.includes(response.status) && document?.status !== response.status)) throw problem(response, document);
  if (document === null) throw new Trouble(response.status, "Not understood", "The response was not JSON.");
  return { body: document, headers: response.headers, status: response.status };
}

/** Like `ask`, with the admin token, which the user is asked for if needed. Null if the user cancels. */
export async function askAsAdmin(method, path, options = {}) {
  for (let wasRefused = false; ; wasRefused = true) {
    const token = keptToken();
    const authorization = token ? { Authorization: `Bearer ${token}` } : {};
    try {
      return await ask(method, path, { ...options, headers: { ...options.headers, ...authorization } });
    } catch (trouble) {
      if (trouble.status !== 401) throw trouble;
      forgetToken();
      if (!(await askToken(wasRefused || Boolean(token)))) return null;
    }
  }
}

function problem(response, document) {
  const wait = Number.parseInt(response.headers.get("Retry-After"), 10);
  return new Trouble(
    response.status,
    document?.title ?? `Status ${response.status}`,
    document?.detail,
    document?.errors ?? [],
    Number.isNaN(wait) ? null : wait,
  );
}
