// What the page asks its server. In an exported file there is no server: what was asked for then stands in the file.

const kept = readKept();

function readKept() {
  const node = document.getElementById("kept");
  return node === null ? null : JSON.parse(node.textContent);
}

export const isExport = kept !== null;

export class Refused extends Error {}

export const query = (values) => {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined && value !== false);
  return given.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value === true ? 1 : value)}`).join("&");
};

export async function get(path, values = {}, signal = undefined) {
  const given = query(values);
  const url = `${path}${given && "?"}${given}`;
  if (kept !== null) {
    if (url in kept) return kept[url];
    throw new Refused("This is not in the exported file.");
  }
  return answered(await reached(fetch(`./api/${url}`, { signal, headers: { accept: "application/json" } })));
}

export async function post(path, body) {
  const headers = { "content-type": "application/json", accept: "application/json" };
  return answered(await reached(fetch(`./api/${path}`, { method: "POST", headers, body: JSON.stringify(body) })));
}

async function reached(request) {
  try {
    return await request;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Has `rh-agents web` ended?");
  }
}

async function answered(response) {
  const text = await response.text();
  const isJson = (response.headers.get("content-type") || "").startsWith("application/json");
  if (!isJson) throw new Refused(text || `The server says ${response.status}.`);
  const data = JSON.parse(text);
  if (!response.ok) throw new Refused(data.error || `The server says ${response.status}.`);
  return data;
}

// Read text of a call as it streams. `take` gets pieces as they come; `done` is called when there will be no more. Returns
// what stops it. A source that reconnects goes on behind what it has got.
export function followText(run, key, take, done) {
  if (kept !== null) return () => {};
  let source = null;
  let known = "";
  const close = () => {
    if (source !== null) source.close();
    source = null;
  };
  const open = () => {
    if (source !== null || document.hidden) return;
    source = new EventSource(`./api/call/text?${query({ run, key, after: known })}`);
    source.addEventListener("text", (event) => {
      known = event.lastEventId;
      take(JSON.parse(event.data).pieces);
    });
    source.addEventListener("done", () => {
      stop();
      done();
    });
    source.addEventListener("gone", () => stop());
  };
  const seen = () => (document.hidden ? close() : open());
  const stop = () => {
    document.removeEventListener("visibilitychange", seen);
    close();
  };
  document.addEventListener("visibilitychange", seen);
  open();
  return stop;
}

// Follow a page. `take` gets the sections that have changed; `state` gets "live", "lost" or "ended". Returns what stops it.
export function follow(path, values, version, take, state) {
  if (kept !== null) return () => {};
  let source = null;
  let known = version;
  const open = () => {
    if (source !== null || document.hidden) return;
    source = new EventSource(`./api/${path}?${query({ ...values, after: known })}`);
    source.addEventListener("open", () => state("live"));
    source.addEventListener("error", () => state("lost"));
    source.addEventListener("sections", (event) => {
      known = event.lastEventId;
      take(JSON.parse(event.data));
    });
    source.addEventListener("gone", (event) => {
      close();
      state("ended", JSON.parse(event.data).error);
    });
  };
  const close = () => {
    if (source !== null) source.close();
    source = null;
  };
  const seen = () => (document.hidden ? close() : open()); // a page that no one sees costs nothing
  document.addEventListener("visibilitychange", seen);
  open();
  return () => {
    document.removeEventListener("visibilitychange", seen);
    close();
  };
}
