// Calls to the query service. An API key is kept in this tab's session storage.

const KEY = "cliptide-api-key";

export class Refused extends Error {
  /** The service answered with an error. `code` is stable; the message is for people. */
  constructor(status, code, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter; // seconds, if the service names them
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
    await replaceKey(refused, key);
  }
}

export const ask = async (path, json, signal) => (await call(path, { json, signal })).json();

async function refusal(response) {
  const seconds = Number(response.headers.get("Retry-After") ?? NaN);
  const retryAfter = Number.isFinite(seconds) ? seconds : null;
  try {
    const { error } = await response.json();
    return new Refused(response.status, error.code, error.message, retryAfter);
  } catch {
    return new Refused(response.status, "unknown", `The service answered with status ${response.status}.`, retryAfter);
  }
}

/** Send a form and tell how much of it has left: `sent(share)`. Resolves and rejects as `call` does. */
export function sendForm(path, form, sent) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch cannot tell the progress of an upload
    const key = sessionStorage.getItem(KEY);
    request.open("POST", path);
    if (key !== null) request.setRequestHeader("Authorization", `Bearer ${key}`);
    request.upload.addEventListener("progress", ({ loaded, total }) => { if (total > 0) sent(loaded / total); });
    request.addEventListener("error", () => reject(new TypeError("the connection was lost")));
    request.addEventListener("load", async () => {
      const headers = { "Retry-After": request.getResponseHeader("Retry-After") ?? "" };
      const response = new Response(request.responseText, { status: request.status, headers });
      if (response.ok) resolve(await response.json());
      else if (response.status === 401) replaceKey(await refusal(response), key).then(() => sendForm(path, form, sent)).then(resolve, reject);
      else reject(await refusal(response));
    });
    request.send(form);
  });
}

async function replaceKey(refused, formerKey) {
  if (sessionStorage.getItem(KEY) === formerKey) sessionStorage.setItem(KEY, await askForKey(refused));
}

/** Whether the same call may succeed soon: the network is lost, or the service is busy or starting. */
export const mayPass = (error) => !(error instanceof Refused) || [429, 502, 503, 504].includes(error.status);

const FORMATS = "Use a JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, ICO or JPEG 2000; a HEIC where the service reads it.";
const WORDS = {
  429: "Too many searches at once.", 502: "The service is not running.", 503: "The service is busy.", 504: "The service is busy.",
  not_an_image: `This is not a picture. ${FORMATS}`,
  unsupported_image: `This format is not supported. ${FORMATS}`,
  truncated_image: "The end of this picture is missing. Copy or download it again.",
  damaged_image: "This picture is damaged. Copy or download it again.",
  image_too_large: "This picture has too many pixels. Make it smaller.",
  content_too_large: "This file is too large. Make it smaller.",
};

/** Return a text that tells a person why a call failed. */
export function reasonOf(error) {
  if (error instanceof Refused) return WORDS[error.code] ?? WORDS[error.status] ?? asSentence(error.message);
  return navigator.onLine ? "Can't reach the service." : "You are offline.";
}

/** Write an error's text as a sentence: the service's begin in lower case, without a final stop. */
function asSentence(message) {
  const words = message.trim();
  return words === "" ? "The service refused this." : `${words[0].toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;
}
