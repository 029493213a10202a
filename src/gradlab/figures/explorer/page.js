"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id), all = (selector, from = document) => [...from.querySelectorAll(selector)];
const mostChosen = 4;
const marks = ["M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0Z", "M-4.5-4.5H4.5V4.5H-4.5Z", "M0-5.5L5.5 4.5H-5.5Z", "M0-6L6 0L0 6L-6 0Z"];
const inDecades = data.unit === "decades", log10 = value => inDecades ? value : value / Math.LN10;
const hint = byId("value").textContent;
let chosen = [], steps = [0], step = 0, limit = data.limit, cursor = null, timer = 0;

for (const setting of data.settings) {
  setting.title = setting.name;
  for (const seed of setting.seeds) Object.assign(seed, { model: setting.model, title: `${setting.name}, ${seed.name}` });
}

// ---- numbers as text
const signed = text => text.replace("-", "−");
const power = n => n === 0 ? "1" : n === 1 ? "10" : "10" + String(n).replace(/./g, c => "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"["0123456789-".indexOf(c)]);
function number(x) {
  if (x === 0 || (Math.abs(x) >= 1e-3 && Math.abs(x) < 1e4)) return signed(String(+x.toPrecision(3)));
  const [digits, exponent] = x.toExponential(2).split("e");
  return signed(`${digits}·${power(+exponent)}`);
}
function norm(value) { // of a log norm
  const exponent = log10(value);
  return Math.abs(exponent) < 300 ? number(10 ** exponent) : power(Math.round(exponent));
}
function valueText(value) {
  if (Number.isNaN(value)) return "not measured";
  return value === -Infinity ? "exactly zero" : `norm ${norm(value)} (${signed(value.toFixed(inDecades ? 3 : 2))} ${data.unit})`;
}

// ---- maps
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const ramp = bytes(data.colours), pair = (i, j) => i * (i + 1) / 2 + j;

async function unpack(series) { // the inverse of packing.pack, once a series, and so its seeds, are looked at
  await Promise.all((series.seeds ?? []).map(unpack));
  if (series.logs) return;
  const { low, step, codes } = series.values, pairs = pair(series.t.length, 0);
  const stream = new Blob([bytes(codes)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer()), half = planes.length / 2;
  series.logs = low.map((least, m) => {
    let code = 0;
    return Float32Array.from({ length: pairs }, (_, p) => {
      const at = m * pairs + p;
      code = (code + planes[at] + 256 * planes[half + at]) & 65535;
      return code === 65535 ? NaN : code ? least + (code - 1) * step[m] : -Infinity;
    });
  });
}

// The measurement that a series has at a training step: the last at or before it.
const measuredAt = (series, at) => Math.max(0, series.maps.findLastIndex(map => map.step <= at));

// How many of the seeds of a setting are exactly zero at a pair (t, k) that has a mean of the others.
function zeroSeeds(series, m, p) {
  if (series.logs[m][p] === -Infinity) return 0;
  return (series.maps[m].of ?? []).filter((of, s) => of !== null && series.seeds[s].logs[of][p] === -Infinity).length;
}

// RGBA. Exactly zero is chequered in greys, in some seeds in grey and the others' mean; not measured is blank.
function colour(value, isOdd, isSome) {
  if (Number.isNaN(value)) return [0, 0, 0, 0];
  if (value === -Infinity || (isSome && isOdd)) return [128, 128, 128, isOdd ? 150 : 50];
  const at = Math.round(127.5 + 127.5 * Math.max(-1, Math.min(1, value / limit)));
  return [...ramp.subarray(3 * at, 3 * at + 3), 255];
}

function paint(canvas, series, m) {
  const size = series.t.length, image = new ImageData(size, size);
  for (let i = 0; i < size; i++) for (let j = 0; j <= i; j++)
    image.data.set(colour(series.logs[m][pair(i, j)], (i + j) % 2, zeroSeeds(series, m, pair(i, j))), 4 * (i * size + j));
  canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function measuredName(series, m) {
  const { step, seeds } = series.maps[m];
  return (m === 0 && step === 0 ? "before training" : `step ${step}`) + (seeds ? ` (${seeds})` : "");
}

function drawMaps() {
  all("#maps section").forEach((section, n) => {
    const series = chosen[n], now = measuredAt(series, steps[step]);
    all("figure", section).forEach((figure, side) => {
      const m = side ? now : 0;
      paint(figure.querySelector("canvas"), series, m);
      figure.querySelector("b").textContent = measuredName(series, m);
      figure.querySelector("span").textContent = series.maps[m].numbers;
      const box = figure.querySelector("i"), size = series.t.length, is = cursor?.series === series;
      box.hidden = !is;
      if (is) box.style.cssText = `left:${100 * (cursor.j + .5) / size}%;top:${100 * (cursor.i + .5) / size}%;width:${100 / size}%;height:${100 / size}%`;
    });
  });
}

function drawValue() {
  if (!cursor) {
    byId("value").textContent = chosen.length ? hint : "";
    return;
  }
  const { series, i, j } = cursor, t = series.t[i], k = series.t[j], now = measuredAt(series, steps[step]);
  const read = m => {
    const zeros = zeroSeeds(series, m, pair(i, j));
    const count = series.maps[m].of?.filter(of => of !== null).length;
    const ofOthers = zeros ? `, mean of ${count - zeros} of ${count} seeds: exactly zero in ${zeros}` : "";
    return `${measuredName(series, m)} ${valueText(series.logs[m][pair(i, j)])}${ofOthers}`;
  };
  const readings = [...new Set([0, now])].map(read).join("; ");
  byId("value").textContent = `${series.title}: t = ${t}, k = ${k}, lag ${t - k}: ${readings}`;
}

function colourOf(n) { // its model's colour, in shades where several of one model are shown
  const alike = chosen.filter(series => series.model === chosen[n].model);
  return data.shades[chosen[n].model][alike.length - 1][alike.indexOf(chosen[n])];
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function mapFigure(series, side) {
  const size = series.t.length, canvas = element("canvas", { tabIndex: 0 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${series.quantity} of ${series.title}, ${side ? "at the chosen training step" : "at the first"}: t down, k to the right; arrow keys read values`);
  const read = (i, j) => { cursor = { series, i, j }; drawMaps(); drawValue(); drawDecay(); };
  canvas.onpointermove = canvas.onpointerdown = event => {
    const box = canvas.getBoundingClientRect(), cell = x => Math.max(0, Math.min(size - 1, Math.floor(x * size)));
    const [i, j] = [cell((event.clientY - box.top) / box.height), cell((event.clientX - box.left) / box.width)];
    if (j <= i) read(i, j);
  };
  canvas.onfocus = () => { if (cursor?.series !== series) read(size - 1, 0); };
  canvas.onkeydown = event => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move || cursor?.series !== series) return;
    event.preventDefault();
    const i = Math.max(0, Math.min(size - 1, cursor.i + move[0]));
    read(i, Math.max(0, Math.min(i, cursor.j + move[1])));
  };
  const box = element("i", { hidden: true });
  return element("figure", {}, element("div", { className: "map" }, canvas, box), element("figcaption", {}, element("b"), element("span")));
}

function settingSection(series, n) {
  const heading = element("h3");
  heading.innerHTML = `<svg class="mark" viewBox="-7 -7 14 14" style="--colour:${colourOf(n)}" aria-hidden="true"><path class="point" d="${marks[n]}"/></svg>`;
  heading.append(series.title);
  const some = (kept, all) => kept < all ? ` (${kept} of ${all} that were measured)` : "";
  const about = [
    series.status,
    `t ↓ and k → from ${series.t[0]} to ${series.t.at(-1)}${some(series.t.length, series.measured.t)}`,
    series.maps.length < series.measured.steps && `training steps${some(series.maps.length, series.measured.steps)}`,
  ].filter(Boolean).join("; ");
  const sides = series.maps.length > 1 ? [0, 1] : [0];
  const figures = sides.map(side => mapFigure(series, side));
  return element("section", {}, heading, element("small", { className: "faint", textContent: about }), element("div", { className: "pair" }, ...figures));
}

// ---- curves
function round(span, most) { // a round distance between at most so many ticks
  const least = 10 ** Math.floor(Math.log10(span / most));
  return [1, 2, 5, 10].map(m => m * least).find(every => span / every <= most);
}
function multiples(every, low, high) {
  const first = Math.ceil(low / every - 1e-9), last = Math.floor(high / every + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => (first + i) * every);
}
function ticks(low, high) { // of log norms: [value, label]
  if (!inDecades) return multiples(round(high - low, 6), low, high).map(v => [v, number(v)]);
  if (high - low >= 2) return multiples(Math.max(1, round(high - low, 6)), low, high).map(v => [v, power(v)]);
  const [least, greatest] = [10 ** low, 10 ** high];
  const norms = greatest < 5 * least ? multiples(round(greatest - least, 5), least, greatest)
    : multiples(1, Math.floor(low), high).flatMap(e => [1, 2, 5].map(m => m * 10 ** e)).filter(x => x >= least && x <= greatest);
  return norms.filter(x => x > 0).map(x => [Math.log10(x), number(x)]);
}

// What is drawn of a series at a training step. A seed is drawn by itself where few are averaged, and
// where the mean of all has ended: one of them is exactly zero there.
function linesOf(series, map, kind, isLatest) {
  const points = (curve, isDrawn = () => true) => curve.flatMap((value, i) => value === null || !isDrawn(i) ? [] : [[series.lags[i], value]]);
  const isEnd = i => [i - 1, i, i + 1].some(at => map.curve[at] === null);
  const isAlone = !map.low && isLatest;
  const seeds = (map.of ?? []).flatMap((of, s) => of === null ? [] : [points(series.seeds[s].maps[of].curve, i => isAlone || isEnd(i))]);
  const band = map.low && isLatest ? [{ kind: "band", points: [...points(map.low), ...points(map.high).reverse()] }] : [];
  return [...band, ...seeds.map(points => ({ kind: `${kind} seed`, points })), { kind, points: points(map.curve), horizon: map.horizon }];
}

function curvesOf(series, n) { // the mean at this training step last; the first stays dashed, also where none came after it
  const now = measuredAt(series, steps[step]), first = linesOf(series, series.maps[0], step ? "curve before" : "curve", !now);
  return { n, colour: colourOf(n), parts: now ? [...first, ...linesOf(series, series.maps[now], "curve", true)] : first };
}

function drawDecay() {
  const svg = byId("decay"), [width, height] = [svg.clientWidth, svg.clientHeight];
  if (!width) return; // not laid out yet
  const frame = { left: 62, right: width - 14, top: 10, bottom: height - 46 };
  const curves = chosen.map(curvesOf), points = curves.flatMap(c => c.parts.flatMap(p => p.points)), ys = points.map(p => p[1]);
  const longest = Math.max(1, ...points.map(p => p[0]));
  const low = Math.min(-.3, ...ys), high = Math.max(0, ...ys), pad = .05 * (high - low);
  const x = lag => frame.left + (frame.right - frame.left) * lag / longest;
  const y = value => frame.bottom - (frame.bottom - frame.top) * (value - low + pad) / (high - low + 2 * pad);
  const drawn = ticks(low - pad, high + pad).map(([v, label]) =>
    `<line class="grid" x1="${frame.left}" x2="${frame.right}" y1="${y(v)}" y2="${y(v)}"/><text x="${frame.left - 8}" y="${y(v) + 4}" text-anchor="end">${label}</text>`);
  for (const lag of multiples(Math.max(1, round(longest, width / 90)), 0, longest))
    drawn.push(`<text x="${x(lag)}" y="${frame.bottom + 19}" text-anchor="middle">${lag}</text>`);
  drawn.push(`<text x="${(frame.left + frame.right) / 2}" y="${frame.bottom + 40}" text-anchor="middle">lag t − k (steps)</text>`);
  if (cursor && chosen.includes(cursor.series)) {
    const at = x(cursor.series.t[cursor.i] - cursor.series.t[cursor.j]);
    drawn.push(`<line class="lag" x1="${at}" x2="${at}" y1="${frame.top}" y2="${frame.bottom}"/>`);
  }
  for (const { n, colour, parts } of curves) {
    const lines = parts.filter(({ points }) => points.length).map(({ kind, points }) =>
      `<${kind === "band" ? "polygon" : "polyline"} class="${kind}" points="${points.map(p => `${x(p[0])},${y(p[1])}`).join(" ")}"/>`);
    let next = frame.left + 24 * n; // marks stand apart, also those of curves that coincide
    for (const [lag, value] of parts.at(-1).points) if (x(lag) >= next) {
      lines.push(`<path class="point" transform="translate(${x(lag)} ${y(value)})" d="${marks[n]}"/>`);
      next = x(lag) + 100;
    }
    for (const { horizon } of parts) if (horizon)
      lines.push(`<circle class="horizon" cx="${x(horizon[0])}" cy="${y(horizon[1])}" r="7"/>`);
    drawn.push(`<g style="--colour:${colour}">${lines.join("")}</g>`);
  }
  if (!chosen.length) drawn.push(`<text x="${(frame.left + frame.right) / 2}" y="${height / 2}" text-anchor="middle">No setting is chosen: tick one in the list.</text>`);
  svg.innerHTML = drawn.join("");
}

function drawNotes() {
  const quantities = [...new Set(chosen.map(series => series.quantity))].join("; ");
  byId("quantity").textContent = !chosen.length ? "" : inDecades ? `${quantities.replaceAll("log ", "")}, geometric mean` : `mean ${quantities} (nats)`;
  const notes = chosen.map(series => {
    const [first, now] = [series.maps[0], series.maps[measuredAt(series, steps[step])]];
    return [series.title, now.seeds === first.seeds ? now.note : `${now.note}; dashed: ${first.seeds}`];
  }).filter(([, note]) => note);
  const isOne = notes.length === chosen.length && new Set(notes.map(([, note]) => note)).size === 1;
  const ofSeeds = isOne ? [notes[0][1]] : notes.map(([title, note]) => `${title}: ${note}`);
  const spread = notes.length ? ["numbers: mean ± standard deviation over seeds"] : [];
  const dashes = chosen.some(series => measuredAt(series, steps[step])) ? ["solid: at this training step, dashed: at the first"] : [];
  const diverged = chosen.some(series => series.seeds?.some(seed => seed.status === "diverged"))
    ? ["seeds that diverged are in means before training only; each can be ticked by itself"] : [];
  const zeros = chosen.some(series => [series, ...series.seeds ?? []].some(x => x.logs.some(log => log.includes(-Infinity))))
    ? ["chequered in the maps: exactly zero (with colour: in some seeds; the colour is the others' mean)"] : [];
  const marks = all("#decay .horizon").length ? ["rings: horizons, where a curve has fallen to 1/e"] : [];
  byId("note").textContent = [...ofSeeds, ...diverged, ...spread, ...dashes, ...marks, ...zeros].map(text => text[0].toUpperCase() + text.slice(1) + ".").join(" ");
}

// ---- what is shown
function draw() {
  byId("step").value = step;
  byId("at").textContent = steps[step];
  const [least, most] = inDecades ? [norm(-limit), norm(limit)] : [`−${limit}`, `+${limit}`];
  byId("least").textContent = `≤ ${least}`; byId("most").textContent = `≥ ${most}`;
  drawMaps(); drawValue(); drawDecay(); drawNotes();
}

function tick() { // the boxes of the list
  all("#settings input").forEach(box => {
    box.checked = chosen.includes(box.series);
    box.disabled = !box.checked && chosen.length >= mostChosen;
  });
}

async function choose(series) {
  const at = step < steps.length - 1 ? steps[step] : Infinity; // a training step that was chosen stays
  chosen = series;
  tick();
  await Promise.all(series.map(unpack));
  if (chosen !== series) return; // they were changed meanwhile
  steps = [...new Set(chosen.flatMap(s => s.maps.map(map => map.step)))].sort((a, b) => a - b);
  if (!steps.length) steps = [0];
  step = Math.max(0, steps.findLastIndex(s => s <= at));
  if (!chosen.includes(cursor?.series)) cursor = null;
  Object.assign(byId("step"), { max: steps.length - 1, disabled: steps.length < 2 });
  byId("play").disabled = steps.length < 2;
  byId("maps").replaceChildren(...chosen.map(settingSection));
  draw();
}

function play(on) { // from training step to training step, to the last
  clearInterval(timer);
  if (on && step === steps.length - 1) { step = 0; draw(); }
  timer = on ? setInterval(() => {
    if (step < steps.length - 1) { step++; draw(); }
    if (step === steps.length - 1) play(false);
  }, +byId("speed").value) : 0;
  byId("play").textContent = on ? "❚❚ Pause" : "▶ Play";
  byId("value").setAttribute("aria-live", on ? "off" : "polite");
}

function row(series) {
  const box = element("input", { type: "checkbox", series });
  box.onchange = () => choose(box.checked ? [...chosen, series] : chosen.filter(s => s !== series));
  const note = series.status && !series.seeds?.length ? ` (${series.status})` : "";
  return element("label", {}, box, " ", series.name, element("small", { textContent: note }));
}

function expander(setting) { // shows the seeds of a setting; they are listed once they are asked for
  const seeds = element("div", { hidden: true }), button = element("button", { type: "button" });
  const show = isShown => {
    if (isShown && !seeds.hasChildNodes()) seeds.append(...setting.seeds.map(row),
      ...setting.unmeasured.map(seed => element("small", { textContent: `No map: ${seed}` })));
    seeds.hidden = !isShown;
    button.textContent = `${setting.status} ${isShown ? "▾" : "▸"}`;
    button.setAttribute("aria-expanded", isShown);
    tick();
  };
  button.setAttribute("aria-label", `${setting.status} of ${setting.name}`);
  button.onclick = () => show(seeds.hidden);
  show(false);
  return [button, seeds];
}

for (const setting of data.settings) {
  const seeds = setting.seeds.length ? expander(setting) : [];
  byId("settings").append(element("div", { className: "entry" }, row(setting), ...seeds));
}
// A value stands for itself as a whole, after the word before it ("gain 1" is not 1.5, nor threshold 1);
// a word may be cut short.
const words = text => text.toLowerCase().split(/[\s,=]+/).filter(Boolean);
const isValue = word => /^([-+.\d]|(none|true|false)$)/.test(word);
function matches(name, wanted) {
  const same = (have, word) => isValue(word) ? have === word || +have === +word : have?.startsWith(word);
  return wanted.every((word, n) => name.some((have, i) =>
    same(have, word) && (!n || !isValue(word) || isValue(wanted[n - 1]) || same(name[i - 1], wanted[n - 1]))));
}
byId("filter").oninput = event => {
  const seeds = [], others = event.target.value.replace(/\bseed[\s=]+(\d+)/gi, (_, seed) => (seeds.push(+seed), ""));
  all(".entry").forEach((entry, n) => {
    const setting = data.settings[n], listed = [...setting.seeds.map(seed => seed.name), ...setting.unmeasured];
    const hasSeed = seed => listed.some(name => `${name} `.startsWith(`seed ${seed} `));
    entry.hidden = !matches(words(`${setting.name} ${setting.status}`), words(others)) || !seeds.every(hasSeed);
  });
};
byId("step").oninput = event => { play(false); step = +event.target.value; draw(); };
byId("play").onclick = () => play(!timer);
byId("speed").onchange = () => play(timer);
document.addEventListener("keydown", event => {
  if (event.key !== " " || event.target.closest("button, input, select, summary")) return;
  event.preventDefault();
  if (!byId("play").disabled) play(!timer);
});
byId("limit").value = limit;
byId("limit").oninput = event => {
  const typed = +event.target.value;
  if (typed > 0 && typed <= +event.target.max) { limit = typed; draw(); }
};
byId("unit").textContent = data.unit;
byId("unshown").textContent = data.unshown;
const line = new ImageData(256, 1);
for (let i = 0; i < 256; i++) line.data.set([...ramp.subarray(3 * i, 3 * i + 3), 255], 4 * i);
byId("ramp").getContext("2d").putImageData(line, 0, 0);
play(false);
choose(data.open.map(i => data.settings[i])).then(() => {
  performance.mark("first maps");
  new ResizeObserver(drawDecay).observe(byId("decay"));
});
