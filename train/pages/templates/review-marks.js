// Marks: kept in the browser under the page's name, written to a CSV and read from one.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const COLUMNS = ["recording", "start", "end", "class", "score", "mark", "model"];
const MARKS = ["right", "wrong", "unsure"];

const marks = {
  rows: new Map(),  // key → row, whose names are COLUMNS
  kept: true,       // whether the browser keeps them
  name: `kit-review ${data.page}`,
  key: (recording, start, name) => JSON.stringify([recording, start, name]),
  read() {
    try {
      const rows = JSON.parse(localStorage.getItem(marks.name) || "[]");
      marks.rows.clear();
      rows.forEach(marks.put);
    } catch { marks.kept = false; }
  },
  put(row) { marks.rows.set(marks.key(row.recording, row.start, row.class), row); },
  keep() {
    try {
      localStorage.setItem(marks.name, JSON.stringify([...marks.rows.values()]));
      marks.kept = true;
    } catch { marks.kept = false; }
    show("unkept").hidden = marks.kept;
  },
  of: (detection) => marks.rows.get(marks.key(detection.recording, detection.start, detection.class))?.mark || "",
  set(detection, mark) {
    if (mark) marks.put({ ...detection, mark, model: data.model });
    else marks.rows.delete(marks.key(detection.recording, detection.start, detection.class));
    marks.keep();
  },
};

function show(id) { return document.getElementById(id); }

// A field that holds a comma, a quote or the end of a line is quoted (RFC 4180).
function field(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
function toCsv(rows) {
  const order = (a, b) => (a.recording < b.recording ? -1 : a.recording > b.recording ? 1 : a.start - b.start || (a.class < b.class ? -1 : 1));
  const lines = [...rows].sort(order).map((row) => COLUMNS.map((name) => field(row[name])).join(","));
  return [COLUMNS.join(","), ...lines, ""].join("\n");
}
function fromCsv(text) {
  const table = [[]];
  for (const [, quoted, plain, end] of text.replace(/^\ufeff/, "").matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
    table.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end !== ",") table.push([]);
  }
  const [head, ...lines] = table.filter((line) => line.length > 1);
  const missing = COLUMNS.filter((name) => !head?.includes(name));
  if (missing.length) throw new Error(`lacks the column ${missing.join(", ")}`);
  return lines.map((line) => {
    const row = Object.fromEntries(head.map((name, i) => [name, line[i]]));
    for (const name of ["start", "end", "score"]) row[name] = Number(row[name]);
    return row;
  });
}
function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([toCsv(marks.rows.values())], { type: "text/csv" }));
  link.download = `marks-${data.model.replace(/[^\w.-]+/g, "-")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
async function load(file) {
  let rows;
  try { rows = fromCsv(await file.text()); } catch (error) { return `${file.name} holds no marks: ${error.message}`; }
  const other = rows.find((row) => row.model !== data.model);
  if (other) return `${file.name} holds marks of another model, ${other.model}; nothing was read`;
  const good = rows.filter((row) => MARKS.includes(row.mark) && [row.start, row.end, row.score].every(Number.isFinite));
  good.forEach(marks.put);
  marks.keep();
  return `${good.length} of ${rows.length} marks read from ${file.name}`;
}
