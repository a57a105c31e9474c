// Drop an image, and see where it is out of focus. All numbers and colours come from /v1/focus/heatmaps as JSON.

import { askForToken, get, headers } from "./page.js";

const [form, file, mpp, opacity] = ["form", "file", "mpp", "opacity"].map(get);
const canvas = get("canvas"), cursor = get("cursor"), reading = get("reading"), status = get("status");
const LARGEST = 1600; // pixels of the picture's longer side on the page
let image = null, picture = null, found = null, cell = null, asked = 0;

function tell(text, bad) {
  status.textContent = text;
  status.classList.toggle("bad", Boolean(bad));
}

async function map() {
  if (!image) return;
  const mine = ++asked, sent = image, given = mpp.value; // what was asked before this is no longer waited for
  if (!mpp.reportValidity()) {
    tell("The pixel size is none that a microscope has.", true);
    return;
  }
  tell(`Looking at ${sent.name} …`);
  get("result").hidden = true;
  let answer, body;
  try {
    const address = "v1/focus/heatmaps" + (given && `?mpp=${encodeURIComponent(given)}`);
    const type = sent.type.startsWith("image/") ? sent.type : "image/tiff";
    const wanted = headers({ "Content-Type": type, Accept: "application/json" });
    answer = await fetch(address, { method: "POST", headers: wanted, body: sent });
    body = await answer.json();
  } catch (error) {
    if (mine === asked) tell("The service does not answer; try again in a moment.", true);
    return;
  }
  if (mine !== asked) return; // another image was dropped meanwhile
  if (!answer.ok) {
    if (answer.status === 401) askForToken();
    if (body.reason === "unknown_mpp") {
      tell(`${sent.name} does not say its pixel size: fill it in, then map again.`, true);
      mpp.focus();
    } else tell(`${body.title}: ${body.detail}`, true);
    return;
  }
  found = body;
  picture = await createImageBitmap(sent).catch(() => null); // browsers show no TIFF: the map alone, then
  if (mine !== asked) return;
  const shape = found.geometry, source = given ? "as given here" : "as the file says";
  tell(`${sent.name}: ${shape.width} × ${shape.height} pixels of ${shape.mpp} µm, ${source}`);
  show(sent.name);
}

function colour(radius) {
  const stops = found.legend;
  const at = stops.findIndex((stop) => stop.radius_um >= radius);
  if (at === 0) return stops[0].rgb;
  if (at < 0) return stops[stops.length - 1].rgb;
  const share = (radius - stops[at - 1].radius_um) / (stops[at].radius_um - stops[at - 1].radius_um);
  return stops[at].rgb.map((high, k) => Math.round(stops[at - 1].rgb[k] * (1 - share) + high * share));
}

function draw() {
  const shape = found.geometry;
  const scale = Math.min(1, LARGEST / Math.max(shape.width, shape.height));
  canvas.width = Math.round(shape.width * scale);
  canvas.height = Math.round(shape.height * scale);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  if (picture) pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  pen.globalAlpha = picture ? opacity.value / 100 : 1;
  const step = shape.spacing * scale, start = shape.origin_px * scale;
  found.radius_um.forEach((row, i) => row.forEach((radius, j) => {
    if (radius === null) return;
    // The outermost cells speak for the half window beyond them, which has none of its own.
    const left = j === 0 ? 0 : Math.round(start + j * step), top = i === 0 ? 0 : Math.round(start + i * step);
    const right = j === shape.columns - 1 ? canvas.width : Math.round(start + (j + 1) * step);
    const bottom = i === shape.rows - 1 ? canvas.height : Math.round(start + (i + 1) * step);
    pen.fillStyle = `rgb(${colour(radius).join()})`;
    pen.fillRect(left, top, right - left, bottom - top);
  }));
  pen.globalAlpha = 1;
}

function show(name) {
  get("result").hidden = false;
  cell = null;
  cursor.hidden = true;
  draw();
  const scale = get("scale"), pen = scale.getContext("2d"), most = found.legend[found.legend.length - 1].radius_um;
  for (let y = 0; y < scale.height; y++) {
    pen.fillStyle = `rgb(${colour(most * (1 - y / (scale.height - 1))).join()})`;
    pen.fillRect(0, y, scale.width, 1);
  }
  const marks = [[0, "0 µm, in focus"], ...Object.entries(found.grades_um).map(([name, at]) => [at, `${at} µm, ${name}`])];
  marks.push([most, `${most} µm and more`]);
  get("ticks").replaceChildren(...marks.map(([at, text]) => {
    const mark = document.createElement("li");
    mark.textContent = text;
    mark.style.top = `${(1 - at / most) * scale.height}px`;
    return mark;
  }));
  get("shares").tBodies[0].replaceChildren(...Object.entries(found.summary.shares).map(([name, share]) => {
    const row = document.createElement("tr"), head = document.createElement("th"), value = document.createElement("td");
    head.scope = "row";
    head.textContent = name;
    value.textContent = `${(100 * share).toFixed(1)} %`;
    row.append(head, value);
    return row;
  }));
  const summary = found.summary;
  get("figures").textContent = `Median ${summary.radius_um_median.toFixed(2)} µm, 95 % below ` +
    `${summary.radius_um_p95.toFixed(2)} µm; certainty ${summary.certainty.toFixed(2)}; ` +
    `${summary.tissue_mm2.toPrecision(3)} mm² of tissue.`;
  canvas.setAttribute("aria-label", `Focus map of ${name}: median blur radius ` +
    `${summary.radius_um_median.toFixed(2)} µm. Arrow keys read it cell by cell.`);
}

function point(row, column) {
  const shape = found.geometry;
  cell = [Math.min(shape.rows - 1, Math.max(0, row)), Math.min(shape.columns - 1, Math.max(0, column))];
  const [i, j] = cell, radius = found.radius_um[i][j];
  const scale = canvas.clientWidth / shape.width;
  cursor.hidden = false;
  cursor.style.left = `${(shape.origin_px + j * shape.spacing) * scale}px`;
  cursor.style.top = `${(shape.origin_px + i * shape.spacing) * scale}px`;
  cursor.style.width = cursor.style.height = `${Math.max(6, shape.spacing * scale)}px`;
  const place = `row ${i + 1}, column ${j + 1}`;
  reading.textContent = radius === null ? `${place}: no tissue` :
    `${place}: blur radius ${radius.toFixed(2)} µm, certainty ${found.certainty[i][j].toFixed(2)}`;
}

function pointer(event) {
  if (!found) return;
  const box = canvas.getBoundingClientRect(), shape = found.geometry;
  const at = (where, size, length) => Math.floor(((where / size) * length - shape.origin_px) / shape.spacing);
  point(at(event.clientY - box.top, box.height, shape.height), at(event.clientX - box.left, box.width, shape.width));
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  if (!found || !(event.key in STEPS)) return;
  event.preventDefault();
  const [down, along] = STEPS[event.key], [i, j] = cell || [0, 0];
  point(...(cell ? [i + down, j + along] : [0, 0]));
});
canvas.addEventListener("pointermove", pointer);

function take(one) {
  if (!one) return;
  image = one;
  get("again").disabled = false;
  map();
}

const drop = get("drop");
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });
file.addEventListener("change", () => take(file.files[0]));
file.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); file.click(); } });
form.addEventListener("submit", (event) => { event.preventDefault(); map(); });
opacity.addEventListener("input", () => { if (found && !get("result").hidden) draw(); });
window.addEventListener("resize", () => { if (cell) point(...cell); });
