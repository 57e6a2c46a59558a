// Plays speech while it is made, and shows it: waveform, spectrogram, words, and the time to the first sound.

const RATE = 24000;
const HOP = 240; // samples of a column of the pictures
const WINDOW = 512;
const PARTS = {
  waiting: ["turn", "#8c8c8c"], llm_prefill: ["LLM reads", "#3366cc"], llm_tokens: ["LLM writes", "#6f9bff"],
  projector: ["projector", "#b04dc9"], text: ["text", "#d58bd0"], queue: ["slot", "#b5b5b5"],
  talker_prefill: ["talker reads", "#d9772b"], frames: ["frames", "#f0ae4e"], codec: ["codec", "#3d9a50"],
  other: ["other", "#777"], server: ["server", "#4aa8a8"], network: ["network and page", "#c0504d"],
};
const $ = (id) => document.getElementById(id);
const history = []; // the messages of the conversation
const page = window.page = { turn: null }; // what is being spoken

class Turn {
  // One request with its sound.
  constructor(chat) {
    this.chat = chat;
    this.begun = performance.now();
    this.abort = new AbortController();
    this.context = new AudioContext({ sampleRate: RATE });
    this.analyser = this.context.createAnalyser();
    this.analyser.connect(this.context.destination);
    this.sources = new Set();
    this.start = null; // of the sound, on the clock of the audio context
    this.ends = 0;
    this.chunks = [];
    this.words = [];
    this.transcript = "";
    this.pictures = new Pictures();
    this.line = paragraph("assistant");
    this.loaded = false;
  }

  get heard() { // seconds that were played
    return this.start === null ? 0 : Math.max(0, this.context.currentTime - this.start);
  }

  get seconds() {
    return this.chunks.reduce((sum, chunk) => sum + chunk.length, 0) / RATE;
  }

  take(bytes) {
    const samples = Float32Array.from(new Int16Array(bytes.buffer, 0, bytes.length >> 1), (value) => value / 32768);
    if (!samples.length) return;
    const now = this.context.currentTime;
    if (this.start === null || now > this.ends) { // the first sound, or it came too late
      const pause = this.start === null ? 0.01 : now + 0.01 - this.ends;
      this.start = this.start === null ? now + 0.01 : this.start + pause;
      this.ends = now + 0.01;
    }
    const buffer = this.context.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(samples, 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.analyser);
    source.start(this.ends);
    source.onended = () => this.sources.delete(source);
    this.sources.add(source);
    this.ends += buffer.duration;
    this.chunks.push(samples);
    this.pictures.add(samples);
  }

  addWords(words) {
    for (const word of words) {
      const span = document.createElement("span");
      span.className = "word";
      span.textContent = word.word;
      this.line.append(this.words.length ? " " : "", span);
      this.words.push({ ...word, span });
    }
  }

  showWords() {
    const heard = this.heard;
    for (const word of this.words) {
      word.span.classList.toggle("heard", word.start <= heard);
      word.span.classList.toggle("now", word.start <= heard && heard < word.end);
    }
  }

  stop() {
    this.abort.abort();
    for (const source of this.sources) source.stop();
    this.sources.clear();
  }
}

class Pictures {
  // Waveform and spectrogram, which grow to the right and then move on.
  constructor() {
    this.rest = new Float32Array(0);
    this.columns = [];
    this.drawn = false;
    this.bits = Uint16Array.from({ length: WINDOW }, (_, index) => {
      let reversed = 0;
      for (let bit = 1; bit < WINDOW; bit <<= 1) { reversed = (reversed << 1) | (index & 1); index >>= 1; }
      return reversed;
    });
    this.hann = Float32Array.from({ length: WINDOW }, (_, index) => 0.5 - 0.5 * Math.cos((2 * Math.PI * index) / WINDOW));
  }

  add(samples) {
    const all = new Float32Array(this.rest.length + samples.length);
    all.set(this.rest);
    all.set(samples, this.rest.length);
    let place = 0;
    for (; place + WINDOW <= all.length; place += HOP) {
      const window = all.subarray(place, place + WINDOW);
      const hop = window.subarray(0, HOP);
      this.columns.push({ low: Math.min(...hop), high: Math.max(...hop), spectrum: this.spectrum(window) });
    }
    this.rest = all.slice(place);
    this.drawn = false;
  }

  spectrum(window) { // decibels of the lower half, by a radix-2 transform
    const real = new Float32Array(WINDOW), imaginary = new Float32Array(WINDOW);
    for (let i = 0; i < WINDOW; i++) real[this.bits[i]] = window[i] * this.hann[i];
    for (let size = 2; size <= WINDOW; size <<= 1) {
      for (let half = 0; half < size / 2; half++) {
        const angle = (-2 * Math.PI * half) / size, cos = Math.cos(angle), sin = Math.sin(angle);
        for (let low = half; low < WINDOW; low += size) {
          const high = low + size / 2;
          const x = real[high] * cos - imaginary[high] * sin, y = real[high] * sin + imaginary[high] * cos;
          real[high] = real[low] - x; imaginary[high] = imaginary[low] - y;
          real[low] += x; imaginary[low] += y;
        }
      }
    }
    return Float32Array.from({ length: WINDOW / 2 }, (_, i) => 10 * Math.log10(real[i] ** 2 + imaginary[i] ** 2 + 1e-9));
  }

  draw() {
    if (this.drawn) return;
    this.drawn = true;
    const wave = $("wave"), picture = $("spectrogram");
    const shown = this.columns.slice(-wave.width), step = 1;
    const ink = getComputedStyle(document.body).color;
    const lines = wave.getContext("2d");
    lines.clearRect(0, 0, wave.width, wave.height);
    lines.fillStyle = ink;
    const image = new ImageData(picture.width, picture.height);
    shown.forEach((column, x) => {
      const top = (1 - column.high) * wave.height / 2;
      lines.fillRect(x * step, top, step, Math.max(1, (column.high - column.low) * wave.height / 2));
      for (let y = 0; y < picture.height; y++) {
        const level = column.spectrum[Math.floor((1 - (y + 1) / picture.height) * WINDOW / 2)];
        const light = Math.max(0, Math.min(1, (level + 45) / 75)), place = 4 * (y * picture.width + x);
        image.data[place] = 255 * Math.min(1, 1.6 * light);
        image.data[place + 1] = 255 * Math.max(0, 1.7 * light - 0.5);
        image.data[place + 2] = 255 * (0.35 * Math.sin(Math.PI * light) + 0.6 * light ** 4);
        image.data[place + 3] = 255;
      }
    });
    picture.getContext("2d").putImageData(image, 0, 0);
  }
}

function paragraph(role, text = "") {
  const line = document.createElement("p");
  line.className = role;
  line.textContent = text;
  $("talk").append(line);
  return line;
}

function headers() {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function ask(path, body, signal) {
  let answer;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", headers: headers(), body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached.");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401) $("key-label").hidden = false;
  const retry = answer.status === 429 ? ` (in about ${answer.headers.get("Retry-After")} s)` : "";
  throw new Error((said.error?.message ?? `The server answered ${answer.status}.`) + retry);
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const data = text.slice(0, end).replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function* pieces(current, text) {
  // The server's events in one form: sound, words, timing.
  const model = $("model").value, voice = $("voice").value, language = $("language").value || null;
  const signal = current.abort.signal;
  if (!current.chat) {
    const body = { input: text, model, voice, language, response_format: "pcm", stream_format: "sse" };
    for await (const event of events(await ask("v1/audio/speech", body, signal))) {
      if (event.error) throw new Error(event.error.message);
      if (event.audio) yield { sound: event.audio, words: event.words, timing: event.timing };
    }
    return;
  }
  const audio = { voice, format: "pcm16" };
  const body = { messages: history, model, language, audio, modalities: ["text", "audio"], stream: true };
  for await (const event of events(await ask("v1/chat/completions", body, signal))) {
    if (event.error) throw new Error(event.error.message);
    const audio = event.choices[0]?.delta.audio;
    if (audio) yield { sound: audio.data, words: audio.words, timing: audio.timing, text: audio.transcript };
  }
}

async function speak() {
  const text = $("text").value.trim();
  if (!text) return;
  stop();
  const chat = document.querySelector("[name=mode]:checked").value === "chat";
  $("error").hidden = true;
  $("download").hidden = true;
  if (!chat) { $("talk").replaceChildren(); history.length = 0; }
  if (chat) { history.push({ role: "user", content: text }); paragraph("user", text); $("text").value = ""; }
  const current = page.turn = new Turn(chat);
  $("stop").disabled = false;
  $("sound").hidden = false;
  $("first").hidden = true;
  frame(current);
  try {
    await current.context.resume();
    for await (const piece of pieces(current, text)) {
      if (page.turn !== current) return;
      const first = current.start === null;
      if (piece.sound) current.take(Uint8Array.from(atob(piece.sound), (letter) => letter.charCodeAt(0)));
      if (first && current.start !== null) showFirst(performance.now() - current.begun, piece.timing ?? {});
      current.addWords(piece.words ?? []);
      current.transcript += piece.text ?? "";
    }
    current.loaded = true;
    offer(current);
  } catch (error) {
    if (error.name !== "AbortError") fail(error.message);
    if (page.turn === current) finish(current);
  }
}

function showFirst(milliseconds, timing) {
  const known = Object.values(timing).reduce((sum, seconds) => sum + seconds, 0);
  const parts = { ...timing, network: Math.max(0, milliseconds / 1000 - known) };
  $("first").hidden = false;
  $("first-sound").textContent = `First sound after ${Math.round(milliseconds)} ms`;
  $("bar").replaceChildren();
  $("parts").replaceChildren();
  for (const [name, seconds] of Object.entries(parts)) {
    if (seconds < 0.0005) continue;
    const [label, colour] = PARTS[name] ?? [name, "#999"];
    const block = document.createElement("span");
    block.style.flexGrow = seconds;
    block.style.background = colour;
    $("bar").append(block);
    const entry = document.createElement("li"), mark = document.createElement("i");
    mark.style.background = colour;
    entry.append(mark, `${label} ${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`);
    $("parts").append(entry);
  }
  $("bar").ariaLabel = [...$("parts").children].map((entry) => entry.textContent).join(", ");
}

function frame(current) {
  if (page.turn !== current) return;
  current.pictures.draw();
  current.showWords();
  if (current.loaded && current.context.currentTime > current.ends) finish(current);
  else requestAnimationFrame(() => frame(current));
}

function finish(current) {
  // What was heard of an answer is what the conversation keeps.
  page.turn = null;
  $("stop").disabled = true;
  const heard = current.heard;
  current.showWords();
  for (const word of current.words) word.span.classList.remove("now");
  if (current.chat) {
    const all = current.loaded && heard >= current.seconds - 0.05;
    const words = current.words.filter((word) => word.end <= heard + 0.05).map((word) => word.word).join(" ");
    const said = all ? current.transcript.trim() : words;
    if (said) history.push({ role: "assistant", content: said });
    if (!all) for (const word of current.words) if (word.end > heard + 0.05) word.span.remove();
  }
  offer(current);
  current.stop();
  current.context.close();
}

function stop() {
  if (page.turn) finish(page.turn);
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = false;
}

function offer(current) {
  // The sound so far as a file.
  if (!current.chunks.length) return;
  const samples = current.chunks.flatMap((chunk) => Array.from(chunk, (value) => Math.round(value * 32767)));
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const words = [[0, "RIFF"], [8, "WAVEfmt "], [36, "data"]];
  for (const [place, word] of words) [...word].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  const numbers = [[4, 36 + 2 * samples.length], [16, 16], [24, RATE], [28, 2 * RATE], [40, 2 * samples.length]];
  for (const [place, number] of numbers) view.setUint32(place, number, true);
  for (const [place, number] of [[20, 1], [22, 1], [32, 2], [34, 16]]) view.setUint16(place, number, true);
  samples.forEach((sample, i) => view.setInt16(44 + 2 * i, sample, true));
  URL.revokeObjectURL($("download").href);
  $("download").href = URL.createObjectURL(new Blob([view], { type: "audio/wav" }));
  $("download").hidden = false;
}

function fill(select, names) {
  select.replaceChildren(...names.map(([value, label]) => new Option(label ?? value, value)));
}

async function choices() {
  try {
    const voices = await (await ask("v1/audio/voices")).json();
    const models = await (await ask("v1/models")).json();
    fill($("voice"), voices.voices.map((name) => [name]));
    fill($("model"), models.data.map((model) => [model.id]));
    fill($("language"), [["", "default"], ...voices.languages.map((name) => [name])]);
    $("error").hidden = true;
  } catch (error) {
    fail(error.message);
  }
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); speak(); });
$("stop").addEventListener("click", stop);
$("key").addEventListener("change", choices);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); speak(); }
});
for (const radio of document.querySelectorAll("[name=mode]")) {
  radio.addEventListener("change", () => {
    const chat = radio.value === "chat";
    $("go").textContent = chat ? "Say" : "Speak";
    $("text").placeholder = chat ? "Say something" : "Text to read aloud";
    $("text").value = "";
    $("text").focus();
  });
}
choices();
