// What all pages share: the theme's button, tips, sorting of tables, the section in view.
"use strict";
document.getElementById("theme").addEventListener("click", theme.toggle);

const tip = document.getElementById("tip");
function showTip(event) {
  const target = event.target.closest ? event.target.closest("[data-tip]") : null;
  tip.hidden = !target;
  if (!target) return;
  tip.textContent = target.dataset.tip;
  const place = event.clientX === undefined ? target.getBoundingClientRect() : null;
  const x = place ? place.left : event.clientX, y = place ? place.bottom : event.clientY;
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 14}px`;
}
document.addEventListener("pointermove", showTip);
document.addEventListener("pointerdown", showTip);
document.addEventListener("focusin", showTip);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

// A cell sorts by data-value where it has one, else by its text; cells without a value come last.
function cellValue(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = Number(text.replace("−", "-"));
  return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
}
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}
function sortTable(table, column, descending) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => {
    if (i === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  const body = table.tBodies[0], rows = [...body.rows];
  const values = new Map(rows.map((row) => [row, cellValue(row, column)]));
  rows.sort((a, b) => compare(values.get(a), values.get(b), descending ? -1 : 1));
  body.append(...rows);
}
function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.first === "descending";
      sortTable(table, column, now === null ? first : now === "ascending");
    });
  });
}
document.querySelectorAll("table.sortable").forEach(makeSortable);

// A search box filters the rows of the table that it names by data-searches.
function filterRows(box) {
  const wanted = box.value.trim().toLowerCase();
  const rows = [...document.getElementById(box.dataset.searches).tBodies[0].rows];
  let shown = 0;
  for (const row of rows) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
    shown += !row.hidden;
  }
  const count = document.getElementById(`${box.dataset.searches}-count`);
  if (count) count.textContent = `${shown} of ${rows.length}`;
}
document.querySelectorAll("input[data-searches]").forEach((box) => {
  box.addEventListener("input", () => filterRows(box));
});

const links = new Map([...document.querySelectorAll(".bar nav a[href^='#']")].map((a) => [a.hash.slice(1), a]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    links.forEach((link, id) => link.setAttribute("aria-current", String(id === entry.target.id)));
  }
}, { rootMargin: "-15% 0px -75% 0px" });
links.forEach((_, id) => { const part = document.getElementById(id); if (part) seen.observe(part); });
