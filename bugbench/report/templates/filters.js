// Follows leaderboard.js in the same script: the curves and bugs, and what the filters reach.

// -- curves of the time to alarm ------------------------------------------------------------------------------------

const STANDING_OUT = 6; // as many as there are colours
const LABEL_ROW = 13;
const stairs = new Map([...document.querySelectorAll("g.stair")].map((curve) => [curve.dataset.detector, curve]));
const timed = [...byId("survival").tBodies[0].rows].filter((row) => stairs.has(row.dataset.detector));
for (const row of timed) {
  const curve = stairs.get(row.dataset.detector);
  const name = row.querySelector("span");
  const button = bareButton(name.textContent);
  button.setAttribute("aria-pressed", "false");
  name.replaceChildren(button);
  const shown = (on) => {
    curve.classList.toggle("pointed", on || button.getAttribute("aria-pressed") === "true");
    if (on) curve.parentNode.append(curve); // above the others
  };
  row.addEventListener("mouseenter", () => shown(true));
  row.addEventListener("mouseleave", () => shown(false));
  button.addEventListener("focus", () => shown(true));
  button.addEventListener("blur", () => shown(false));
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    shown(true);
  });
}

// Curves stand out, with their names at their ends, of the best by diagnosis J among those shown; names are a row apart.
function showCurves() {
  const place = (row) => data.detectors.indexOf(row.dataset.detector);
  const chosen = timed.filter((row) => fits(row.dataset) && row.dataset.tier !== "truth" && row.cells[2].textContent !== "0")
    .sort((a, b) => place(a) - place(b)).slice(0, STANDING_OUT);
  for (const row of timed) {
    const curve = stairs.get(row.dataset.detector);
    const number = chosen.indexOf(row);
    curve.toggleAttribute("hidden", !fits(row.dataset));
    curve.setAttribute("class", `stair ${number < 0 ? "" : `chosen c${number}`}`);
    curve.classList.toggle("pointed", row.querySelector("button").getAttribute("aria-pressed") === "true");
    row.querySelector(".key").className = `key ${number < 0 ? "" : `c${number}`}`;
    curve.querySelector("text").setAttribute("y", Number(curve.dataset.end) + 4);
    if (number >= 0) curve.parentNode.append(curve);
  }
  const labels = chosen.map((row) => stairs.get(row.dataset.detector)).sort((a, b) => a.dataset.end - b.dataset.end);
  let last = -Infinity;
  for (const curve of labels) {
    last = Math.max(curve.dataset.end, last + LABEL_ROW);
    curve.querySelector("text").setAttribute("y", last + 4);
  }
}

// -- bugs, and the filters ------------------------------------------------------------------------------------------

const bugs = [...document.querySelectorAll("details.entry")].map((bug) => ({
  bug,
  text: [...bug.querySelectorAll("summary, .said tbody")].map((part) => part.textContent).join(" ").toLowerCase(),
  workloads: bug.dataset.workloads.split("|"),
}));

function showBugs() {
  const [family, workload] = ["family", "workload"].map((id) => byId(id).value);
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

// What is shown of each detector may be more than its name: then the names alone are in data-names, in the same order.
const lists = [...document.querySelectorAll(".names")].map((place) => {
  const names = (place.dataset.names || place.textContent).split(", ");
  return [place, place.textContent.split(", ").map((text, i) => [text, names[i]])];
});

function showNames() {
  const all = !byId("tier").value && !byId("origin").value;
  for (const [place, entries] of lists) {
    const left = all ? entries : entries.filter(([, name]) => about.has(name) && fits(about.get(name)));
    place.textContent = left.map(([text]) => text).join(", ") || "nobody";
    if (place.parentNode.tagName === "P") place.parentNode.hidden = !left.length;
  }
}

function show() {
  const [family, workload] = ["family", "workload"].map((id) => byId(id).value);
  showBoard(workload, family);
  document.querySelectorAll("tr[data-tier]").forEach((row) => { row.hidden = !fits(row.dataset); });
  byId("nobody").hidden = [...about.values()].some(fits);
  document.querySelectorAll("[data-while]").forEach((note) => {
    note.hidden = !note.dataset.while.split(" ").some((filter) => byId(filter).value);
  });
  showDetectors();
  showHeat(family);
  showConfusion(family);
  showCurves();
  showNames();
  showBugs();
}

byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("reset", () => {
  byId("find").value = "";
  byId("bites").checked = false;
  setTimeout(show); // when the form's own fields are as they were
});
["tier", "origin", "family", "workload", "measure", "who", "grain"].forEach((id) => byId(id).addEventListener("change", show));
byId("rows").addEventListener("change", () => { showMeasures(); show(); });
["find", "bites"].forEach((id) => byId(id).addEventListener("input", showBugs));
showMeasures();
show();
function openNamed() {
  const target = location.hash.startsWith("#bug-") && byId(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  target.hidden = false;
  target.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", openNamed);
openNamed();
