"use strict";
// Everything the page shows is worked out beforehand; the script chooses, sorts and colours. Texts go in as text only.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const NONE = "–";

// -- light and dark -------------------------------------------------------------------------------------------------

const system = matchMedia("(prefers-color-scheme: dark)");
let theme = null;
try { theme = localStorage.getItem("bugbench-theme"); } catch { /* a page from a file may have no storage */ }
function paint() {
  const shown = theme || (system.matches ? "dark" : "light");
  document.documentElement.dataset.theme = shown;
  byId("theme").textContent = shown === "dark" ? "Light" : "Dark";
}
byId("theme").addEventListener("click", () => {
  theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("bugbench-theme", theme); } catch { /* then it lasts until the page is closed */ }
  paint();
});
system.addEventListener("change", paint);
paint();

// -- sorting --------------------------------------------------------------------------------------------------------

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.classList.contains("plain")) return;
    head.tabIndex = 0;
    const sort = () => {
      const numeric = head.classList.contains("n");
      const before = head.getAttribute("aria-sort");
      const falling = before ? before === "ascending" : numeric;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const key = (row) => {
        const text = row.cells[column].textContent.trim();
        return numeric ? Number.parseFloat(text.replace("−", "-")) : text;
      };
      const unknown = (value) => value === NONE || Number.isNaN(value);
      const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => {
        if (unknown(a) || unknown(b)) return unknown(a) - unknown(b);
        const order = numeric ? a - b : a.localeCompare(b);
        return falling ? -order : order;
      });
      rows.forEach(([, row]) => table.tBodies[0].append(row));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
    });
  });
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
    ? `Only ${where.join(" on ")}, beside all controls${workload ? " there" : ""}. Detectors are compared over all cases only.`
    : "There are no such bugs among these cases.";
  for (const row of board.tBodies[0].rows) {
    const texts = rows && rows[row.dataset.detector];
    const cells = [...row.cells].filter((cell) => cell.classList.contains("n"));
    cells.forEach((cell, i) => { cell.textContent = texts ? texts[i] : NONE; });
    drawRange(row.querySelector(".range"), texts ? texts[0] : "", texts ? texts[1] : "");
    row.querySelector(".apart").textContent = everything ? apart.get(row.dataset.detector) : NONE;
  }
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
  cell.style.background = `color-mix(in srgb, var(${variable}) ${Math.round(8 + 92 * share)}%, var(--page))`;
  cell.classList.toggle("strong", share > 0.55);
}

const MEASURES = { right: "cause right", detected: "detected", family_right: "family right", flagged: "flagged" };

function showMeasures() {
  const names = Object.keys(data.heat[byId("rows").value].values);
  byId("measure").replaceChildren(...names.map((name) => new Option(MEASURES[name], name)));
}

function showHeat(family) {
  const kind = byId("rows").value;
  const { names, values } = data.heat[kind];
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
      cell.title = `${detector} on ${name}: ${value} % ${MEASURES[measure]}`;
      colour(cell, value / 100, measure === "flagged" ? "--alarm" : "--heat");
    }
  });
}

const HEALTHY = "healthy";

function showConfusion(family) {
  const fine = byId("grain").value === "fault";
  const group = fine ? (name) => name : familyOf;
  const counts = new Map();
  for (const [truth, answer, cases] of data.confusion[byId("who").value] || []) {
    if (family && truth !== HEALTHY && familyOf(truth) !== family) continue;
    const row = group(truth);
    const column = group(answer);
    const symptom = answer !== HEALTHY && !Object.hasOwn(data.family_of, answer) ? cases : 0;
    if (!counts.has(row)) counts.set(row, new Map());
    const [all, named] = counts.get(row).get(column) || [0, 0];
    counts.get(row).set(column, [all + cases, named + symptom]);
  }
  const order = (a, b) => (a === HEALTHY) - (b === HEALTHY)
    || familyOf(a).localeCompare(familyOf(b)) || a.localeCompare(b);
  const rows = [...counts.keys()].sort(order);
  const columns = [...new Set([...counts.values()].flatMap((row) => [...row.keys()]))].sort(order);
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
      cell.title = `${name}, answered ${column}: ${found[0]} of ${total} cases`;
      colour(cell, found[0] / total, name === column ? "--heat" : column === HEALTHY ? "--soft" : "--alarm");
    }
  }
}

byId("who").replaceChildren(...data.detectors.map((name) => new Option(name, name)));
const contestant = data.detectors.find((name) => about.get(name).tier !== "truth");
if (contestant) byId("who").value = contestant;

// -- curves of the time to alarm ------------------------------------------------------------------------------------

const stairs = new Map([...document.querySelectorAll("path.stair")].map((path) => [path.dataset.detector, path]));
for (const row of byId("survival").tBodies[0].rows) {
  const path = stairs.get(row.dataset.detector);
  if (!path) continue;
  const own = [...path.classList].find((name) => /^c\d$/.test(name));
  if (own) row.querySelector(".key").classList.add(own);
  const point = (on) => () => { path.classList.toggle("pointed", on); if (on) path.parentNode.append(path); };
  ["mouseenter", "focus"].forEach((name) => row.addEventListener(name, point(true)));
  ["mouseleave", "blur"].forEach((name) => row.addEventListener(name, point(false)));
}

// -- bugs, and the filters ------------------------------------------------------------------------------------------

const bugs = [...document.querySelectorAll("details.entry")].map((bug) => ({
  bug,
  text: [...bug.querySelectorAll("summary, .said tbody")].map((part) => part.textContent).join(" ").toLowerCase(),
  workloads: bug.dataset.workloads.split("|"),
}));

function showBugs(workload, family) {
  const words = byId("find").value.toLowerCase().trim();
  let shown = 0;
  for (const { bug, text, workloads } of bugs) {
    const shows = (!family || bug.dataset.family === family) && (!workload || workloads.includes(workload))
      && (!byId("bites").checked || bug.dataset.harmful === "1") && (!words || text.includes(words));
    bug.hidden = !shows;
    shown += shows;
  }
  byId("found").textContent = `${shown} of ${bugs.length}`;
}

function show() {
  const [family, workload] = ["family", "workload"].map((id) => byId(id).value);
  showBoard(workload, family);
  document.querySelectorAll("tr[data-tier]").forEach((row) => { row.hidden = !fits(row.dataset); });
  showHeat(family);
  showConfusion(family);
  showBugs(workload, family);
}

byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("reset", () => setTimeout(show));
["tier", "origin", "family", "workload", "measure", "who", "grain", "bites"].forEach((id) => byId(id).addEventListener("change", show));
byId("rows").addEventListener("change", () => { showMeasures(); show(); });
byId("find").addEventListener("input", show);
showMeasures();
show();
if (location.hash.startsWith("#bug-")) {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.open = true;
}
