// Ask for a skin photo with sliders, and see it in six skin types. The six pictures of one change are asked for at
// once, since the generator draws eight at a time; of two changes the older one's requests are given up.

import { askForToken, get, headers, whenKnown } from "./page.js";

const [condition, kind, extent, seed, camera] = ["condition", "type", "extent", "seed", "camera"].map(get);
const plan = get("map"), photo = get("photo"), told = get("skin-status");
const SPACING = 100, PATIENCE = 600; // ms between rounds of requests, and that an older one may still take
let model = null, centre = [0.5, 0.5], shown = [], round = null, timer = 0, grip = null;

function inform(text, bad) {
  told.textContent = text;
  told.classList.toggle("bad", Boolean(bad));
}

function box() {
  const side = model.size_px, wide = Math.max(2, Math.round((extent.value / 100) * side));
  const low = centre.map((at) => Math.min(Math.max(Math.round(at * side - wide / 2), 0), side - wide));
  return [...low, wide];
}

function paint() {
  const [left, top, wide] = box(), pen = plan.getContext("2d"), scale = plan.width / model.size_px;
  const colours = [model.type_colours[typeName()], model.conditions[condition.value]].map((rgb) => `rgb(${rgb.join()})`);
  pen.fillStyle = colours[0];
  pen.fillRect(0, 0, plan.width, plan.height);
  pen.fillStyle = colours[1];
  pen.fillRect(left * scale, top * scale, wide * scale, wide * scale);
  get("type-name").textContent = typeName();
  get("extent-name").textContent = `${extent.value} % of the side`;
  plan.setAttribute("aria-label", `Map of ${model.size_px} pixels a side: the lesion at ${left} from the left and ` +
    `${top} from the top, ${wide} wide. Arrow keys move it, plus and minus change its size.`);
}

function typeName() {
  return model.fitzpatrick[kind.value - 1];
}

function show() {
  for (const [place, button] of [...get("strip").children].entries()) {
    button.setAttribute("aria-pressed", String(place === kind.value - 1));
    if (shown[place]) button.querySelector("img").src = shown[place].address;
  }
  const picture = shown[kind.value - 1];
  if (!picture) return;
  const asked = picture.asked; // not what the form says by now
  photo.src = picture.address;
  photo.alt = `Synthetic photo: ${asked.condition}, skin type ${asked.fitzpatrick}, seed ${asked.seed}`;
  get("save").href = picture.address;
  get("save").download = `synthetic-${asked.condition}-${asked.fitzpatrick}-${asked.seed}.png`;
  get("pictures").hidden = false;
}

function changed() {
  paint();
  if (!timer) timer = setTimeout(begin, SPACING);
}

function begin() {
  timer = 0;
  if (round && performance.now() - round.began < PATIENCE) {
    timer = setTimeout(begin, SPACING / 4);
    return;
  }
  if (round) round.abort.abort();
  if (seed.checkValidity()) draw();
  else inform("A seed is a whole number, 0 or more.", true);
}

async function draw() {
  const mine = (round = { abort: new AbortController(), began: performance.now() });
  const [left, top, wide] = box();
  const asked = { condition: condition.value, seed: Number(seed.value), lesion_box: [left, top, left + wide, top + wide] };
  if (camera.value) asked.device = camera.value;
  try {
    const each = model.fitzpatrick.map((type) => ({ ...asked, fitzpatrick: type }));
    const drawn = await Promise.all(each.map((wanted) => one(wanted, mine.abort.signal)));
    if (round !== mine) return;
    shown.forEach((picture) => URL.revokeObjectURL(picture.address));
    shown = drawn.map((file, at) => ({ asked: each[at], address: URL.createObjectURL(file) }));
    show();
    inform(`Seed ${asked.seed}: six pictures in ${Math.round(performance.now() - mine.began)} ms`);
  } catch (error) {
    mine.abort.abort(); // the others of its round
    if (round !== mine || error.name === "AbortError") return;
    inform(error.status ? error.message : "The service does not answer; try again in a moment.", true);
    if (error.status === 401) askForToken();
    if (error.status === 429 || error.status === 503) setTimeout(changed, 1000);
  } finally {
    if (round === mine) round = null;
  }
}

async function one(asked, signal) {
  const wanted = headers({ "Content-Type": "application/json", Accept: "image/png" });
  const answer = await fetch("v1/skin/images", { method: "POST", headers: wanted, body: JSON.stringify(asked), signal });
  if (answer.ok) return answer.blob();
  const problem = await answer.json();
  throw Object.assign(new Error(`${problem.title}: ${problem.detail}`), { status: answer.status });
}

function place(event) {
  const edges = plan.getBoundingClientRect();
  return [(event.clientX - edges.left) / edges.width, (event.clientY - edges.top) / edges.height];
}

function move(to) {
  const half = extent.value / 200;
  centre = to.map((at) => Math.min(Math.max(at, half), 1 - half));
  changed();
}

plan.addEventListener("pointerdown", (event) => {
  const at = place(event), half = extent.value / 200;
  const inside = at.every((value, axis) => Math.abs(value - centre[axis]) <= half);
  grip = inside ? at.map((value, axis) => value - centre[axis]) : [0, 0]; // beside the box: it comes to the pointer
  plan.setPointerCapture(event.pointerId);
  move(at.map((value, axis) => value - grip[axis]));
});
plan.addEventListener("pointermove", (event) => {
  if (grip) move(place(event).map((value, axis) => value - grip[axis]));
});
for (const end of ["pointerup", "pointercancel"]) plan.addEventListener(end, () => { grip = null; });

const WAYS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
plan.addEventListener("keydown", (event) => {
  const larger = { "+": 4, "=": 4, "-": -4 }[event.key];
  if (larger) extent.value = Number(extent.value) + larger;
  if (!larger && !(event.key in WAYS)) return;
  event.preventDefault();
  move(centre.map((at, axis) => at + (larger ? 0 : WAYS[event.key][axis] / 32)));
});
condition.addEventListener("change", changed);
camera.addEventListener("change", changed);
seed.addEventListener("input", changed);
extent.addEventListener("input", () => move(centre));
kind.addEventListener("input", () => { paint(); show(); }); // all six are there already
get("another").addEventListener("click", () => { seed.value = Math.floor(Math.random() * 2 ** 31); changed(); });
get("skin-form").addEventListener("submit", (event) => { event.preventDefault(); changed(); });

whenKnown.push((models) => {
  const first = !model;
  model = models.find((one) => one.name === "skin");
  get("skin").hidden = !model;
  if (!model || !first) return;
  condition.replaceChildren(...Object.keys(model.conditions).map((text) => new Option(text)));
  camera.append(...model.devices.filter((text) => text.startsWith("phone")).map((text) => new Option(text)));
  get("strip").replaceChildren(...model.fitzpatrick.map((text, at) => {
    const button = document.createElement("button"), picture = new Image();
    button.type = "button";
    picture.alt = "";
    button.append(picture, `Type ${text}`);
    button.addEventListener("click", () => { kind.value = at + 1; paint(); show(); });
    return button;
  }));
  get("cautions").replaceChildren(...[model.cautions || []].flat().map((text) => {
    const line = document.createElement("li");
    line.textContent = text;
    return line;
  }));
  changed();
});
