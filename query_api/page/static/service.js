// Calls to the query service. An API key is kept in this tab's session storage.

const KEY = "cliptide-api-key";

export class Refused extends Error {
  /** The service answered with an error. `code` is stable; the message is for people. */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let askForKey = async () => null;

/** Set how a person is asked for a key: a function of the refusal that resolves to a key. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** Call the service. Resolves to a successful response; rejects with `Refused` or a network error. */
export async function call(path, { json, headers = {}, ...options } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const response = await fetch(path, {
      ...options,
      ...(json === undefined ? {} : { method: "POST", body: JSON.stringify(json) }),
      headers: {
        ...headers,
        ...(json === undefined ? {} : { "Content-Type": "application/json" }),
        ...(key === null ? {} : { Authorization: `Bearer ${key}` }),
      },
    });
    if (response.ok) return response;
    const refused = await refusal(response);
    if (response.status !== 401) throw refused;
    if (sessionStorage.getItem(KEY) === key) sessionStorage.setItem(KEY, await askForKey(refused));
  }
}

export const ask = async (path, json, signal) => (await call(path, { json, signal })).json();

async function refusal(response) {
  try {
    const { error } = await response.json();
    return new Refused(response.status, error.code, error.message);
  } catch {
    return new Refused(response.status, "unknown", `The service answered with status ${response.status}.`);
  }
}

/** Return a text that tells a person why a call failed. */
export function reasonOf(error) {
  return error instanceof Refused ? error.message : "Can't reach the service.";
}
