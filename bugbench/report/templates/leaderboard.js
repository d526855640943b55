"use strict";
// Everything the page shows is worked out beforehand; the script chooses, sorts and colours. Texts go in as text only.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const NONE = "–";

// -- light and dark -------------------------------------------------------------------------------------------------

const system = matchMedia("(prefers-color-scheme: dark)");
let theme = null;
try { theme = localStorage.getItem("bugbench-theme"); } catch { /* a page from a file may have no storage */ }
const isDark = () => (theme ? theme === "dark" : system.matches);
const colours = new Map(); // of the theme shown, as red, green, blue
function paint() {
  if (theme) document.documentElement.dataset.theme = theme; // else the style follows the system by itself
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  colours.clear();
}
byId("theme").addEventListener("click", () => {
  theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("bugbench-theme", theme); } catch { /* then it lasts until the page is closed */ }
  paint();
  show();
});
system.addEventListener("change", () => { paint(); show(); });
paint();

const probe = document.body.appendChild(document.createElement("i"));
probe.hidden = true;
function rgb(variable) {
  if (!colours.has(variable)) {
    probe.style.color = `var(${variable})`;
    colours.set(variable, getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number));
  }
  return colours.get(variable);
}

// Relative luminance as in WCAG 2. White on a colour below EVEN, and black on one above, has a contrast of 4.58 or more.
const EVEN = 0.179;
const luminance = (colour) => colour.map((value) => value / 255)
  .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
  .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);

// -- sorting --------------------------------------------------------------------------------------------------------

const orders = new Map(); // by table, its rows as they stand between equals

function bareButton(text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "bare";
  button.textContent = text;
  return button;
}

function sortRows(table) {
  const head = table.tHead.querySelector("[aria-sort]");
  if (!head) return;
  const numeric = head.classList.contains("n");
  const falling = head.getAttribute("aria-sort") === "descending";
  const key = (row) => {
    const text = row.cells[head.cellIndex].textContent.trim();
    return numeric ? Number.parseFloat(text.replace("−", "-")) : text;
  };
  const unknown = (value) => value === NONE || Number.isNaN(value);
  const rows = orders.get(table).map((row) => [key(row), row]);
  rows.sort(([a], [b]) => {
    if (unknown(a) || unknown(b)) return unknown(a) - unknown(b);
    const order = numeric ? a - b : a.localeCompare(b);
    return falling ? -order : order;
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function sortable(table) {
  orders.set(table, [...table.tBodies[0].rows]);
  const heads = [...table.tHead.rows[0].cells].filter((head) => !head.classList.contains("plain"));
  for (const head of heads) {
    const button = bareButton(head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const falling = before ? before === "ascending" : head.classList.contains("n");
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      sortRows(table);
    });
  }
}
document.querySelectorAll("table.sortable").forEach(sortable);

// -- the leaderboard of the chosen cases ----------------------------------------------------------------------------

const board = byId("board");
const apart = new Map([...board.tBodies[0].rows].map((row) => [row.dataset.detector, row.querySelector(".apart").textContent]));

function drawRange(cell, score, interval) {
  cell.replaceChildren();
  const [low, high] = interval.split("…").map((text) => Number.parseFloat(text));
  const value = Number.parseFloat(score);
  if (Number.isNaN(low) || Number.isNaN(value)) return;
  const place = (x) => `${(50 * (x + 1)).toFixed(1)}%`;
  const holder = document.createElement("span");
  const bar = document.createElement("i");
  bar.style.left = place(low);
  bar.style.width = `${(50 * (high - low)).toFixed(1)}%`;
  const dot = document.createElement("b");
  dot.style.left = place(value);
  holder.append(bar, dot);
  cell.append(holder);
}

function showBoard(workload, family) {
  const rows = data.boards[`${workload}|${family}`];
  const everything = !workload && !family;
  const where = [family && `bugs of the family ${family}`, workload && `the workload ${workload}`].filter(Boolean);
  byId("slice").textContent = everything ? "" : rows
    ? `Only ${where.join(" on ")}, beside all controls${workload ? " there" : ""}. Detectors are compared over all cases only. An interval without width: these cases are alike, which is no certainty.`
    : "There are no such bugs among these cases.";
  for (const row of board.tBodies[0].rows) {
    const texts = rows && rows[row.dataset.detector];
    const cells = [...row.cells].filter((cell) => cell.classList.contains("n"));
    cells.forEach((cell, i) => { cell.textContent = texts ? texts[i] : NONE; });
    drawRange(row.querySelector(".range"), texts ? texts[0] : "", texts ? texts[1] : "");
    row.querySelector(".apart").textContent = everything ? apart.get(row.dataset.detector) : NONE;
  }
  const places = new Map(Object.keys(rows || {}).map((name, place) => [name, place]));
  const place = (row) => places.get(row.dataset.detector) ?? places.size;
  orders.get(board).sort((a, b) => place(a) - place(b)); // where the numbers shown are equal, those behind them decide
  sortRows(board);
}

// -- matrices -------------------------------------------------------------------------------------------------------

const about = new Map([...board.tBodies[0].rows].map((row) => [row.dataset.detector, row.dataset]));
const fits = ({ tier, origin }) => (!byId("tier").value || tier === byId("tier").value)
  && (!byId("origin").value || origin === byId("origin").value);
const familyOf = (name) => (Object.hasOwn(data.family_of, name) ? data.family_of[name] : name);
const title = (name) => (Object.hasOwn(data.titles, name) ? data.titles[name] : "");

function headRow(table, corner, names, titles) {
  const row = table.createTHead().insertRow();
  [corner, ...names].forEach((name, i) => {
    const head = document.createElement("th");
    head.scope = "col";
    head.textContent = name;
    if (i) head.title = titles(name);
    row.append(head);
  });
}

function rowHead(row, name, titleText) {
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  head.title = titleText;
  row.append(head);
}

function colour(cell, share, variable) {
  if (!(share > 0)) return;
  const [full, none] = [rgb(variable), rgb("--page")];
  const part = 0.08 + 0.92 * share;
  const mixed = full.map((value, i) => Math.round(part * value + (1 - part) * none[i]));
  cell.style.background = `rgb(${mixed})`;
  cell.style.color = luminance(mixed) < EVEN ? "#fff" : "#000";
}

const MEASURES = { right: "exact", detected: "detected", family_right: "family", flagged: "flagged" };

function showMeasures() {
  const names = Object.keys(data.heat[byId("rows").value].values);
  byId("measure").replaceChildren(...names.map((name) => new Option(MEASURES[name], name)));
}

function showHeat(family) {
  const kind = byId("rows").value;
  const { names, values, cases } = data.heat[kind];
  const measure = byId("measure").value;
  const columns = data.detectors.map((name, i) => [name, i]).filter(([name]) => fits(about.get(name)));
  const table = byId("heat");
  table.replaceChildren();
  headRow(table, kind, columns.map(([name]) => name), (name) => name);
  const body = table.createTBody();
  names.forEach((name, place) => {
    if (kind !== "control" && family && familyOf(name) !== family) return;
    const row = body.insertRow();
    rowHead(row, kind === "fault" ? `${familyOf(name)}: ${name}` : name, title(name));
    for (const [detector, i] of columns) {
      const cell = row.insertCell();
      const value = values[measure][place][i];
      if (value === null) continue;
      cell.textContent = value ? String(value) : "·";
      cell.title = `${detector} on ${name}: ${value} % ${MEASURES[measure]} (cases: ${cases[place]})`;
      colour(cell, value / 100, measure === "flagged" ? "--alarm" : "--heat");
    }
  });
}

const HEALTHY = "healthy";

function showConfusion(family) {
  const fine = byId("grain").value === "fault";
  const group = fine ? (name) => name : familyOf;
  const counts = new Map();
  for (const [truth, answer, cases, right] of data.confusion[byId("who").value] || []) {
    if (family && truth !== HEALTHY && familyOf(truth) !== family) continue;
    const row = group(truth);
    const column = group(answer);
    const symptom = answer !== HEALTHY && !Object.hasOwn(data.family_of, answer) ? cases : 0;
    if (!counts.has(row)) counts.set(row, new Map());
    const [all, named, taken] = counts.get(row).get(column) || [0, 0, 0];
    counts.get(row).set(column, [all + cases, named + symptom, taken + (right ? cases : 0)]);
  }
  // "healthy" is the last row, and the first column: what a detector misses is seen without scrolling
  const order = (last) => (a, b) => last * ((a === HEALTHY) - (b === HEALTHY))
    || familyOf(a).localeCompare(familyOf(b)) || a.localeCompare(b);
  const rows = [...counts.keys()].sort(order(1));
  const columns = [...new Set([...counts.values()].flatMap((row) => [...row.keys()]))].sort(order(-1));
  const table = byId("matrix");
  table.replaceChildren();
  headRow(table, "truth \\ top suspect", columns, title);
  const body = table.createTBody();
  for (const name of rows) {
    const row = body.insertRow();
    rowHead(row, name, title(name));
    const total = [...counts.get(name).values()].reduce((sum, [cases]) => sum + cases, 0);
    for (const column of columns) {
      const cell = row.insertCell();
      if (name === column) cell.classList.add("same");
      const found = counts.get(name).get(column);
      if (!found) continue;
      cell.textContent = found[1] ? `${found[0]} (${found[1]})` : String(found[0]);
      const same = name === column;
      cell.title = `${name}, answered ${column}: ${found[0]} of ${total} cases`
        + (same || !found[2] ? "" : `; taken as right in ${found[2]}`);
      colour(cell, found[0] / total, same || 2 * found[2] > found[0] ? "--heat" : column === HEALTHY ? "--soft" : "--alarm");
    }
  }
}

function showDetectors() {
  const names = data.detectors.filter((name) => fits(about.get(name)));
  const kept = names.includes(byId("who").value) ? byId("who").value : "";
  byId("who").replaceChildren(...names.map((name) => new Option(name, name)));
  byId("who").value = kept || names.find((name) => about.get(name).tier !== "truth") || names[0] || "";
}
