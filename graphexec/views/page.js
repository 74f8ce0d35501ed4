// Links the pictures, the list and the text about a node. The data is that of page.py.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const pictures = [...document.querySelectorAll(".picture svg")];
const rows = [];
const places = new Map(); // launch -> elements it is drawn as, and tensors it touches
let chosen = null;
let lit = [];

function add(map, key, value) {
  if (!map.has(key)) map.set(key, []);
  map.get(key).push(value);
}

// The list -------------------------------------------------------------------------------

function fillList() {
  const all = document.createDocumentFragment();
  data.instructions.forEach((text, n) => {
    const row = document.createElement("div");
    row.setAttribute("role", "option");
    row.dataset.i = n;
    row.textContent = text;
    rows.push(row);
    all.append(row);
  });
  $("list").append(all);
}

function findPlaces() {
  for (const box of document.querySelectorAll("g[data-l]"))
    for (const n of box.dataset.l.split(" ")) add(places, +n, [box, "hot"]);
  for (const box of document.querySelectorAll("g[data-t]"))
    box.dataset.t.split(" ").forEach((n, k) => add(places, +n, [box, k ? "near" : "hot"]));
}

// Choosing -------------------------------------------------------------------------------

function mark(element, kind) {
  if (!element || element.classList.contains("hot")) return;
  element.classList.add(kind);
  lit.push(element);
}

function unlight() {
  for (const element of lit) element.classList.remove("hot", "near");
  lit = [];
}

function light(what) {
  unlight();
  if (!what) return;
  for (const n of what.launches) {
    for (const [box, kind] of places.get(n) || []) mark(box, kind);
    mark(rows[data.launches[n].instruction], "hot");
    for (const wait of data.launches[n].waits) mark(rows[wait.instruction], "near");
    for (const wait of data.launches[n].waits) mark(arrow(wait.instruction), "hot");
  }
  if (what.instruction !== undefined) {
    mark(rows[what.instruction], "hot");
    mark(arrow(what.instruction), "hot");
  }
}

const arrow = (instruction) => document.querySelector(`path[data-w="${instruction}"]`);

function meant(element) {
  const target = element.closest ? element.closest("[data-l],[data-t],[data-w],[data-i]") : null;
  if (!target) return null;
  const { l, t, w, i } = target.dataset;
  if (l) return { launches: l.split(" ").map(Number) };
  if (t) return { launches: [+t.split(" ")[0]] };
  const instruction = +(w ?? i);
  const launch = data.launchAt[instruction];
  return launch === undefined ? { launches: [], instruction } : { launches: [launch] };
}

function choose(what, scroll) {
  chosen = what;
  light(what);
  about(what);
  if (!what) return;
  const instruction = what.instruction ?? data.launches[what.launches[0]].instruction;
  const row = rows[instruction];
  $("list").setAttribute("aria-activedescendant", row.id = `row${instruction}`);
  row.scrollIntoView({ block: "nearest" });
  if (!scroll) return;
  for (const picture of pictures) {
    const box = picture.querySelector("g.hot");
    if (box) box.scrollIntoView({ block: "nearest", inline: "center" });
  }
}

// About ----------------------------------------------------------------------------------

function line(list, name, value) {
  if (value === null || value === undefined || value === "" || value.length === 0) return;
  const dt = document.createElement("dt");
  dt.textContent = name;
  list.append(dt);
  for (const each of Array.isArray(value) ? value : [value]) {
    const dd = document.createElement("dd");
    dd.style.gridColumn = 2;
    dd.textContent = each;
    list.append(dd);
  }
}

function about(what) {
  const panel = $("about");
  panel.replaceChildren();
  const title = document.createElement("h2");
  const list = document.createElement("dl");
  panel.append(title, list);
  if (!what) { title.textContent = "Nothing chosen"; return; }
  if (!what.launches.length) {
    title.textContent = data.instructions[what.instruction].trim();
    line(list, "why", data.why[what.instruction]);
    return;
  }
  if (what.launches.length > 1) {
    title.textContent = `${what.launches.length} launches`;
    line(list, "nodes", what.launches.slice(0, 40).map((n) => data.launches[n].node));
    return;
  }
  const launch = data.launches[what.launches[0]];
  title.textContent = launch.node;
  line(list, "command", launch.command);
  line(list, "result", launch.type);
  line(list, "written in", launch.line && `line ${launch.line} of the graph's file`);
  line(list, "stream", `${launch.stream}, instruction ${launch.instruction}`);
  line(list, "predicted", launch.predicted);
  line(list, "measured", launch.measured);
  line(list, "reads", launch.reads);
  line(list, "writes", launch.writes);
  line(list, "waits", launch.waits.map((w) => `event ${w.event} (${w.role}): ${w.why}`));
  line(list, "rewrites", launch.rewrites);
  line(list, "races", launch.races);
}

// Search, zoom, theme --------------------------------------------------------------------

function search() {
  const wanted = $("search").value.trim().toLowerCase();
  let count = 0;
  rows.forEach((row, n) => {
    const found = !wanted || data.search[n].includes(wanted);
    row.hidden = !found;
    if (found) count += 1;
  });
  const match = new Set();
  data.launches.forEach((launch, n) => {
    if (data.search[launch.instruction].includes(wanted)) match.add(n);
  });
  for (const box of document.querySelectorAll("g[data-l],g[data-t]")) {
    const own = (box.dataset.l ?? box.dataset.t.split(" ")[0]).split(" ").map(Number);
    box.classList.toggle("dim", Boolean(wanted) && !own.some((n) => match.has(n)));
  }
  $("found").textContent = wanted ? `${count} of ${rows.length}` : "";
}

// The rank of an instruction for a search: 0 is an exact node name.
function distance(n, wanted) {
  const launch = data.launches[data.launchAt[n]];
  const small = wanted.toLowerCase();
  if (!launch) return 5;
  if (launch.nodes.includes(wanted)) return 0;
  if (launch.nodes.some((node) => node.toLowerCase() === small)) return 1;
  const title = launch.node.toLowerCase();
  return title.startsWith(small) ? 2 : title.includes(small) ? 3 : 4;
}

function chooseBest() {
  const wanted = $("search").value.trim();
  let best = null;
  rows.forEach((row, n) => {
    if (row.hidden) return;
    const far = wanted ? distance(n, wanted) : 5;
    // The last launch of a node makes its result.
    if (!best || far < best.far || (far === best.far && far < 2)) best = { row, far };
  });
  if (best) choose(meant(best.row), true);
}

let zoom = 1;
const base = new Map(); // picture -> its scale at zoom 1
function setZoom(to) {
  zoom = Math.min(Math.max(to, 0.05), 20);
  for (const picture of pictures) {
    const [, , width, height] = picture.getAttribute("viewBox").split(" ").map(Number);
    picture.setAttribute("width", width * zoom * base.get(picture));
    picture.setAttribute("height", height * zoom * base.get(picture));
  }
}

function fit(least = 0) {
  const room = $("pictures").clientWidth - 30;
  for (const picture of pictures) {
    const width = +picture.getAttribute("viewBox").split(" ")[2];
    base.set(picture, Math.min(Math.max(room / width, least), 1));
  }
  setZoom(1);
}

const system = matchMedia("(prefers-color-scheme: dark)");
const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
function theme() {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
}

// Events ---------------------------------------------------------------------------------

function step(by) {
  const shown = rows.filter((row) => !row.hidden);
  if (!shown.length) return;
  const at = chosen ? shown.indexOf(rows[chosen.instruction ?? data.launches[chosen.launches[0]].instruction]) : -1;
  const next = shown[Math.min(Math.max(at + by, 0), shown.length - 1)];
  choose(meant(next), true);
}

const KEYS = {
  "/": () => $("search").focus(), "+": () => setZoom(zoom * 1.25), "=": () => setZoom(zoom * 1.25),
  "-": () => setZoom(zoom / 1.25), 0: () => fit(), t: theme, Escape: () => choose(null),
  ArrowDown: () => step(1), ArrowUp: () => step(-1), j: () => step(1), k: () => step(-1),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === $("search")) {
    if (event.key === "Escape") { $("search").value = ""; search(); $("search").blur(); }
    if (event.key === "Enter") chooseBest();
    return;
  }
  const action = KEYS[event.key];
  if (action) { event.preventDefault(); action(); }
});
document.addEventListener("mouseover", (event) => {
  const what = meant(event.target);
  if (what) light(what);
  else if (lit.length) light(chosen);
});
document.addEventListener("click", (event) => {
  const what = meant(event.target);
  if (what) choose(what, event.target.closest("#list") !== null);
});
$("search").addEventListener("input", search);
$("larger").addEventListener("click", () => setZoom(zoom * 1.25));
$("smaller").addEventListener("click", () => setZoom(zoom / 1.25));
$("fit").addEventListener("click", () => fit());
$("theme").addEventListener("click", theme);

fillList();
findPlaces();
fit(0.45); // smaller could not be read
document.documentElement.dataset.ready = Math.round(performance.now());
