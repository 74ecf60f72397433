// What is asked of the server: looks, which come as a stream, and how two answers differ.

async function posted(path, body, key, signal) {
  if (/[^\x20-\x7e]/.test(key)) throw locked(); // which no header can say
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const options = { method: "POST", headers, body: JSON.stringify(body), signal, referrerPolicy: "no-referrer" };
  const answer = await fetch(path, options).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The server cannot be reached.");
  });
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

async function problemOf(answer) {
  const said = await answer.json().catch(() => null);
  return answer.status === 401
    ? locked()
    : new Error(said?.error?.message ?? `The server answered with status ${answer.status}.`);
}

function locked() {
  return Object.assign(new Error("This server wants an API key; give a valid one above."), { status: 401 });
}

// Asks, and tells `hear` of every chunk as it comes.
async function look(body, key, signal, hear) {
  const answer = await posted("ui/look", body, key, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The connection was cut before the answer was complete.");
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      const text = line.slice("data: ".length);
      if (text === "[DONE]") return;
      const chunk = JSON.parse(text);
      if (chunk.error) throw new Error(chunk.error.message);
      hear(chunk);
    }
  }
}

// The parts of two answers: of both, of one only.
async function difference(full, said, key) {
  if (full === said) return [["same", said]];
  const apart = [["full", full], ["said", said]];
  if (Math.max(full.length, said.length) > 2000) return apart.filter((part) => part[1]);
  const answer = await posted("ui/difference", { full, said }, key);
  return (await answer.json()).parts;
}
