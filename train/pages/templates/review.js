// The review: one detection at a time, its clip drawn and played, marked by keys or buttons.
"use strict";
const ROWS = 8, LISTED = 300, LEAST_PX_A_SECOND = 13;
const sound = show("sound");
const state = { list: [], at: -1, current: null, clip: -1, url: "", drawing: null };

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}
function option(value, text) { const made = element("option", text); made.value = value; return made; }
const clipNow = () => data.clips[state.clip];
const place = (clip, s) => `${(100 * (s - clip.startS)) / (clip.endS - clip.startS)}%`;
const format = (s) => (s >= 3600 ? `${Math.floor(s / 3600)}:${String(Math.floor(s / 60) % 60).padStart(2, "0")}:` : `${Math.floor(s / 60)}:`) + (s % 60).toFixed(1).padStart(4, "0");

// A later part of the page may not be read yet.
function part(id) {
  const there = show(id);
  if (there?.nextSibling || document.readyState !== "loading") return Promise.resolve(there?.textContent ?? "");
  return new Promise((resolve) => setTimeout(resolve, 30)).then(() => part(id));
}

async function showClip(number) {
  const clip = data.clips[number];
  state.clip = number;
  sound.pause();
  show("waiting").hidden = false;
  drawAxes(clip);
  const [image, mp3] = await Promise.all([part(`picture-${number}`), part(`sound-${number}`)]);
  if (state.clip !== number) return;
  URL.revokeObjectURL(state.url);
  state.url = URL.createObjectURL(new Blob([bytes(mp3)], { type: "audio/mpeg" }));
  sound.src = state.url;
  sound.defaultPlaybackRate = Number(show("speed").value);
  seek(state.current.row.start);
  await picture.read(number, image);
  if (state.clip !== number) return;
  show("waiting").hidden = true;
  picture.draw();
}
function drawAxes(clip) {
  const length = clip.endS - clip.startS, zoom = Number(show("zoom").value);
  show("times").style.width = `max(${100 * zoom}%, ${Math.round(length * LEAST_PX_A_SECOND * zoom)}px)`;
  const step = [1, 2, 5, 10, 20].find((s) => length / s <= 14 * zoom) || 30;
  const ticks = [];
  for (let s = Math.ceil(clip.startS / step) * step; s <= clip.endS; s += step) {
    const tick = element("span", String(s));
    tick.style.left = `clamp(.8rem, ${place(clip, s)}, calc(100% - .8rem))`;
    ticks.push(tick);
  }
  show("seconds").replaceChildren(...ticks);
  const top = Number(show("top-khz").value), count = 4;
  show("khz").replaceChildren(...Array.from({ length: count + 1 }, (_, i) => {
    const label = element("span", `${Number((top * (1 - i / count)).toFixed(2))}${i ? "" : " kHz"}`);
    label.style.top = `${(100 * i) / count}%`;
    return label;
  }));
}
function drawStrip() {
  const clip = clipNow(), { index: current, window: at } = state.current, rows = [];
  for (const index of topClasses(clip, current, ROWS)) {
    const name = data.classes[index], label = element("button", undefined, "side species");
    label.type = "button";
    label.append(element("span", data.commonNames[name] || name));
    if (data.commonNames[name]) label.append(element("span", name, "soft"));
    label.dataset.tip = title(name);
    label.setAttribute("aria-pressed", String(index === current));
    label.addEventListener("click", () => choose(detection(state.clip, state.current.window, index)));
    const row = element("div", undefined, "row");
    for (let window = 0; window < clip.count; window++) row.append(cell(clip, window, index, index === current && window === at));
    rows.push(label, row);
  }
  show("strip").replaceChildren(...rows);
  show("pseudo-key").hidden = clip.pseudo === null;
  show("truth-key").hidden = clip.truth === null;
}
function cell(clip, window, index, current) {
  const one = detection(state.clip, window, index), mark = marks.of(one.row), score = one.row.score;
  const sign = { right: " ✓", wrong: " ✗", unsure: " ?", "": "" }[mark];
  const made = element("button", `${Math.round(100 * score)}${sign}`, "cell");
  made.type = "button";
  made.tabIndex = -1;
  made.style.left = place(clip, one.row.start);
  made.style.width = `${(100 * data.windowS) / (clip.endS - clip.startS)}%`;
  // At most 55 %, on which text is readable in both themes.
  made.style.backgroundColor = `color-mix(in srgb, var(--accent) ${Math.round(55 * score)}%, var(--card))`;
  made.classList.toggle("high", score >= 0.5);
  made.classList.toggle("labelled", one.truth === "present");
  made.classList.toggle("unknown", one.truth === "" && clip.truth !== null);
  if (current) made.setAttribute("aria-current", "true");
  const told = { present: "labelled", absent: "labelled without it", "": "not labelled" }[one.truth];
  const teacher = clip.pseudo === null ? NaN : clip.pseudo[window * nClasses + index];
  if (Math.max(teacher, score) >= 0.01) made.append(element("i", `t ${Math.round(100 * teacher)}`));
  made.dataset.tip = `${title(one.row.class)}\n${one.row.start} to ${one.row.end} s: ${score.toPrecision(3)}, ${told}${Number.isNaN(teacher) ? "" : `\nteacher ${teacher.toPrecision(3)}`}`;
  made.addEventListener("click", () => choose(one));
  return made;
}

// Show a detection, whether it is on the list or not.
function choose(one) {
  const same = state.current && state.current.number === one.number;
  state.current = one;
  const on = (row) => marks.key(row.recording, row.start, row.class), key = on(one.row);
  const at = state.list.findIndex((listed) => on(listed.row) === key);
  if (at >= 0) state.at = at;
  const { row } = one;
  show("class-name").textContent = title(row.class);
  const told = { present: "Labelled there.", absent: "Labelled without it.", "": "Not labelled." }[one.truth];
  show("where").textContent = `Score ${row.score.toPrecision(3)} · ${row.recording}, ${row.start} to ${row.end} s · ${told}`;
  const drawn = same ? Promise.resolve(seek(row.start)) : showClip(one.number);
  drawMarks();
  const clip = clipNow(), box = show("window");
  box.style.left = place(clip, row.start);
  box.style.width = `${(100 * data.windowS) / (clip.endS - clip.startS)}%`;
  const view = document.querySelector(".time-scroll"), middle = box.offsetLeft + box.offsetWidth / 2 + box.parentElement.offsetLeft;
  view.scrollLeft = middle - (view.clientWidth + box.parentElement.offsetLeft) / 2;
  state.drawing = drawn.then(() => { if (show("auto").checked && state.current === one) play(); });
}
function drawMarks() {
  drawStrip();
  const mark = marks.of(state.current.row);
  document.querySelectorAll("[data-mark]").forEach((button) => {
    if (button.dataset.mark) button.setAttribute("aria-pressed", String(button.dataset.mark === mark));
  });
  document.querySelectorAll("#queue tr").forEach((row, i) => {
    row.toggleAttribute("aria-current", false);
    if (i === state.at) row.setAttribute("aria-current", "true");
    row.cells[5].textContent = marks.of(state.list[i].row);
  });
  // Within the list only: the page stays where it is.
  const chosen = document.querySelector("#queue [aria-current]"), view = document.querySelector(".scroll.tall");
  if (chosen) view.scrollTop = Math.min(chosen.offsetTop - 40, Math.max(view.scrollTop, chosen.offsetTop + chosen.offsetHeight - view.clientHeight));
  show("position").textContent = state.at >= 0 ? `${state.at + 1} of ${state.list.length}` : "";
  show("n-marks").textContent = marks.rows.size;
  const counts = { right: 0, wrong: 0, unsure: 0 }, name = state.current.row.class;
  for (const row of marks.rows.values()) if (row.class === name) counts[row.mark]++;
  show("tally").textContent = `· ${title(name)}: ${counts.right} right, ${counts.wrong} wrong, ${counts.unsure} unsure`;
}
function mark(value) {
  if (!state.current) return;
  marks.set(state.current.row, value);
  drawMarks();
  if (value) move(1);
}
function move(by) {
  const at = state.at + by;
  if (at < 0 || at >= state.list.length) return;
  state.at = at;
  choose(state.list[at]);
}
function step(by) {
  if (!state.current) return;
  const window = state.current.window + by;
  if (window >= 0 && window < clipNow().count) choose(detection(state.clip, window, state.current.index));
}

function seek(s) { sound.currentTime = Math.max(0, s - clipNow().startS); drawCursor(); }
function drawCursor() {
  const clip = clipNow(), s = clip.startS + sound.currentTime;
  show("cursor").style.left = place(clip, s);
  show("time").textContent = `${format(s)} / ${format(clip.endS)}`;
}
async function play() {
  if (!state.current) return;
  if (!sound.paused) { sound.pause(); return; }
  const { start, end } = state.current.row, now = clipNow().startS + sound.currentTime;
  if (now < start || now >= end - 0.05) seek(start);
  sound.preservesPitch = false;
  try { await sound.play(); } catch (error) { if (error.name !== "AbortError") show("time").textContent = "this browser can't play it"; }
}
function follow() {
  drawCursor();
  const ends = state.current.row.end - clipNow().startS;
  if (show("stop").checked && sound.currentTime >= ends) { sound.pause(); sound.currentTime = ends; drawCursor(); }
  if (!sound.paused) requestAnimationFrame(follow);
}
sound.addEventListener("play", () => { show("play").textContent = "❚❚ Pause"; requestAnimationFrame(follow); });
sound.addEventListener("pause", () => { show("play").textContent = "▶ Play"; });
sound.addEventListener("seeked", drawCursor);

function list() {
  const kept = state.current;
  state.list = queue();
  state.at = -1;
  show("queue").replaceChildren(...state.list.slice(0, LISTED).map((one) => {
    const row = document.createElement("tr"), name = element("td"), button = element("button", title(one.row.class));
    button.type = "button";
    name.append(button);
    const told = { present: "yes", absent: "no", "": "–" }[one.truth];
    row.append(name, element("td", one.row.score.toFixed(3), "n"), element("td", one.row.recording), element("td", one.row.start, "n"), element("td", told), element("td", marks.of(one.row)));
    row.addEventListener("click", () => choose(one));
    return row;
  }));
  const n = state.list.length;
  show("n-shown").textContent = `${n} detection${n === 1 ? "" : "s"}`;
  show("more").textContent = n > LISTED ? `The list shows the first ${LISTED}; n goes on beyond them.` : n ? "" : "No detection has such a score. Lower the score, or choose another class.";
  if (n) choose(state.list[0]);
  else if (kept) drawMarks();
  else choose(detection(0, 0, 0));
}

const KEYS = {
  " ": play, ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => mark("right"), ArrowDown: () => mark("wrong"),
  u: () => mark("unsure"), x: () => mark(""), n: () => move(1), p: () => move(-1), s: save, "?": () => show("help").showModal(),
};
document.addEventListener("keydown", (event) => {
  const act = KEYS[event.key], typing = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (!act || event.ctrlKey || event.metaKey || event.altKey || typing) return;
  if (show("help").open) { if (event.key === "?") show("help").close(); return; }
  // A control that was reached by Tab keeps its own Space.
  if (event.key === " " && event.target.matches("button, input, summary")) return;
  event.preventDefault();
  act();
});
// A control that was clicked gives the keys back to the review.
document.addEventListener("click", (event) => { if (event.detail) event.target.closest("button, input[type=checkbox]")?.blur(); });
document.addEventListener("change", (event) => { if (event.target.matches("select, [type=range]")) event.target.blur(); });

show("play").addEventListener("click", play);
show("next").addEventListener("click", () => move(1));
show("previous").addEventListener("click", () => move(-1));
show("save").addEventListener("click", save);
show("help-open").addEventListener("click", KEYS["?"]);
document.querySelectorAll("[data-mark]").forEach((button) => button.addEventListener("click", () => mark(button.dataset.mark)));
show("order").addEventListener("change", () => { show("low").value = show("order").value === "spread" ? "0" : "0.1"; });
["species", "low", "high", "order", "which"].forEach((id) => show(id).addEventListener("change", list));
["brightness", "contrast", "level", "colours"].forEach((id) => show(id).addEventListener("input", picture.draw));
["top-khz", "zoom"].forEach((id) => show(id).addEventListener("change", () => { drawAxes(clipNow()); picture.draw(); }));
show("speed").addEventListener("change", () => { sound.playbackRate = sound.defaultPlaybackRate = Number(show("speed").value); });
show("reset").addEventListener("click", () => {
  ["brightness", "contrast"].forEach((id) => { show(id).value = 0; });
  show("level").checked = false;
  picture.draw();
});
show("load").addEventListener("change", async () => { show("loaded").textContent = await load(show("load").files[0]); list(); });
document.querySelector(".picture").addEventListener("click", (event) => {
  const clip = clipNow(), box = show("spectrogram").getBoundingClientRect();
  const s = clip.startS + ((event.clientX - box.left) / box.width) * (clip.endS - clip.startS);
  const window = Math.min(clip.count - 1, Math.max(0, Math.floor(s / data.windowS) - clip.first));
  choose(detection(state.clip, window, state.current.index));
  seek(s);
});

// Marks that the same page gets in another tab are this one's, too.
addEventListener("storage", (event) => { if (event.key === marks.name) { marks.read(); drawMarks(); } });
addEventListener("beforeunload", (event) => { if (!marks.kept && marks.rows.size) event.preventDefault(); });

show("species").append(option("", "all classes"), ...data.classes.map((name, i) => [i, title(name)]).sort((a, b) => a[1].localeCompare(b[1])).map(([i, text]) => option(i, text)));
show("top-khz").append(...[1, 2, 4].map((by) => option(data.khz / by, `${Number((data.khz / by).toFixed(2))} kHz`)));
show("colours").append(...Object.keys(data.colours).map((name) => option(name, { gray_r: "grey" }[name] || name)));
if (data.species.length === 1) show("species").value = data.classes.indexOf(data.species[0]);
if (data.spread) { show("order").value = "spread"; show("low").value = "0"; }
marks.read();
marks.keep();
list();
