// The report: which set and output is shown, and the table of classes.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const view = document.getElementById("view");
const table = document.getElementById("class-table");
const search = document.getElementById("search"), scoredOnly = document.getElementById("scored");
const shownView = () => (view ? view.value : Object.keys(data.views)[0]);
const fixed = (value, digits, sign) =>
  value === null ? "–" : (sign && value > 0 ? "+" : "") + value.toFixed(digits).replace("-", "−");

// Each column: title, values by class, and how a value is shown.
function columnsOf(of) {
  const columns = [];
  if (data.groups.some((group) => group)) columns.push({ title: "group", values: data.groups, text: (v) => v || "–" });
  if (data.recordings) columns.push({ title: "recordings", values: data.recordings, number: true, text: (v) => fixed(v, 0) });
  columns.push({ title: "positives", values: of.positives, number: true, text: (v) => fixed(v, 0) });
  for (const { title, values, change } of of.columns) {
    columns.push({ title, values, number: true, bar: !change, change, text: (v) => fixed(v, change ? 3 : 4, change) });
  }
  return columns;
}
function cell(column, index) {
  const td = document.createElement("td"), value = column.values[index];
  td.dataset.value = value ?? "";
  if (!column.number) { td.textContent = column.text(value); return td; }
  td.className = "n";
  const span = document.createElement("span");
  span.textContent = column.text(value);
  if (column.bar) {
    td.classList.add("value");
    span.style.setProperty("--share", `${Math.max(0, 100 * (value ?? 0))}%`);
  }
  if (column.change && value) span.className = value < 0 ? "bad" : "good";
  td.append(span);
  return td;
}
function fillHead(columns) {
  const row = document.createElement("tr");
  for (const { title, number } of [{ title: "class" }, ...columns]) {
    const th = document.createElement("th");
    th.scope = "col";
    th.textContent = title;
    if (number) { th.className = "n"; th.dataset.first = "descending"; }
    row.append(th);
  }
  table.tHead.replaceChildren(row);
  makeSortable(table);
}
function fillTable() {
  const of = data.views[shownView()], columns = columnsOf(of);
  fillHead(columns);
  const rows = data.classes.map((name, index) => {
    const row = document.createElement("tr"), first = document.createElement("td");
    row.tabIndex = -1;
    row.dataset.class = name;
    row.dataset.scored = of.columns.some(({ values }) => values[index] !== null);
    first.append(name);
    if (data.names[index]) {
      const sub = document.createElement("span");
      sub.className = "sub";
      sub.textContent = data.names[index];
      first.append(sub);
    }
    first.dataset.value = name;
    row.append(first, ...columns.map((column) => cell(column, index)));
    return row;
  });
  table.tBodies[0].replaceChildren(...rows);
  filterClasses();
}
function filterClasses() {
  const wanted = search.value.trim().toLowerCase(), rows = [...table.tBodies[0].rows];
  let shown = 0;
  for (const row of rows) {
    const matches = row.cells[0].textContent.toLowerCase().includes(wanted);
    row.hidden = !matches || (scoredOnly.checked && row.dataset.scored !== "true");
    shown += !row.hidden;
  }
  reachable(rows.find((row) => !row.hidden));
  document.getElementById("count").textContent = `${shown} of ${rows.length} classes`;
}
// One row is reached by Tab, the others by the arrow keys.
function reachable(row) {
  for (const other of table.tBodies[0].rows) other.tabIndex = other === row ? 0 : -1;
}
function step(row, forwards) {
  let next = row;
  do next = forwards ? next.nextElementSibling : next.previousElementSibling; while (next && next.hidden);
  if (!next) return;
  reachable(next);
  next.focus();
  choose(next.dataset.class);
}
function choose(name) {
  for (const part of document.querySelectorAll("[data-class]")) {
    part.classList.toggle("chosen", part.dataset.class === name);
  }
}
function showView() {
  document.querySelectorAll("[data-view]").forEach((part) => { part.hidden = part.dataset.view !== shownView(); });
  const shown = document.querySelector("[data-view-name]");
  if (shown) shown.textContent = shownView().replace("|", ", ");
  if (table) fillTable();
}
if (view) view.addEventListener("change", showView);
if (table) {
  search.addEventListener("input", filterClasses);
  scoredOnly.addEventListener("change", filterClasses);
  table.addEventListener("click", (event) => choose(event.target.closest("tbody tr")?.dataset.class));
  table.addEventListener("keydown", (event) => {
    if (!event.target.matches("tbody tr")) return;
    if (event.key === "Enter") choose(event.target.dataset.class);
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    step(event.target, event.key === "ArrowDown");
  });
  document.addEventListener("click", (event) => {
    const dot = event.target.closest("circle[data-class]");
    if (dot) choose(dot.dataset.class);
  });
}
showView();
