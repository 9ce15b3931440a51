// The calls to the query service. A key, once asked for, stays in this tab's session storage.

const KEY = "cliptide-api-key";

export class Refused extends Error {
  /** The service's answer was an error; `code` is stable, the message is for people. */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let askForKey = async () => null;

/** Say how a person is asked for a key: a function of the reason that resolves to one. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** Call the service; resolves to a successful response, or rejects with `Refused` or a network error. */
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
    if (sessionStorage.getItem(KEY) === key) sessionStorage.setItem(KEY, await askForKey(refused.message));
  }
}

export const ask = async (path, json, signal) => (await call(path, { json, signal })).json();

async function refusal(response) {
  try {
    const { error } = await response.json();
    return new Refused(response.status, error.code, error.message);
  } catch {
    return new Refused(response.status, "unknown", `the service answered ${response.status}`);
  }
}

/** Say to a person why a call failed. */
export function reasonOf(error) {
  return error instanceof Refused ? error.message : "The service cannot be reached.";
}
