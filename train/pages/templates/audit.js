// The audit: a list of recordings that is searched, filtered, sorted and played.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const STEP = 100; // rows that are shown at a time
const part = (id) => document.getElementById(id);
const textOf = (column, row) => data[column].texts[data[column].of[row]] ?? "";
const group = new Map(data.groups.flatMap((rows, number) => rows.map((row) => [row, number])));
const shown = { rows: [], n: STEP, only: null, sort: null, playing: null };

const number = (digits) => (value) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));
const percent = (digits) => (value) => (value ? `${number(digits)(value)} %` : value === null ? "–" : "0");
// Columns: title, the value that a row sorts by, and what its cell holds.
const COLUMNS = [
  { title: "", cell: playCell },
  { title: "recording", value: (row) => data.names[row], cell: nameCell },
  { title: "class", value: (row) => textOf("class", row), cell: classCell },
  { title: "s", value: (row) => data.duration[row], text: number(1) },
  { title: "silent", value: (row) => data.silent[row], text: percent(1) },
  { title: "clipped", value: (row) => data.clipped[row], text: percent(3) },
  { title: "peak dBFS", value: (row) => data.peak[row], text: number(1) },
  { title: "speech", value: (row) => data.spoken[row], cell: speechCell },
  ...(data.noCall ? [{ title: "no bird", value: (row) => data.noCall[row], text: percent(0) }] : []),
  { title: "author and licence", value: (row) => textOf("author", row), cell: peopleCell },
];

function element(tag, text, settings = {}) {
  const made = Object.assign(document.createElement(tag), settings);
  made.append(text);
  return made;
}
function playButton(row, text, from, label) {
  const button = element("button", text, { type: "button", className: from === undefined ? "play" : "at" });
  button.setAttribute("aria-label", label);
  button.addEventListener("click", () => play(row, from ?? 0));
  return button;
}
function playCell(td, row) { td.append(playButton(row, "▶", undefined, `Play ${data.names[row]}`)); }
function sub(text) { return element("span", text, { className: "sub" }); }
function nameCell(td, row) {
  td.append(element("a", data.names[row], { href: url(row), target: "_blank", rel: "noopener" }));
  if (data.faults[row]) td.append(element("span", data.faults[row], { className: "sub bad" }));
  const others = group.has(row) ? data.groups[group.get(row)].filter((other) => other !== row) : [];
  const named = others.slice(0, 3).map((other) => data.names[other] === data.names[row] ? `${textOf("class", other)}'s row` : data.names[other]);
  if (others.length) td.append(sub(`same as ${named.join(", ")}${others.length > 3 ? ` and ${others.length - 3} more` : ""}`));
}
function classCell(td, row) {
  td.append(textOf("class", row));
  if (textOf("name", row)) td.append(sub(textOf("name", row)));
}
function speechCell(td, row) {
  const stretches = data.speech[row] ?? [];
  if (!stretches.length) td.append(data.spoken[row] === null ? "–" : "");
  for (const [start, end] of stretches.slice(0, 6)) {
    td.append(playButton(row, `${start.toFixed(1)}–${end.toFixed(1)}`, start, `Play speech at ${start.toFixed(1)} s of ${data.names[row]}`));
  }
  if (stretches.length > 6) td.append(` and ${stretches.length - 6} more`);
}
function peopleCell(td, row) {
  td.className = "people";
  td.append(textOf("author", row) || "–");
  td.append(sub([textOf("licence", row), textOf("format", row)].filter(Boolean).join(", ")));
}
function rowOf(row) {
  const tr = document.createElement("tr");
  tr.dataset.row = row;
  tr.classList.toggle("playing", row === shown.playing);
  for (const { value, text, cell } of COLUMNS) {
    const td = document.createElement("td");
    if (cell) cell(td, row);
    else { td.className = "n"; td.append(text(value(row))); }
    tr.append(td);
  }
  return tr;
}

// Base's `compare` makes a collator a pair, which takes seconds for tens of thousands.
const collator = new Intl.Collator("en", { numeric: true });
function sorted(rows, value, sign) {
  const keyed = rows.map((row) => ({ row, key: value(row) }));
  keyed.sort(({ key: a }, { key: b }) => {
    const empty = (key) => key === null || key === "";
    if (empty(a) || empty(b)) return empty(a) - empty(b);
    return sign * (typeof a === "number" ? a - b : collator.compare(a, b));
  });
  return keyed.map(({ row }) => row);
}
function haystack(row) {
  return [data.names[row], ...["class", "name", "author", "licence"].map((column) => textOf(column, row))].join("\n").toLowerCase();
}
function choose() {
  const wanted = part("search").value.trim().toLowerCase(), finding = part("finding").value;
  let rows = finding ? [...data.findings[finding]] : data.names.map((_, row) => row);
  if (shown.only) rows = rows.filter((row) => data[shown.only.column].of[row] === shown.only.value);
  if (wanted) rows = rows.filter((row) => haystack(row).includes(wanted));
  shown.rows = shown.sort ? sorted(rows, COLUMNS[shown.sort.column].value, shown.sort.descending ? -1 : 1) : rows;
  shown.n = STEP;
  draw();
}
function draw() {
  const { rows, n } = shown, few = rows.slice(0, n);
  document.querySelector("#list tbody").replaceChildren(...few.map(rowOf));
  const all = data.names.length.toLocaleString("en"), found = rows.length.toLocaleString("en");
  part("count").textContent = `${found} of ${all}${few.length < rows.length ? `; the first ${few.length} are shown` : ""}`;
  part("more").hidden = few.length === rows.length;
  const { only } = shown;
  part("only").hidden = !only;
  if (only) part("only").textContent = `${only.column}: ${data[only.column].texts[only.value]}`;
}
function showOnly(column, value) {
  if (value < 0) return;
  shown.only = { column, value };
  part("finding").value = "";
  part("search").value = "";
  choose();
  part("recordings").scrollIntoView();
}

// Names of the disk may hold what a URL gives a meaning, so each part of a path is encoded.
function url(row) {
  const name = data.urls[row] ?? data.names[row].split("/").map(encodeURIComponent).join("/");
  return `${data.audio}/${name}`;
}
function play(row, from) {
  const sound = part("sound");
  shown.playing = row;
  part("player").hidden = false;
  part("unplayed").hidden = true;
  part("playing").replaceChildren(element("b", textOf("class", row)), ` ${data.names[row]}`);
  sound.src = `${url(row)}${from ? `#t=${from}` : ""}`;
  // A refusal comes as the element's error, too; a second click while it loads is none.
  sound.play().catch(() => {});
  document.querySelectorAll("#list tbody tr").forEach((tr) => tr.classList.toggle("playing", Number(tr.dataset.row) === row));
}
part("sound").addEventListener("error", () => {
  if (!part("sound").getAttribute("src")) return;
  part("unplayed").textContent = "This browser can't play it: the recording is not where it was, is damaged or in a format that the browser does not know, or the page was not opened from disk.";
  part("unplayed").hidden = false;
});
part("close").addEventListener("click", () => {
  part("sound").removeAttribute("src");
  part("sound").load();
  part("player").hidden = true;
});

COLUMNS.forEach(({ title, value, cell }, column) => {
  const th = element("th", value ? element("button", title, { type: "button" }) : "", { scope: "col", className: cell ? "" : "n" });
  if (value) th.firstChild.addEventListener("click", () => {
    const again = shown.sort?.column === column, first = typeof value(0) === "number";
    shown.sort = { column, descending: again ? !shown.sort.descending : first };
    document.querySelectorAll("#list th").forEach((other) => other.removeAttribute("aria-sort"));
    th.setAttribute("aria-sort", shown.sort.descending ? "descending" : "ascending");
    choose();
  });
  document.querySelector("#list thead tr").append(th);
});
part("search").addEventListener("input", choose);
part("finding").addEventListener("change", () => {
  shown.sort = null; // a finding has its worst first
  document.querySelectorAll("#list th").forEach((th) => th.removeAttribute("aria-sort"));
  choose();
});
part("only").addEventListener("click", () => { shown.only = null; choose(); });
part("more").addEventListener("click", () => { shown.n += STEP; draw(); });
document.addEventListener("click", (event) => {
  const finding = event.target.closest("button[data-finding]"), only = event.target.closest("[data-only]");
  if (finding) {
    shown.only = shown.sort = null;
    part("search").value = "";
    part("finding").value = finding.dataset.finding;
    part("finding").dispatchEvent(new Event("change"));
    part("recordings").scrollIntoView();
  }
  if (only) showOnly(only.dataset.only.split(":")[0], Number(only.dataset.only.split(":")[1]));
});
// A row of a table of classes, authors, licences or formats lists the recordings of its first cell.
for (const column of ["class", "author", "licence", "format"]) {
  const table = part(`${column}-table`);
  if (!table) continue;
  const list = (event) => {
    const row = event.target.closest("tbody tr");
    if (row) showOnly(column, data[column].texts.indexOf(row.cells[0].textContent));
  };
  [...table.tBodies[0].rows].forEach((row) => { row.tabIndex = 0; });
  table.addEventListener("click", list);
  table.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target.matches("tbody tr")) list(event); });
}
if (data.place) data.place.texts = data.place.texts.map((text) => text.split(":")[0]);
choose();
